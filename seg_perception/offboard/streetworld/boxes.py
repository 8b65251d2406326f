"""True boxes in three dimensions, in the space that is painted: around bodies where the bend of the road puts them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .camera import Pose
from .mesh import Mesh
from .raster import Placement, placed

Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class TrueBox:
    """The smallest box around all of a body that looks where the body looks; x ahead, y to the left, z up.

    Attributes:
        centre: in `base_link` in metres.
        size: length, width and height in metres.
        yaw: of its length's axis in `base_link` in radians, 0 ahead, positive to the left.
        nearest: the visible surface point that is nearest to the camera, in `base_link` in metres.
        nearest_distance: from the camera to that point in metres.
        centre_distance: from the camera to the box's centre in metres.
    """

    centre: Point
    size: Point
    yaw: float
    nearest: Point
    nearest_distance: float
    centre_distance: float

    def local(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return points `[N, 3]` of `base_link` along the box's own axes from its centre, float64 `[N, 3]`."""
        sine, cosine = np.sin(self.yaw), np.cos(self.yaw)
        turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        return np.asarray((points - np.asarray(self.centre)) @ turn, np.float64)

    def contains(self, points: NDArray[np.float64], margin: float = 0.0) -> NDArray[np.bool_]:
        """Return which points `[N, 3]` of `base_link` lie in the box grown by `margin` metres on all sides."""
        return np.asarray((np.abs(self.local(points)) <= np.asarray(self.size) / 2 + margin).all(1), bool)


def true_box(mesh: Mesh, placement: Placement, pose: Pose, nearest: NDArray[np.float64]) -> TrueBox:
    """The box of a body.

    Args:
        mesh: the body.
        placement: where it stands.
        pose: of the camera.
        nearest: float64 `[3]`, its nearest visible point in `base_link`.
    """
    points = pose.to_base(pose.bent(placed(mesh.vertices, placement)))
    yaw = heading(placement, pose)
    sine, cosine = np.sin(yaw), np.cos(yaw)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    along = points @ turn
    low, high = along.min(0), along.max(0)
    centre = turn @ ((low + high) / 2)
    camera = np.array([0, 0, pose.y])
    return TrueBox(
        _point(centre), _point(high - low), yaw, _point(nearest),
        float(np.linalg.norm(nearest - camera)), float(np.linalg.norm(centre - camera)),
    )  # fmt: skip


def heading(placement: Placement, pose: Pose) -> float:
    """Where a body looks in `base_link` in radians, turned as the bend of the road turns it."""
    across, ahead = np.sin(placement.yaw), np.cos(placement.yaw)
    across += pose.bend * (placement.z - pose.z) * ahead
    sine, cosine = np.sin(pose.yaw), np.cos(pose.yaw)
    return float(np.arctan2(sine * ahead - cosine * across, cosine * ahead + sine * across))


def _point(values: NDArray[np.float64]) -> Point:
    x, y, z = values.tolist()
    return x, y, z
