"""The tracker: numbers that stay, that differ, and that end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.core.classes import NO_GROUP
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.instances import Instances
from seg_perception.offboard.evaluation.tracking import TrackedFrame, tracking_scores
from seg_perception.offboard.streetworld.world import StreetWorld, WorldOptions
from seg_perception.onboard.pipeline.track import HIGHEST_ID, Tracker, TrackerOptions, TrackIds

Box = Sequence[float]
START = 1_700_000_000_000_000_000
PERIOD = 100_000_000
VEHICLE, PEDESTRIAN = 1, 0


def instances(
    *boxes: Box, groups: Sequence[int] | None = None, labels: Sequence[int] | None = None, scores: float = 0.9
) -> Instances:
    count = len(boxes)
    return Instances(
        np.arange(count, dtype=np.int32),
        np.zeros(count, np.uint16),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, scores, np.float32),
        np.array(labels if labels is not None else [0] * count, np.int32),
        np.array(groups if groups is not None else [VEHICLE] * count, np.int32),
    )


def box(x: float, y: float = 100.0, width: float = 40.0, height: float = 30.0) -> Box:
    return (x, y, x + width, y + height)


class Drive:
    """Frames at 10 Hz, or at other times, through one tracker."""

    def __init__(self, options: TrackerOptions | None = None) -> None:
        self.tracker = Tracker(options)
        self.stamp = START

    def see(self, *boxes: Box, seconds: float = 0.1, **more: Sequence[int]) -> list[int]:
        numbers: list[int] = self.tracker.update(instances(*boxes, **more), self.stamp).tolist()
        self.stamp += round(seconds * 1e9)
        return numbers


def test_a_moving_object_keeps_its_number_and_every_object_has_one() -> None:
    drive = Drive()
    seen = [drive.see(box(10 + 8 * step), box(500, 200)) for step in range(20)]
    assert seen == [[1, 2]] * 20


def test_the_order_of_instances_does_not_matter() -> None:
    drive = Drive()
    assert drive.see(box(10), box(300)) == [1, 2]
    assert drive.see(box(302), box(12), box(600)) == [2, 1, 3]


def test_a_number_survives_a_gap_and_a_longer_one_ends_it() -> None:
    for gap, same in ((1.4, True), (1.6, False)):
        drive = Drive(TrackerOptions(max_age=1.5))
        for step in range(5):
            drive.see(box(100 + 2 * step))
        # The gap may be frames in which nothing was found, or frames that never came.
        last = drive.stamp - PERIOD
        for stamp in range(drive.stamp, last + round(gap * 1e9), PERIOD):
            drive.tracker.update(instances(), stamp)
        drive.stamp = last + round(gap * 1e9)
        assert (drive.see(box(108 + 20 * gap)) == [1]) is same
        drive = Drive(TrackerOptions(max_age=1.5))
        for _ in range(5):
            drive.see(box(100))
        drive.stamp += round((gap - 0.1) * 1e9)
        assert (drive.see(box(100)) == [1]) is same


def test_empty_frames_age_tracks() -> None:
    drive = Drive()
    drive.see(box(100))
    for _ in range(21):
        drive.see()
    assert len(drive.tracker) == 0


def test_what_moves_is_found_where_it_moved_behind_something() -> None:
    """Its last box is far from where it comes out, and something else stands there."""
    drive = Drive()
    for step in range(10):
        drive.see(box(100 + 10 * step))
    for _ in range(5):
        drive.see()
    assert drive.see(box(250), box(190)) == [1, 2]


def test_two_that_cross_keep_their_numbers() -> None:
    drive = Drive()
    for step in range(21):
        left, right = box(100 + 10 * step), box(300 - 10 * step, 104)
        assert drive.see(left, right) == [1, 2]


def test_frames_may_come_at_any_pace() -> None:
    drive = Drive()
    paces = [0.1, 0.1, 0.1, 0.1, 0.3, 0.05, 0.2, 0.4, 0.1, 0.033]
    now = 0.0
    for pace in paces:
        # Twice its width in a second, so that 0.4 s without a frame is near a whole width.
        assert drive.see(box(100 + 80 * now), seconds=pace) == [1]
        now += pace


def test_the_same_stamp_twice() -> None:
    drive = Drive()
    assert drive.see(box(100), seconds=0) == [1]
    assert drive.see(box(100), seconds=0) == [1]


def test_stamps_that_jump_back_end_tracks_and_their_numbers() -> None:
    drive = Drive()
    drive.see(box(100), box(200))
    drive.stamp -= 10 * PERIOD
    assert drive.see(box(100), box(200)) == [3, 4]
    assert drive.see(box(100), box(200)) == [3, 4]


def test_a_clock_that_is_corrected_ends_no_track() -> None:
    drive = Drive()
    for step in range(10):
        assert drive.see(box(100 + 6 * step)) == [1]
        if step == 5:
            drive.stamp -= 4 * PERIOD
    # Nor do stamps that are a little out of order.
    for step in range(10, 20):
        assert drive.see(box(100 + 6 * step), seconds=0.22 if step % 2 else -0.02) == [1]
    # From then on it ages as before.
    drive.stamp += 21 * PERIOD
    assert drive.see(box(220)) == [2]


def test_a_jump_ahead_ends_tracks() -> None:
    drive = Drive()
    drive.see(box(100))
    drive.stamp += 10**18
    assert drive.see(box(100)) == [2]


def test_reset() -> None:
    drive = Drive()
    drive.see(box(100))
    drive.tracker.reset()
    assert len(drive.tracker) == 0
    assert drive.see(box(100)) == [2]


def test_the_class_may_change_within_its_group_only() -> None:
    drive = Drive()
    assert drive.see(box(100), labels=[2]) == [1]
    assert drive.see(box(100), labels=[7]) == [1]
    assert drive.see(box(100), labels=[0], groups=[PEDESTRIAN]) == [2]
    # Classes of no group have nothing in common.
    assert drive.see(box(100), labels=[15], groups=[NO_GROUP]) == [3]
    assert drive.see(box(100), labels=[16], groups=[NO_GROUP]) == [4]


def test_a_camera_that_nods_changes_no_number() -> None:
    signs = [box(60 * place, 40 + 5 * place, 9, 12) for place in range(8)]
    drive = Drive()
    for step in range(30):
        nod = 14 if step % 10 == 5 else 0
        assert drive.see(*((x1, y1 + nod, x2, y2 + nod) for x1, y1, x2, y2 in signs)) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_low_confidence_instances_continue_tracks_and_begin_none() -> None:
    tracker = Tracker()
    low_confidence = np.ones(2, bool)
    both = instances(box(102), box(400), scores=0.1)
    # Each is seen in the frame after the one before.
    steps = iter(range(START, START + 100 * PERIOD, PERIOD))
    tracker.update(instances(box(100)), next(steps))
    # What was seen once may have been a ghost.
    assert tracker.update(both, next(steps), low_confidence).tolist() == [0, 0]
    for _ in range(2):
        tracker.update(instances(box(101)), next(steps))
    assert tracker.update(both, next(steps), low_confidence).tolist() == [1, 0]
    # Not what has been out of view.
    tracker.update(instances(), next(steps))
    assert tracker.update(both, next(steps), low_confidence).tolist() == [0, 0]
    # A strong one goes before.
    assert tracker.update(instances(box(104), box(105)), next(steps), np.array([True, False])).tolist() == [0, 1]


def test_filling_in_is_off_by_default_and_goes_on_where_things_went() -> None:
    for coast, expected in ((0.0, 0), (0.3, 1)):
        drive = Drive(TrackerOptions(coast=coast))
        for step in range(12):
            drive.see(box(100 + 10 * step), box(20 - 10 * step))
        assert len(drive.tracker.coasted(640, 384)) == 0
        drive.see()
        found = drive.tracker.coasted(640, 384)
        # What has left the image is not filled in.
        assert len(found) == expected
        if expected:
            assert found.ids.tolist() == [1]
            assert found.rows.tolist() == [-1]
            np.testing.assert_allclose(found.boxes_camera, [box(220)], atol=8)
            drive.see()
            drive.see()
            drive.see()
            assert len(drive.tracker.coasted(640, 384)) == 0


def test_three_hundred_instances() -> None:
    places = [(x, y) for x in range(0, 1200, 60) for y in range(0, 600, 40)]
    drive = Drive()
    for step in range(10):
        numbers = drive.see(*(box(x + 3 * step, y + 2 * step) for x, y in places))
        assert numbers == list(range(1, 301))


def test_tracks_out_of_view_are_not_kept_without_bound() -> None:
    drive = Drive(TrackerOptions(max_age=60))
    numbers: set[int] = set()
    for step in range(30):
        # Another kind of thing each time.
        new = drive.see(*(box(50 * place) for place in range(100)), groups=[NO_GROUP] * 100, labels=[step] * 100)
        assert not numbers & set(new)
        numbers |= set(new)
    assert 1000 <= len(drive.tracker) <= 1100


def test_numbers_come_round_and_pass_those_in_use() -> None:
    numbers = TrackIds()
    used = np.array([1, 2, 4, HIGHEST_ID], np.uint16)
    assert numbers.take(HIGHEST_ID - 10, np.zeros(0, np.uint16))[-1] == HIGHEST_ID - 10
    last = numbers.take(12, used).tolist()
    assert last == [*range(HIGHEST_ID - 9, HIGHEST_ID), 3, 5, 6]
    assert numbers.take(0, used).size == 0
    assert numbers.take(1, used).tolist() == [7]


def test_all_numbers_in_use() -> None:
    numbers = TrackIds()
    everything = np.arange(1, HIGHEST_ID + 1).astype(np.uint16)
    assert sorted(numbers.take(HIGHEST_ID, np.zeros(0, np.uint16))) == everything.tolist()
    assert numbers.take(1, everything[:-1]).tolist() == [HIGHEST_ID]
    with pytest.raises(ValueError, match="at most 0"):
        numbers.take(1, everything)


def test_a_long_life_with_the_numbers_coming_round() -> None:
    """One object stays while 70 000 others come and go."""
    drive = Drive(TrackerOptions(max_age=0.05))
    others = [box(60 * place, 300 + 40 * row) for place in range(20) for row in range(20)]
    for step in range(175):
        labels = [0, *[step] * len(others)]
        groups = [VEHICLE, *[NO_GROUP] * len(others)]
        numbers = drive.see(box(100), *others, groups=groups, labels=labels, seconds=0.04)
        assert numbers[0] == 1
        assert 0 not in numbers
        assert len(set(numbers)) == len(numbers)


BOXES = st.tuples(
    st.floats(-50, 700, width=32), st.floats(-50, 400, width=32), st.floats(0, 300, width=32),
    st.floats(0, 300, width=32),
).map(lambda each: box(*each))  # fmt: skip
INSTANCE = st.tuples(BOXES, st.sampled_from([NO_GROUP, 0, 1, 2]), st.integers(0, 3), st.booleans())
FRAMES = st.lists(st.tuples(st.integers(-300, 3000), st.lists(INSTANCE, max_size=12)), max_size=12)


@given(FRAMES)
def test_whatever_comes_numbers_are_unique_and_the_same_again(
    frames: list[tuple[int, list[tuple[Box, int, int, bool]]]],
) -> None:
    first, second = Tracker(), Tracker()
    stamp = START
    for milliseconds, found in frames:
        stamp += milliseconds * 1_000_000
        seen = instances(
            *(each[0] for each in found), groups=[each[1] for each in found], labels=[each[2] for each in found]
        )
        low_confidence = np.array([each[3] for each in found], bool)
        numbers = first.update(seen, stamp, low_confidence)
        assert numbers.dtype == np.uint16
        given_out = numbers[numbers > 0]
        assert len(set(given_out.tolist())) == len(given_out)
        assert (numbers[~low_confidence] > 0).all()
        np.testing.assert_array_equal(numbers, second.update(seen, stamp, low_confidence))


def test_a_drive_through_the_street_world() -> None:
    tracker = Tracker()
    frames = []
    for shot in StreetWorld(WorldOptions(25, seed=3, width=400, height=240, scene_frames=0)).shots():
        truth = shot.truth.instances
        numbers = np.array([each.number for each in truth], np.int64)
        boxes, groups = [each.box for each in truth], shot.truth.groups()
        seen = instances(*boxes, groups=groups.tolist(), labels=[each.label for each in truth])
        found = tracker.update(seen, shot.frame.stamp_ns).astype(np.int64)
        frames.append(TrackedFrame(numbers, found, groups, groups, np.eye(len(truth))))
    scores = tracking_scores([frames])
    assert scores["all"].true_tracks > 15
    assert min(each.idf1 for each in scores.values() if each.true) > 0.9


@pytest.mark.parametrize(
    ("wrong", "names"),
    [({"max_age": 0}, "max_age"), ({"max_age": float("nan")}, "max_age"), ({"max_age": 61}, "max_age"),
     ({"weak_share": 0}, "weak_share"), ({"weak_share": 1.1}, "weak_share"), ({"coast": 3}, "coast"),
     ({"coast": -0.1}, "coast")],
)  # fmt: skip
def test_impossible_options_are_refused(wrong: dict[str, float], names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        TrackerOptions(**wrong)
