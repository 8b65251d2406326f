"""Reasons to look at a frame are found where they are, and nowhere else."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter

import numpy as np
import pytest

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.frame import Frame
from seg_perception.offboard.label.observe import doubt, doubts_of
from seg_perception.offboard.label.picks import (
    DISAGREE,
    EVERY,
    LOWEST_CONFIDENCE,
    SCENE_CHANGE,
    Moment,
    Picker,
    PickOptions,
)
from seg_perception.offboard.label.quality import KINDS, assess, quality_bytes, quality_table
from seg_perception.offboard.label.records import Category, LabelledFrame, LabelledObject, QaFlag
from seg_perception.offboard.label.temporal import REACH, TrackedObservation, Window
from seg_perception.offboard.metrics.compact import CompactMask

LENGTH = 3 * REACH


def sight(track: int, time: int, x: float = 0.0) -> TrackedObservation:
    """An object that moves to the right."""
    left = x + 10.0 * time
    return TrackedObservation(track, "vehicle", (left, 20.0, left + 30.0, 40.0))


def watched(drive: list[list[TrackedObservation]]) -> dict[int, list[QaFlag]]:
    """Concerns by frame, each frame once and in order."""
    window = Window()
    found = [each for time, sights in enumerate(drive) for each in window.push(time, sights)]
    found += window.flush()
    assert [key for key, _ in found] == list(range(len(drive)))
    return {key: concerns for key, concerns in found if concerns}


def steady() -> list[list[TrackedObservation]]:
    return [[sight(1, time)] for time in range(LENGTH)]


def test_a_track_that_goes_on_is_no_concern():
    assert watched(steady()) == {}


def test_an_object_of_a_single_frame_flickers():
    drive = steady()
    drive[6].append(sight(2, 6, x=200.0))
    found = watched(drive)
    assert [(key, each.kind, each.box) for key, concerns in found.items() for each in concerns] == [
        (6, "flicker", (260.0, 20.0, 290.0, 40.0))
    ]


def test_an_object_that_enters_or_leaves_does_not_flicker():
    drive = steady()
    drive[0].append(sight(2, 0, x=200.0))
    drive[-1].append(sight(3, LENGTH - 1, x=200.0))
    assert watched(drive) == {}


def test_a_gap_is_where_the_object_would_be():
    drive = steady()
    drive[7].clear()
    (concern,) = watched(drive)[7]
    assert (concern.kind, concern.box) == ("gap", (70.0, 20.0, 100.0, 40.0))


def mask_of(*boxes: tuple[int, int, int, int]) -> CompactMask:
    mask = np.zeros((60, 90), bool)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = True
    return CompactMask.of(mask)


@pytest.mark.parametrize(("score", "box", "mask", "kinds"), [
    (0.9, (10, 10, 40, 30), mask_of((10, 10, 40, 30)), {}),
    (0.45, (10, 10, 40, 30), mask_of((10, 10, 40, 30)), {"unsure": 0.75}),
    (0.9, (10, 10, 70, 30), mask_of((10, 10, 40, 30)), {"box_mask": 1 - 0.5 / 0.6}),
    (0.9, (10, 10, 40, 30), mask_of((10, 10, 20, 30), (30, 10, 40, 30)), {"pieces": 0.5}),
    (0.9, (10, 10, 40, 30), mask_of((10, 10, 37, 30), (39, 10, 40, 30)), {}),
    (0.9, (10, 10, 30, 14), mask_of((10, 10, 15, 14), (25, 10, 30, 14)), {}),  # too small to tell
])  # fmt: skip
def test_doubts_about_one_instance(score: float, box: tuple[int, ...], mask: CompactMask, kinds: dict[str, float]):
    found = doubts_of("vehicle", score, 0.4, np.array(box, np.float32), mask)
    assert {each.kind: each.weight for each in found} == pytest.approx(kinds)
    assert all(each.box == box for each in found)


def test_scores_near_the_threshold_are_doubtful():
    scores = np.array([0.25, 0.35, 0.4, 0.5, 0.7], np.float32)
    assert doubt(scores, 0.4) == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-6)


def labelled(name: str, *categories: str, concerns: tuple[QaFlag, ...] = ()) -> LabelledFrame:
    mask = CompactMask.of(np.ones((4, 4), bool))
    return LabelledFrame(name, 4, 4, tuple(LabelledObject(each, mask) for each in categories), concerns=concerns)


def test_frames_are_ranked_by_how_much_they_need_a_person():
    slight, grave = QaFlag("unsure", 0.2, "a bit"), QaFlag("gap", 1.0, "very")
    frames = [
        labelled("a.jpg", *["vehicle"] * 50),
        labelled("b.jpg", "vehicle", concerns=(slight,)),
        labelled("c.jpg", "vehicle", concerns=(slight, grave)),
        labelled("d.jpg", "pedestrian"),
    ]
    assessed = assess(frames)
    assert [each.file_name for each in assessed] == ["c.jpg", "b.jpg", "a.jpg", "d.jpg"]
    lines = list(csv.DictReader(io.StringIO(quality_table(assessed).decode())))
    assert lines[0]["words"] == "very; a bit"
    assert lines[0]["kinds"] == "gap:1 unsure:1"
    categories = [Category(1, "pedestrian", "pedestrian"), Category(2, "vehicle", "vehicle")]
    content = json.loads(quality_bytes(assessed, Counter(vehicle=52, pedestrian=1), categories))
    assert {kind: each["count"] for kind, each in content["kinds"].items() if each["count"]} == {"gap": 1, "unsure": 2}
    assert set(content["kinds"]) == set(KINDS)
    assert content["frames"][0]["rank"] == 1


def moment(name: object, seconds: float = 0.0, apart: float = 1.0) -> Moment:
    return Moment.of("drive", "left", round(1e9 * seconds), str(name), apart)


def grey(value: int, camera: str = "") -> Frame:
    return Frame.from_bgr(np.full((36, 64, 3), value, np.uint8), camera=camera)


def test_one_frame_in_n_of_each_camera():
    picker = Picker(PickOptions(every=3))
    cameras = ["left", "left", "right", "left", "left", "right"]
    chosen = [
        name
        for name, camera in enumerate(cameras)
        if EVERY in picker.wanted(str(name), grey(0, camera), moment(name), 0.0, 0.0)
    ]  # fmt: skip
    assert chosen == [0, 2, 4]


def test_scenes_are_compared_with_the_last_one_that_was_chosen():
    picker = Picker(PickOptions(scene_change=0.1))
    values = [0, 20, 40, 50, 60]
    chosen = [
        value for value in values if SCENE_CHANGE in picker.wanted(str(value), grey(value), moment(value), 0.0, 0.0)
    ]
    assert chosen == [0, 40]


def test_only_the_best_of_a_ranking_stay_whatever_comes_between():
    values = [1.0, 5.0, 2.0, 4.0, 3.0, 0.0]
    picker = Picker(PickOptions(every=4, lowest_confidence=2))
    kept: set[str] = set()
    for place, value in enumerate(values):
        name = f"frame{place}"
        picks = picker.wanted(name, grey(0), moment(name), value, 0.0)
        if picks:
            kept.add(name)
            kept -= set(picker.keep(name, picks, moment(name)))
    # Frames 1 and 3 are the most doubtful ones; frames 0 and 4 are every fourth.
    assert kept == {"frame0", "frame1", "frame3", "frame4"}
    assert picker.counts == {EVERY: 2, LOWEST_CONFIDENCE: 2}


def test_frames_of_one_moment_do_not_crowd_out_the_others():
    values = {"a": 5.0, "b": 7.0, "c": 6.0, "d": 1.0, "e": 2.0}
    times = {"a": 1.2, "b": 1.4, "c": 1.6, "d": 2.5, "e": 3.5}

    def kept(apart: float) -> set[str]:
        picker = Picker(PickOptions(lowest_confidence=2, apart=apart))
        names: set[str] = set()
        for name, value in values.items():
            when = moment(name, times[name], apart)
            if picks := picker.wanted(name, grey(0), when, value, 0.0):
                names = (names | {name}) - set(picker.keep(name, picks, when))
        return names

    assert kept(1.0) == {"b", "e"}
    assert kept(0.0) == {"b", "c"}


def test_rankings_go_on_where_they_were():
    values = dict(zip("abcdefgh", (3.0, 1.0, 4.0, 1.5, 9.0, 2.0, 6.0, 5.0), strict=True))

    def kept(names: str, chosen: dict[str, float]) -> dict[str, float]:
        picker = Picker(PickOptions(lowest_confidence=3, disagree=1), [
            (name, {LOWEST_CONFIDENCE: value}, moment(name)) for name, value in sorted(chosen.items())
        ])  # fmt: skip
        for name in names:
            picks = picker.wanted(name, grey(0), moment(name), values[name], 0.0)
            assert DISAGREE not in picks
            if picks:
                chosen[name] = picks[LOWEST_CONFIDENCE]
                for gone in picker.keep(name, picks, moment(name)):
                    del chosen[gone]
        return chosen

    assert kept("abcdefgh", {}) == kept("defgh", kept("abcde", {})) == {"e": 9.0, "g": 6.0, "h": 5.0}


@pytest.mark.parametrize("options", [{}, {"every": -1}, {"scene_change": 1.5}])
def test_what_chooses_nothing_is_refused(options: dict[str, float]):
    with pytest.raises(ConfigurationError):
        PickOptions(**options)  # type: ignore[arg-type]
