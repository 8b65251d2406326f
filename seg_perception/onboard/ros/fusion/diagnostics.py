"""What the fusion node says about itself on /diagnostics: one status for the node, one for each source and camera."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from seg_perception.core.text import message_text

from ..clocks import steady_clock

_HOST = socket.gethostname()


class Status(NamedTuple):
    """One status: whose it is, how bad, in a sentence, and its figures."""

    part: str
    level: bytes
    text: str
    values: dict[str, object]


class FusionDiagnostics:
    """Publishes statuses every period, in every lifecycle state."""

    def __init__(self, node: Node, period: float, statuses: Callable[[], Sequence[Status]]) -> None:
        """Begin.

        Args:
            node: the owner; its name begins the name of each status.
            period: seconds between messages, of real time.
            statuses: asked each time.
        """
        self._node, self._statuses = node, statuses
        self._name = node.get_fully_qualified_name().lstrip("/")
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        node.create_timer(period, self.publish, clock=steady_clock())

    def publish(self) -> None:
        """Publish now."""
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        for part, level, text, values in self._statuses():
            pairs = [KeyValue(key=key, value=message_text(str(value))) for key, value in values.items()]
            message.status.append(
                DiagnosticStatus(
                    name=f"{self._name}: {part}", level=level, message=message_text(text), hardware_id=_HOST,
                    values=[*pairs, KeyValue(key="pid", value=str(os.getpid()))],
                )
            )  # fmt: skip
        self._publisher.publish(message)
