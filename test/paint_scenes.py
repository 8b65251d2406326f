"""Scenes of masks and boxes, and what their map is: every pixel on its own, in float64, without regions or clipping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.core.instances import InstanceMap


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


def check_painted(scene: Scene, painted: InstanceMap) -> None:
    """Hold a map against the reference; only where a competing logit is within 0.01 of zero may it differ."""
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


def random_scene(
    seed: int, count: int, mask_frame: str, dtype: type = np.float32, network_seed: int | None = None
) -> Scene:
    """Boxes and smooth blobs anywhere, also beyond the border, at sub-pixel offsets, on any sizes.

    Scenes of one `network_seed` have network and masks of the same size.
    """
    rng = np.random.default_rng(seed)
    network = np.random.default_rng(seed if network_seed is None else network_seed)
    network_width, network_height = (int(32 * n) for n in network.integers(2, 9, 2))
    camera_width, camera_height = (int(n) for n in rng.integers(1, 320, 2))
    mode = str(rng.choice(["letterbox", "stretch"]))
    geometry = ResizeGeometry.fit(ResizeSpec(mode), camera_width, camera_height, network_width, network_height)
    scale = float(rng.choice([0.3, 1.0, 1.7]))
    size = (max(1, round(camera_height * scale)), max(1, round(camera_width * scale)))
    if mask_frame == "frame":
        grid = (network_height // 4, network_width // 4)
    else:
        rows, columns = network.integers(1, 29, 2).tolist()
        grid = (rows, columns)
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
