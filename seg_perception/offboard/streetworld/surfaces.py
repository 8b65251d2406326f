"""Depth of what is painted: the face that each pixel shows, met by the pixel's ray."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .camera import NEAR, Pose
from .raster import SAMPLE, SHIFT, SUPERSAMPLING, SeenBody

_FARTHEST = 1e4


class Surfaces:
    """Remembers the faces of one frame while they are painted, in the same order and with the same outlines.

    So every pixel gets the depth of exactly what the image and the instance map show there.
    """

    def __init__(self, rays: NDArray[np.float32], background: NDArray[np.float32]) -> None:
        """Begin with what belongs to nobody.

        Args:
            rays: float32 `[height, width, 3]` in camera coordinates, z = 1.
            background: float32 `[height, width]`, depth in metres, NaN for the sky.
        """
        self._rays, self._background = rays, background
        height, width = background.shape
        self._numbers = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.int32)
        # Of each face: its normal, its distance from the camera along the normal, and the depths between which it is.
        self._planes: list[NDArray[np.float32]] = [np.zeros((1, 6), np.float32)]
        self._count = 0

    def add_body(self, body: SeenBody) -> None:
        """Add all faces of a body that are seen."""
        for number, polygon in enumerate(body.polygons, self._count + 1):
            cv2.fillConvexPoly(self._numbers, polygon, number, cv2.LINE_8, SHIFT)
        self._count += len(body.polygons)
        self._planes.append(_planes(body.points[body.faces]))

    def add_plate(
        self, mask: NDArray[np.uint8], corner: tuple[int, int], foot: NDArray[np.float32], pose: Pose
    ) -> None:
        """Add a tree, which is painted on an upright plate that faces the way the car looks.

        Args:
            mask: uint8 `[h, w]`, where it is painted, in pixels of the enlarged image.
            corner: x and y of the mask's first pixel.
            foot: float32 `[3]` in camera coordinates.
            pose: of the camera.
        """
        self._count += 1
        normal = pose.rotation() @ np.array([np.sin(pose.yaw), 0, np.cos(pose.yaw)], np.float32)
        self._planes.append(np.array([[*normal, normal @ foot, NEAR, _FARTHEST]], np.float32))
        x, y = corner
        self._numbers[y : y + mask.shape[0], x : x + mask.shape[1]][mask > 0] = self._count

    def depth(self) -> NDArray[np.float32]:
        """Return z along the optical axis of every pixel in metres, float32 `[height, width]`, NaN for the sky."""
        numbers = self._numbers[SAMPLE]
        rows, columns = np.nonzero(numbers)
        planes = np.concatenate(self._planes)[numbers[rows, columns]]
        facing = (planes[:, :3] * self._rays[rows, columns]).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = planes[:, 3] / facing
        # A pixel on the outline of a face may look past it, and then meets its plane far away.
        depth = np.where(np.isfinite(depth), np.clip(depth, planes[:, 4], planes[:, 5]), planes[:, 4])
        result = self._background.copy()
        result[rows, columns] = depth
        return result


def _planes(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    """Planes of faces `[N, K, 3]`, whose last corner may be repeated; float32 `[N, 6]`."""
    middles = corners.mean(1)
    arms = corners - middles[:, None]
    # Newell's method, as for the normals of a mesh.
    normals = np.cross(arms, np.roll(arms, -1, 1)).sum(1)
    offsets = (normals * middles).sum(1, keepdims=True)
    depths = np.maximum(corners[..., 2], NEAR)
    return np.hstack([normals, offsets, depths.min(1, keepdims=True), depths.max(1, keepdims=True)]).astype(np.float32)
