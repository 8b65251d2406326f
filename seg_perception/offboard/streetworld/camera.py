"""The camera of the street world: where a point of the world is seen, and where a pixel looks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .colours import floats

NEAR = 0.35
# Beyond this radius (as tangent of the angle) the lens is not modelled: its polynomial would fold back.
_MAX_RADIUS = 1.3
_MAX_PIXEL = 6000.0


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera with radial distortion; pixel centres lie at whole numbers, as in ROS calibrations.

    Attributes:
        width, height: of the image in pixels.
        focal: focal length in pixels.
        k1, k2: radial distortion (`plumb_bob`).
    """

    width: int
    height: int
    focal: float
    k1: float = 0.0
    k2: float = 0.0

    @property
    def centre(self) -> tuple[float, float]:
        """The principal point in pixels."""
        return (self.width - 1) / 2, (self.height - 1) / 2

    def matrix(self) -> NDArray[np.float64]:
        """The camera matrix, float64 `[3, 3]`."""
        cx, cy = self.centre
        return np.array([[self.focal, 0, cx], [0, self.focal, cy], [0, 0, 1]])

    def distortion(self) -> NDArray[np.float64]:
        """k1, k2, p1, p2, k3, float64 `[5]`."""
        return np.array([self.k1, self.k2, 0.0, 0.0, 0.0])

    def pixels(self, points_camera: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project.

        Args:
            points_camera: float32 `[..., 3]`, x right, y down, z forward, z >= `NEAR`.

        Returns:
            float32 `[..., 2]`, pixels; far outside the image they are limited.
        """
        flat = points_camera[..., :2] / points_camera[..., 2:]
        radius = np.minimum((flat * flat).sum(-1, keepdims=True), _MAX_RADIUS**2)
        flat = flat * ((1 + radius * (self.k1 + radius * self.k2)) * self.focal)
        return floats(np.clip(flat + floats(self.centre), -_MAX_PIXEL, _MAX_PIXEL))

    def rays(self) -> NDArray[np.float32]:
        """Return where each pixel looks, float32 `[height, width, 3]` in camera coordinates, z = 1."""
        columns, rows = np.meshgrid(np.arange(self.width), np.arange(self.height))
        pixels = np.stack([columns, rows], -1).reshape(-1, 1, 2).astype(np.float64)
        flat = cv2.undistortPoints(pixels, self.matrix(), self.distortion()).reshape(self.height, self.width, 2)
        return np.dstack([flat, np.ones((self.height, self.width))]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the camera is and looks, and how the road ahead bends.

    Attributes:
        x, y, z: position in metres.
        yaw, pitch, roll: pitch is positive downwards.
        bend: curvature of the road in 1/m, positive to the right; everything follows it (`x + bend * dz^2 / 2`).
    """

    x: float
    y: float
    z: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    bend: float = 0.0

    def rotation(self) -> NDArray[np.float32]:
        """World to camera, float32 `[3, 3]`."""
        return _rotation(self.yaw, self.pitch, self.roll)

    def position(self) -> NDArray[np.float32]:
        """Of the camera, float32 `[3]`."""
        return np.array([self.x, self.y, self.z], np.float32)

    def bent(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """World points `[N, 3]` relative to the camera's position, where the bend of the road puts them."""
        relative: NDArray[np.float32] = points - self.position()
        relative[:, 0] += np.float32(self.bend / 2) * relative[:, 2] ** 2
        return relative

    def to_base(self, relative: NDArray[np.float32]) -> NDArray[np.float64]:
        """What `bent` returns in axes of `base_link`: x ahead, y to the left, z up from the road; float64 `[N, 3]`."""
        x, y, z = relative.astype(np.float64).T
        sine, cosine = np.sin(self.yaw), np.cos(self.yaw)
        return np.stack([cosine * z + sine * x, sine * z - cosine * x, y + self.y], -1)


@lru_cache(maxsize=4)
def _rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float32]:
    (sy, sp, sr), (cy, cp, cr) = np.sin([yaw, pitch, roll]), np.cos([yaw, pitch, roll])
    turned = np.array([[cy, 0, -sy], [0, -1, 0], [sy, 0, cy]])
    nodded = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    rolled = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return floats(rolled @ nodded @ turned)
