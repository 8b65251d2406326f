"""The camera as geometry: from points to pixels of an instance map, and from pixels to rays."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import FrameError
from seg_perception.core.messages.calibration import Calibration
from seg_perception.core.text import printable

# Names of REP 107 and what OpenCV's fisheye model was called before.
_PLUMB_BOB = ("plumb_bob", "rational_polynomial", "")
_EQUIDISTANT = ("equidistant", "fisheye")
_COEFFICIENTS = (0, 4, 5, 8, 12, 14)
# Nearer points belong to the vehicle, or to the camera itself.
NEAREST = 0.1
# An aspect ratio that differs by more is no other size of the same image.
_ASPECT = 0.02
# The image may end this much beyond what its border pixels say; pixels outside are left out one by one.
_MARGIN = 1.05
# When the inverse of a distortion is exact enough.
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-7)


@dataclass(frozen=True, slots=True)
class CameraModel:
    """A calibrated camera for images of one size; centres of pixels are at whole numbers.

    Attributes:
        width, height: of the images in pixels.
        matrix: float64 `[3, 3]`.
        distortion: float64 `[N]`, empty for none.
        fisheye: whether the coefficients are those of the equidistant model.
        turn: float64 `[3, 3]`, from the camera's optical frame to that of the image: identity, or the rectification.
    """

    width: int
    height: int
    matrix: NDArray[np.float64]
    distortion: NDArray[np.float64]
    fisheye: bool = False
    turn: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))

    @classmethod
    def of(cls, calibration: Calibration, width: int, height: int, *, rectified: bool = False) -> CameraModel:
        """Fit a calibration to images of a size; region of interest and binning are taken into account.

        Args:
            calibration: of the camera.
            width, height: of the images or maps.
            rectified: whether these are rectified: P and R describe them, and no distortion is left.

        Raises:
            FrameError: kind `calibration`, it is none, is for images of another shape, or has a model of distortion
                that is not known.
        """
        sent = calibration.sent
        if min(sent) <= 0 or abs(sent[0] * height - sent[1] * width) > _ASPECT * sent[0] * height:
            raise FrameError(
                "calibration",
                f"camera_info: expected one for images shaped as {width} x {height}, got one for {sent[0]} x "
                f"{sent[1]}; check that it is of the same camera",
            )
        fitted = calibration.scaled(sent, (width, height))
        model = fitted.distortion_model
        if model not in (*_PLUMB_BOB, *_EQUIDISTANT):
            known = "plumb_bob, rational_polynomial or equidistant"
            raise FrameError("calibration", f"camera_info: distortion_model: expected {known}, got {printable(model)}")
        matrix = fitted.p.reshape(3, 4)[:, :3] if rectified else fitted.k.reshape(3, 3)
        distortion = np.zeros(0) if rectified or not fitted.d.any() else fitted.d
        expected = (0, 4) if model in _EQUIDISTANT else _COEFFICIENTS
        values = np.concatenate([matrix.reshape(-1), distortion, fitted.r])
        if matrix[0, 0] <= 0 or matrix[1, 1] <= 0 or not np.isfinite(values).all() or len(distortion) not in expected:
            raise FrameError(
                "calibration",
                f"camera_info: expected a calibrated camera (focal lengths above 0, {' or '.join(map(str, expected))} "
                f"coefficients), got focal lengths {matrix[0, 0]:g} and {matrix[1, 1]:g}, {len(distortion)} "
                "coefficients; calibrate the camera",
            )
        turn = fitted.r.reshape(3, 3) if rectified else np.eye(3)
        return cls(width, height, matrix, distortion, model in _EQUIDISTANT, turn)

    def same_as(self, other: CameraModel | None) -> bool:
        """Return whether it is the same camera."""
        return other is not None and (self.width, self.height, self.fisheye) == (
            other.width, other.height, other.fisheye,
        ) and all(
            np.array_equal(mine, theirs)
            for mine, theirs in (
                (self.matrix, other.matrix), (self.distortion, other.distortion), (self.turn, other.turn),
            )
        )  # fmt: skip

    def reach(self) -> tuple[float, float]:
        """Return the largest |x / z| and |y / z| that the image shows, with a margin."""
        columns, rows = np.linspace(-0.5, self.width - 0.5, 33), np.linspace(-0.5, self.height - 0.5, 33)
        border = np.concatenate(
            [
                np.stack(np.broadcast_arrays(columns, edge), -1)
                for edge in (-0.5, self.height - 0.5)
            ] + [np.stack(np.broadcast_arrays(edge, rows), -1) for edge in (-0.5, self.width - 0.5)]
        )  # fmt: skip
        rays = np.abs(self.undistorted(border))
        rays = rays[np.isfinite(rays).all(1) & (rays < 100).all(1)]
        if not len(rays):
            return 100.0, 100.0
        return float(rays[:, 0].max()) * _MARGIN, float(rays[:, 1].max()) * _MARGIN

    def undistorted(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x / z and y / z of pixels, float64 `[N, 2]` each, in the image's frame."""
        points = np.ascontiguousarray(pixels, np.float64)[:, None]
        if not len(self.distortion):
            centre, focal = self.matrix[:2, 2], self.matrix[[0, 1], [0, 1]]
            rays: NDArray[np.float64] = (points[:, 0] - centre) / focal
            return rays
        if self.fisheye:
            flat = cv2.fisheye.undistortPoints(points, self.matrix, self.distortion)
        else:
            # The usual five steps leave errors of half a pixel at the border.
            flat = cv2.undistortPointsIter(points, self.matrix, self.distortion, np.eye(3), np.eye(3), _STEPS)
        return np.asarray(flat[:, 0], np.float64)

    def pixels(self, xyz: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return pixels of points in front of the image's frame, float32 `[N, 3]` to `[N, 2]`."""
        flat: NDArray[np.float32] = xyz[:, :2] / xyz[:, 2:]
        if len(self.distortion):
            flat = self._equidistant(flat) if self.fisheye else self._distorted(flat)
        focal, centre = self.matrix[[0, 1], [0, 1]], self.matrix[:2, 2]
        return flat * focal.astype(np.float32) + centre.astype(np.float32)

    def _distorted(self, flat: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the polynomials of plumb_bob and rational_polynomial.

        cv2.projectPoints gives the same ten times as slowly, as it cannot be kept from working out derivatives.
        """
        if len(self.distortion) > 12:  # a tilted sensor
            points = np.column_stack([flat, np.ones(len(flat))])
            projected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.eye(3), self.distortion)
            return projected[:, 0].astype(np.float32)
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = (*self.distortion.tolist(), *(0.0,) * 12)[:12]
        x, y = flat.T
        r = x * x + y * y
        radial = (1 + r * (k1 + r * (k2 + r * k3))) / (1 + r * (k4 + r * (k5 + r * k6)))
        both = 2 * x * y
        distorted = np.empty_like(flat)
        distorted[:, 0] = x * radial + p1 * both + p2 * (r + 2 * x * x) + r * (s1 + r * s2)
        distorted[:, 1] = y * radial + p2 * both + p1 * (r + 2 * y * y) + r * (s3 + r * s4)
        return distorted

    def _equidistant(self, flat: NDArray[np.float32]) -> NDArray[np.float32]:
        k1, k2, k3, k4 = self.distortion.tolist()
        radius = np.hypot(flat[:, 0], flat[:, 1])
        angle = np.arctan(radius)
        t = angle * angle
        bent = angle * (1 + t * (k1 + t * (k2 + t * (k3 + t * k4))))
        scaled: NDArray[np.float32] = flat * (bent / np.maximum(radius, np.float32(1e-9)))[:, None]
        return scaled


class Projection:
    """A camera model with what is worked out once: how far it sees, and the ray of each pixel."""

    def __init__(self, model: CameraModel) -> None:
        """Prepare for a camera."""
        self.model = model
        self._reach = model.reach()
        self._turn = model.turn.astype(np.float32)
        self._rays: NDArray[np.float32] | None = None

    def seen(self, xyz: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """Find the points that the image shows.

        Args:
            xyz: float32 `[N, 3]`, in the camera's optical frame.

        Returns:
            Rows of the points, int64 `[M]`, and their columns and rows in the image, int32 `[M]` each.
        """
        if not np.array_equal(self.model.turn, np.eye(3)):
            xyz = xyz @ self._turn.T
        x, y, z = xyz[:, 0], xyz[:, 1], xyz[:, 2]
        wide, high = self._reach
        rows = np.flatnonzero((z > NEAREST) & (np.abs(x) < wide * z) & (np.abs(y) < high * z))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            pixels = self.model.pixels(xyz[rows])
            # Far outside is no integer of 32 bits, and NaN is none at all.
            pixels = np.where(np.abs(pixels) < 1e6, pixels, -9.0)
        columns, lines = (np.floor(pixels[:, axis] + 0.5).astype(np.int32) for axis in (0, 1))
        inside = (columns >= 0) & (columns < self.model.width) & (lines >= 0) & (lines < self.model.height)
        return rows[inside], columns[inside], lines[inside]

    def rays(self) -> NDArray[np.float32]:
        """Return where pixels look, to a depth of 1, in the camera's optical frame; float32 `[height * width, 3]`."""
        if self._rays is None:
            height, width = self.model.height, self.model.width
            lines, columns = np.indices((height, width), np.float64)
            flat = self.model.undistorted(np.stack([columns.reshape(-1), lines.reshape(-1)], -1))
            rays = np.concatenate([flat, np.ones((len(flat), 1))], 1) @ self.model.turn
            self._rays = rays.astype(np.float32)
        return self._rays
