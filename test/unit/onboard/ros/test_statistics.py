"""What the overlay says of the last seconds."""

from __future__ import annotations

from math import isnan

import pytest

from seg_perception.onboard.ros import statistics
from seg_perception.onboard.ros.statistics import LOST, SUPERSEDED, CameraStatistics


def test_what_is_recent_looks_back_some_seconds_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(statistics, "monotonic", lambda: now)
    counted = CameraStatistics()
    counted.dropped(LOST)
    first = counted.recent()
    assert isnan(first.rate)
    assert (first.seconds, first.dropped) == (0.0, {}), "what was before somebody asked is not known to be recent"
    for turn in range(200):
        now += 0.1
        counted.processed(0.05)
        counted.taken(missed=2 if turn < 100 else 0)
        recent = counted.recent()
        if turn == 20:
            assert (recent.rate, recent.dropped[SUPERSEDED]) == (pytest.approx(10.0), 42)
    assert recent.rate == pytest.approx(10.0)
    assert recent.seconds == pytest.approx(5.0, abs=0.3)
    assert not any(recent.dropped.values()), "ten seconds ago is not recent"
    now += 60.0
    assert counted.recent().seconds == 0.0, "nobody asked meanwhile"
