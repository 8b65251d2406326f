"""Paint against a reference that looks at every pixel on its own, in float64, without regions or clipping."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paint_scenes import Scene, check_painted, random_scene

from seg_perception.core.errors import ModelOutputError
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.onboard.backend.host.paint import paint


def check(scene: Scene) -> None:
    painted = paint(scene.masks, scene.boxes, scene.numbers, scene.geometry, scene.output_size, scene.mask_frame)
    check_painted(scene, painted)


@pytest.mark.parametrize("mask_frame", ["frame", "box"])
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 30))
def test_equals_the_reference(mask_frame: str, seed: int, count: int) -> None:
    check(random_scene(seed, count, mask_frame))


@pytest.mark.parametrize("mask_frame", ["frame", "box"])
def test_equals_the_reference_for_a_hundred_instances(mask_frame: str) -> None:
    for seed in range(3):
        check(random_scene(seed, 100, mask_frame))


def test_equals_the_reference_for_half_precision_masks() -> None:
    for seed in range(10):
        check(random_scene(seed, 10, "frame", np.float16))


def test_street_camera_size() -> None:
    """720p on 640 x 640 with stride 4: the real sizes, odd box edges."""
    rng = np.random.default_rng(5)
    geometry = ResizeGeometry.fit(ResizeSpec(), 1280, 720, 640, 640)
    y, x = np.mgrid[0:160, 0:160] + 0.5
    corners = rng.uniform(100, 400, (12, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 200, (12, 2))], axis=1).astype(np.float32)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 8, (boxes[:, 2:] - boxes[:, :2]) / 8
    masks = np.stack(
        [6 * (1 - ((x - c[0]) / h[0]) ** 2 - ((y - c[1]) / h[1]) ** 2) for c, h in zip(centre, half, strict=True)]
    ).astype(np.float32)
    numbers = np.arange(1, 13, dtype=np.uint16)
    check(Scene(masks, boxes, numbers, geometry, (720, 1280), "frame"))


def overlapping_scene(numbers: list[int]) -> Scene:
    geometry = ResizeGeometry.fit(ResizeSpec(), 64, 64, 64, 64)
    boxes = np.array([[8, 8, 40, 40], [24, 24, 56, 56]], np.float32)
    masks = np.full((2, 16, 16), 5, np.float32)
    return Scene(masks, boxes, np.array(numbers, np.uint16), geometry, (64, 64), "frame")


def test_lower_row_wins_where_two_overlap() -> None:
    scene = overlapping_scene([9, 4])
    painted = paint(scene.masks, scene.boxes, scene.numbers, scene.geometry, scene.output_size)
    assert (painted.pixels[24:40, 24:40] == 9).all()
    assert painted.areas.tolist() == [32 * 32, 32 * 32 - 16 * 16]


def test_a_row_left_out_uncovers_what_is_behind() -> None:
    scene = overlapping_scene([0, 4])
    painted = paint(scene.masks, scene.boxes, scene.numbers, scene.geometry, scene.output_size)
    assert (painted.pixels[24:56, 24:56] == 4).all()
    assert painted.areas.tolist() == [0, 32 * 32]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_reports_broken_logits_that_it_needs(value: float) -> None:
    scene = overlapping_scene([1, 2])
    scene.masks[1, 10, 10] = value
    with pytest.raises(ModelOutputError, match="finite mask logits"):
        paint(scene.masks, scene.boxes, scene.numbers, scene.geometry, scene.output_size)


def test_broken_logits_of_rows_left_out_do_no_harm() -> None:
    scene = overlapping_scene([1, 0])
    scene.masks[1] = np.nan
    painted = paint(scene.masks, scene.boxes, scene.numbers, scene.geometry, scene.output_size)
    assert painted.areas.tolist() == [32 * 32, 0]


def test_whole_range_of_numbers() -> None:
    scene = overlapping_scene([65535, 32768])
    painted = paint(scene.masks, scene.boxes, scene.numbers, scene.geometry, scene.output_size)
    assert painted.pixels.dtype == np.uint16
    assert set(np.unique(painted.pixels)) == {0, 32768, 65535}
