"""From the points under a mask to an object: which points are its own, and the box around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import ConfigurationError

_Number = TypeVar("_Number", bound=np.generic)
# Half of what the visible side of an object may extend in depth, in metres, by road group. What goes beyond is ground
# or background that runs on without a gap.
_HALF_DEPTH = {"pedestrian": 0.8, "vehicle": 8.0, "traffic_sign": 0.5, "traffic_light": 0.5}
_HALF_DEPTH_OF_OTHERS = 5.0
# The gap that ends an object grows with the distance, as points lie farther apart there.
_GAP_PER_METRE = 0.015
# So many points tell as much of an object as all.
_ENOUGH = 2000
# So large a share of stray points at either end does not widen a box.
_TRIMMED = 0.02
_THINNEST = 0.05
# So many points tell the direction of a box; nearer than so many metres to a side they are on it.
_FOR_DIRECTION, _ON_A_SIDE = 150, 0.05
# Directions that are tried, in two steps.
_COARSE, _FINE = np.deg2rad(np.arange(0.0, 90.0, 4.0)), np.deg2rad(np.arange(-4.0, 4.1, 0.8))


@dataclass(frozen=True, slots=True)
class FusionOptions:
    """How points become objects.

    Attributes:
        min_points: fewer make no object.
        cluster_gap: metres of depth without a point that part one thing from another behind it.
        cluster_share: the nearest cluster with this share of an instance's points is the object.

    Raises:
        ConfigurationError: a value is out of range.
    """

    min_points: int = 5
    cluster_gap: float = 0.5
    cluster_share: float = 0.25

    def __post_init__(self) -> None:
        if self.min_points < 1 or not self.cluster_gap > 0 or not 0 < self.cluster_share <= 1:
            raise ConfigurationError(
                "expected min_points of at least 1, cluster_gap above 0 and cluster_share above 0 and up to 1, got "
                f"{self.min_points}, {self.cluster_gap:g} and {self.cluster_share:g}"
            )


def thinned(rows: NDArray[_Number], most: int = _ENOUGH) -> NDArray[_Number]:
    """Return every k-th row, so that at most `most` are left."""
    return rows[:: -(-len(rows) // most)] if len(rows) > most else rows


def depth_interval(depths: NDArray[np.float32], group: str, options: FusionOptions) -> tuple[float, float] | None:
    """Find where an object lies along the optical axis, among points of which some belong to what is behind.

    Points are parted where a gap in depth is, and the nearest part with enough of them is the object.

    Args:
        depths: float32 `[N]`, metres, of all points under its mask.
        group: name of the road group, or another text.
        options: how.

    Returns:
        The depths from and to which points belong to it; None when no part has enough points.
    """
    total = len(depths)
    ordered = np.sort(thinned(depths))
    if total < options.min_points:
        return None
    gaps = np.diff(ordered) > np.maximum(options.cluster_gap, _GAP_PER_METRE * ordered[:-1])
    ends = np.append(np.flatnonzero(gaps) + 1, len(ordered))
    begins = np.append(0, ends[:-1])
    counts = (ends - begins) * (total / len(ordered))
    enough = (counts >= options.min_points) & (counts >= options.cluster_share * total)
    if not enough.any():
        enough = (counts >= options.min_points) & (counts == counts.max())
        if not enough.any():
            return None
    part = int(np.argmax(enough))
    inner = ordered[begins[part] : ends[part]]
    half, middle = _HALF_DEPTH.get(group, _HALF_DEPTH_OF_OTHERS), float(np.median(inner))
    near, far = max(float(inner[0]), middle - half), min(float(inner[-1]), middle + half)
    return near, far


@dataclass(frozen=True, slots=True)
class OrientedBox:
    """A box that stands upright.

    Attributes:
        centre: float64 `[3]`, metres.
        size: float64 `[3]`, length, width and height along its own axes.
        rotation: float64 `[3, 3]`, from its own axes (x along its length, z up) to those of the frame.
    """

    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    rotation: NDArray[np.float64]

    def quaternion(self) -> NDArray[np.float64]:
        """Return the rotation as x y z w, float64 `[4]`."""
        return quaternion_of(self.rotation)


# Axes that a frame has by REP 103: forward, left and up, as columns.
UPRIGHT = np.eye(3)
OPTICAL = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])


def axes_of(frame_id: str) -> NDArray[np.float64]:
    """Return forward, left and up of a frame as columns, float64 `[3, 3]`: frames of images look along z."""
    return OPTICAL if "optical" in frame_id else UPRIGHT


def box_around(
    xyz: NDArray[np.float32], axes: NDArray[np.float64], heading: NDArray[np.float64] | None = None
) -> OrientedBox:
    """Put an upright box around points.

    Args:
        xyz: float32 `[N, 3]`, metres, at least one.
        axes: forward, left and up of the frame, as columns.
        heading: float64 `[3]`, where the object moves; without it, the points lie along the sides of the box.
    """
    flat = thinned(xyz) @ axes.astype(np.float32)
    yaw = _yaw(flat[:, :2]) if heading is None else float(np.arctan2(*(heading @ axes)[[1, 0]]))
    cosine, sine = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    own = flat @ turn.astype(np.float32)
    own.sort(axis=0)
    strays = int(_TRIMMED * len(own))
    low, high = own[strays].astype(np.float64), own[len(own) - 1 - strays].astype(np.float64)
    rotation = axes @ turn
    return OrientedBox(rotation @ ((low + high) / 2), np.maximum(high - low, _THINNEST), rotation)


def _yaw(plan: NDArray[np.float32]) -> float:
    """Direction of the longer side of a rectangle that has points along its sides, float32 `[N, 2]` in plan view.

    Neither the principal axes nor the smallest rectangle tell it from the two sides of a car that a sensor sees: an
    L is wider than its arms in every direction.
    """
    if len(plan) < 3:
        return 0.0
    plan = thinned(plan, _FOR_DIRECTION)
    coarse = _best_direction(plan, _COARSE)
    best = _best_direction(plan, coarse + _FINE)
    length, width = np.ptp(plan @ np.array([[np.cos(best), -np.sin(best)], [np.sin(best), np.cos(best)]]), axis=0)
    return best if length >= width else best + np.pi / 2


def _best_direction(plan: NDArray[np.float32], angles: NDArray[np.float64]) -> float:
    """The direction of a rectangle to whose sides points are nearest."""
    cosines, sines = np.cos(angles), np.sin(angles)
    axes = np.array([[cosines, sines], [-sines, cosines]], np.float32).transpose(0, 2, 1)
    along = axes @ plan.T
    nearest = np.minimum(along - along.min(2, keepdims=True), along.max(2, keepdims=True) - along).min(0)
    return float(angles[(1 / np.maximum(nearest, _ON_A_SIDE)).sum(1).argmax()])


def quaternion_of(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a rotation matrix as x y z w, float64 `[4]`, with w of at least 0."""
    m = rotation.tolist()
    # Four times the squares of w, x, y and z; the largest of them is divided by.
    squares = [
        1 + m[0][0] + m[1][1] + m[2][2], 1 + m[0][0] - m[1][1] - m[2][2],
        1 - m[0][0] + m[1][1] - m[2][2], 1 - m[0][0] - m[1][1] + m[2][2],
    ]  # fmt: skip
    x, y, z = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]
    rows = ((x, y, z, squares[0]), (squares[1], xy, xz, x), (xy, squares[2], yz, y), (xz, yz, squares[3], z))
    largest = max(range(4), key=squares.__getitem__)
    quaternion: NDArray[np.float64] = np.array(rows[largest]) / (2 * np.sqrt(squares[largest]))
    return -quaternion if quaternion[3] < 0 else quaternion
