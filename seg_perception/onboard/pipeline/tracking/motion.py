"""How boxes move: a Kalman filter that knows the place and the speed of each side of a box.

The sides are filtered each by itself, under one variance, because a side that is hidden by another object, or by the
edge of the image, moves otherwise than the opposite one. Noise grows with the box: a near car jumps by more pixels
than a far one. Time is that of the stamps, so frames may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Chosen on drives of the street world that docs/tracking.md does not report, in sizes of a box (root of its area).
_PLACE_NOISE = 0.07
_ACCELERATION = 2.5  # per s^2
_FIRST_SPEED = 3.0  # per s
_WIDEST = 1.0  # a prediction that is less certain would overlap nothing by enough
_SMALLEST_SIDE = 2.0  # px; keeps a box that shrinks from turning inside out


@dataclass(frozen=True, slots=True)
class Motion:
    """Moving boxes.

    Attributes:
        boxes: float64 `[T, 4]`, x1 y1 x2 y2 in camera pixels.
        speeds: float64 `[T, 4]`, of these sides in pixels a second.
        variances: float64 `[T, 3]`, of a side's place, of place with speed, and of its speed.
    """

    boxes: NDArray[np.float64]
    speeds: NDArray[np.float64]
    variances: NDArray[np.float64]

    @classmethod
    def begin(cls, boxes: NDArray[np.float64]) -> Motion:
        """Boxes that are seen for the first time, float64 `[T, 4]`: at rest, for all that is known."""
        sizes = box_sizes(boxes)
        zero = np.zeros(len(boxes))
        variances = np.stack([(_PLACE_NOISE * sizes) ** 2, zero, (_FIRST_SPEED * sizes) ** 2], axis=1)
        return cls(boxes, np.zeros_like(boxes), variances)

    def predict(self, seconds: float, unseen: NDArray[np.bool_]) -> Motion:
        """Return where the boxes are some time later.

        Args:
            seconds: 0 or more.
            unseen: bool `[T]`, boxes that were not seen at the present time. They keep their size: what vanishes behind
                something mostly shrank before, and would go on shrinking.
        """
        drift = np.tile((self.speeds[:, :2] + self.speeds[:, 2:]) / 2, 2)
        speeds = np.where(unseen[:, None], drift, self.speeds)
        place, both, speed = self.variances.T
        noise = (_ACCELERATION * box_sizes(self.boxes)) ** 2
        variances = np.stack(
            [
                place + 2 * both * seconds + speed * seconds**2 + noise * seconds**4 / 4,
                both + speed * seconds + noise * seconds**3 / 2,
                speed + noise * seconds**2,
            ],
            axis=1,
        )
        return Motion(_upright(self.boxes + speeds * seconds), speeds, variances)

    def moved(self, shift: NDArray[np.float64]) -> Motion:
        """All boxes elsewhere by one shift in x and y, float64 `[2]`; their speeds stay."""
        return Motion(self.boxes + np.tile(shift, 2), self.speeds, self.variances)

    def update(self, rows: NDArray[np.int64], boxes: NDArray[np.float64]) -> Motion:
        """The same after some boxes were seen: `boxes` float64 `[P, 4]` of `rows` int64 `[P]`, each at most once."""
        place, both, speed = self.variances[rows].T
        total = place + (_PLACE_NOISE * box_sizes(boxes)) ** 2
        trust, turn = place / total, both / total
        missed = boxes - self.boxes[rows]
        result = Motion(self.boxes.copy(), self.speeds.copy(), self.variances.copy())
        result.boxes[rows] += trust[:, None] * missed
        result.speeds[rows] += turn[:, None] * missed
        result.variances[rows] = np.stack([(1 - trust) * place, (1 - trust) * both, speed - turn * both], axis=1)
        return result

    def widened(self) -> NDArray[np.float64]:
        """The boxes, each larger on all sides by the standard deviation of its place: float64 `[T, 4]`."""
        deviation = np.minimum(np.sqrt(self.variances[:, 0]), _WIDEST * box_sizes(self.boxes))
        widened: NDArray[np.float64] = self.boxes + deviation[:, None] * np.array([-1.0, -1.0, 1.0, 1.0])
        return widened

    def where(self, keep: NDArray[np.bool_]) -> Motion:
        """Return the boxes for which `keep` `[T]` is true."""
        return Motion(self.boxes[keep], self.speeds[keep], self.variances[keep])

    def joined(self, other: Motion) -> Motion:
        """These, then others."""
        return Motion(
            np.concatenate([self.boxes, other.boxes]),
            np.concatenate([self.speeds, other.speeds]),
            np.concatenate([self.variances, other.variances]),
        )


def box_sizes(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root of the area of boxes of at least one pixel each way: float64 `[T, 4]` to `[T]`."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    sizes: NDArray[np.float64] = np.sqrt(sides[:, 0] * sides[:, 1])
    return sizes


def _upright(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    halves = np.maximum(boxes[:, 2:] - boxes[:, :2], _SMALLEST_SIDE) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)
