"""The kernels that choose instances, compiled for the CPU, against the CPU's choice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from host_maps import GuardedArrays, camera_record, map_kernels
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seg_perception.core.classes import NO_GROUP
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.core.instances import Detections
from seg_perception.onboard.backend.host.select import IgnoreMask, SelectOptions, class_thresholds, select
from seg_perception.onboard.backend.tensorrt.cuda.slot import PAINT, Work

# Classes: 0 person, 1 car, 2 truck, 3 bus, 4 stop sign, 5 traffic light, 6 dog, 7 cat.
GROUPS = np.array([0, 1, 1, 1, 2, 3, NO_GROUP, NO_GROUP], np.int32)
NETWORK = (96, 64)
UNWRITTEN = 0x7777


def random_detections(rng: np.random.Generator, rows: int) -> Detections:
    """Boxes in clusters, many on whole pixels so that overlaps are the same or just a limit, and many equal scores."""
    mode = str(rng.choice(["letterbox", "stretch"]))
    width, height = rng.integers(1, 2000, 2).tolist()
    geometry = ResizeGeometry.fit(ResizeSpec(mode), width, height, *NETWORK)
    centres = rng.uniform(-0.1, 1.1, (6, 2)) * NETWORK
    centre = centres[rng.integers(0, 6, rows)] + rng.normal(0, 1.5, (rows, 2))
    boxes = np.concatenate([centre - rng.uniform(0, 20, (rows, 2)), centre + rng.uniform(0, 20, (rows, 2))], axis=1)
    whole = rng.random(rows) < 0.6
    boxes[whole] = np.round(boxes[whole] / 4) * 4
    scores = np.round(rng.uniform(0, 1, rows), int(rng.integers(1, 3))).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    labels = rng.integers(0, len(GROUPS), rows).astype(np.int32)
    return Detections(boxes[order].astype(np.float32), scores[order], labels, geometry)


def random_options(rng: np.random.Generator) -> SelectOptions:
    return SelectOptions(
        score_threshold=float(rng.choice([0, 0.05, 0.3, 0.5])),
        group_thresholds=tuple(float(value) for value in rng.choice([-1, 0, 0.2, 0.7], 4)),
        group_iou=float(rng.choice([0, 0.3, 0.5, 0.7, 1])),
        keep_other=bool(rng.integers(2)),
    )


def random_ignore(rng: np.random.Generator) -> IgnoreMask | None:
    if rng.random() < 0.5:
        return None
    coarse = rng.random(tuple(rng.integers(1, 5, 2))) < 0.4
    return IgnoreMask(np.kron(coarse, np.ones(rng.integers(1, 9, 2), bool)).astype(bool))


def numbers_of_kernel(
    found: Sequence[Detections], options: Sequence[SelectOptions], ignores: Sequence[IgnoreMask | None]
) -> NDArray[np.uint16]:
    rows, count = len(found[0].scores), len(found)
    records = []
    for each, own, ignore in zip(found, options, ignores, strict=True):
        fields = {"group_iou": own.group_iou}
        if ignore is not None:
            height, width = ignore.sums.shape
            fields |= {"ignore": ignore.sums.ctypes.data, "ignore_height": height - 1, "ignore_width": width - 1}
        records.append(camera_record(each.geometry, **fields))
    arrays = GuardedArrays(
        boxes=np.stack([each.boxes_network for each in found]),
        scores=np.stack([each.scores for each in found]),
        labels=np.stack([each.labels for each in found]),
        numbers=np.full((count, rows), UNWRITTEN, np.uint16),
        areas=np.full((count, rows), UNWRITTEN, np.int32),
        faults=np.full(count, UNWRITTEN, np.uint32),
    )
    thresholds = np.stack([class_thresholds(own, GROUPS) for own in options])
    request = GuardedArrays(cameras=np.concatenate(records), thresholds=thresholds, groups=GROUPS)
    map_kernels(found[0].geometry, rows, classes=len(GROUPS)).select(arrays, request, count, None)
    arrays.check_guards()
    assert not arrays["areas"].any()
    assert not arrays["faults"].any()
    return arrays["numbers"]


def check(found: Sequence[Detections], options: Sequence[SelectOptions], ignores: Sequence[IgnoreMask | None]) -> None:
    numbers = numbers_of_kernel(found, options, ignores)
    for each, own, ignore, chosen in zip(found, options, ignores, numbers, strict=True):
        kept = select(each, GROUPS, own, ignore)
        expected = np.zeros(len(each.scores), np.uint16)
        expected[kept.rows] = kept.ids
        np.testing.assert_array_equal(chosen, expected)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 60), cameras=st.integers(1, 3))
def test_chooses_as_the_cpu_does(seed: int, rows: int, cameras: int) -> None:
    rng = np.random.default_rng(seed)
    found = [random_detections(rng, rows) for _ in range(cameras)]
    check(found, [random_options(rng) for _ in range(cameras)], [random_ignore(rng) for _ in range(cameras)])


@pytest.mark.parametrize("rows", [256, 300, 1100])
def test_many_rows(rows: int) -> None:
    """As many as threads, more, and more than the kernel keeps boxes of."""
    rng = np.random.default_rng(rows)
    check([random_detections(rng, rows)], [SelectOptions(0.1, keep_other=True)], [random_ignore(rng)])


def row_of_boxes(overlap: float, count: int, labels: Sequence[int]) -> Detections:
    """Boxes 64 pixels wide side by side, each overlapping the next by a share of its width; camera = network."""
    left = np.arange(count) * 64 * (1 - overlap)
    boxes = np.stack([left, np.zeros(count), left + 64, np.full(count, 10)], axis=1).astype(np.float32)
    geometry = ResizeGeometry.fit(ResizeSpec(), 4096, 64, 4096, 64)
    scores = np.linspace(0.9, 0.5, count).astype(np.float32)
    return Detections(boxes, scores, np.array(labels, np.int32), geometry)


def test_a_long_chain_of_rivals() -> None:
    """Each suppresses the next unless it is suppressed itself, so that every other one stays."""
    found = row_of_boxes(0.75, 40, [1, 2] * 20)
    options = [SelectOptions(group_iou=0.5)]
    numbers = numbers_of_kernel([found], options, [None])[0]
    assert np.flatnonzero(numbers).tolist() == list(range(0, 40, 2))
    check([found], options, [None])


@pytest.mark.parametrize(("limit", "kept"), [(1 / 3, 2), (np.nextafter(1 / 3, 0), 1), (1.0, 2), (0.0, 1)])
def test_an_overlap_of_exactly_the_limit_is_none(limit: float, kept: int) -> None:
    found = row_of_boxes(0.5, 2, [1, 2])
    assert numbers_of_kernel([found], [SelectOptions(group_iou=limit)], [None]).max() == kept
    check([found], [SelectOptions(group_iou=limit)], [None])


def test_impossible_labels_and_scores_do_no_harm() -> None:
    found = row_of_boxes(0, 6, [1, 2**31 - 1, -(2**31), -1, 2, 2**31 - 1])
    found.scores[4:] = np.nan, 0
    assert numbers_of_kernel([found], [SelectOptions(0.0)], [None])[0].tolist() == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("renumber", [True, False])
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 600), limit=st.integers(0, 6))
def test_prune(renumber: bool, seed: int, rows: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = np.zeros((3, rows), np.uint16)
    areas = rng.integers(0, 9, (3, rows)).astype(np.int32)
    for each in numbers:
        kept = np.flatnonzero(rng.random(rows) < 0.5)
        each[kept] = np.arange(1, len(kept) + 1) if renumber else rng.permutation(65535)[: len(kept)] + 1
    areas[0] += 6
    geometry = ResizeGeometry.fit(ResizeSpec(), 64, 64, 64, 64)
    request = GuardedArrays(cameras=np.concatenate([camera_record(geometry, min_pixels=limit)] * 3))
    found, inner = GuardedArrays(numbers=numbers, areas=areas), GuardedArrays(gate=np.full(3, UNWRITTEN, np.uint32))
    map_kernels(geometry, rows).prune(request, found, inner, Work(PAINT, 0, 3), renumber, None)
    for block in (found, inner):
        block.check_guards()
    small = (numbers > 0) & (areas < limit)
    pruned = np.asarray(small.any(axis=1))
    assert inner["gate"].tolist() == pruned.tolist()
    left = (numbers > 0) & ~small
    expected = np.cumsum(left, axis=1) if renumber else numbers
    np.testing.assert_array_equal(found["numbers"], np.where(left, expected, 0))
    np.testing.assert_array_equal(found["areas"], np.where(pruned[:, None], 0, areas))
