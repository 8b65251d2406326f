"""What is kept of the detections, and under which numbers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.core.classes import NO_GROUP
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.core.instances import Detections
from seg_perception.onboard.backend.host.select import IgnoreMask, SelectOptions, ignored_share, select

# Classes: 0 person, 1 car, 2 truck, 3 stop sign, 4 traffic light, 5 dog, 6 cat.
GROUPS = np.array([0, 1, 1, 2, 3, NO_GROUP, NO_GROUP], np.int32)


def detections(*rows: tuple[float, int, tuple[float, float, float, float]]) -> Detections:
    """Rows of score, label and box in pixels of a 640 x 320 camera; network pixels are half of them."""
    geometry = ResizeGeometry.fit(ResizeSpec(), 640, 320, 320, 320)
    boxes = np.array([box for _, _, box in rows], np.float32).reshape(-1, 4)
    return Detections(
        boxes / 2 + np.array([0, geometry.top] * 2, np.float32),
        np.array([score for score, _, _ in rows], np.float32),
        np.array([label for _, label, _ in rows], np.int32),
        geometry,
    )


CAR = (100.0, 100.0, 200.0, 160.0)
NEARLY_CAR = (102.0, 100.0, 202.0, 160.0)
FAR = (400.0, 100.0, 500.0, 160.0)


def test_numbers_follow_the_score_and_boxes_are_in_camera_pixels() -> None:
    kept = select(detections((0.9, 1, CAR), (0.8, 0, FAR)), GROUPS, SelectOptions())
    assert kept.ids.tolist() == [1, 2]
    assert kept.groups.tolist() == [1, 0]
    np.testing.assert_allclose(kept.boxes_camera, [CAR, FAR], atol=1e-3)


def test_nothing_found() -> None:
    for found in (detections(), detections((0.0, 0, CAR), (0.0, 0, CAR))):
        assert len(select(found, GROUPS, SelectOptions(score_threshold=0.0))) == 0


def test_threshold_of_a_group_overrides_the_common_one_both_ways() -> None:
    found = detections((0.6, 1, CAR), (0.4, 0, FAR), (0.1, 4, (0, 0, 9, 9)))
    options = SelectOptions(score_threshold=0.3, group_thresholds=(-1, 0.7, -1, 0.05))
    assert select(found, GROUPS, options).rows.tolist() == [1, 2]


def test_a_score_on_the_threshold_is_kept() -> None:
    assert len(select(detections((0.5, 1, CAR)), GROUPS, SelectOptions(score_threshold=0.5))) == 1


def test_other_classes_only_on_request() -> None:
    found = detections((0.9, 5, CAR), (0.8, 1, FAR))
    assert select(found, GROUPS, SelectOptions()).rows.tolist() == [1]
    kept = select(found, GROUPS, SelectOptions(keep_other=True))
    assert kept.rows.tolist() == [0, 1]
    assert kept.groups.tolist() == [NO_GROUP, 1]


def test_a_car_that_is_also_a_truck_is_one_vehicle() -> None:
    found = detections((0.9, 1, CAR), (0.8, 2, NEARLY_CAR), (0.7, 2, FAR))
    kept = select(found, GROUPS, SelectOptions())
    assert kept.rows.tolist() == [0, 2]
    assert kept.ids.tolist() == [1, 2]
    assert select(found, GROUPS, SelectOptions(group_iou=1.0)).rows.tolist() == [0, 1, 2]


def test_suppression_across_classes_leaves_one_class_and_other_groups_alone() -> None:
    same_class = detections((0.9, 1, CAR), (0.8, 1, NEARLY_CAR))
    other_group = detections((0.9, 1, CAR), (0.8, 0, NEARLY_CAR))
    no_group = detections((0.9, 5, CAR), (0.8, 6, NEARLY_CAR))
    for found in (same_class, other_group, no_group):
        assert len(select(found, GROUPS, SelectOptions(keep_other=True))) == 2


def test_suppressed_instances_suppress_nothing() -> None:
    chain = detections((0.9, 1, (0, 0, 100, 50)), (0.8, 2, (10, 0, 110, 50)), (0.7, 1, (20, 0, 120, 50)))
    assert select(chain, GROUPS, SelectOptions(group_iou=0.75)).rows.tolist() == [0, 2]


def test_ignore_region(tmp_path: Path) -> None:
    image = np.zeros((160, 320), np.uint8)
    image[100:] = 255
    cv2.imwrite(str(tmp_path / "hood.png"), image)
    hood = IgnoreMask.load(tmp_path / "hood.png")
    found = detections((0.9, 1, (10, 210, 60, 310)), (0.8, 1, (10, 120, 60, 220)), (0.7, 0, (90, 150, 120, 240)))
    assert select(found, GROUPS, SelectOptions(), hood).rows.tolist() == [1, 2]
    assert len(select(found, GROUPS, SelectOptions())) == 3


def test_ignore_region_at_the_image_border() -> None:
    everything = IgnoreMask(np.ones((4, 4), bool))
    assert len(select(detections((0.9, 1, (600, 300, 640, 320))), GROUPS, SelectOptions(), everything)) == 0


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), columns=st.integers(1, 3000), rows=st.integers(1, 3000))
def test_any_mask_size_fits_any_camera(width: int, height: int, columns: int, rows: int) -> None:
    boxes = np.array([[0, 0, width, height], [width / 2, height / 2, width, height]], np.float32)
    share = ignored_share(IgnoreMask(np.ones((rows, columns), bool)).sums, boxes, width, height)
    np.testing.assert_allclose(share, 1.0)
    assert not ignored_share(IgnoreMask(np.zeros((rows, columns), bool)).sums, boxes, width, height).any()


def test_unreadable_ignore_mask(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ignore mask: expected an image"):
        IgnoreMask.load(tmp_path / "absent.png")


@pytest.mark.parametrize(
    "bad",
    [
        {"score_threshold": 1.5},
        {"group_iou": -0.1},
        {"group_thresholds": (0.1,)},
        {"group_thresholds": (2, 0, 0, 0)},
        {"score_threshold": float("nan")},
    ],
)
def test_impossible_options(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        SelectOptions(**bad)  # type: ignore[arg-type]
