"""Records whose arrays belong together refuse arrays that do not."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.core.instances import Detections, Instances

GEOMETRY = ResizeGeometry.fit(ResizeSpec(), 640, 480, 320, 320)


def instances(count: int) -> Instances:
    return Instances(
        rows=np.arange(count, dtype=np.int32),
        ids=np.arange(1, count + 1, dtype=np.uint16),
        boxes_camera=np.arange(4 * count, dtype=np.float32).reshape(count, 4),
        scores=np.linspace(1, 0.5, count).astype(np.float32),
        labels=np.arange(10, 10 + count, dtype=np.int32),
        groups=np.full(count, -1, np.int32),
    )


def detections(count: int) -> Detections:
    return Detections(
        np.zeros((count, 4), np.float32), np.zeros(count, np.float32), np.zeros(count, np.int32), GEOMETRY
    )


@pytest.mark.parametrize("count", [0, 1, 5])
def test_any_number_of_instances(count: int) -> None:
    assert len(instances(count)) == count
    assert len(detections(count).scores) == count


@pytest.mark.parametrize("name", ["rows", "ids", "scores", "labels", "groups"])
def test_instances_name_the_array_that_does_not_fit(name: str) -> None:
    good = instances(3)
    too_long = np.zeros(4, getattr(good, name).dtype)
    if name == "rows":  # the others are measured by it
        with pytest.raises(ValueError, match=r"boxes_camera: expected shape \(4, 4\), got \(3, 4\)"):
            replace(good, rows=too_long)
        return
    with pytest.raises(ValueError, match=rf"{name}: expected shape \(3,\), got \(4,\)"):
        replace(good, **{name: too_long})
    with pytest.raises(ValueError, match=rf"{name}: expected shape \(3,\), got \(3, 1\)"):
        replace(good, **{name: getattr(good, name)[:, None]})


@pytest.mark.parametrize("shape", [(3,), (4, 3), (3, 5), (2, 4), (0, 4)])
def test_boxes_need_four_numbers_for_each(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="boxes_camera: expected shape"):
        replace(instances(3), boxes_camera=np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="boxes_network: expected shape"):
        replace(detections(3), boxes_network=np.zeros(shape, np.float32))


@pytest.mark.parametrize("name", ["scores", "labels"])
def test_detections_refuse_arrays_of_other_lengths(name: str) -> None:
    with pytest.raises(ValueError, match="expected shape"):
        replace(detections(3), **{name: np.zeros(2, getattr(detections(3), name).dtype)})


def test_where_takes_the_same_rows_of_every_array_in_order() -> None:
    everything = instances(5)
    kept = everything.where(np.array([True, False, True, False, True]))
    for name in ("rows", "ids", "boxes_camera", "scores", "labels", "groups"):
        array, part = getattr(everything, name), getattr(kept, name)
        np.testing.assert_array_equal(part, array[[0, 2, 4]])
        assert part.dtype == array.dtype


def test_where_nothing_is_kept() -> None:
    none = instances(3).where(np.zeros(3, bool))
    assert len(none) == 0
    assert none.boxes_camera.shape == (0, 4)
    assert len(instances(0).where(np.zeros(0, bool))) == 0


def test_numbered_changes_the_numbers_alone() -> None:
    before = instances(3)
    after = before.with_ids(np.array([9, 65535, 2], np.uint16))
    assert after.ids.tolist() == [9, 65535, 2]
    assert before.ids.tolist() == [1, 2, 3]
    for name in ("rows", "boxes_camera", "scores", "labels", "groups"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_numbered_needs_a_number_for_each() -> None:
    with pytest.raises(ValueError, match=r"ids: expected shape \(3,\), got \(2,\)"):
        instances(3).with_ids(np.array([1, 2], np.uint16))


def test_records_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        instances(1).ids = np.array([2], np.uint16)  # type: ignore[misc]
