"""The service ~/reload: another model takes over from one frame to the next, and until then the old one works on."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from seg_perception.core.errors import ConfigurationError, SegPerceptionError
from seg_perception.core.text import message_text, printable
from seg_perception.onboard.pipeline.segmenter import Segmenter

from .clocks import steady_clock
from .node_parameters import NodeParameters
from .opening import Opening
from .session import Session

GOES_ON = "the model that was open before goes on"
# How often it is seen whether opening takes too long.
_LOOK_SECONDS = 0.2


class Reload:
    """Opens the model that the parameters name now, while frames, diagnostics and parameters go on.

    For a moment both models are open and take memory.

    Attributes:
        problem: why the last call changed nothing; empty when it did.
        in_use: values of the parameters with which the model that runs was opened.
    """

    def __init__(
        self,
        node: Node,
        session: Callable[[], Session | None],
        parameters: NodeParameters,
    ) -> None:
        """Offer the service.

        Args:
            node: the owner.
            session: what is configured now, or None.
            parameters: of the node.
        """
        self.problem = ""
        self._node = node
        self._session = session
        self._parameters = parameters
        self.in_use: Mapping[str, Any] = {}
        # Those that may still be at work.
        self._openings: Sequence[Opening] = ()
        # A group of its own: the others would wait for the answer, too.
        group = MutuallyExclusiveCallbackGroup()
        self._service = node.create_service(Trigger, "~/reload", self._serve, callback_group=group)

    def ended(self, patience: float | None) -> bool:
        """Return whether no model is being opened; that is waited for up to `patience` seconds, or until then."""
        return all(opening.ended(patience) for opening in self._openings)

    async def _serve(self, request: Any, response: Any) -> Any:
        try:
            answer = await self._reload()
            self.problem = ""
            response.success, response.message = True, answer
            self._node.get_logger().info(f"reload: {answer}")
        except SegPerceptionError as error:
            self.problem = response.message = message_text(error)
            self._node.get_logger().error(f"reload failed: {self.problem}")
        return response

    async def _reload(self) -> str:
        session = self._session()
        if session is None:
            raise ConfigurationError(
                "reload: expected a configured node, got one without a model; configure it instead"
            )
        tried = self._parameters.of_the_model()
        try:
            segmenter = await self._open_next()
        except SegPerceptionError as error:
            raise ConfigurationError(f"{error}; {GOES_ON}{self._put_back(tried)}") from error
        if self._session() is not session:
            segmenter.close()
            raise ConfigurationError("reload: the node was cleaned up meanwhile; the new model is closed again")
        try:
            session.exchange(segmenter)
        except Exception as error:
            reason = f"reload: {type(error).__name__}: {printable(error)}"
            self._node.get_logger().error(f"{reason}\n{message_text(traceback.format_exc())}")
            raise ConfigurationError(f"{reason}; {GOES_ON}{self._put_back(tried)}") from error
        self.in_use = tried
        return ", ".join(f"{key} {value}" for key, value in session.identity.items())

    def _put_back(self, tried: Mapping[str, Any]) -> str:
        """Have the parameters say what runs, and say that they do."""
        if self._session() is None:
            return ""
        names = self._parameters.put_back(tried, self.in_use)
        return f", and what it was opened with is in {', '.join(names)} again" if names else ""

    async def _open_next(self) -> Segmenter:
        """Have a model opened by a thread.

        Raises:
            ConfigurationError: it cannot be.
        """
        opened: Future[None] = Future()

        def done() -> None:
            opened.set_result(None)
            executor = self._node.executor
            if executor is not None:
                executor.wake()

        settings = self._parameters.settings()
        opening = Opening(self._node.get_logger(), settings, done, trial=settings.trial != "never")
        self._openings = [*(earlier for earlier in self._openings if not earlier.ended(0.0)), opening]
        limit = self._node.create_timer(
            _LOOK_SECONDS, lambda: opened.set_result(None) if opening.late() else None, clock=steady_clock()
        )
        try:
            await opened
        finally:
            self._node.destroy_timer(limit)
        result = opening.result or opening.give_up()
        if isinstance(result, Segmenter):
            return result
        if not isinstance(result, SegPerceptionError):
            details = "".join(traceback.format_exception(result))
            self._node.get_logger().error(f"reload failed unexpectedly:\n{message_text(details)}")
        raise ConfigurationError(str(result)) from result
