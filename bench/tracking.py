"""Tracking: numbers that stay, in the street world, against a plain tracker and with one part missing at a time.

    python -m bench.tracking [--model MODEL.onnx] [--drives 4] [--seconds 20] [--seed 601]

Detections are the truth's own boxes, whole, thinned out or shaken, and what the default model finds. The drives are
none that the tracker's constants were chosen on (seeds 501 and 502). Takes minutes. On the test clip, where it is
there, the test model finds what is tracked; nobody knows its true tracks.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bench.data import INPUTS, default_model
from bench.table import show
from demo.model import MODEL, canonical
from seg_perception.core.boxes import box_iou
from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.core.instances import Instances
from seg_perception.offboard.data.published import PublishedFrame
from seg_perception.offboard.data.video import VideoFile
from seg_perception.offboard.evaluation.tracking import TrackedFrame, TrackingScores, tracked_frame, tracking_scores
from seg_perception.offboard.streetworld.world import StreetWorld, WorldOptions
from seg_perception.onboard.backend.host.select import SelectOptions
from seg_perception.onboard.pipeline import track
from seg_perception.onboard.pipeline.opening import ModelChoice, open_segmenter
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.segmenter import Segmenter
from seg_perception.onboard.pipeline.track import Tracker, TrackerOptions
from seg_perception.onboard.pipeline.tracking import motion, similarity

RATE = 10
THRESHOLDS = (0.25, 0.4)
SHARE = TrackerOptions().weak_share
COUNTS = (10, 50, 100, 300)


class Tracking(Protocol):
    """What both trackers can do."""

    def update(
        self, instances: Instances, stamp_ns: int, low_confidence: NDArray[np.bool_] | None = None
    ) -> NDArray[Any]:
        """Numbers of the instances, 0 for none."""


class LastBox:
    """The plain tracker: greedy IoU with the box that was last seen, in the same group, for as long as ours."""

    def __init__(self) -> None:
        self._boxes: NDArray[np.float32] = np.zeros((0, 4), np.float32)
        self._groups: NDArray[np.int32] = np.zeros(0, np.int32)
        self._numbers: NDArray[np.int64] = np.zeros(0, np.int64)
        self._seen: NDArray[np.int64] = np.zeros(0, np.int64)
        self._next = 1

    def update(
        self, instances: Instances, stamp_ns: int, low_confidence: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Numbers of the instances, 0 for low-confidence ones."""
        fresh = stamp_ns - self._seen <= TrackerOptions().max_age * 1e9
        self._boxes, self._groups = self._boxes[fresh], self._groups[fresh]
        self._numbers, self._seen = self._numbers[fresh], self._seen[fresh]
        iou = box_iou(self._boxes, instances.boxes_camera) * (self._groups[:, None] == instances.groups)
        if low_confidence is not None:
            iou[:, low_confidence] = 0
        numbers = np.zeros(len(instances), np.int64)
        rows, columns = greedy_pairs(np.where(iou >= 0.3, iou, 0)).T
        numbers[columns] = self._numbers[rows]
        self._boxes[rows], self._seen[rows] = instances.boxes_camera[columns], stamp_ns
        new = (numbers == 0) & (True if low_confidence is None else ~low_confidence)
        numbers[new] = np.arange(self._next, self._next + new.sum())
        self._next += int(new.sum())
        self._boxes = np.concatenate([self._boxes, instances.boxes_camera[new]])
        self._groups = np.concatenate([self._groups, instances.groups[new]])
        self._numbers = np.concatenate([self._numbers, numbers[new]])
        self._seen = np.concatenate([self._seen, np.full(new.sum(), stamp_ns)])
        return numbers


def greedy_pairs(gains: NDArray[np.float64]) -> NDArray[np.int64]:
    """The best pair, then the best of those left, and so on."""
    pairs, left = [], gains.copy()
    while left.size and left.max() > 0:
        row, column = np.unravel_index(left.argmax(), left.shape)
        pairs.append((row, column))
        left[row], left[:, column] = 0, 0
    return np.array(pairs, np.int64).reshape(-1, 2)


def stay(self: motion.Motion, seconds: float, unseen: NDArray[np.bool_]) -> motion.Motion:
    """Boxes are expected where they were last seen."""
    return motion.Motion.begin(self.boxes)


def jump(self: motion.Motion, rows: NDArray[np.int64], boxes: NDArray[np.float64]) -> motion.Motion:
    """Boxes are where they are seen."""
    seen = self.boxes.copy()
    seen[rows] = boxes
    return motion.Motion.begin(seen)


# What is taken away from the tracker: (where, name, what stands in).
PARTS: dict[str, list[tuple[Any, str, Any]]] = {
    "best pairs (greedy)": [(track, "best_pairs", greedy_pairs)],
    "speed": [(motion.Motion, "predict", stay), (motion.Motion, "update", jump)],
    "nearness of sides": [(similarity, "_HALF_AT", 1e-9)],
    "second look": [(track, "_MARGIN", 0.0)],
    "camera's motion": [(track, "camera_shift", lambda expected, boxes: np.zeros(2))],
}


# With scores: how to make them, and down to which share of the threshold instances continue a track.
WITH_SCORES: tuple[tuple[str, Callable[[], Tracking], float], ...] = (
    ("IoU of last boxes", LastBox, 1.0),
    ("ours, one stage", Tracker, 1.0),
    ("ours", Tracker, SHARE),
)


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame: the truth, what the model found, and the IoU of each with each, by boxes and by pixels of the maps."""

    stamp_ns: int
    true_numbers: NDArray[np.int64]
    true: Instances
    found: Instances
    box_iou: NDArray[np.float64]
    map_iou: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Condition:
    """What of the truth is seen: every n-th frame, but for a share that is missed, sides off by a share of the size."""

    name: str
    every: int = 1
    missed: float = 0.0
    shaken: float = 0.0


CONDITIONS = (
    Condition("10 Hz"), Condition("5 Hz", 2), Condition("3.3 Hz", 3),
    Condition("10 Hz, 15 % missed, shaken", 1, 0.15, 0.03),
)  # fmt: skip


def drives(model: Path, count: int, seconds: int, seed: int) -> list[list[Shot]]:
    """Frames of drives, rendered and looked at by the model."""
    length = seconds * RATE
    world = StreetWorld(WorldOptions(count * length, seed, fps=RATE, scene_frames=length, designs="unseen"))
    segmenter = opened(model)
    result: list[list[Shot]] = [[] for _ in range(count)]
    weathers = []
    for shot in tqdm(world.shots(), desc="street world", total=len(world), disable=None):
        if not result[shot.scene]:
            weathers.append(shot.weather)
        truth = shot.truth.instances
        numbers = np.array([each.number for each in truth], np.int64)
        true = as_instances(np.array([each.box for each in truth]), shot.truth.groups())
        seen = segmenter.segment([shot.frame])[0]
        there = published(shot.truth.instance_map, numbers, true)
        reported = published(seen.instance_map.pixels, seen.instances.ids.astype(np.int64), seen.instances)
        result[shot.scene].append(
            Shot(
                shot.frame.stamp_ns, numbers, true, seen.instances,
                tracked_frame(there, reported, masks=False).similarity, tracked_frame(there, reported).similarity,
            )
        )  # fmt: skip
    segmenter.close()
    print(f"seed {seed}: {count} drives of {seconds} s at {RATE} Hz, {', '.join(weathers)}; model {model.name}")
    return result


def opened(model: Path) -> Segmenter:
    """The model with the lowest thresholds that are asked for."""
    options = SegmenterOptions(SelectOptions(score_threshold=SHARE * min(THRESHOLDS)))
    return open_segmenter(ModelChoice(str(model)), options)


def as_instances(boxes: NDArray[np.floating], groups: NDArray[np.int32]) -> Instances:
    """Certain instances, without numbers."""
    count = len(groups)
    return Instances(
        np.arange(count, dtype=np.int32), np.zeros(count, np.uint16), boxes.astype(np.float32).reshape(-1, 4),
        np.ones(count, np.float32), groups, groups,
    )  # fmt: skip


def published(pixels: NDArray[np.uint16], numbers: NDArray[np.int64], instances: Instances) -> PublishedFrame:
    """As a receiver would have it."""
    return PublishedFrame(0, pixels, numbers, instances.groups, instances.scores, instances.boxes_camera)


def on_truth(
    scenes: Sequence[Sequence[Shot]], condition: Condition, make: Callable[[], Tracking]
) -> dict[str, TrackingScores]:
    """Track the truth's own boxes."""
    random = np.random.default_rng(0)

    def frames(scene: Sequence[Shot]) -> Iterator[TrackedFrame]:
        tracker = make()
        for shot in scene[:: condition.every]:
            boxes = shot.true.boxes_camera
            sizes = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
            seen = as_instances(boxes + condition.shaken * sizes * random.normal(size=boxes.shape), shot.true.groups)
            seen = seen.where(random.random(len(seen)) >= condition.missed)
            numbers = tracker.update(seen, shot.stamp_ns).astype(np.int64)
            iou = box_iou(boxes, seen.boxes_camera)
            yield TrackedFrame(shot.true_numbers, numbers, shot.true.groups, seen.groups, iou)

    return tracking_scores([list(frames(scene)) for scene in scenes])


def on_model(
    scenes: Sequence[Sequence[Shot]], every: int, make: Callable[[], Tracking], threshold: float, share: float,
    masks: bool,
) -> dict[str, TrackingScores]:  # fmt: skip
    """Track what the model found from a threshold on, and from a share of it what continues a track."""

    def frames(scene: Sequence[Shot]) -> Iterator[TrackedFrame]:
        tracker = make()
        for shot in scene[::every]:
            kept = shot.found.scores >= share * threshold
            seen = shot.found.where(kept)
            numbers = tracker.update(seen, shot.stamp_ns, seen.scores < threshold).astype(np.int64)
            shown = numbers > 0
            iou = (shot.map_iou if masks else shot.box_iou)[:, kept][:, shown]
            yield TrackedFrame(shot.true_numbers, numbers[shown], shot.true.groups, seen.groups[shown], iou)

    return tracking_scores([list(frames(scene)) for scene in scenes])


def tables(scenes: Sequence[Sequence[Shot]]) -> None:
    """Print what was measured."""
    rows = []
    for name, make, parts in trackers():
        with ExitStack() as stack:
            for part in parts:
                stack.enter_context(patch.object(*part))
            scores = [on_truth(scenes, condition, make)["all"] for condition in CONDITIONS]
        rows.append([name, *(f"{each.idf1:.3f} / {each.switches}" for each in scores)])
    show("Boxes of the truth: IDF1 / switches", ["tracker", *(each.name for each in CONDITIONS)], rows)
    show("Boxes of the truth, 10 Hz, this tracker", _SCORES, score_rows(on_truth(scenes, CONDITIONS[0], Tracker)))
    rows = []
    for threshold in THRESHOLDS:
        for name, make, share in WITH_SCORES:
            for every in (1, 2, 3):
                each = on_model(scenes, every, make, threshold, share, masks=True)["all"]
                rows.append([f"{name}, from {threshold:g}, {RATE / every:.1f} Hz", *scores_text(each)])
    show("Masks of the model", ["tracker", *_SCORES[1:]], rows)
    for masks in (True, False):
        title = f"{'Masks' if masks else 'Boxes'} of the model from {THRESHOLDS[-1]:g}, 10 Hz, this tracker"
        show(title, _SCORES, score_rows(on_model(scenes, 1, Tracker, THRESHOLDS[-1], SHARE, masks)))


def trackers() -> list[tuple[str, Callable[[], Tracking], list[tuple[Any, str, Any]]]]:
    """Names, how to make them, and what is taken away."""
    less: list[tuple[str, Callable[[], Tracking], list[tuple[Any, str, Any]]]] = [
        (f"without {name}", Tracker, parts) for name, parts in PARTS.items()
    ]
    return [("IoU of last boxes", LastBox, []), ("ours", Tracker, []), *less]


_SCORES = ["group", "HOTA", "DetA", "AssA", "IDF1", "switches", "fragments", "true tracks", "tracks"]


def scores_text(each: TrackingScores) -> list[str]:
    """One row without its name."""
    shares = (each.hota, each.detection, each.association, each.idf1)
    counts = (each.switches, each.fragments, each.true_tracks, each.reported_tracks)
    return [*(f"{value:.3f}" for value in shares), *map(str, counts)]


def score_rows(scores: dict[str, TrackingScores]) -> list[list[str]]:
    """One row for each group."""
    return [[name, *scores_text(scores[name])] for name in (*ROAD_GROUPS, "all")]


def times() -> None:
    """Print what a frame costs by number of instances, half of which overlap a neighbour and a tenth is missed."""
    rows = []
    random = np.random.default_rng(0)
    for count in COUNTS:
        corners = random.uniform((0, 150), (1200, 450), (count, 2))
        sides = random.uniform(15, 90, (count, 2))
        speeds = random.normal(0, 30, (count, 2))
        groups = random.choice(len(ROAD_GROUPS), count).astype(np.int32)
        tracker, seconds = Tracker(), []
        for step in range(120):
            corners = corners + speeds / RATE
            seen = as_instances(np.concatenate([corners, corners + sides], axis=1), groups)
            seen = seen.where(random.random(count) > 0.1)
            begin = perf_counter()
            tracker.update(seen, (step + 1) * 10**9 // RATE)
            seconds.append(perf_counter() - begin)
        rows.append([count, *(f"{1e3 * value:.2f}" for value in np.percentile(seconds[20:], (50, 95)))])
    show("Time of a frame, ms", ["instances", "median", "95 %"], rows)


def clip(path: Path, model: Path) -> None:
    """Print how long numbers last on a clip without truth."""
    segmenter = opened(model)
    seen = [(frame.stamp_ns, segmenter.segment([frame])[0].instances) for _, frame in VideoFile(path)]
    segmenter.close()
    rows = []
    for name, make, share in WITH_SCORES:
        tracker: Tracking = make()
        lives: dict[int, int] = {}
        for stamp, found in seen:
            kept = found.where(found.scores >= share * THRESHOLDS[0])
            for number in tracker.update(kept, stamp, kept.scores < THRESHOLDS[0]).tolist():
                lives[number] = lives.get(number, 0) + 1
        lives.pop(0, None)
        frames = sorted(lives.values())
        rows.append([name, sum(frames), len(frames), f"{np.mean(frames):.1f}", frames[-1] if frames else 0])
    header = ["tracker", "instances", "numbers", "mean frames", "longest"]
    show(f"{path.name}, {len(seen)} frames, {model.name}, no truth", header, rows)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, help="canonical model")
    parser.add_argument("--drives", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=601)
    arguments, _ = parser.parse_known_args()
    times()
    tables(drives(arguments.model, arguments.drives, arguments.seconds, arguments.seed))
    if INPUTS[0].is_file():
        clip(INPUTS[0], canonical(default_model(), Path(tempfile.gettempdir())))


if __name__ == "__main__":
    main()
