"""Passes on what nodes say on /diagnostics."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException

from .clocks import steady_clock

if TYPE_CHECKING:
    from .probe import Tell

TOPIC = "/diagnostics"
_PERIOD_SECONDS = 1.0
# Several nodes may publish at one moment.
_DEPTH = 100


def listen(tell: Tell) -> None:
    """Tell `{"status": [...]}` for every message; at once and each second how many there are to hear."""
    node = rclpy.create_node("seg_perception_top", start_parameter_services=False)

    def receive(message: DiagnosticArray) -> None:
        statuses = [
            {
                "name": status.name,
                "level": ord(status.level),
                "message": status.message,
                "values": {pair.key: pair.value for pair in status.values},
            }
            for status in message.status
        ]
        tell({"status": statuses})

    def count() -> None:
        tell({"publishers": node.count_publishers(TOPIC)})

    node.create_subscription(DiagnosticArray, TOPIC, receive, _DEPTH)
    node.create_timer(_PERIOD_SECONDS, count, clock=steady_clock())
    count()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
