"""Paint against a reference that looks at every pixel on its own, in float64, without regions or clipping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from seg_perception.errors import ModelOutputError
from seg_perception.geometry import ResizeGeometry, ResizeSpec
from seg_perception.pipeline.paint import paint


@dataclass(frozen=True)
class Scene:
    masks: NDArray[np.float32]
    boxes: NDArray[np.float32]
    numbers: NDArray[np.uint16]
    geometry: ResizeGeometry
    output_size: tuple[int, int]
    mask_frame: str


def reference_logits(scene: Scene, row: int) -> NDArray[np.float64]:
    """The logit of every output pixel of one instance; -inf outside its box."""
    height, width = scene.output_size
    grid_height, grid_width = scene.masks.shape[1:]
    g = scene.geometry
    logits = np.full((height, width), -np.inf)
    v, u = np.mgrid[0:height, 0:width] + 0.5
    x = u * (g.content_width / width) + g.left
    y = v * (g.content_height / height) + g.top
    x1, y1, x2, y2 = scene.boxes[row].astype(np.float64)
    inside = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
    if not inside.any():
        return logits
    if scene.mask_frame == "frame":
        column, line = x * grid_width / g.network_width - 0.5, y * grid_height / g.network_height - 0.5
    else:
        column = (x - x1) / (x2 - x1) * grid_width - 0.5
        line = (y - y1) / (y2 - y1) * grid_height - 0.5
    column, line = np.clip(column, 0, grid_width - 1), np.clip(line, 0, grid_height - 1)
    left, top = np.floor(column).astype(int), np.floor(line).astype(int)
    right, bottom = np.minimum(left + 1, grid_width - 1), np.minimum(top + 1, grid_height - 1)
    fx, fy = column - left, line - top
    mask = scene.masks[row].astype(np.float64)
    sampled = (1 - fy) * ((1 - fx) * mask[top, left] + fx * mask[top, right]) + fy * (
        (1 - fx) * mask[bottom, left] + fx * mask[bottom, right]
    )
    logits[inside] = sampled[inside]
    return logits


def check(scene: Scene) -> None:
    painted = paint(scene.masks, scene.boxes, scene.numbers, scene.geometry, scene.output_size, scene.mask_frame)
    rows = np.flatnonzero(scene.numbers)
    logits = {int(row): reference_logits(scene, row) for row in rows}
    expected = np.zeros(scene.output_size, np.uint16)
    in_a_box = np.zeros(scene.output_size, bool)
    undecided = np.zeros(scene.output_size, bool)
    for row in rows[::-1]:
        expected[logits[row] > 0] = scene.numbers[row]
        in_a_box |= np.isfinite(logits[row])
        undecided |= np.abs(logits[row]) < 0.01
    assert not painted.pixels[~in_a_box].any()
    differing = painted.pixels != expected
    assert not (differing & ~undecided).any()
    for row in rows:
        own, truth = painted.pixels == scene.numbers[row], expected == scene.numbers[row]
        assert painted.areas[row] == own.sum()
        if truth.sum() > 200:
            assert (own & truth).sum() / (own | truth).sum() >= 0.99
    assert not painted.areas[scene.numbers == 0].any()


def random_scene(seed: int, count: int, mask_frame: str, dtype: type = np.float32) -> Scene:
    """Boxes and smooth blobs anywhere, also beyond the border, at sub-pixel offsets, on any sizes."""
    rng = np.random.default_rng(seed)
    network_width, network_height = (int(32 * n) for n in rng.integers(2, 9, 2))
    camera_width, camera_height = (int(n) for n in rng.integers(1, 320, 2))
    mode = str(rng.choice(["letterbox", "stretch"]))
    geometry = ResizeGeometry.fit(ResizeSpec(mode), camera_width, camera_height, network_width, network_height)
    scale = float(rng.choice([0.3, 1.0, 1.7]))
    size = (max(1, round(camera_height * scale)), max(1, round(camera_width * scale)))
    if mask_frame == "frame":
        grid = (network_height // 4, network_width // 4)
    else:
        grid = tuple(int(n) for n in rng.integers(1, 29, 2))
    coarse = rng.normal(0, 4, (count, 5, 7))
    masks = (
        np.stack([np.kron(one, np.ones((grid[0] // 5 + 1, grid[1] // 7 + 1)))[: grid[0], : grid[1]] for one in coarse])
        if count
        else np.zeros((0, *grid))
    )
    masks = masks + rng.normal(0, 0.5, masks.shape)
    centre = rng.uniform(-0.2, 1.2, (count, 2)) * (network_width, network_height)
    half = np.exp(rng.uniform(np.log(0.2), np.log(150), (count, 2)))
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    numbers = rng.permutation(np.arange(1, count + 1)).astype(np.uint16)
    numbers[rng.random(count) < 0.1] = 0
    return Scene(masks.astype(dtype), boxes.astype(np.float32), numbers, geometry, size, mask_frame)


@pytest.mark.parametrize("mask_frame", ["frame", "box"])
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 30))
@settings(max_examples=150)
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
