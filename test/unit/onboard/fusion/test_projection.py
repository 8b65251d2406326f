"""From points to pixels and back, for the calibrations that cameras come with."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from seg_perception.core.errors import FrameError
from seg_perception.core.messages.calibration import Calibration, Region
from seg_perception.onboard.fusion.projection import CameraModel, Projection

K = np.array([500.0, 0.0, 320.0, 0.0, 510.0, 190.0, 0.0, 0.0, 1.0])
P = np.array([450.0, 0.0, 315.0, 0.0, 0.0, 450.0, 192.0, 0.0, 0.0, 0.0, 1.0, 0.0])
PLUMB_BOB = [-0.3, 0.1, 0.001, -0.002, -0.01]
RATIONAL = [0.5, -0.2, 0.001, 0.0, 0.01, 0.8, -0.1, 0.02]
EQUIDISTANT = [0.02, -0.01, 0.003, -0.001]
PRISM, TILTED = [*RATIONAL, 0.001, -0.002, 0.003, 0.0005], [*RATIONAL, 0.001, -0.002, 0.003, 0.0005, 0.01, -0.02]
MODELS = {
    "none": ("plumb_bob", []),
    "zeros": ("plumb_bob", [0.0] * 5),
    "plumb_bob": ("plumb_bob", PLUMB_BOB),
    "rational_polynomial": ("rational_polynomial", RATIONAL),
    "prism": ("rational_polynomial", PRISM),
    "tilted": ("rational_polynomial", TILTED),
    "equidistant": ("equidistant", EQUIDISTANT),
}


def calibration(model: str = "plumb_bob", d: list[float] | None = None) -> Calibration:
    return Calibration(0, "camera", 384, 640, model, np.array(d or []), K, np.eye(3).reshape(-1), P)


@pytest.mark.parametrize("name", MODELS)
def test_pixels_and_rays_are_inverse(name: str) -> None:
    projection = Projection(CameraModel.of(calibration(*MODELS[name]), 640, 384))
    lines, columns = np.mgrid[4:380:25, 4:636:31]
    rays = projection.rays().reshape(384, 640, 3)[lines.reshape(-1), columns.reshape(-1)]
    rows, found, at = projection.seen(rays * np.linspace(2, 60, len(rays), dtype=np.float32)[:, None])
    assert len(rows) == len(rays)
    np.testing.assert_array_equal(found, columns.reshape(-1))
    np.testing.assert_array_equal(at, lines.reshape(-1))


@pytest.mark.parametrize("name", MODELS)
def test_pixels_are_those_of_opencv(name: str) -> None:
    model = CameraModel.of(calibration(*MODELS[name]), 640, 384)
    points = np.random.default_rng(1).uniform([-3, -2, 5], [3, 2, 20], (200, 3)).astype(np.float32)
    points[0] = (0.0, 0.0, 7.0)
    project = cv2.fisheye.projectPoints if name == "equidistant" else cv2.projectPoints
    coefficients = np.array(MODELS[name][1] or [0.0] * 4)
    expected = project(points[:, None].astype(float), np.zeros(3), np.zeros(3), K.reshape(3, 3), coefficients)[0]
    np.testing.assert_allclose(model.pixels(points), expected[:, 0], atol=1e-3)


def test_points_behind_and_beside_the_camera_are_not_seen() -> None:
    """A polynomial of distortion would fold those far aside back into the image."""
    projection = Projection(CameraModel.of(calibration("plumb_bob", PLUMB_BOB), 640, 384))
    points = np.array([[0, 0, 5], [0, 0, -5], [0, 0, 0.01], [12, 0, 5], [40, 0, 5], [0, 30, 5]], np.float32)
    np.testing.assert_array_equal(projection.seen(points)[0], [0])
    assert projection.seen(np.zeros((0, 3), np.float32))[0].shape == (0,)


def test_a_map_of_another_size_is_the_same_view() -> None:
    points = np.random.default_rng(1).uniform([-3, -2, 5], [3, 2, 20], (200, 3)).astype(np.float32)
    full, half = (Projection(CameraModel.of(calibration(), 640 // s, 384 // s)) for s in (1, 2))
    rows, columns, lines = full.seen(points)
    rows_half, columns_half, lines_half = half.seen(points)
    both = np.isin(rows, rows_half)
    assert both.mean() > 0.99
    np.testing.assert_array_equal(columns[both] // 2, columns_half)
    np.testing.assert_array_equal(lines[both] // 2, lines_half)


def test_region_of_interest_and_binning_are_taken_into_account() -> None:
    """The image that is sent is the lower right quarter, every other pixel of it."""
    binned = replace(calibration(), binning_x=2, binning_y=2, roi=Region(320, 192, 192, 320))
    points = np.array([[1.0, 0.6, 5.0]], np.float32)  # at 420, 251.2 of the full image
    _, columns, lines = Projection(CameraModel.of(binned, 160, 96)).seen(points)
    assert (columns[0], lines[0]) == ((420 - 320) // 2, (251 - 192) // 2)


def test_a_rectified_image_is_described_by_p_and_r() -> None:
    angle = np.deg2rad(5)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    rectified = replace(calibration("plumb_bob", PLUMB_BOB), r=turn.reshape(-1))
    projection = Projection(CameraModel.of(rectified, 640, 384, rectified=True))
    point = np.array([[0.5, 0.2, 10.0]])
    x, y, z = (turn @ point[0]).tolist()
    _, columns, lines = projection.seen(point.astype(np.float32))
    assert (columns[0], lines[0]) == (round(450 * x / z + 315), round(450 * y / z + 192))


def test_rays_of_a_rectified_image_lead_back_to_its_pixels() -> None:
    turn = cv2.Rodrigues(np.array([0.05, -0.1, 0.02]))[0]
    projection = Projection(CameraModel.of(replace(calibration(), r=turn.reshape(-1)), 640, 384, rectified=True))
    _, columns, lines = projection.seen(7 * projection.rays().reshape(384, 640, 3)[100, 50:60])
    np.testing.assert_array_equal(columns, np.arange(50, 60))
    np.testing.assert_array_equal(lines, 100)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"k": np.zeros(9)}, "calibrated camera"),
        ({"k": np.full(9, np.nan)}, "calibrated camera"),
        ({"distortion_model": "omni"}, "distortion_model: expected plumb_bob"),
        ({"distortion_model": "\x1b[31m", "d": np.ones(4)}, "distortion_model"),
        ({"d": np.ones(7)}, "7 coefficients"),
        ({"distortion_model": "equidistant", "d": np.ones(5)}, "5 coefficients"),
        ({"width": 384, "height": 384}, "shaped as 640 x 384"),
        ({"width": 0, "height": 0}, "shaped as 640 x 384"),
    ],
)
def test_calibrations_that_cannot_be_used_are_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(FrameError, match=text) as error:
        CameraModel.of(replace(calibration(), **change), 640, 384)  # type: ignore[arg-type]
    assert error.value.kind == "calibration"
    assert str(error.value).isprintable()
