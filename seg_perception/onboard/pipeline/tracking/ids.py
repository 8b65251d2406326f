"""Track ids of 16 bits that are reused as late as possible."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HIGHEST = 0xFFFF


class TrackIds:
    """Gives out 1 to 65535 in turn, then 1 again, past those in use."""

    def __init__(self) -> None:
        self._last = 0

    def take(self, count: int, used: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """The next free numbers.

        Args:
            count: how many.
            used: uint16 `[T]`, numbers that must not be given out.

        Returns:
            uint16 `[count]`, all different, none of them 0 or in `used`.

        Raises:
            ValueError: fewer than `count` are free.
        """
        # Among as many as there are wanted and used numbers, enough are free.
        candidates = (self._last + np.arange(min(count + len(used), HIGHEST))) % HIGHEST + 1
        free = candidates[~np.isin(candidates, used)][:count]
        if len(free) < count:
            raise ValueError(f"track ids: expected at most {HIGHEST - len(used)} new ones, asked for {count}")
        if count:
            self._last = int(free[-1])
        return free.astype(np.uint16)
