"""Replay of each bag into a bag of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from seg_perception.core.errors import ConfigurationError, SourceError
from seg_perception.core.files import writable_folder
from seg_perception.offboard.replay.job import ReplayJob, run_job
from seg_perception.offboard.replay.writer import SUFFIX
from seg_perception.onboard.pipeline.opening import ModelChoice, open_segmenter
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.segmenter import Segmenter

from .models import anywhere, model_terms
from .results import MANIFEST, SUMMARY, read_manifest
from .work import FleetWork, FleetWorker, Result, Task, Tell, plain

# Watchers tell of every so many frames.
_TELL = 8


@dataclass(frozen=True, slots=True)
class ReplayWork(FleetWork):
    """What every bag is replayed with.

    Attributes:
        model: which model, and how it runs.
        options: of the segmenter.
        job: the rest; its paths and output are replaced by those of the task, `against` is the folder of an earlier
            fleet, and `report` a folder for the pages of the bags.
    """

    command: ClassVar[str] = "replay"
    suffix: ClassVar[str] = SUFFIX
    model: ModelChoice
    options: SegmenterOptions
    job: ReplayJob

    @classmethod
    def of(cls, model: ModelChoice, options: SegmenterOptions, job: ReplayJob) -> ReplayWork:
        """The work, for processes with another working folder.

        Raises:
            ConfigurationError: `job.against` is no folder of bags.
        """
        against, report = job.against, job.report
        if against is not None and not (against / SUMMARY).is_file():
            raise ConfigurationError(
                f"--against {against}: expected the folder of an earlier run over the same bags, with {SUMMARY}"
            )
        job = replace(
            job,
            paths=(),
            against=against.resolve() if against is not None else None,
            report=report.resolve() if report is not None else None,
        )
        return cls(anywhere(model), options, job)

    @property
    def choices(self) -> Sequence[ModelChoice]:
        """See `FleetWork`."""
        return (self.model,)

    def settings(self) -> dict[str, Any]:
        """See `FleetWork`."""
        job = self.job
        return {
            **model_terms(self.model),
            "options": plain(asdict(self.options)),
            "topics": list(job.topics),
            "part": plain(asdict(job.part)),
            "copy": job.copy,
            "output": plain(asdict(job.options)),
            "against": str(job.against) if job.against else None,
            "report": str(job.report) if job.report else None,
            # Fleets that were begun before there was this option go on.
            **({} if job.bit_depth == "16" else {"bit_depth": job.bit_depth}),
        }

    def open(self) -> FleetWorker:
        """See `FleetWork`."""
        if self.job.report is not None:
            writable_folder(self.job.report)
        segmenter = open_segmenter(self.model, self.options)
        segmenter.warm_up()
        return _ReplayWorker(self, segmenter)

    def totals(self, results: Sequence[Result]) -> dict[str, Any]:
        """See `FleetWork`."""
        return replay_totals([each.outcome for each in results])


class _ReplayWorker(FleetWorker):
    def __init__(self, work: ReplayWork, segmenter: Segmenter) -> None:
        self._work, self._segmenter = work, segmenter

    @property
    def identity(self) -> Mapping[str, str]:
        return self._segmenter.identity

    def do(self, task: Task, output: Path, tell: Tell) -> Mapping[str, Any]:
        """Replay a bag."""
        template = self._work.job
        job = replace(
            template,
            paths=(Path(task.source.path),),
            output=output,
            against=_earlier(template.against, task) if template.against else None,
            report=template.report / f"{task.name}.html" if template.report else None,
        )
        recordings = job.recordings()
        total = recordings[0].count
        done = 0

        def watch(*_: object) -> None:
            nonlocal done
            done += 1
            if done % _TELL == 0:
                tell(done, total)

        outcome = run_job(job, self._segmenter, recordings, [watch])
        values = outcome.as_json()
        warnings = [line for recording in recordings for line in recording.warnings.lines()]
        return {**values, "frames": outcome.record.total, "cameras": values["frames"], "warnings": warnings}

    def close(self) -> None:
        """Close the model."""
        self._segmenter.close()


def _earlier(folder: Path, task: Task) -> Path:
    """Return what an earlier run made of the same bag.

    Raises:
        SourceError: it made nothing of it, or calls something else so.
    """
    earlier = read_manifest(folder / f"{task.name}{MANIFEST}")
    if earlier is None or earlier.source.path != task.source.path:
        there = "none" if earlier is None else f"one of {earlier.source.path}"
        raise SourceError(f"{folder}: expected a result {task.name} of {task.source.path} to compare with, got {there}")
    return folder / earlier.output


def replay_totals(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of what `Outcome.as_json` says of each bag, means weighted by frames."""
    frames = sum(each["frames"] for each in outcomes)
    sums: dict[str, Counter[str]] = {name: Counter() for name in ("cameras", "lost", "instances")}
    stages: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    for each in outcomes:
        for name, counter in sums.items():
            counter.update(each[name])
        for stage, value in each["stage_ms"].items():
            stages[stage] += value * each["frames"] / max(frames, 1)
        compared = each.get("changes", {})
        changes.update({name: value for name, value in compared.items() if isinstance(value, int)})
        if compared.get("mean_iou") is not None:
            changes["iou"] += compared["mean_iou"] * compared["matched"]
    seconds = sum(each["seconds"] for each in outcomes)
    totals = {
        "frames": frames,
        "frames of": dict(sums["cameras"]),
        "lost": dict(sums["lost"]),
        "faults": sum(each["faults"] for each in outcomes),
        "instances": dict(sums["instances"]),
        "seconds of workers": round(seconds, 3),
        "frames_per_second of a worker": round(frames / seconds, 2) if seconds else None,
        "stage_ms": {stage: round(value, 3) for stage, value in stages.items()},
        "bytes": sum(each["bytes"] for each in outcomes),
    }
    if changes:
        iou = changes.pop("iou", 0) / max(changes["matched"], 1)
        totals["changes"] = {**changes, "mean_iou": round(iou, 6)}
    return totals
