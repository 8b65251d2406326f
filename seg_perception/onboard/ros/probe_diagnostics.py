"""Passes on what nodes say on /diagnostics."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from seg_perception.core.text import shortened

from .clocks import steady_clock
from .graph import known_or

if TYPE_CHECKING:
    from .probe import Tell

TOPIC = "/diagnostics"
_PERIOD_SECONDS = 1.0
# Several nodes may publish at one moment.
_DEPTH = 100
# More than any node of ours says: of statuses in a message, of values in a status, of characters in a text.
MOST_STATUSES, MOST_VALUES, MOST_CHARACTERS = 500, 500, 4096


def listen(tell: Tell) -> None:
    """Tell what is said, and at once and each second how many publishers there are to hear.

    Args:
        tell: gets `{"status": [...], "left_out": n}` for every message, n for statuses and values beyond the limits
            above; and `{"publishers": n}`, null where the graph cannot be asked.
    """
    node = rclpy.create_node("seg_perception_top", start_parameter_services=False)

    def receive(message: DiagnosticArray) -> None:
        tell(bounded(message))

    def count() -> None:
        tell({"publishers": known_or(None, lambda: node.count_publishers(TOPIC))})

    node.create_subscription(DiagnosticArray, TOPIC, receive, _DEPTH)
    node.create_timer(_PERIOD_SECONDS, count, clock=steady_clock())
    count()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        while rclpy.ok():
            _spin(executor, tell)


def bounded(message: DiagnosticArray) -> dict[str, Any]:
    """Return what `listen` tells of a message: the limits hold for whoever publishes it."""
    statuses = [
        {
            "name": shortened(status.name, MOST_CHARACTERS),
            "level": ord(status.level),
            "message": shortened(status.message, MOST_CHARACTERS),
            "values": {
                shortened(pair.key, MOST_CHARACTERS): shortened(pair.value, MOST_CHARACTERS)
                for pair in islice(status.values, MOST_VALUES)
            },
        }
        for status in islice(message.status, MOST_STATUSES)
    ]
    more = [max(0, len(status.values) - MOST_VALUES) for status in islice(message.status, MOST_STATUSES)]
    return {"status": statuses, "left_out": max(0, len(message.status) - MOST_STATUSES) + sum(more)}


def _spin(executor: SingleThreadedExecutor, tell: Tell) -> None:
    """Do what is ready; a message that rclpy cannot read is counted as left out, and the next one is heard."""
    try:
        executor.spin_once()
    except RuntimeError:  # rclpy's RCLError
        tell({"status": [], "left_out": 1})
