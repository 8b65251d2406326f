"""When a camera's next frame is expected."""

from __future__ import annotations

import random

from seg_perception.onboard.ros.statistics import RateEstimator


def delivering(interval: float, frames: int = 20, jitter: float = 0.0, missed: int = 0) -> RateEstimator:
    """A camera whose last frame came at 100 s."""
    rhythm = RateEstimator()
    dice = random.Random(1)
    for step in range(frames - 1, 0, -1):
        rhythm.arrived(100.0 - step * interval + dice.uniform(-jitter, jitter), missed)
    rhythm.arrived(100.0, missed)
    return rhythm


def test_a_camera_is_due_when_its_interval_is_nearly_over() -> None:
    for rhythm in (delivering(0.1), delivering(0.1, jitter=0.02), delivering(0.3, missed=2)):
        assert not rhythm.due(100.01, 100.04), "it has just delivered"
        assert rhythm.due(100.06, 100.09)
        assert rhythm.due(100.15, 100.16), "it is late"
        assert not rhythm.due(100.40, 100.50), "it is dead"


def test_nobody_expects_what_never_came_or_came_once() -> None:
    assert not RateEstimator().due(100.0, 200.0)
    assert not delivering(0.1, frames=1).due(100.1, 200.0)


def test_a_pause_and_frames_at_one_time_do_not_change_the_rhythm() -> None:
    rhythm = delivering(0.1)
    rhythm.arrived(160.0, 0)
    rhythm.arrived(160.0, 0)
    rhythm.arrived(160.1, 0)
    assert not rhythm.due(160.11, 160.14)
    assert rhythm.due(160.16, 160.19)
