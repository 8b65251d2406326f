"""The paint kernel, compiled for the CPU, against the CPU's paint and against the float64 reference of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from host_maps import POISON, GuardedArrays, Part, camera_record, map_kernels
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from paint_scenes import Scene, check_painted, random_scene

from seg_perception.core.contract import NO_CLASS
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.core.instances import InstanceMap
from seg_perception.onboard.backend.host.cells import at_output
from seg_perception.onboard.backend.host.job import semantic_map
from seg_perception.onboard.backend.host.paint import paint
from seg_perception.onboard.backend.tensorrt.cuda.records import Fault

UNTOUCHED = 0xCDCD


@dataclass(frozen=True)
class Painted:
    """What the kernel wrote: map, areas and faults of each scene, and its semantic map if it was asked for."""

    maps: list[InstanceMap]
    faults: NDArray[np.uint32]
    semantic: list[NDArray[np.uint8]]


def launch(
    scenes: Sequence[Scene],
    labels: NDArray[np.int32] | None = None,
    class_map: NDArray[np.uint8] | None = None,
    semantic: bool = False,
    gate: Sequence[int] | None = None,
    room: int = 0,
    part: tuple[int, int] | None = None,
) -> Painted:
    """Paint scenes, whose networks are alike, in one launch; nothing else may be written.

    Args:
        scenes: one for each camera.
        labels: int32 `[K]` of every scene.
        class_map: uint8 `[B, h, w]`.
        semantic: whether to paint semantic maps.
        gate: of each camera.
        room: pixels that a map may have beyond those of the largest.
        part: the first of the cameras to be painted and how many; None for all.
    """
    first = scenes[0]
    rows, count = len(first.masks), len(scenes)
    pixels = max(scene.output_size[0] * scene.output_size[1] for scene in scenes) + room
    labels = np.zeros(rows, np.int32) if labels is None else labels
    inner = GuardedArrays(
        masks=np.stack([scene.masks for scene in scenes]),
        class_map=np.zeros(0, np.uint8) if class_map is None else class_map,
        gate=np.array(gate or [], np.uint32),
    )
    found = GuardedArrays(
        boxes=np.stack([scene.boxes for scene in scenes]),
        labels=np.stack([labels] * count),
        areas=np.zeros((count, rows), np.int32),
        faults=np.zeros(count, np.uint32),
        numbers=np.stack([scene.numbers for scene in scenes]),
    )
    request = GuardedArrays(
        cameras=np.concatenate([camera_record(scene.geometry, scene.output_size) for scene in scenes])
    )
    maps = GuardedArrays(
        maps=np.full((count, pixels), UNTOUCHED, np.uint16), semantic=np.full((count, pixels), POISON, np.uint8)
    )
    kernels = map_kernels(
        first.geometry, rows, first.masks.shape[1:], first.mask_frame, first.masks.dtype.type,
        class_map=class_map is not None,
    )  # fmt: skip
    which = Part(*(part or (0, count)), semantic)
    kernels.paint(inner, found, request, maps, which, pixels, gate is not None, None)
    for block in (inner, found, request, maps):
        block.check_guards()
    result = Painted([], found["faults"], [])
    for index, scene in enumerate(scenes):
        area = scene.output_size[0] * scene.output_size[1]
        assert (maps["maps"][index, area:] == UNTOUCHED).all()
        shaped = maps["maps"][index, :area].reshape(scene.output_size)
        result.maps.append(InstanceMap(shaped, found["areas"][index].astype(np.int64)))
        assert (maps["semantic"][index, area if semantic else 0 :] == POISON).all()
        result.semantic.append(maps["semantic"][index, :area].reshape(scene.output_size))
    return result


def check(scenes: Sequence[Scene], room: int = 0) -> None:
    painted = launch(scenes, room=room)
    assert not painted.faults.any()
    for scene, found in zip(scenes, painted.maps, strict=True):
        check_painted(scene, found)
        if scene.mask_frame == "frame":
            same = paint(scene.masks, scene.boxes, scene.numbers, scene.geometry, scene.output_size)
            np.testing.assert_array_equal(found.pixels, same.pixels)
            np.testing.assert_array_equal(found.areas, same.areas)


@pytest.mark.parametrize("mask_frame", ["frame", "box"])
@given(
    seed=st.integers(0, 2**32 - 1), count=st.integers(0, 30), half=st.booleans(), cameras=st.integers(1, 3),
    room=st.integers(0, 9999),
)  # fmt: skip
def test_equals_the_reference(mask_frame: str, seed: int, count: int, half: bool, cameras: int, room: int) -> None:
    dtype = np.float16 if half else np.float32
    check([random_scene(seed + camera, count, mask_frame, dtype, seed) for camera in range(cameras)], room)


@pytest.mark.parametrize(("mask_frame", "count"), [("frame", 100), ("box", 100), ("frame", 300), ("box", 300)])
def test_equals_the_reference_for_many_instances(mask_frame: str, count: int) -> None:
    check([random_scene(seed, count, mask_frame, network_seed=4) for seed in range(3)])


def street_scene(rows: int = 12) -> Scene:
    """720p on 640 x 640 with stride 4, and round instances."""
    rng = np.random.default_rng(5)
    geometry = ResizeGeometry.fit(ResizeSpec(), 1280, 720, 640, 640)
    y, x = np.mgrid[0:160, 0:160] + 0.5
    corners = rng.uniform(100, 400, (rows, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 200, (rows, 2))], axis=1).astype(np.float32)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 8, (boxes[:, 2:] - boxes[:, :2]) / 8
    masks = [6 * (1 - ((x - c[0]) / h[0]) ** 2 - ((y - c[1]) / h[1]) ** 2) for c, h in zip(centre, half, strict=True)]
    numbers = np.arange(1, rows + 1, dtype=np.uint16)
    return Scene(np.stack(masks).astype(np.float32), boxes, numbers, geometry, (720, 1280), "frame")


def test_street_camera_size() -> None:
    check([street_scene()])


def small_scene(rows: int = 2) -> Scene:
    """Two overlapping squares, and rows without numbers, on 64 x 64 pixels."""
    geometry = ResizeGeometry.fit(ResizeSpec(), 64, 64, 64, 64)
    boxes = np.array([[8, 8, 40, 40], [24, 24, 56, 56]] + [[0, 0, 64, 64]] * (rows - 2), np.float32)
    numbers = np.array([9, 65535] + [0] * (rows - 2), np.uint16)
    return Scene(np.full((rows, 16, 16), 5, np.float32), boxes, numbers, geometry, (64, 64), "frame")


@pytest.mark.parametrize("mask_frame", ["frame", "box"])
@pytest.mark.parametrize("camera", [64, 77, 611])
def test_edges_on_pixel_centres(mask_frame: str, camera: int) -> None:
    """Also where the centre of a pixel is no float32, and the edge is the next one below or above."""
    geometry = ResizeGeometry.fit(ResizeSpec(), camera, camera, 64, 64)
    centres = (np.arange(camera) + 0.5) * (64 / camera)
    rng = np.random.default_rng(camera)
    low, high = rng.integers(0, camera // 2, (30, 2)), rng.integers(camera // 2, camera, (30, 2))
    boxes = np.concatenate([centres[low], centres[high]], axis=1).astype(np.float32)
    boxes[10:20] = np.nextafter(boxes[10:20], np.float32(0))
    boxes[20:] = np.nextafter(boxes[20:], np.float32(99))
    for row in range(30):
        scene = Scene(
            np.ones((1, 9, 9), np.float32), boxes[row : row + 1], np.ones(1, np.uint16), geometry, (camera, camera),
            mask_frame,
        )  # fmt: skip
        expected = paint(scene.masks, scene.boxes, scene.numbers, geometry, scene.output_size, mask_frame)
        np.testing.assert_array_equal(launch([scene]).maps[0].pixels, expected.pixels)


def test_small_boxes_far_from_the_origin() -> None:
    """Where float32 network pixels alone would be too coarse for steep masks."""
    rng = np.random.default_rng(0)
    geometry = ResizeGeometry.fit(ResizeSpec("stretch"), 8000, 8, 4096, 8)
    left = rng.uniform(3800, 4080, 20)
    boxes = np.stack([left, np.zeros(20), left + rng.uniform(1, 9, 20), np.full(20, 8)], axis=1).astype(np.float32)
    masks = rng.normal(0, 60, (20, 28, 28)).astype(np.float32)
    check([Scene(masks, boxes, np.arange(1, 21, dtype=np.uint16), geometry, (9, 8001), "box")])


def test_rows_without_numbers_far_behind() -> None:
    """More rows than the kernel looks at in one go, the only ones with numbers last."""
    scene = small_scene(4096)
    order = np.arange(4096)[::-1]
    check([replace(scene, boxes=scene.boxes[order], numbers=scene.numbers[order])])


@pytest.mark.parametrize("rows", [0, 5])
def test_nothing_to_paint(rows: int) -> None:
    scene = small_scene(5)
    scene = replace(scene, masks=scene.masks[:rows], boxes=scene.boxes[:rows], numbers=scene.numbers[:rows] * 0)
    assert not launch([scene]).maps[0].pixels.any()


@pytest.mark.parametrize("mask_frame", ["frame", "box"])
def test_impossible_boxes_paint_nothing(mask_frame: str) -> None:
    nan = np.nan
    boxes = [[40, 8, 8, 40], [8, 40, 40, 8], [8, 8, 8, 40], [nan, 8, 40, 40], [8, 8, nan, 40], [8, nan, 40, nan]]
    scene = replace(small_scene(len(boxes)), boxes=np.array(boxes, np.float32), mask_frame=mask_frame)
    painted = launch([replace(scene, numbers=np.arange(1, len(boxes) + 1, dtype=np.uint16))])
    assert not painted.maps[0].pixels.any()
    assert not painted.faults.any()


@pytest.mark.parametrize("mask_frame", ["frame", "box"])
def test_boundless_boxes_do_no_harm(mask_frame: str) -> None:
    large, inf = 3e38, np.inf
    boxes = np.array([[-inf, -inf, inf, inf], [-large, -large, large, large]], np.float32)
    painted = launch([replace(small_scene(), boxes=boxes, mask_frame=mask_frame)])
    assert (painted.maps[0].pixels == 9).all()
    assert painted.maps[0].areas.tolist() == [64 * 64, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_reports_broken_logits_that_it_needs(value: float, dtype: type) -> None:
    scenes = [replace(small_scene(), masks=small_scene().masks.astype(dtype)) for _ in range(3)]
    scenes[0].masks[1, 15, 15] = value  # outside the box
    scenes[1].masks[1, 12, 12] = value
    assert launch(scenes).faults.tolist() == [0, Fault.FAULTY_LOGIT, 0]


def test_areas_and_faults_are_added_and_closed_gates_leave_everything() -> None:
    scenes = [small_scene()] * 3
    painted = launch(scenes, gate=[1, 0, 7], semantic=True)
    expected = paint(scenes[0].masks, scenes[0].boxes, scenes[0].numbers, scenes[0].geometry, (64, 64))
    for index in (0, 2):
        np.testing.assert_array_equal(painted.maps[index].pixels, expected.pixels)
        assert painted.maps[index].areas.tolist() == expected.areas.tolist()
    assert (painted.maps[1].pixels == UNTOUCHED).all()
    assert (painted.semantic[1] == POISON).all()
    assert not painted.maps[1].areas.any()


def test_a_part_of_the_batch() -> None:
    scenes = [random_scene(camera, 5, "frame", network_seed=1) for camera in range(4)]
    painted = launch(scenes, part=(1, 2))
    for index in (1, 2):
        check_painted(scenes[index], painted.maps[index])
    for index in (0, 3):
        assert (painted.maps[index].pixels == UNTOUCHED).all()


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12), with_classes=st.booleans())
def test_semantic_map(seed: int, count: int, with_classes: bool) -> None:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(seed + camera, count, "frame", network_seed=seed) for camera in range(2)]
    labels = rng.choice([0, 1, 79, 253, 254, 255, 400], count).astype(np.int32)
    grid = scenes[0].masks.shape[1:]
    class_map = rng.choice([0, 3, 253, NO_CLASS], (2, *grid)).astype(np.uint8) if with_classes else None
    painted = launch(scenes, labels, class_map, semantic=True)
    for index, scene in enumerate(scenes):
        check_painted(scene, painted.maps[index])
        classes = None if class_map is None else at_output(class_map[index], scene.geometry, scene.output_size)
        expected = semantic_map(classes, scene.numbers, labels, painted.maps[index].pixels)
        np.testing.assert_array_equal(painted.semantic[index], expected)
