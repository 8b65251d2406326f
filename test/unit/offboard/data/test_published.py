"""What was published, held against the truth: full marks for the truth itself, and each kind of mistake is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.core.errors import SourceError
from seg_perception.offboard.data.bags.source import BagImages
from seg_perception.offboard.data.published import PublishedFrame, read_published
from seg_perception.offboard.evaluation.published import PublishedComparison, compare_published
from seg_perception.offboard.metrics.agreement import AgreementRule
from seg_perception.offboard.streetworld.bag import DETECTIONS, IMAGE, INSTANCE_MAP, write_bag
from seg_perception.offboard.streetworld.world import StreetWorld, WorldFrame, WorldOptions

WORLD = StreetWorld(WorldOptions(6, 8900, 320, 192, 5.0, scene_frames=3))
RULE = AgreementRule(margin=0.0, min_pixels=100)
Change = Callable[[PublishedFrame], PublishedFrame]


@pytest.fixture(scope="module")
def shots() -> list[WorldFrame]:
    return list(WORLD.shots())


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory, shots: list[WorldFrame]) -> Path:
    folder = tmp_path_factory.mktemp("bag") / "drive"
    write_bag(folder, WORLD.camera, shots)
    return folder


@pytest.fixture(scope="module")
def truth(bag: Path) -> list[PublishedFrame]:
    return list(read_published(bag, INSTANCE_MAP, DETECTIONS))


def test_a_bag_says_what_is_in_the_world(truth: list[PublishedFrame], shots: list[WorldFrame]):
    assert len(truth) == len(shots)
    for read, shot in zip(truth, shots, strict=True):
        assert read.stamp_ns == shot.frame.stamp_ns
        np.testing.assert_array_equal(read.pixels, shot.truth.instance_map)
        assert read.numbers.tolist() == [each.number for each in shot.truth.instances]
        assert [ROAD_GROUPS[group] for group in read.groups] == [each.group for each in shot.truth.instances]
        np.testing.assert_allclose(read.boxes_camera, [each.box for each in shot.truth.instances], atol=1e-3)
        assert (read.scores == 1).all()


def test_the_camera_alone_can_be_read(bag: Path):
    frames = [frame for _, frame in BagImages(bag, topics=[IMAGE])]
    assert [frame.encoding for frame in frames] == ["bgr8"] * 6
    with pytest.raises(SourceError, match=r"topic /nothing: expected one of sensor_msgs/msg/Image"):
        BagImages(bag, topics=["/nothing"])


def test_a_topic_that_is_missing_is_named(bag: Path):
    with pytest.raises(SourceError, match=r"expected the topics /nothing and .*, got .*/ground_truth/instance_map"):
        list(read_published(bag, "/nothing", DETECTIONS))


def test_the_truth_has_full_marks(truth: list[PublishedFrame]):
    seen = compare_published(truth, truth[::-1], RULE)
    assert seen.frames == len(truth)
    assert [each.name for each in seen.precision] == ["all", "16 x 16 or more"]
    for precision in seen.precision:
        found = [value for value in precision.overall.values() if not np.isnan(value)]
        assert len(found) >= 2
        assert found == pytest.approx([1.0] * len(found))
    assert seen.agreement.matched == seen.agreement.reference > 10
    assert seen.agreement.mean_iou == 1
    assert seen.agreement.fault_share == 0
    assert seen.ids.pixels == seen.ids.known_pixels > 0
    assert seen.ids.detections == seen.ids.shown == sum(len(frame.numbers) for frame in truth)
    assert seen.ids.kept == seen.ids.seen_again > 10
    assert seen.ids.box_iou > 0.95  # the truth's boxes are those of the finer image it is sampled from
    assert seen.alignment.fits
    assert seen.alignment.frames[0] == seen.alignment.right[0] == seen.alignment.down[0] == 1


def test_frames_without_a_result_are_left_out(truth: list[PublishedFrame]):
    other = replace(truth[0], stamp_ns=5)
    assert compare_published(truth, [truth[1], other, truth[4]], RULE).frames == 2
    with pytest.raises(ValueError, match="with a stamp of the truth, got none"):
        compare_published(truth, [other], RULE)


def test_nothing_found(truth: list[PublishedFrame]):
    empty = [
        PublishedFrame(frame.stamp_ns, np.zeros_like(frame.pixels), np.empty(0, np.int64), np.empty(0, np.int32),
                       np.empty(0, np.float32), np.empty((0, 4), np.float32))
        for frame in truth
    ]  # fmt: skip
    seen = compare_published(truth, empty, RULE)
    assert seen.precision[0].at_50["vehicle"] == 0
    assert seen.agreement.missed == seen.agreement.reference > 10
    assert (seen.ids.pixels, seen.ids.detections, seen.ids.seen_again) == (0, 0, 0)


def moved(frame: PublishedFrame) -> PublishedFrame:
    return replace(frame, pixels=np.roll(frame.pixels, 2, axis=1))


def lowered(frame: PublishedFrame) -> PublishedFrame:
    return replace(frame, pixels=np.roll(frame.pixels, 2, axis=0))


def permuted(frame: PublishedFrame) -> PublishedFrame:
    return replace(frame, numbers=np.roll(frame.numbers, 1))


def renumbered_by_frame(frame: PublishedFrame) -> PublishedFrame:
    """Consistent within a frame, but not from one to the next."""
    turn = 1000 * (1 + frame.stamp_ns // 200_000_000 % 2)
    return replace(
        frame, numbers=frame.numbers + turn, pixels=np.where(frame.pixels, frame.pixels + turn, 0).astype(np.uint16)
    )


def unknown_number(frame: PublishedFrame) -> PublishedFrame:
    return replace(frame, pixels=np.where(frame.pixels == frame.numbers[0], 65535, frame.pixels).astype(np.uint16))


def other_group(frame: PublishedFrame) -> PublishedFrame:
    return replace(frame, groups=(frame.groups + 1) % len(ROAD_GROUPS))


@pytest.mark.parametrize(("change", "sees"), [
    (moved, lambda seen: seen.alignment.right[-2] == 1 > seen.alignment.right[0] and not seen.alignment.fits),
    (lowered, lambda seen: seen.alignment.down[-2] == 1 > seen.alignment.down[0] and not seen.alignment.fits),
    (permuted, lambda seen: seen.ids.box_iou < 0.3 and seen.agreement.fault_share > 0.1),
    (renumbered_by_frame, lambda seen: seen.ids.seen_again > 10 and seen.ids.kept == 0),
    (unknown_number, lambda seen: seen.ids.known_pixels < seen.ids.pixels and seen.ids.shown < seen.ids.detections),
    (other_group, lambda seen: seen.agreement.switched == seen.agreement.reference > 10),
])  # fmt: skip
def test_each_kind_of_mistake_is_seen(
    truth: list[PublishedFrame], change: Change, sees: Callable[[PublishedComparison], bool]
):
    assert sees(compare_published(truth, [change(frame) for frame in truth], RULE))


def test_stamps_that_are_one_frame_off_are_seen(truth: list[PublishedFrame]):
    drive = truth[:3]  # after which another begins elsewhere
    late = [replace(frame, stamp_ns=next_one.stamp_ns) for frame, next_one in pairwise(drive)]
    alignment = compare_published(drive, late, RULE).alignment
    assert not alignment.fits
    assert alignment.frames[-1] == 1 > alignment.frames[0]
