"""Letterbox and stretch geometry: exact inverses, and the conventions of the resize it describes."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.geometry import ANCHORS, RESIZE_MODES, ROUNDINGS, ResizeGeometry, ResizeSpec

sides = st.one_of(st.integers(1, 8000), st.sampled_from([1, 2, 3, 479, 480, 719, 720, 1080, 1081, 7999, 8000]))
networks = st.one_of(st.integers(1, 2048), st.sampled_from([1, 32, 320, 639, 640, 1024, 1280]))
resizes = st.builds(
    ResizeSpec, st.sampled_from(RESIZE_MODES), st.integers(0, 255), st.sampled_from(ROUNDINGS), st.sampled_from(ANCHORS)
)
geometries = st.builds(ResizeGeometry.fit, resizes, sides, sides, networks, networks)


def random_boxes(geometry: ResizeGeometry, seed: int, count: int = 16) -> np.ndarray:
    """Boxes within the camera image, float32 `[N, 4]`, borders included."""
    random = np.random.default_rng(seed)
    corners = np.sort(random.random((count, 2, 2)), axis=1)
    corners[0] = [[0, 0], [1, 1]]
    return (corners * [geometry.camera_width, geometry.camera_height]).reshape(-1, 4).astype(np.float32)


def to_network(geometry: ResizeGeometry, boxes_camera: np.ndarray) -> np.ndarray:
    """The inverse of `boxes_to_camera`, without clipping."""
    offset, scale = [geometry.left, geometry.top] * 2, [geometry.scale_x, geometry.scale_y] * 2
    return (boxes_camera * np.array(scale) + offset).astype(np.float32)


@given(resizes, sides, sides, networks, networks)
def test_the_content_lies_inside_the_network_input(resize, width, height, network_width, network_height):
    geometry = ResizeGeometry.fit(resize, width, height, network_width, network_height)
    assert geometry.content_width >= 1
    assert geometry.content_height >= 1
    assert geometry.left >= 0
    assert geometry.top >= 0
    assert geometry.left + geometry.content_width <= network_width
    assert geometry.top + geometry.content_height <= network_height


@given(resizes, sides, sides, networks, networks)
def test_letterbox_fills_one_side_and_keeps_the_aspect_ratio(resize, width, height, network_width, network_height):
    geometry = ResizeGeometry.fit(resize, width, height, network_width, network_height)
    if resize.mode == "stretch":
        assert (geometry.content_width, geometry.content_height) == (network_width, network_height)
        assert (geometry.left, geometry.top) == (0, 0)
        return
    scale = min(Fraction(network_width, width), Fraction(network_height, height))
    exact = (width * scale, height * scale)
    content = (geometry.content_width, geometry.content_height)
    assert network_width == content[0] or network_height == content[1]
    for got, wanted in zip(content, exact, strict=True):
        allowed = Fraction(1, 2) if resize.rounding == "nearest" else 1
        assert abs(got - wanted) <= allowed or got == 1
        assert resize.rounding == "nearest" or got <= max(1, wanted)


@given(resizes, sides, sides, networks, networks)
def test_padding_is_where_the_anchor_says(resize, width, height, network_width, network_height):
    geometry = ResizeGeometry.fit(resize, width, height, network_width, network_height)
    right = network_width - geometry.content_width - geometry.left
    bottom = network_height - geometry.content_height - geometry.top
    if resize.anchor == "top_left":
        assert (geometry.left, geometry.top) == (0, 0)
    else:
        assert 0 <= right - geometry.left <= 1
        assert 0 <= bottom - geometry.top <= 1


@given(geometries, st.integers(0, 1 << 30))
def test_boxes_come_back_as_they_went(geometry, seed):
    boxes = random_boxes(geometry, seed)
    back = geometry.boxes_to_camera(to_network(geometry, boxes))
    # float32 in network pixels, seen in camera pixels: half a unit in the last place of the largest coordinate.
    step = np.spacing(np.float32(max(geometry.network_width, geometry.network_height)))
    allowed = step / min(geometry.scale_x, geometry.scale_y) + np.spacing(np.float32(8000))
    np.testing.assert_allclose(back, boxes, rtol=0, atol=float(allowed))


@given(geometries)
def test_the_whole_image_is_the_whole_content(geometry):
    image = np.array([[0, 0, geometry.camera_width, geometry.camera_height]], np.float32)
    left, top = geometry.left, geometry.top
    content = [[left, top, left + geometry.content_width, top + geometry.content_height]]
    np.testing.assert_array_equal(to_network(geometry, image), np.array(content, np.float32))
    np.testing.assert_array_equal(geometry.boxes_to_camera(np.array(content, np.float32)), image)


@given(geometries)
def test_boxes_beyond_the_image_are_clipped_to_it(geometry):
    far = np.array([[-1e5, -1e5, 1e5, 1e5]], np.float32)
    expected = [[0, 0, geometry.camera_width, geometry.camera_height]]
    np.testing.assert_array_equal(geometry.boxes_to_camera(far), np.array(expected, np.float32))


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("size", [(1280, 720), (641, 479), (90, 500)])
def test_positions_are_those_of_an_image_resize(mode, size):
    """A ramp sampled by OpenCV's bilinear resize has, at each network pixel, the camera position the geometry gives."""
    width, height = size
    geometry = ResizeGeometry.fit(ResizeSpec(mode), width, height, 640, 640)
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    content = (geometry.content_width, geometry.content_height)
    resized = [cv2.resize(ramp, content, interpolation=cv2.INTER_LINEAR) for ramp in (x, y)]
    columns, rows = np.meshgrid(np.arange(content[0]) + 0.5, np.arange(content[1]) + 0.5)
    expected = columns / geometry.scale_x, rows / geometry.scale_y
    for got, wanted, length in zip(resized, expected, size, strict=True):
        inner = (wanted > 0.5) & (wanted < length - 0.5)
        # OpenCV's weights have 11 bits.
        np.testing.assert_allclose(got[inner], wanted[inner], atol=2e-2)


def test_720p_in_640():
    geometry = ResizeGeometry.fit(ResizeSpec(), 1280, 720, 640, 640)
    assert (geometry.content_width, geometry.content_height, geometry.left, geometry.top) == (640, 360, 0, 140)
    boxes = geometry.boxes_to_camera(np.array([[10, 150, 110, 240]], np.float32))
    np.testing.assert_array_equal(boxes, [[20, 20, 220, 200]])


def test_no_boxes():
    geometry = ResizeGeometry.fit(ResizeSpec(), 1280, 720, 640, 640)
    empty = np.empty((0, 4), np.float32)
    assert geometry.boxes_to_camera(empty).shape == to_network(geometry, empty).shape == (0, 4)


@pytest.mark.parametrize("sizes", [(0, 1, 1, 1), (1, -1, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0)])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(ConfigurationError, match="expected positive"):
        ResizeGeometry.fit(ResizeSpec(), *sizes)


@pytest.mark.parametrize("wrong", [
    {"mode": "crop"}, {"rounding": "up"}, {"anchor": "left"}, {"pad_value": 256}, {"pad_value": -1},
])  # fmt: skip
def test_resize_specs_are_checked(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        ResizeSpec(**wrong)
