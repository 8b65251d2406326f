"""Labels of each bag in a data set of its own, and one data set of all of them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from seg_perception.offboard.label.dataset import STATE
from seg_perception.offboard.label.merge import merge
from seg_perception.offboard.label.run import Labeller, LabelOptions
from seg_perception.onboard.pipeline.opening import ModelChoice

from .models import anywhere, model_terms
from .results import DATASET, set_aside
from .work import FleetWork, FleetWorker, Result, Task, Tell, plain


@dataclass(frozen=True, slots=True)
class LabelWork(FleetWork):
    """What every bag is labelled with.

    Attributes:
        options: of the labeller.
    """

    command: ClassVar[str] = "label"
    suffix: ClassVar[str] = ""
    precious: ClassVar[bool] = True
    options: LabelOptions

    @classmethod
    def of(cls, options: LabelOptions) -> LabelWork:
        """The work, for processes with another working folder."""
        first, *others = (anywhere(each) for each in _choices(options))
        other = Path(others[0].model) if others else None
        return cls(replace(options, model=Path(first.model), other_model=other, classes=first.classes))

    @property
    def choices(self) -> Sequence[ModelChoice]:
        """See `FleetWork`."""
        return _choices(self.options)

    def settings(self) -> dict[str, Any]:
        """See `FleetWork`."""
        first, *others = (model_terms(each) for each in _choices(self.options))
        own = plain(asdict(self.options))
        rest = {name: own[name] for name in own if name not in ("model", "other_model", "run", "backend", "classes")}
        if rest["bit_depth"] == "16":
            # Fleets that were begun before there was this option go on.
            del rest["bit_depth"]
        return {**first, **rest, "other model": others[0]["model"] if others else None}

    def open(self) -> FleetWorker:
        """See `FleetWork`."""
        return _LabelWorker(Labeller(self.options))

    def totals(self, results: Sequence[Result]) -> dict[str, Any]:
        """See `FleetWork`."""
        sums: dict[str, Counter[str]] = {"picks": Counter(), "objects": Counter()}
        for result in results:
            for name, counter in sums.items():
                counter.update(result.outcome[name])
        counts = {name: sum(each.outcome[name] for each in results) for name in ("frames", "chosen", "faults")}
        return {**counts, **{name: dict(counter) for name, counter in sums.items()}}

    def merge(self, results: Sequence[Result], folder: Path, new: bool) -> list[str]:
        """Make one data set of all; one that is there and has others is kept under another name."""
        if not new and _sources(folder / DATASET) == {each.source.path for each in results}:
            return []
        parts = [folder / each.output for each in sorted(results, key=lambda each: each.name)]
        partial, whole = folder / f".{DATASET}.partial", folder / DATASET
        shutil.rmtree(partial, ignore_errors=True)
        merged = merge(parts, partial)
        set_aside(whole)
        partial.replace(whole)
        return [f"{len(merged)} frames of {len(parts)} bags as one data set: {whole}"]


class _LabelWorker(FleetWorker):
    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller

    @property
    def identity(self) -> Mapping[str, str]:
        return self._labeller.identity

    def do(self, task: Task, output: Path, tell: Tell) -> Mapping[str, Any]:
        """Label a bag."""
        summary = self._labeller.label([Path(task.source.path)], output)
        faults = [reason for reasons in summary.failures.values() for reason in reasons]
        return {
            "frames": summary.seen,
            "chosen": summary.chosen,
            "repeated": summary.repeated,
            "picks": dict(summary.picks),
            "objects": dict(summary.objects),
            "faults": len(faults),
            "first_faults": faults[:20],
            "warnings": list(summary.warnings),
        }

    def close(self) -> None:
        """Close the models."""
        self._labeller.close()


def _sources(folder: Path) -> set[str]:
    """Recordings of a data set; none if there is none."""
    try:
        return set(json.loads((folder / STATE).read_text(encoding="utf-8"))["sources"])
    except (OSError, KeyError, ValueError):
        return set()


def _choices(options: LabelOptions) -> list[ModelChoice]:
    models = [each for each in (options.model, options.other_model) if each is not None]
    run = options.run
    return [ModelChoice(str(each), options.backend, run.device, run.threads, options.classes) for each in models]
