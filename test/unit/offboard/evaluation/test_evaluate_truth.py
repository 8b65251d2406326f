"""The truth of a frame, and what a model would publish held against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg_perception.core.boxes import most_covered
from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS
from seg_perception.core.errors import SourceError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import InstanceMap, Instances, Segmentation
from seg_perception.offboard.data.base import FrameSource
from seg_perception.offboard.evaluation.coco import CocoSet, LabelledImage
from seg_perception.offboard.evaluation.datasets.labelled import NO_STUFF, LabelledSet, StuffMap
from seg_perception.offboard.evaluation.scheme import Scheme
from seg_perception.offboard.evaluation.segments import Published, TrueSegments
from seg_perception.offboard.evaluation.truth import FrameTruth, Truths, near_objects
from seg_perception.offboard.metrics.masks import encode_rle

SIZE = (40, 60)
PERSON, CAR, LIGHT, DOG = range(4)
NAMES = ("person", "car", "traffic light", "dog")


class Nothing(FrameSource):
    def __iter__(self):
        return iter(())

    def __len__(self) -> int:
        return 0


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def labelled(objects: list[tuple[int, np.ndarray, dict[str, Any]]], stuff: StuffMap | None = None) -> LabelledSet:
    """A set of one image: category index, mask, and further fields."""
    annotations = []
    for number, (category, mask, more) in enumerate(objects, 1):
        rows, columns = np.nonzero(mask)
        box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
        annotations.append({
            "id": number, "image_id": 1, "category_id": category + 1, "bbox": box, "area": int(mask.sum()),
            "iscrowd": 0, "segmentation": encode_rle(mask), **more,
        })  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "one.png", "width": SIZE[1], "height": SIZE[0]}],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)],
    }
    images = (LabelledImage(1, Path("one.png"), SIZE[1], SIZE[0]),)
    names = ("road", "sky") if stuff is not None else ()
    read = None if stuff is None else lambda _: stuff
    return LabelledSet("COCO", CocoSet(Path("set.json"), content, images), Nothing(), (), None, names, read)


def published(
    truth: FrameTruth, scheme: Scheme, found: list[tuple[int, np.ndarray]], class_map: np.ndarray | None = None
) -> Published:
    """What a model with the classes `NAMES`, road and sky publishes; later instances lie in front."""
    pixels = np.zeros(SIZE, np.uint16)
    for number, (_, mask) in enumerate(found, 1):
        pixels[mask] = 10 * number
    labels = np.array([label for label, _ in found], np.int32)
    groups = np.array([0, 1, 3, NO_GROUP, NO_GROUP, NO_GROUP], np.int32)
    count = len(found)
    instances = Instances(
        np.arange(count, dtype=np.int32), np.arange(10, 10 * count + 1, 10, dtype=np.uint16),
        np.zeros((count, 4), np.float32), np.linspace(0.9, 0.5, count).astype(np.float32), labels, groups[labels],
    )  # fmt: skip
    areas = np.array([np.count_nonzero(pixels == number) for number in instances.ids], np.int64)
    frame = Frame.from_bgr(np.zeros((*SIZE, 3), np.uint8))
    result = Segmentation(frame, instances, InstanceMap(pixels, areas), areas, {})
    true = TrueSegments.of(truth, scheme)
    names = [*NAMES, "road", "sky"]
    by_name = {name: place for place, name in enumerate(scheme.segment_names)}
    classes = np.array([by_name.get(name, -1) for name in names]) if scheme.by_categories else groups.astype(np.int64)
    return Published.of(result, class_map, true, scheme, classes, groups)


def by_categories(data: LabelledSet) -> tuple[FrameTruth, Scheme]:
    """Truth and scheme of models that know all categories."""
    truths = Truths(data)
    return truths.of(1, stuff=True), Scheme.of(data, truths, [])


def by_groups(data: LabelledSet) -> tuple[FrameTruth, Scheme]:
    """Truth and scheme of models that do not."""
    truths = Truths(data)
    groups = frozenset(truths.groups.values()) - {NO_GROUP}
    scheme = Scheme(False, data.labels, ROAD_GROUPS, len(ROAD_GROUPS), truths.groups, data, groups)
    return truths.of(1), scheme


def test_what_a_set_does_not_say_is_told_by_boxes():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [100, 0, 110, 10], [0, 0, 60, 60]], float)
    assert most_covered(boxes).tolist() == [1.0, 1.0, 0.0, pytest.approx(100 / 3600)]
    # The large one is no crowd to the small ones it stands around.
    assert near_objects(boxes).tolist() == [1, 1, 0, 0]
    truth, _ = by_categories(labelled([
        (CAR, rectangle(0, 0, 10, 20), {"occlusion": 0.25, "distance": 12.5, "track_id": 7}),
        (CAR, rectangle(0, 10, 10, 30), {}),
    ]))  # fmt: skip
    assert truth.visible.tolist() == [0.75, 0.5]
    assert truth.distances[0] == 12.5
    assert np.isnan(truth.distances[1])
    assert truth.numbers.tolist() == [7, 0]


def test_a_segmentation_that_is_none_is_named():
    data = labelled([(CAR, rectangle(0, 0, 10, 20), {"segmentation": {"size": [1, 1], "counts": "0"}})])
    with pytest.raises(SourceError, match=r"set.json: annotation 1 of image 1: expected run lengths"):
        Truths(data).of(1)


def test_of_masks_that_overlap_the_smaller_one_is_in_front():
    truth, _ = by_categories(labelled([(CAR, rectangle(0, 0, 20, 20), {}), (PERSON, rectangle(5, 5, 10, 10), {})]))
    segments = truth.segments()
    assert segments[7, 7] == 2
    assert segments[2, 2] == 1
    assert segments[30, 30] == 0


def test_a_perfect_answer_has_no_fault():
    car, person = rectangle(0, 0, 20, 20), rectangle(0, 30, 20, 40)
    truth, scheme = by_categories(labelled([(CAR, car, {}), (PERSON, person, {}), (DOG, rectangle(30, 0, 38, 9), {})]))
    found = published(truth, scheme, [(PERSON, person), (CAR, car), (DOG, rectangle(30, 0, 38, 9))])
    verdict = found.verdict(truth)
    assert (verdict.score, len(verdict.missed), len(verdict.extra)) == (1.0, 0, 0)
    # Road users, signs and lights are judged; rows of either side refer to those.
    assert sorted(verdict.found.tolist()) == [[0, 1], [1, 0]]
    assert found.counts.matched.tolist() == [1, 1, 0, 1]
    assert found.instances().labels.tolist() == [0, 1]
    assert found.instances().masks[1].area == 400


def test_faults_are_told_in_words():
    car = rectangle(0, 0, 20, 20)
    truth, scheme = by_categories(labelled([(CAR, car, {}), (PERSON, rectangle(0, 30, 20, 40), {})]))
    found = published(truth, scheme, [(CAR, rectangle(0, 0, 20, 16)), (LIGHT, rectangle(30, 30, 36, 36))])
    verdict = found.verdict(truth)
    assert verdict.found.tolist() == [[0, 0]]
    assert verdict.missed.tolist() == [1]
    assert verdict.extra.tolist() == [1]
    assert verdict.score == pytest.approx(0.8 / 2)
    assert verdict.words == "missed 1 pedestrian; false alarm: 1 traffic_light; 1 found with a mean IoU of 0.80"


def test_a_class_of_the_same_group_is_right_by_groups_alone():
    """A dog is of no group, so nobody is to find it; a person called traffic light is not found."""
    person = rectangle(0, 30, 20, 40)
    data = labelled([(PERSON, person, {}), (DOG, rectangle(30, 0, 38, 9), {})])
    truth, scheme = by_groups(data)
    found = published(truth, scheme, [(LIGHT, person), (DOG, rectangle(30, 0, 38, 9))])
    assert found.counts.matched.tolist() == [0, 0, 0, 0]
    assert found.counts.missed.tolist() == [1, 0, 0, 0]
    assert found.counts.extra.tolist() == [0, 0, 0, 1]
    assert published(truth, scheme, [(PERSON, person)]).counts.matched.tolist() == [1, 0, 0, 0]


def test_nothing_is_judged_in_void_and_crowds():
    crowd, void = rectangle(0, 0, 20, 20), rectangle(0, 40, 40, 60)
    data = labelled([
        (CAR, crowd, {"iscrowd": 1}), (CAR, void, {"iscrowd": 1, "void": True}), (CAR, rectangle(25, 0, 35, 10), {}),
    ])  # fmt: skip
    for truth, scheme in (by_categories(data), by_groups(data)):
        found = published(truth, scheme, [
            (CAR, rectangle(0, 0, 10, 10)), (PERSON, rectangle(0, 42, 10, 52)), (PERSON, rectangle(10, 10, 18, 18)),
        ])  # fmt: skip
        verdict = found.verdict(truth)
        # A person on a crowd of cars is a false alarm; the car on it and the person in the void are none.
        assert verdict.extra.tolist() == [2]
        assert verdict.missed.tolist() == [0]
        assert found.counts.extra.sum() == 1
        assert found.tracked(truth).reported.tolist() == [30]


def test_tracks_keep_their_numbers():
    car = rectangle(0, 0, 20, 20)
    truth, scheme = by_categories(labelled([(CAR, car, {"track_id": 70000}), (DOG, rectangle(30, 0, 38, 9), {})]))
    tracked = published(truth, scheme, [(DOG, rectangle(30, 0, 38, 9)), (CAR, car)]).tracked(truth)
    assert tracked.true.tolist() == [70000]
    assert tracked.reported.tolist() == [20]
    assert tracked.similarity.tolist() == [[1.0]]


def test_stuff_is_segments_too():
    """Road below, sky above; a car on the road; an unknown strip at the right."""
    labels = np.zeros(SIZE, np.uint8)
    labels[:20] = 1
    labels[:, 50:] = NO_STUFF
    void = rectangle(0, 50, 40, 60)
    car = rectangle(25, 5, 35, 25)
    truth, scheme = by_categories(labelled([(CAR, car, {})], StuffMap(labels, void)))
    assert scheme.segment_names == (*NAMES, "road", "sky")
    class_map = np.full(SIZE, 4, np.uint8)
    class_map[:20] = 5
    found = published(truth, scheme, [(CAR, car)], class_map)
    assert found.counts.iou.tolist() == [0.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    class_map[:20] = 4
    found = published(truth, scheme, [(CAR, car)], class_map)
    assert found.counts.missed.tolist() == [0, 0, 0, 0, 1, 1]
    assert found.counts.extra.tolist() == [0, 0, 0, 0, 1, 0]
    # A model without a class map has no stuff at all.
    assert published(truth, scheme, [(CAR, car)]).counts.missed.tolist() == [0, 0, 0, 0, 1, 1]
