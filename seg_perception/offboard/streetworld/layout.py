"""The street: how wide, how many lanes, where it is crossed. It repeats along z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Street:
    """A straight street; traffic keeps to the right. The camera's view bends it.

    Attributes:
        lanes: in each direction.
        lane_width: in metres.
        parking: width of the parking strip on both sides.
        walk: width of the sidewalks.
        front: distance of the house fronts from the middle.
        period: it repeats after so many metres.
        crossing: where in each period the middle of the crossing street is.
        cross_half: half of the crossing street's width.
    """

    lanes: int
    lane_width: float
    parking: float
    walk: float
    front: float
    period: float = 96.0
    crossing: float = 64.0
    cross_half: float = 5.0

    @property
    def half_road(self) -> float:
        """From the middle to the kerb in metres."""
        return self.lanes * self.lane_width + self.parking

    def lane_centres(self) -> tuple[float, ...]:
        """X of all lanes."""
        own = [(k + 0.5) * self.lane_width for k in range(self.lanes)]
        return (*(-x for x in own), *own)

    def lane_borders(self) -> tuple[float, ...]:
        """X of the lines between lanes."""
        return tuple(k * self.lane_width for k in range(-self.lanes + 1, self.lanes))

    def in_crossing(self, z: float, margin: float) -> bool:
        """Return whether z is within the crossing street or `margin` metres before or behind it."""
        return abs(z % self.period - self.crossing) < self.cross_half + margin


def random_street(random: np.random.Generator) -> Street:
    """A street in a town."""
    lanes = int(random.choice((1, 1, 2)))
    parking, walk = float(random.choice((0.4, 2.3, 2.3))), float(random.uniform(2.2, 4.0))
    lane_width = float(random.uniform(3.1, 3.6))
    front = lanes * lane_width + parking + walk + float(random.choice((0.3, 2.0, 6.0)))
    return Street(lanes, lane_width, parking, walk, front, crossing=float(random.uniform(14, 82)))
