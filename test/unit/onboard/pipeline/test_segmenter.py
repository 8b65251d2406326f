"""Tracking, through the whole pipeline: on the host, and between the two halves of a GPU's work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from colour_model import FAULT_COLOUR, NAMES, paint_scene, save_canonical_colour_model
from host_device import host_backend

from seg_perception.core.classes import ClassTable
from seg_perception.core.errors import ModelOutputError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Segmentation
from seg_perception.onboard.backend.registry import open_backend
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.segmenter import Segmenter
from seg_perception.onboard.pipeline.track import TrackerOptions

GROUPS = ("pedestrian", "vehicle", "traffic_sign", "traffic_light")
TABLE = ClassTable("colours", NAMES, dict(zip(NAMES, GROUPS, strict=True)))
PERIOD_NS = 100_000_000
Box = tuple[int, int, int, int, int]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return save_canonical_colour_model(folder / "colours.onnx", batch=None, fault="predictions")


@pytest.fixture(params=["host", "accelerator"])
def segmenter(request: pytest.FixtureRequest, model: Path) -> Iterator[Segmenter]:
    backend = open_backend(model) if request.param == "host" else host_backend(model, largest_batch=2)
    options = SegmenterOptions(tracking=TrackerOptions(max_age=1.0))
    opened = Segmenter(backend, TABLE, options)
    yield opened
    opened.close()


def image(index: int, boxes: list[Box], camera: str = "") -> Frame:
    rgb = paint_scene(320, 192, boxes).image
    return Frame.from_bgr(np.ascontiguousarray(rgb[..., ::-1]), stamp_ns=index * PERIOD_NS, camera=camera)


def two_cars(index: int, swapped: bool = False) -> list[Box]:
    """One drives to the right, the other stands below; the larger one scores no better than the smaller."""
    boxes: list[Box] = [(16 + 8 * index, 16, 80 + 8 * index, 64, 1), (200, 112, 280, 176, 1)]
    return boxes[::-1] if swapped else boxes


def number_of(result: Segmentation, x: int, y: int) -> int:
    return int(result.instance_map.pixels[y, x])


def test_a_number_stays_with_its_object_and_is_its_pixel_value(segmenter: Segmenter) -> None:
    seen = []
    for index in range(12):
        (result,) = segmenter.segment([image(index, two_cars(index, swapped=index % 2 == 1))])
        seen.append((number_of(result, 48 + 8 * index, 40), number_of(result, 240, 144)))
        assert sorted(result.instances.ids) == sorted(seen[-1])
    assert len(set(seen)) == 1
    assert 0 < seen[0][0] != seen[0][1] > 0


def test_an_object_that_was_away_comes_back_under_its_number(segmenter: Segmenter) -> None:
    first = number_of(segmenter.segment([image(0, two_cars(0))])[0], 240, 144)
    for index in range(1, 5):
        (result,) = segmenter.segment([image(index, two_cars(index)[:1])])
        assert len(result.instances) == 1
    assert number_of(segmenter.segment([image(5, two_cars(5))])[0], 240, 144) == first
    segmenter.segment([image(6, [])])
    # Away for longer than max_age.
    assert number_of(segmenter.segment([image(30, two_cars(0))])[0], 240, 144) not in (0, first)


def test_cameras_have_tracks_of_their_own(segmenter: Segmenter) -> None:
    (left,) = segmenter.segment([image(0, two_cars(0), "left")])
    (right,) = segmenter.segment([image(0, two_cars(0)[1:], "right")])
    assert right.instances.ids.tolist() == [1]
    for index in range(1, 4):
        (again,) = segmenter.segment([image(index, two_cars(index), "left")])
        segmenter.segment([image(index, [], "right")])
        assert sorted(again.instances.ids) == sorted(left.instances.ids)


def test_small_instances_are_not_published_and_do_not_take_numbers_from_others(segmenter: Segmenter) -> None:
    boxes = [*two_cars(0), (160, 16, 176, 32, 0)]
    segmenter.options = SegmenterOptions(min_pixels=400, tracking=TrackerOptions())
    (result,) = segmenter.segment([image(0, boxes)])
    assert result.instances.labels.tolist() == [1, 1]
    assert set(np.unique(result.instance_map.pixels)) == {0, *result.instances.ids.tolist()}
    assert (result.areas >= 400).all()


def test_coasted_objects_have_a_box_and_no_pixels(segmenter: Segmenter) -> None:
    segmenter.options = SegmenterOptions(tracking=TrackerOptions(coast=0.5))
    for index in range(4):
        (result,) = segmenter.segment([image(index, two_cars(index))])
    number = number_of(result, 72, 40)
    (result,) = segmenter.segment([image(4, two_cars(4)[1:])], semantic=True)
    at = result.instances.ids.tolist().index(number)
    assert result.areas[at] == 0
    assert not (result.instance_map.pixels == number).any()
    np.testing.assert_allclose(result.instances.boxes_camera[at], (48, 16, 112, 64), atol=6)


def test_a_fault_of_the_model_does_not_end_tracks(segmenter: Segmenter) -> None:
    (before,) = segmenter.segment([image(0, two_cars(0))])
    bad = image(1, two_cars(1))
    bad.data[: 3 * 8] = FAULT_COLOUR[0]
    (fault,) = segmenter.end(segmenter.begin([bad]))
    assert isinstance(fault, ModelOutputError)
    (after,) = segmenter.segment([image(2, two_cars(2))])
    assert sorted(after.instances.ids) == sorted(before.instances.ids)


def test_without_tracking_each_frame_is_numbered_anew(segmenter: Segmenter) -> None:
    segmenter.segment([image(0, two_cars(0))])
    segmenter.options = SegmenterOptions()
    (result,) = segmenter.segment([image(1, two_cars(1)[1:])])
    assert result.instances.ids.tolist() == [1]


def test_tracks_age_by_arrival_where_stamps_cannot_be_believed(segmenter: Segmenter) -> None:
    def arrived(index: int, boxes: list[Box]) -> Frame:
        return replace(image(0, boxes), arrival_ns=(100 + index) * PERIOD_NS)

    first = number_of(segmenter.segment([arrived(0, two_cars(0))])[0], 240, 144)
    assert number_of(segmenter.segment([arrived(2, two_cars(2))])[0], 240, 144) == first
    segmenter.segment([arrived(3, [])])
    assert number_of(segmenter.segment([arrived(40, two_cars(0))])[0], 240, 144) not in (0, first)
