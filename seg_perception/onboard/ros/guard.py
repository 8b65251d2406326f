"""Keeps the executor going: an error in a callback costs that call, never the process.

The node runs in a graph that it does not control. What others announce or send can make any callback raise, those of
rclpy's own services and of its clock included; unguarded, the error ends `spin` and with it all cameras.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable
from functools import wraps
from threading import Lock
from time import monotonic, sleep
from typing import Any

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.logging import get_logger

from seg_perception.core.text import message_text, printable

from .statistics import FaultLog

# Errors of one kind are logged this often at most.
LOG_PERIOD_SECONDS = 10.0
# An error that the executor meets again at once, such as a wait set that cannot be waited for, must not take the CPU.
_MOST_ERRORS_A_SECOND, _PAUSE_SECONDS = 20, 0.1
_Callback = Callable[..., Any]


class Guard:
    """Counts and logs the errors of callbacks; after a signal they are the signal's, and no news."""

    def __init__(self, node: LifecycleNode) -> None:
        """Guard the callbacks of a node."""
        self._node = node
        self._log = FaultLog(LOG_PERIOD_SECONDS)
        self._lock = Lock()
        self._count = 0
        self._last = ""

    @property
    def faults(self) -> tuple[int, str]:
        """The number of errors so far, and the last one as text."""
        with self._lock:
            return self._count, self._last

    def caught(self, where: str, error: BaseException) -> None:
        """Count an error and log it, once per kind and period.

        Args:
            where: the callback.
            error: what it raised.
        """
        if not self._node.context.ok():
            return
        text = f"{where}: {type(error).__name__}: {printable(error)}"
        with self._lock:
            self._count += 1
            self._last = text
        # One kind for each place and type: the text of an error may differ each time.
        if line := self._log.admit(f"{where} {type(error).__name__}", text):
            details = "".join(traceback.format_exception(error))
            self._logger().error(f"{line}; the node goes on\n{message_text(details)}")

    def wrap(self, where: str, callback: _Callback, otherwise: _Callback = lambda *_: None) -> _Callback:
        """Return a callback that does the same and never raises.

        Args:
            where: what it is, for the log.
            callback: a function or coroutine function.
            otherwise: makes the result after an error, from the error and the callback's arguments.
        """
        if inspect.iscoroutinefunction(callback):

            @wraps(callback)
            async def awaited(*arguments: Any) -> Any:
                try:
                    return await callback(*arguments)
                except Exception as error:
                    self.caught(where, error)
                    return otherwise(error, *arguments)

            return awaited

        @wraps(callback)
        def guarded(*arguments: Any) -> Any:
            try:
                return callback(*arguments)
            except Exception as error:
                self.caught(where, error)
                return otherwise(error, *arguments)

        return guarded

    def wrap_services(self, services: Iterable[Any]) -> None:
        """Guard services that rclpy made without asking the node, such as those of the lifecycle."""
        for service in services:
            service.callback = self.wrap(f"service {service.srv_name}", service.callback, _unanswered)

    def _logger(self) -> Any:
        try:
            return self._node.get_logger()
        except AttributeError:  # while rclpy's constructor runs
            return get_logger("segmenter")


class GuardedNode(LifecycleNode):
    """A lifecycle node none of whose callbacks can end the executor."""

    def __init__(self, name: str, **arguments: Any) -> None:
        """Create the node; `arguments` are those of rclpy's node."""
        # Before rclpy's constructor, which subscribes to /clock.
        self.guard = Guard(self)
        super().__init__(name, **arguments)
        made_here = [service for service in self.services if not hasattr(service.callback, "__wrapped__")]
        self.guard.wrap_services(made_here)

    def create_timer(  # type: ignore[override]
        self, timer_period_sec: float, callback: _Callback, *rest: Any, **options: Any
    ) -> Any:
        """As rclpy's, guarded."""
        guarded = self.guard.wrap(f"timer {callback.__qualname__}", callback)
        return super().create_timer(timer_period_sec, guarded, *rest, **options)

    def create_service(self, srv_type: Any, srv_name: str, callback: _Callback, **options: Any) -> Any:
        """As rclpy's, guarded: after an error the answer is that of a failure."""
        guarded = self.guard.wrap(f"service {srv_name}", callback, _unanswered)
        return super().create_service(srv_type, srv_name, guarded, **options)

    def create_subscription(self, msg_type: Any, topic: str, callback: _Callback, *rest: Any, **options: Any) -> Any:
        """As rclpy's, guarded."""
        guarded = self.guard.wrap(f"subscription of {topic}", callback)
        return super().create_subscription(msg_type, topic, guarded, *rest, **options)


class GuardedExecutor(SingleThreadedExecutor):
    """Goes on also after a message or request that could not be taken.

    rclpy reserves an entity and its callback group before it takes what has come, and leaves both reserved for good
    when that raises: the executor would run on, and no timer or service of the group ever again.
    """

    # What runs now.
    _entity: Any = None

    def wait_for_ready_callbacks(self, *arguments: Any, **options: Any) -> Any:
        """As rclpy's."""
        self._entity = None
        ready: Any = super().wait_for_ready_callbacks(*arguments, **options)
        self._entity = ready[1]
        return ready

    def release(self) -> None:
        """Give an entity back that was reserved and could not be taken from."""
        entity, self._entity = self._entity, None
        # Not public in rclpy, the same from Humble on; false from the moment on at which something was taken.
        if entity is not None and entity._executor_event:
            entity._executor_event = False
            entity.callback_group.ending_execution(entity)


def spin(executor: GuardedExecutor, node: GuardedNode) -> None:
    """Run callbacks until the context or the executor is shut down, whatever they and rclpy itself raise."""
    errors: list[float] = []
    while node.context.ok():
        try:
            executor.spin()
            return
        except ExternalShutdownException:
            return
        except Exception as error:
            executor.release()
            node.guard.caught("executor", error)
            now = monotonic()
            errors = [time for time in errors if now - time < 1.0] + [now]
            if len(errors) > _MOST_ERRORS_A_SECOND:
                sleep(_PAUSE_SECONDS)


def _unanswered(error: Exception, request: Any, response: Any) -> Any:
    """The answer of a service after an error: failure, where its type can say so, and the reason."""
    if hasattr(response, "success"):
        response.success = False
    if hasattr(response, "message"):
        response.message = f"internal error: {type(error).__name__}: {printable(error)}"
    return response
