"""Bodies of points, and masks of them, for tests of fusion."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.messages.calibration import Calibration
from seg_perception.core.messages.detections import DetectionRow, Hypothesis
from seg_perception.core.messages.point_clouds import PointCloud
from seg_perception.onboard.fusion.boxes import OPTICAL
from seg_perception.onboard.fusion.fuse import View
from seg_perception.onboard.fusion.projection import CameraModel, Projection
from seg_perception.onboard.fusion.transforms import RigidTransform

WIDTH, HEIGHT = 640, 384
K = np.array([500.0, 0.0, 319.5, 0.0, 500.0, 191.5, 0.0, 0.0, 1.0])
CALIBRATION = Calibration(0, "camera", HEIGHT, WIDTH, "plumb_bob", np.zeros(0), K, np.eye(3).reshape(-1), np.zeros(12))
# From the axes of a lidar (forward, left, up) to those of a camera at the same place.
LIDAR_TO_CAMERA = RigidTransform(OPTICAL, np.zeros(3))


def row(number: int, group: str = "vehicle") -> DetectionRow:
    return DetectionRow(number, (Hypothesis(group, 0.9), Hypothesis("car", 0.9)))


def view(instance_map: NDArray[np.uint16], *rows: DetectionRow, camera: str = "front") -> View:
    projection = Projection(CameraModel.of(CALIBRATION, WIDTH, HEIGHT))
    return View(camera, "camera", 0, projection, instance_map, {each.number: each for each in rows})


def box_points(centre: tuple[float, ...], size: tuple[float, ...], yaw: float, count: int) -> NDArray[np.float32]:
    """Points on the two upright sides of a box that face the origin, z up."""
    random = np.random.default_rng(3)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    sides = []
    for axis in (0, 1):
        for sign in (-1, 1):
            outward = turn[:, axis] * sign
            if outward @ np.array(centre) < 0:
                side = random.uniform(-0.5, 0.5, (count, 3)) * size
                side[:, axis] = sign * size[axis] / 2
                sides.append(side @ turn.T + centre)
    points: NDArray[np.float32] = np.concatenate(sides).astype(np.float32)
    return points


def mask_of(points: NDArray[np.float32], number: int, grown: int = 0) -> NDArray[np.uint16]:
    """The outline of points in the image, made larger by some pixels."""
    _, columns, lines = Projection(CameraModel.of(CALIBRATION, WIDTH, HEIGHT)).seen(LIDAR_TO_CAMERA.points(points))
    outline = cv2.convexHull(np.stack([columns, lines], -1))
    mask = cv2.fillConvexPoly(np.zeros((HEIGHT, WIDTH), np.uint8), outline, 1)
    if grown:
        mask = cv2.dilate(mask, np.ones((2 * grown + 1,) * 2, np.uint8))
    return mask.astype(np.uint16) * number


def cloud_of(*parts: NDArray[np.float32]) -> PointCloud:
    return PointCloud(1_000, "lidar", np.concatenate(parts).astype(np.float32))


def wall(distance: float) -> NDArray[np.float32]:
    across, up = np.meshgrid(np.linspace(-20, 20, 300), np.linspace(-2, 6, 60))
    return np.stack([np.full(across.size, distance), across.reshape(-1), up.reshape(-1)], -1).astype(np.float32)
