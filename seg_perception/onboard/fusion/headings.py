"""Where objects move, from where they were."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from .transforms import RigidTransform

# A direction is told from this much time and this much way; less is noise of the boxes.
_SHORTEST_SECONDS, _SHORTEST_METRES = 0.3, 1.0
_KEPT_SECONDS = 1.5
# Faster than any road user is no motion, but another object with the same number.
_FASTEST = 70.0


class Headings:
    """Remembers the places of tracked objects in a frame that stands still."""

    def __init__(self) -> None:
        self._places: dict[str, deque[tuple[int, NDArray[np.float64]]]] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._places.clear()

    def forget_before(self, stamp_ns: int) -> None:
        """Forget objects that were not seen for a while, and everything when time went back."""
        limit = int(_KEPT_SECONDS * 1e9)
        self._places = {name: places for name, places in self._places.items() if 0 <= stamp_ns - places[-1][0] <= limit}

    def of(
        self, identity: str, stamp_ns: int, centre: NDArray[np.float64], to_fixed: RigidTransform
    ) -> NDArray[np.float64] | None:
        """Note where an object is, and return where it moves.

        Args:
            identity: of the object, the same as long as it is tracked.
            stamp_ns: of the measurement.
            centre: float64 `[3]`, where it is.
            to_fixed: from the frame of `centre` to one that stands still.

        Returns:
            A direction in the frame of `centre`, float64 `[3]`; None when it stands or is not known for long enough.
        """
        here = to_fixed.rotation @ centre + to_fixed.translation
        places = self._places.setdefault(identity, deque(maxlen=60))
        if places and not self._follows(places[-1], stamp_ns, here):
            places.clear()
        places.append((stamp_ns, here))
        while stamp_ns - places[0][0] > _KEPT_SECONDS * 1e9:
            places.popleft()
        seconds, way = (stamp_ns - places[0][0]) / 1e9, here - places[0][1]
        if seconds < _SHORTEST_SECONDS or float(np.linalg.norm(way)) < _SHORTEST_METRES:
            return None
        heading: NDArray[np.float64] = to_fixed.rotation.T @ way
        return heading

    @staticmethod
    def _follows(last: tuple[int, NDArray[np.float64]], stamp_ns: int, here: NDArray[np.float64]) -> bool:
        seconds = (stamp_ns - last[0]) / 1e9
        return 0 < seconds <= _KEPT_SECONDS and float(np.linalg.norm(here - last[1])) < _FASTEST * seconds + 1.0
