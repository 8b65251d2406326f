"""Questions about the graph that a name, a type or a QoS of a stranger cannot turn into the end of a process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rclpy.exceptions import NameValidationException

Answer = TypeVar("Answer")
Other = TypeVar("Other")


def known_or(unknown: Other, ask: Callable[[], Answer]) -> Answer | Other:
    """Return the answer, or `unknown` where rclpy refuses to give one.

    Whoever speaks DDS may announce a topic whose name ROS forbids, a type that ROS does not know, or a negative
    deadline. rclpy then raises instead of answering.
    """
    try:
        return ask()
    # Its RCLError is a RuntimeError; values out of range are ValueError, TypeError and OverflowError.
    except (NameValidationException, ValueError, TypeError, OverflowError, RuntimeError):
        return unknown
