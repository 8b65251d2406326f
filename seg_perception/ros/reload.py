"""The service ~/reload: another model takes over from one frame to the next, and until then the old one works on."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from ..errors import ConfigurationError, SegPerceptionError
from ..pipeline.segmenter import Segmenter
from .opening import Opening
from .parameters import Settings
from .session import Session

_GOES_ON = "the model that was open before goes on; correct the file or the parameters before the next configure"


class Reload:
    """Opens the model that the parameters name now, while frames, diagnostics and parameters go on.

    For a moment both models are open and take memory.

    Attributes:
        problem: why the last call changed nothing; empty when it did.
    """

    def __init__(
        self,
        node: Node,
        session: Callable[[], Session | None],
        settings: Callable[[], Settings],
        fail: Callable[[BaseException], None],
    ) -> None:
        """Offer the service.

        Args:
            node: the owner.
            session: what is configured now, or None.
            settings: all parameters as they are now.
            fail: told of an error that left no model in use.
        """
        self.problem = ""
        self._node = node
        self._session = session
        self._settings = settings
        self._fail = fail
        self._opening: Opening | None = None
        # A group of its own: the others would wait for the answer, too.
        group = MutuallyExclusiveCallbackGroup()
        self._service = node.create_service(Trigger, "~/reload", self._serve, callback_group=group)

    def ended(self, patience: float | None) -> bool:
        """Whether no model is being opened; that is waited for up to `patience` seconds, or until then."""
        return self._opening is None or self._opening.ended(patience)

    async def _serve(self, request: Any, response: Any) -> Any:
        try:
            answer = await self._reload()
            self.problem = ""
            response.success, response.message = True, answer
            self._node.get_logger().info(f"reload: {answer}")
        except SegPerceptionError as error:
            self.problem = response.message = str(error)
            self._node.get_logger().error(f"reload failed: {error}")
        return response

    async def _reload(self) -> str:
        session = self._session()
        if session is None:
            raise ConfigurationError(
                "reload: expected a configured node, got one without a model; configure it instead"
            )
        segmenter = await self._open_beside()
        if self._session() is not session:
            segmenter.close()
            raise ConfigurationError("reload: the node was cleaned up meanwhile; the new model is closed again")
        try:
            session.exchange(segmenter)
        except Exception as error:
            self._fail(error)
            raise ConfigurationError(f"reload: {type(error).__name__}: {error}; the node starts anew") from error
        return ", ".join(f"{key} {value}" for key, value in session.identity.items())

    async def _open_beside(self) -> Segmenter:
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

        opening = self._opening = Opening(self._node.get_logger(), self._settings(), done)
        await opened
        self._opening, result = None, opening.result
        if isinstance(result, Segmenter):
            return result
        if not isinstance(result, SegPerceptionError):
            details = "".join(traceback.format_exception(result))
            self._node.get_logger().error(f"reload failed unexpectedly:\n{details}")
        raise ConfigurationError(f"{result}; {_GOES_ON}") from result
