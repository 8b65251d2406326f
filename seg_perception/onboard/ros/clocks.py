"""Clocks other than the ROS clock."""

from __future__ import annotations

# Humble has ClockType here only; later distributions have it elsewhere too.
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]


def steady_clock() -> Clock:
    """Real time that never jumps, also while the ROS clock is simulated; for timers."""
    return Clock(clock_type=ClockType.STEADY_TIME)
