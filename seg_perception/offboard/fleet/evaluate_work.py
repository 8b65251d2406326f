"""Evaluation of each bag with its truth, and average precision over all of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from seg_perception.core.errors import SourceError
from seg_perception.core.files import inside, write_atomically
from seg_perception.offboard.evaluation.coco import checked_annotations, read_annotations, read_json
from seg_perception.offboard.evaluation.datasets.bag import read_bag
from seg_perception.offboard.evaluation.evaluate import EvaluateOptions, Frames, evaluate
from seg_perception.offboard.evaluation.page import write_evaluation_report
from seg_perception.offboard.evaluation.result_file import write_evaluation
from seg_perception.offboard.evaluation.scheme import Subject
from seg_perception.offboard.metrics.average_precision import KINDS, ClassMatches, MatchedResults
from seg_perception.offboard.metrics.coco_summary import summarize
from seg_perception.offboard.metrics.segmentations import check_counts
from seg_perception.onboard.pipeline.opening import ModelChoice

from .models import anywhere, model_terms
from .results import EVALUATION
from .work import FleetWork, FleetWorker, Result, Task, Tell, plain

# Opens models; what it opens is closed by the stack. It travels to the workers, so it is a function of a module.
OpenSubjects = Callable[[Sequence[ModelChoice], ExitStack], list[Subject]]


@dataclass(frozen=True, slots=True)
class EvaluateWork(FleetWork):
    """What every bag is evaluated with.

    Attributes:
        models: which ones; the others are compared with the first.
        open_subjects: opens them.
        truth: name of the truth's topics.
        topic: of the images; empty for the only one.
        score: from which on an instance counts as published.
        report_frames: frames of each kind in a bag's report.
        bit_depth: of 16-bit images, 8 to 16 or `auto`.
    """

    command: ClassVar[str] = "evaluate"
    suffix: ClassVar[str] = ""
    models: tuple[ModelChoice, ...]
    open_subjects: OpenSubjects
    truth: str
    topic: str
    score: float
    report_frames: int
    bit_depth: str = "16"

    @classmethod
    def of(cls, models: Sequence[ModelChoice], open_subjects: OpenSubjects, **others: Any) -> EvaluateWork:
        """The work, for processes with another working folder; `others` are the other attributes."""
        return cls(tuple(map(anywhere, models)), open_subjects, **others)

    @property
    def choices(self) -> Sequence[ModelChoice]:
        """See `FleetWork`."""
        return self.models

    def settings(self) -> dict[str, Any]:
        """See `FleetWork`."""
        names = ("truth", "topic", "score", "report_frames")
        return {
            "models": [model_terms(each) for each in self.models],
            **{name: getattr(self, name) for name in names},
            # Fleets that were begun before there was this option go on.
            **({} if self.bit_depth == "16" else {"bit_depth": self.bit_depth}),
        }

    def open(self) -> FleetWorker:
        """See `FleetWork`."""
        return _EvaluateWorker(self)

    def totals(self, results: Sequence[Result]) -> dict[str, Any]:
        """See `FleetWork`."""
        objects: Counter[str] = Counter()
        for result in results:
            objects.update(result.outcome["objects"])
        counts = {name: sum(each.outcome[name] for each in results) for name in ("frames", "faults")}
        return {**counts, "objects": dict(objects)}

    def merge(self, results: Sequence[Result], folder: Path, new: bool) -> list[str]:
        """Average precision over the frames of all bags, which is no mean over bags."""
        names = results[0].outcome["models"]
        scores: dict[str, dict[str, Any]] = {name: {} for name in names}
        for name in names:
            for kind in KINDS:
                found = joined([_matched(folder / each.output, name, kind) for each in results]).average_precision()
                scores[name][kind] = {"AP": found.overall, "AP50": found.at_50, "per_category": found.per_class}
        content = json.dumps(plain({"bags": len(results), "models": scores}), indent=1)
        write_atomically(folder / EVALUATION, f"{content}\n".encode())
        return [
            f"{name}: mask AP {each['mask']['AP']:.4f}, box AP {each['box']['AP']:.4f} over {len(results)} bags"
            for name, each in scores.items()
        ]


def joined(parts: Sequence[MatchedResults]) -> MatchedResults:
    """Matched results of several bags as one, class by class under their names."""
    names = dict.fromkeys(name for part in parts for name in part.classes)
    # A bag that lacks a class has no match of it in any image.
    absent = [ClassMatches.of([None] * len(part.image_ids)) for part in parts]
    classes = {
        name: ClassMatches.joined([part.classes.get(name, none) for part, none in zip(parts, absent, strict=True)])
        for name in names
    }
    # Numbers of images begin again in each bag.
    return MatchedResults(parts[0].kind, range(sum(len(part.image_ids) for part in parts)), classes)


def _matched(folder: Path, model: str, kind: str) -> MatchedResults:
    """The results of a bag, matched again; the files may be of an earlier run, and are checked as anybody's.

    Raises:
        ConfigurationError, SourceError: they cannot be read, or were changed.
    """
    path = inside(folder, "truth.json", what="truth of a bag")
    truth, _ = read_annotations(path)
    if broken := checked_annotations(path, truth):
        raise SourceError(next(iter(broken.values())))
    path = inside(folder, f"{model}.results.json", what="results of a bag")
    entries = read_json(path, "COCO results")
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    try:
        for each in entries:
            check_counts(each["segmentation"], *sizes[each["image_id"]])
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path}: expected COCO results of {folder / 'truth.json'}: {error!r}") from error
    return summarize(truth, [(sorted(sizes), entries)], kind)[0]


class _EvaluateWorker(FleetWorker):
    def __init__(self, work: EvaluateWork) -> None:
        self._work = work
        with ExitStack() as opened:
            self._subjects = work.open_subjects(work.models, opened)
            self._opened = opened.pop_all()

    @property
    def identity(self) -> Mapping[str, str]:
        return self._subjects[0].segmenter.identity

    def do(self, task: Task, output: Path, tell: Tell) -> Mapping[str, Any]:
        """Evaluate on a bag."""
        labelled = read_bag(Path(task.source.path), self._work.truth, self._work.topic)
        labelled.source.bit_depth = self._work.bit_depth
        total = len(labelled.images)

        def watch(frames: Frames) -> Iterator[Any]:
            for done, frame in enumerate(frames, 1):
                yield frame
                tell(done, total)

        output.mkdir()
        options = EvaluateOptions(self._work.score, self._work.report_frames, watch)
        found = evaluate(self._subjects, labelled, options, output)
        write_evaluation(output / EVALUATION, found)
        write_evaluation_report(output / "report.html", found)
        faults = (*found.data.unreadable, *found.data.without_output)
        scores = [{each.kind: each.stats["AP"] for each in scores.coco} for scores in found.scores]
        return {
            "frames": found.data.frames,
            "faults": len(faults),
            "first_faults": list(faults[:20]),
            "objects": dict(found.data.objects),
            "models": [each.name for each in found.models],
            "AP": scores,
        }

    def close(self) -> None:
        """Close the models."""
        self._opened.close()
