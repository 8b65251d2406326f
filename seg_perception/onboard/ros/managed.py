"""A lifecycle node whose transitions say what went wrong, and that can start by itself."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

from rclpy.lifecycle import TransitionCallbackReturn

from seg_perception.core.errors import SegPerceptionError
from seg_perception.core.text import message_text, printable

from .autostart import Autostart
from .guard import GuardedNode

UNCONFIGURED, INACTIVE, ACTIVE, FINALIZED = "unconfigured", "inactive", "active", "finalized"


class ManagedNode(GuardedNode):
    """Runs the work of transitions and turns its outcome into what the state machine understands."""

    def __init__(self, name: str, **arguments: Any) -> None:
        """Create the node; `arguments` are those of rclpy's node."""
        super().__init__(name, **arguments)
        self._phase = UNCONFIGURED
        # Why the last transition failed, or empty.
        self._problem = ""
        self._autostart: Autostart | None = None

    def begin(self, *, autostart: bool) -> None:
        """Take transitions from now on; with `autostart` the first ones come from the node itself."""
        self._guard_transitions()
        if autostart:
            self._autostart = Autostart(self, self._bring_up)

    def end(self, patience: float) -> bool:
        """Release everything and destroy the node.

        Args:
            patience: seconds to wait for work in progress.

        Returns:
            Whether nothing of the node is at work any more; an interpreter must not end in the middle of that.
        """
        raise NotImplementedError

    def destroy_node(self) -> None:
        """Destroy the node; others do not see it any more."""
        super().destroy_node()
        # rclpy leaves what belongs to the lifecycle to the garbage collector, and until then others see the node.
        for name in [name for name in vars(self) if name == "_state_machine" or name.startswith("_service_")]:
            delattr(self, name)

    def _guard_transitions(self) -> None:
        """Answer requests for transitions that the present state does not have: they are no fault of the node.

        Up to Jazzy, rclpy raises on such a request.
        """
        service = getattr(self, "_service_change_state", None)
        if service is None:
            return
        change_state = getattr(service.callback, "__wrapped__", service.callback)

        @wraps(change_state)
        def guarded(request: Any, response: Any) -> Any:
            response.success = False
            return self._guarded(lambda: change_state(request, response), response)

        service.callback = guarded

    def _guarded(self, transition: Callable[[], Any], refused: Any) -> Any:
        """The outcome of a transition, or `refused` when the present state does not have it."""
        try:
            return transition()
        except Exception as error:
            self.get_logger().error(f"transition refused in state {self._phase}: {printable(error)}")
            return refused

    def _attempt(self, name: str, goal: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        """Run the work of a transition and turn its outcome into what the state machine understands."""
        try:
            action()
        except SegPerceptionError as error:
            self._problem = message_text(error)
            self.get_logger().error(f"{name} failed: {self._problem}")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            if not self.context.ok():  # a signal has shut it down under the transition
                return TransitionCallbackReturn.FAILURE
            self._problem = f"{name}: {type(error).__name__}: {printable(error)}"
            self.get_logger().error(f"{name} failed unexpectedly:\n{message_text(traceback.format_exc())}")
            return TransitionCallbackReturn.ERROR
        self._phase, self._problem = goal, ""
        self.get_logger().info(f"{name}: done, state {goal}")
        return TransitionCallbackReturn.SUCCESS

    def _bring_up(self) -> None:
        """Configure and activate, unless somebody else has begun to."""
        done, refused = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.ERROR
        if self._phase == UNCONFIGURED and self._guarded(self.trigger_configure, refused) == done:
            self._guarded(self.trigger_activate, refused)
