"""The default model on the street world, from a bag through camera, DDS and node to received maps: are they right?

Everything that the truth knows is looked at: masks, road groups, stamps, numbers, geometry. Each check is shown to fail
where what it looks at is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from demo.model import MODEL
from demo.street import DESIGNS, RULE, Drive, drive, make_bag
from seg_perception.offboard.data.published import PublishedFrame
from seg_perception.offboard.evaluation.published import PublishedComparison, compare_published
from seg_perception.offboard.streetworld.world import WorldOptions

# The drive and its evaluation take half a minute; `make test` has that of test_demo.py.
pytestmark = pytest.mark.long
# AP50 of masks of at least 16 x 16 pixels: 0.7 of what the model reached here.
FLOORS = {"pedestrian": 0.4, "vehicle": 0.54, "traffic_sign": 0.19, "traffic_light": 0.35}
# Four drives by day, at dusk, in rain and in fog, with many objects of each group; slow enough for a busy machine.
WORLD = WorldOptions(40, seed=8508, fps=5.0, scene_frames=10, designs=DESIGNS)
Frames = list[PublishedFrame]


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Drive:
    folder = tmp_path_factory.mktemp("street")
    return drive(MODEL, make_bag(folder / "bag", WORLD), folder, WORLD.frames)


def check(seen: PublishedComparison) -> None:
    """That what arrived is right."""
    ids, frames = seen.ids, seen.alignment.frames
    assert ids.known_pixels == ids.pixels > 0, "numbers: pixels without a detection"
    assert ids.shown == ids.detections > 0, "numbers: detections without a pixel"
    assert ids.box_iou > 0.7, "numbers: boxes lie elsewhere"
    assert frames[0] > 1.2 * max(frames[-1], frames[1]), "stamps: the maps fit other frames"
    assert seen.alignment.fits, "geometry: the maps fit elsewhere"
    for group, floor in FLOORS.items():
        assert seen.precision[-1].at_50[group] >= floor, f"masks of {group}: {seen.precision[-1].at_50}"


def test_what_arrives_is_right(driven: Drive):
    assert driven.comparison is not None
    check(driven.comparison)
    assert len(driven.received) == len({frame.stamp_ns for frame in driven.received}) >= WORLD.frames // 2
    assert driven.report.sent == WORLD.frames


def test_what_arrives_is_not_right_by_chance(driven: Drive):
    """Chance is what the same maps reach on frames of other drives."""
    stamps = [frame.stamp_ns for frame in driven.truth]
    other = dict(zip(stamps, np.roll(stamps, WORLD.frames // 2).tolist(), strict=True))
    chance = compare_published(
        driven.truth, [replace(frame, stamp_ns=other[frame.stamp_ns]) for frame in driven.received], RULE
    )
    assert driven.comparison is not None
    for group in FLOORS:
        assert driven.comparison.precision[-1].at_50[group] > 5 * chance.precision[-1].at_50[group]


@pytest.fixture(scope="module")
def half(driven: Drive) -> Drive:
    """Two of the four drives, which are right, too, and enough to see what is wrong."""
    truth = driven.truth[: WORLD.frames // 2]
    stamps = {frame.stamp_ns for frame in truth}
    kept = replace(driven, truth=truth, received=[each for each in driven.received if each.stamp_ns in stamps])
    check(compare_published(kept.truth, kept.received, RULE))
    return kept


def one_frame_late(driven: Drive) -> Frames:
    stamps = [frame.stamp_ns for frame in driven.truth]
    following = dict(pairwise(stamps))
    return [replace(each, stamp_ns=following[each.stamp_ns]) for each in driven.received if each.stamp_ns in following]


def permuted_ids(driven: Drive) -> Frames:
    return [replace(frame, numbers=np.roll(frame.numbers, 1)) for frame in driven.received]


def ids_of_the_next(driven: Drive) -> Frames:
    return [replace(frame, numbers=frame.numbers + 1) for frame in driven.received]


def moved(pixels: int, axis: int) -> Callable[[Drive], Frames]:
    """The map and the boxes, so that they still fit one another."""
    by = np.array([0, pixels, 0, pixels] if axis == 0 else [pixels, 0, pixels, 0], np.float32)
    return lambda driven: [
        replace(each, pixels=np.roll(each.pixels, pixels, axis), boxes_camera=each.boxes_camera + by)
        for each in driven.received
    ]


def other_groups(driven: Drive) -> Frames:
    return [replace(frame, groups=(frame.groups + 1) % 4) for frame in driven.received]


def mutilated(driven: Drive) -> Frames:
    """Only the left half of each instance."""
    changed = []
    for frame in driven.received:
        pixels = frame.pixels.copy()
        for number in frame.numbers:
            columns = np.flatnonzero((frame.pixels == number).any(axis=0))
            right = frame.pixels[:, columns[len(columns) // 2] :]
            pixels[:, columns[len(columns) // 2] :][right == number] = 0
        changed.append(replace(frame, pixels=pixels))
    return changed


# A mistake may break more than one check; the first is named.
@pytest.mark.parametrize(("mistake", "named"), [
    pytest.param(one_frame_late, "stamps", id="stamps"),
    pytest.param(permuted_ids, "numbers: boxes", id="permuted ids"),
    pytest.param(ids_of_the_next, "numbers: pixels", id="ids one too high"),
    pytest.param(moved(2, 1), "geometry", id="two pixels right"),
    pytest.param(moved(-2, 1), "geometry", id="two pixels left"),
    pytest.param(moved(2, 0), "geometry", id="two pixels down"),
    pytest.param(moved(8, 0), "geometry", id="eight pixels down"),
    pytest.param(other_groups, "stamps|geometry|masks", id="groups"),
    pytest.param(mutilated, "numbers|masks", id="half masks"),
])  # fmt: skip
def test_a_mistake_would_be_seen(half: Drive, mistake: Callable[[Drive], Frames], named: str):
    with pytest.raises(AssertionError, match=named):
        check(compare_published(half.truth, mistake(half), RULE))
