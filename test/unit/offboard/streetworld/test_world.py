"""The street world: one seed is one world, and its truth is what the pixels show."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.streetworld.light import WEATHERS
from seg_perception.offboard.streetworld.scene import random_scene
from seg_perception.offboard.streetworld.truth import CLASS_NAMES, CLASS_TABLE
from seg_perception.offboard.streetworld.world import StreetWorld, WorldFrame, WorldOptions

OPTIONS = WorldOptions(28, seed=11, width=320, height=192, scene_frames=4)


@pytest.fixture(scope="module")
def shots() -> list[WorldFrame]:
    """Four frames in each of seven weathers."""
    return list(StreetWorld(OPTIONS).shots())


def test_the_same_seed_makes_the_same_world(shots: list[WorldFrame]):
    again = StreetWorld(OPTIONS)
    # Backwards, because what was asked for before must not matter.
    for index in (25, 13, 2):
        shot = again.render(index)
        assert np.array_equal(shot.frame.data, shots[index].frame.data)
        assert np.array_equal(shot.truth.instance_map, shots[index].truth.instance_map)
        assert shot.frame.stamp_ns == shots[index].frame.stamp_ns


def test_another_seed_makes_another_world(shots: list[WorldFrame]):
    other = StreetWorld(replace(OPTIONS, seed=12)).render(0)
    assert not np.array_equal(other.frame.data, shots[0].frame.data)
    assert not np.array_equal(other.truth.instance_map, shots[0].truth.instance_map)


def test_the_map_agrees_with_masks_boxes_and_counts(shots: list[WorldFrame]):
    for shot in shots:
        truth = shot.truth
        numbers = [each.number for each in truth.instances]
        assert sorted(set(np.unique(truth.instance_map).tolist()) - {0}) == numbers
        for instance in truth.instances:
            mask = truth.instance_map == instance.number
            assert np.array_equal(instance.visible.full(), mask)
            assert instance.visible.area == mask.sum() >= OPTIONS.min_pixels
            x1, y1, x2, y2 = (int(v) for v in instance.box)
            assert mask[y1:y2, x1:x2].sum() == mask.sum()
            assert mask[y1].any()
            assert mask[y2 - 1].any()
            assert mask[:, x1].any()
            assert mask[:, x2 - 1].any()


def test_full_masks_hold_the_visible_ones_and_say_how_much_is_hidden(shots: list[WorldFrame]):
    hidden = []
    for instance in (each for shot in shots for each in shot.truth.instances):
        full, visible = instance.full.full(), instance.visible.full()
        assert not (visible & ~full).any()
        assert instance.occlusion == pytest.approx(1 - visible.sum() / full.sum())
        x1, y1, x2, y2 = instance.full_box
        assert x1 - 1 <= instance.full.left
        assert instance.full.right <= x2 + 1
        assert y1 - 1 <= instance.full.top
        assert instance.full.bottom <= y2 + 1
        hidden.append(instance.occlusion)
    assert min(hidden) == 0
    assert max(hidden) > 0.3


def test_some_are_cut_off_by_the_image(shots: list[WorldFrame]):
    shares = [each.truncation for shot in shots for each in shot.truth.instances]
    assert min(shares) == 0
    assert max(shares) > 0.2
    assert all(0 <= share < 1 for share in shares)


def test_tracks_keep_number_class_and_place(shots: list[WorldFrame]):
    """From one frame to the next of a drive the same number is the same thing, not far away."""
    for first, second in pairwise(shots):
        before = {each.number: each for each in first.truth.instances}
        after = {each.number: each for each in second.truth.instances}
        shared = set(before) & set(after)
        if first.scene != second.scene:
            assert not shared
            continue
        assert len(shared) >= 0.5 * len(before)
        for number in shared:
            assert before[number].label == after[number].label
            assert abs(before[number].distance - after[number].distance) < 4.5


def test_every_weather_and_class_occurs(shots: list[WorldFrame]):
    assert {shot.weather for shot in shots} == set(WEATHERS)
    seen = {each.group for shot in shots for each in shot.truth.instances}
    assert seen == set(ROAD_GROUPS)
    # Seven drives need not pass a bus, but drives enough have everybody.
    drives = [random_scene(5, number, 6.0, "day", 1) for number in range(20)]
    assert {actor.class_name for drive in drives for actor in drive.actors} == {"", *CLASS_NAMES}


def test_every_object_has_a_number_of_its_own():
    drive = random_scene(5, 0, 30.0, "rain", 101)
    tracks = [actor.track for actor in drive.actors if actor.track]
    assert sorted(tracks) == list(range(101, 101 + len(tracks)))


@pytest.mark.parametrize("number", range(5))
def test_nobody_ahead_in_our_lane_is_run_over(number: int):
    drive = random_scene(9, number, 60.0, "day", 1)
    ahead = [
        actor
        for actor in drive.actors
        if actor.class_name in ("car", "truck", "bus")
        and abs(actor.start.x - drive.lane) < 0.8
        and abs(actor.start.yaw) < 0.2
        and actor.speed
    ]
    assert ahead
    for second in range(0, 60, 5):
        # Who has turned off is out of the way.
        places = [actor.at(second) for actor in ahead if second < actor.turn_at + 2]
        assert all(place.z > drive.pose(second).z + 6 for place in places)


def test_traffic_does_not_end_in_a_long_drive():
    """In each of the minutes others drive as we do, on the road, and not only those who come towards us."""
    counts = []
    for number in range(6):
        drive = random_scene(9, number, 300.0, "day", 1)
        same = [a for a in drive.actors if a.speed and a.class_name in ("car", "truck", "bus", "motorcycle")
                and a.start.x > 0 and abs(a.start.yaw) < 0.2]  # fmt: skip
        for second in range(300):
            z, places = drive.pose(second).z, [actor.at(second) for actor in same if second < actor.turn_at]
            counts.append(sum(0 < place.z - z < 70 and 0 < place.x < drive.street.half_road for place in places))
    by_minute = np.reshape(counts, (6, 5, 60)).mean((0, 2))
    assert (by_minute > 0.8).all()
    assert (by_minute < 5).all()


@pytest.mark.parametrize("number", range(4))
def test_in_a_long_drive_nobody_who_turned_in_before_us_is_run_over(number: int):
    drive = random_scene(33, number, 120.0, "day", 1)
    vehicles = [actor for actor in drive.actors if actor.class_name in ("car", "truck", "bus") and actor.speed]
    for actor in (actor for actor in vehicles if np.isfinite(actor.turn_at)):
        for second in np.arange(min(120, actor.turn_at + 2), 120, 0.5).tolist():
            place, pose = actor.at(second), drive.pose(second)
            assert abs(place.x - pose.x) > 1 or abs(place.z - pose.z) > 3


def test_instances_differ_from_what_is_around_them(shots: list[WorldFrame]):
    """Masks lie where something is painted: colours change across the outlines of masks, more than elsewhere."""
    day = [shot for shot in shots if shot.weather in ("day", "overcast")]
    edges, elsewhere = [], []
    for shot in day:
        grey = cv2.cvtColor(shot.frame.data.reshape(192, 320, 3), cv2.COLOR_BGR2GRAY).astype(float)
        step = np.abs(np.diff(grey, axis=1))
        outline = np.diff(shot.truth.instance_map.astype(int), axis=1) != 0
        edges.append(step[outline].mean())
        elsewhere.append(step[~outline].mean())
    assert np.mean(edges) > 2.5 * np.mean(elsewhere)


def test_frames_come_as_from_a_camera(shots: list[WorldFrame]):
    world = StreetWorld(OPTIONS)
    assert len(world) == len(shots) == 28
    name, frame = next(iter(world))
    assert name == shots[0].name
    assert (frame.width, frame.height, frame.encoding) == (320, 192, "bgr8")
    stamps = np.diff([shot.frame.stamp_ns for shot in shots])
    assert set(stamps.tolist()) == {100_000_000}
    assert len({shot.name for shot in shots}) == 28
    assert len({shot.frame.frame_id for shot in shots}) == 1


def test_every_class_has_a_road_group():
    assert (CLASS_TABLE.groups(CLASS_NAMES) >= 0).all()
    assert set(CLASS_TABLE.group_of.values()) == set(ROAD_GROUPS)


@pytest.mark.parametrize(
    "wrong",
    [{"frames": 0}, {"seed": -1}, {"width": 10}, {"fps": 0}, {"fps": float("nan")}, {"weathers": ("snow",)},
     {"weathers": ()}, {"scene_frames": -1}, {"frames": 10**6, "scene_frames": 1}],
)  # fmt: skip
def test_impossible_worlds_are_refused(wrong: dict[str, object]):
    with pytest.raises(ConfigurationError):
        replace(OPTIONS, **wrong)  # type: ignore[arg-type]
