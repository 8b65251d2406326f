"""Bringing a node up without a lifecycle manager."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from rclpy.node import Node
from rclpy.timer import Timer

from .clocks import steady_clock

FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0


class BackOff:
    """Seconds to wait before each new attempt: doubling, and from the beginning after a good while without an error."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._last = -LONGEST_DELAY

    def next(self) -> float:
        """The delay before the attempt that is due now."""
        now = monotonic()
        calm = now - self._last - self._delay > 2 * LONGEST_DELAY
        self._delay = FIRST_DELAY if calm or not self._delay else min(2 * self._delay, LONGEST_DELAY)
        self._last = now
        return self._delay


class Autostart:
    """Starts the node once its executor runs, and again after errors."""

    def __init__(self, node: Node, start: Callable[[], None]) -> None:
        """Have the node started as soon as its executor runs.

        Args:
            node: the owner.
            start: configures and activates.
        """
        self._node = node
        self._start = start
        self._back_off = BackOff()
        self._timer: Timer | None = None
        self._schedule(0.0)

    def again(self) -> None:
        """Have the node started again after a while."""
        delay = self._back_off.next()
        self._node.get_logger().warning(f"autostart: configures and activates again in {delay:.0f} s")
        self._schedule(delay)

    def _schedule(self, delay: float) -> None:
        self._cancel()
        self._timer = self._node.create_timer(delay, self._fire, clock=steady_clock())

    def _fire(self) -> None:
        self._cancel()
        self._start()

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._node.destroy_timer(timer)
