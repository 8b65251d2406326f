"""Models through a labelled set, once, and everything that can be said of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from seg_perception import __version__
from seg_perception.core.classes import NO_GROUP_NAME, ROAD_GROUPS, group_name
from seg_perception.core.errors import ConfigurationError, FrameError, ModelOutputError, SourceError
from seg_perception.core.files import write_atomically
from seg_perception.core.frame import Frame
from seg_perception.offboard.metrics.agreement import Agreement, AgreementRule, FrameAgreement, compare
from seg_perception.offboard.metrics.average_precision import (
    KINDS,
    Difference,
    MatchedResults,
    for_kind,
    paired_bootstrap,
)
from seg_perception.offboard.metrics.coco_summary import Batch, summarize
from seg_perception.offboard.metrics.panoptic import PanopticCounts
from seg_perception.offboard.metrics.segmentations import require_pycocotools
from seg_perception.onboard.backend.host.select import SelectOptions
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.track import TrackerOptions
from seg_perception.onboard.pipeline.trackers import Trackers

from .datasets.labelled import LabelledSet
from .gallery import Gallery
from .model_run import FrameResults, Look, ModelRun
from .results import (
    COCO_STATS,
    CocoScores,
    Comparison,
    DataDescription,
    EvaluatedModel,
    Evaluation,
    ModelScores,
    PanopticResult,
    PanopticScore,
)
from .scheme import Scheme, Subject
from .segments import TrueSegments
from .strata import TruthRow, boundary_scores, curves, group_matches, strata
from .tracking import tracking_scores
from .truth import Truths

Frames = Iterable[tuple[str, Frame]]
# Frames of a sequence within so many of one another resemble each other: the gallery shows one of them, and the
# bootstrap draws them together, unless there would be too few such blocks.
_ALIKE, _FEWEST_BLOCKS = 20, 10
# Frames whose results are handed to pycocotools at once.
_BATCH = 100
# Of more results the bootstrap draws fewer times, so that its time is bounded.
_SAMPLES, _FEWEST_SAMPLES, _DRAWN_RESULTS = 1000, 200, 20_000_000


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """Options of an evaluation.

    Attributes:
        score: from which on an instance counts as published.
        images: frames of each kind to keep for the gallery.
        watch: shows how far it is: takes the frames, and gives them again.
    """

    score: float = 0.25
    images: int = 8
    watch: Callable[[Frames], Frames] = field(default=lambda frames: frames)

    def __post_init__(self) -> None:
        if not 0 < self.score <= 1:
            raise ConfigurationError(f"score: expected above 0 and at most 1, got {self.score}")
        if self.images < 0:
            raise ConfigurationError(f"images: expected 0 or more, got {self.images}")


def evaluate(subjects: Sequence[Subject], labelled: LabelledSet, options: EvaluateOptions, folder: Path) -> Evaluation:
    """Run models over a labelled set.

    Args:
        subjects: the models; their segmenters' options are set here.
        labelled: images with ground truth.
        options: how.
        folder: gets `truth.json`, the ground truth in the terms of average precision, and `NAME.results.json` of each
            model, so that any tool for COCO's format can check the numbers; where objects have no mask, also
            `truth_masks.json`, in which these are crowds.

    Raises:
        ConfigurationError: models and set have no class in common, or the folder cannot be written.
        SourceError: not a single image could be evaluated.
        ModelOutputError: a model produced NaN or infinity for every one of them.
        BackendUnavailable: pycocotools is not installed.
    """
    require_pycocotools()
    clock = _Clock()
    truths = Truths(labelled)
    scheme = Scheme.of(labelled, truths, subjects)
    work = _Run(subjects, labelled, truths, scheme, options, clock)
    work.go()
    with clock.measure("metrics"):
        return work.evaluation(folder)


class _Clock:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        begin = perf_counter()
        try:
            yield
        finally:
            self.add(name, perf_counter() - begin)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


class _Run:
    """A running evaluation."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        labelled: LabelledSet,
        truths: Truths,
        scheme: Scheme,
        options: EvaluateOptions,
        clock: _Clock,
    ) -> None:
        self._labelled, self._truths, self._scheme, self._options, self._clock = (
            labelled, truths, scheme, options, clock,
        )  # fmt: skip
        self._sequences = labelled.sequence_of()
        self._runs = [ModelRun(subject, scheme) for subject in subjects]
        self._rows: list[TruthRow] = []
        self._image_ids: list[int] = []
        self._agreements: list[list[FrameAgreement]] = [[] for _ in subjects[1:]]
        self._gallery = Gallery(options.images, _ALIKE if self._sequences else 1)
        self._faults: list[str] = []
        self._without_output: list[str] = []
        self._shapeless = 0
        self._rule = AgreementRule(score=options.score)
        tracking = TrackerOptions() if self._sequences else None
        select = SelectOptions(options.score, keep_other=scheme.by_categories)
        for subject in subjects:
            subject.segmenter.options = SegmenterOptions(select, tracking=tracking)

    def go(self) -> None:
        """All frames through all models."""
        for run in self._runs:
            run.subject.segmenter.warm_up()
            run.subject.segmenter.trackers = Trackers()
        begin = perf_counter()
        for name, frame in self._options.watch(self._labelled.source):
            self._clock.add("reading", perf_counter() - begin)
            with self._clock.measure("frames"):
                try:
                    self._frame(int(name), frame)
                except ModelOutputError as error:
                    self._without_output.append(str(error))
                except (FrameError, SourceError) as error:
                    self._faults.append(str(error))
            begin = perf_counter()
        self._faults += [str(failure) for failure in self._labelled.source.failures]
        inference = sum(run.inference_s for run in self._runs)
        masks = sum(run.masks_s for run in self._runs)
        rest = self._clock.seconds.pop("frames", 0.0) - inference - masks
        self._clock.seconds |= {"inference": inference, "masks for AP": masks, "metrics of frames": rest}
        if not self._image_ids and self._without_output and not self._faults:
            raise ModelOutputError(self._without_output[0])
        if not self._image_ids:
            raise SourceError(
                f"{self._labelled.labels.path}: expected images to evaluate, not one could be: "
                f"{'; '.join([*self._faults, *self._without_output][:3]) or 'there are none'}"
            )

    def _frame(self, image_id: int, frame: Frame) -> None:
        # Road groups have no stuff among them.
        maps = any(run.subject.segmenter.spec.class_map for run in self._runs)
        truth = self._truths.of(image_id, stuff=maps and self._scheme.by_categories)
        if truth.size != (frame.height, frame.width):
            raise SourceError(
                f"{truth.name}: its truth has {truth.size[1]} x {truth.size[0]} pixels, the image "
                f"{frame.width} x {frame.height}; the truth is of another image"
            )
        true = TrueSegments.of(truth, self._scheme)
        sequence = self._sequences.get(image_id, "")
        # All models see a frame or none of them counts it: their numbers are over the same frames.
        seen = [run.see(frame, true, sequence) for run in self._runs]
        looks = [run.look(each, true, sequence) for run, each in zip(self._runs, seen, strict=True)]
        changes = [self._compare(place, look, looks[0]) for place, look in enumerate(looks) if place]
        for kept, change in zip(self._agreements, changes, strict=True):
            kept.append(change)
        self._gallery.add(frame, truth, looks, changes, [run.subject.name for run in self._runs], len(self._rows))
        self._shapeless += int((truth.shapeless & ~truth.crowd).sum())
        self._rows.append(TruthRow.of(truth, self._truths.facts(image_id)))
        self._image_ids.append(image_id)

    def _compare(self, place: int, look: Look, first: Look) -> FrameAgreement:
        run, reference = self._runs[place], self._runs[0]
        if run.subject.class_names == reference.subject.class_names:
            return compare(first.found, look.found, self._rule)
        return compare(reference.in_groups(first.found), run.in_groups(look.found), self._rule)

    def evaluation(self, folder: Path) -> Evaluation:
        """Sum everything up, and write the files."""
        truth = self._write_truth(folder)
        scores, precisions = [], []
        for run in self._runs:
            score, precision = self._scores(run, truth, folder)
            scores.append(score)
            precisions.append(precision)
        comparisons = [self._comparison(place, precisions) for place in range(1, len(self._runs))]
        return Evaluation(
            tuple(_model(run.subject) for run in self._runs),
            self._data(),
            self._options.score,
            self._scheme.by_categories,
            tuple(scores),
            strata(self._runs, self._rows),
            tuple(curve for place, run in enumerate(self._runs) for curve in curves(place, run, self._rows)),
            tuple(comparisons),
            self._gallery.frames(),
            self._notes(),
            self._clock.seconds,
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
            __version__,
        )

    def _write_truth(self, folder: Path) -> dict[str, Any]:
        """The ground truth of the images that were evaluated."""
        content, chosen = self._scheme.labels.annotations, set(self._image_ids)
        numbered = enumerate((each for each in content["annotations"] if each["image_id"] in chosen), 1)
        truth = {
            "images": [each for each in content["images"] if each["id"] in chosen],
            "annotations": [
                {"iscrowd": 0, "area": each["bbox"][2] * each["bbox"][3], **each, "id": number}
                for number, each in numbered
            ],
            "categories": content["categories"],
        }
        write_atomically(folder / "truth.json", json.dumps(truth).encode())
        if self._shapeless:
            # In this form any tool gets our mask AP; that of boxes needs the objects as they are in truth.json.
            sizes = {each["id"]: (int(each["height"]), int(each["width"])) for each in truth["images"]}
            masks = {**truth, "annotations": for_kind(truth["annotations"], sizes, "mask")}
            write_atomically(folder / "truth_masks.json", json.dumps(masks).encode())
        return truth

    def _scores(
        self, run: ModelRun, truth: Mapping[str, Any], folder: Path
    ) -> tuple[ModelScores, Mapping[str, MatchedResults]]:
        results = sorted(run.results, key=lambda frame: frame.image_id)
        name = f"{run.subject.name}.results.json"
        # Frame by frame: as objects of Python the results of thousands of frames would be a gigabyte.
        entries = (json.dumps(entry).encode() for frame in results for entry in frame.entries())
        write_atomically(folder / name, b"[" + b",\n".join(entries) + b"]\n")
        coco, matched = [], {}
        for kind in KINDS:
            matched[kind], stats = summarize(truth, _batches(results), kind)
            per_category = matched[kind].average_precision().per_class
            coco.append(CocoScores(kind, dict(zip(COCO_STATS, stats.tolist(), strict=True)), per_category))
        scores = ModelScores(
            tuple(coco),
            run.throughput(),
            _panoptic(run.panoptic, self._scheme),
            boundary_scores(run, self._rows),
            tracking_scores(run.tracked.values()) if run.tracked else None,
            name,
        )
        return scores, matched

    def _comparison(self, place: int, precisions: Sequence[Mapping[str, MatchedResults]]) -> Comparison:
        differences: dict[str, dict[str, Difference]] = {}
        for kind in KINDS:
            first, second = precisions[0][kind], precisions[place][kind]
            blocks = self._blocks()
            # Matched results have images in the order of their numbers, or as they came.
            by_number = [blocks[place] for place in np.argsort(self._image_ids, kind="stable").tolist()]
            differences[kind] = {"all": _difference(first, second, by_number)}
            first, second = (group_matches(self._runs[each], kind, self._rows) for each in (0, place))
            for group in ROAD_GROUPS:
                if first.classes[group].truths.sum():
                    differences[kind][group] = _difference(first.only([group]), second.only([group]), blocks)
        return Comparison(place, differences, Agreement.of(self._agreements[place - 1]))

    def _blocks(self) -> list[int]:
        """Return which frames resemble one another: a number for each frame."""
        if not self._sequences:
            return list(range(len(self._image_ids)))
        length = max(1, min(_ALIKE, len(self._image_ids) // _FEWEST_BLOCKS))
        seen: dict[str, int] = {}
        names: dict[tuple[str, int], int] = {}
        blocks = []
        for image in self._image_ids:
            sequence = self._sequences[image]
            seen[sequence] = seen.get(sequence, 0) + 1
            blocks.append(names.setdefault((sequence, (seen[sequence] - 1) // length), len(names)))
        return blocks

    def _data(self) -> DataDescription:
        labels = self._labelled.labels
        objects: dict[str, int] = {}
        for row in self._rows:
            for group in row.groups[~row.crowd].tolist():
                objects[group_name(group)] = objects.get(group_name(group), 0) + 1
        return DataDescription(
            str(labels.path), self._labelled.kind, len(self._rows),
            len({self._sequences[image] for image in self._image_ids if image in self._sequences}),
            {name: objects[name] for name in (*ROAD_GROUPS, NO_GROUP_NAME) if name in objects},
            tuple(str(each["name"]) for each in self._scheme.labels.annotations["categories"]), labels.missing,
            tuple(self._faults), self._shapeless, labels.omitted, tuple(self._without_output),
        )  # fmt: skip

    def _notes(self) -> tuple[str, ...]:
        notes = [*self._labelled.notes, *self._labelled.source.warnings.lines()]
        if not self._scheme.by_categories:
            notes.append(
                "average precision and panoptic quality are over road groups, because a model's classes are not the "
                "categories of the data set"
            )
        if not self._truths.knows_visible:
            notes.append("the data set does not say how much of an object is visible: boxes of other objects tell")
        if self._sequences:
            notes.append(
                "the frames are sequences: instances are tracked, as with the node's parameter `tracking`, and the "
                "bootstrap draws runs of frames, which resemble one another"
            )
        return tuple(notes)


def _batches(frames: Sequence[FrameResults]) -> Iterator[Batch]:
    """Some frames at a time, as COCO results."""
    for start in range(0, len(frames), _BATCH):
        part = frames[start : start + _BATCH]
        yield [frame.image_id for frame in part], [entry for frame in part for entry in frame.entries()]


def _difference(first: MatchedResults, second: MatchedResults, blocks: Sequence[int]) -> Difference:
    drawn = sum(len(each.scores) for each in (*first.classes.values(), *second.classes.values())) / 2
    samples = int(np.clip(_DRAWN_RESULTS / max(drawn, 1), _FEWEST_SAMPLES, _SAMPLES))
    return paired_bootstrap(first, second, samples, blocks=blocks)


def _model(subject: Subject) -> EvaluatedModel:
    spec = subject.segmenter.spec
    groups = subject.table.groups(spec.class_names).tolist()
    return EvaluatedModel(
        subject.name, subject.file, subject.segmenter.identity, spec.class_names, tuple(map(group_name, groups)),
        spec.class_map, json.loads(spec.to_json()), subject.manifest,
    )  # fmt: skip


def _panoptic(counts: PanopticCounts, scheme: Scheme) -> PanopticResult:
    quality, segmentation, recognition = counts.qualities()
    seen = counts.matched + counts.extra + counts.missed > 0
    per_class = {
        name: PanopticScore(
            float(quality[place]), float(np.nan_to_num(segmentation[place])), float(recognition[place]),
            int(counts.matched[place]), int(counts.extra[place]), int(counts.missed[place]),
        )
        for place, name in enumerate(scheme.segment_names)
        if seen[place]
    }  # fmt: skip
    things = [name for name in scheme.segment_names[: scheme.things] if name in per_class]
    stuff = [name for name in scheme.segment_names[scheme.things :] if name in per_class]
    means = {"all": _mean([*things, *stuff], per_class)}
    if things and stuff:
        means |= {"things": _mean(things, per_class), "stuff": _mean(stuff, per_class)}
    return PanopticResult(per_class, means)


def _mean(names: Sequence[str], scores: Mapping[str, PanopticScore]) -> PanopticScore:
    chosen = [scores[name] for name in names]
    quality, segmentation, recognition = (
        float(np.mean([getattr(each, field) for each in chosen])) if chosen else float("nan")
        for field in ("quality", "segmentation", "recognition")
    )
    matched, extra, missed = (sum(getattr(each, field) for each in chosen) for field in ("matched", "extra", "missed"))
    return PanopticScore(quality, segmentation, recognition, matched, extra, missed)
