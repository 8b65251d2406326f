"""How often a camera delivers, and so whether a frame of it can be expected soon."""

from __future__ import annotations

from collections import deque
from statistics import median

_LATEST = 9
# A camera may be this much earlier than usual.
_EARLY = 0.3
# One that has been silent for this many intervals is not waited for.
_PATIENCE = 3.0


class RateEstimator:
    """Of one camera; all times are in seconds on the monotonic clock."""

    def __init__(self) -> None:
        self._last = 0.0
        self._intervals: deque[float] = deque(maxlen=_LATEST)

    def arrived(self, time: float, missed: int) -> None:
        """A frame came; `missed` others came between the one before and it."""
        if self._last and time > self._last:
            self._intervals.append((time - self._last) / (1 + missed))
        self._last = max(self._last, time)

    def due(self, now: float, until: float) -> bool:
        """Return whether the next frame is to be expected before `until`; never before two have come."""
        if not self._intervals:
            return False
        interval = median(self._intervals)
        earliest, latest = self._last + (1 - _EARLY) * interval, self._last + _PATIENCE * interval
        return earliest < until and now < latest
