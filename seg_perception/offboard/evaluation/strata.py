"""Tables: how models do on some of the objects, by what they are, how they look and where they were seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.offboard.metrics.average_precision import KINDS, RECALL_LEVELS, ClassMatches, MatchedResults

from .model_run import ModelRun
from .results import BoundaryScore, Curve, Stratum, StratumScore
from .truth import FrameTruth

# Sides of a square of the object's area in pixels; 32 and 96 part COCO's small, medium and large.
SIZE_EDGES = (0.0, 16.0, 32.0, 96.0, float("inf"))
VISIBLE_EDGES = (0.0, 0.5, 0.8, 0.999, 1.001)
VISIBLE_NAMES = ("less than half", "half to 80 %", "80 % and more", "all of it")
NEAR_EDGES = (0, 1, 3, 6, np.iinfo(np.int64).max)
NEAR_NAMES = ("none near", "1 or 2 near", "3 to 5 near", "6 and more near")
DISTANCE_EDGES = (0.0, 10.0, 20.0, 40.0, float("inf"))
# What is said of images, and how it is called.
FACTS = {"weather": "weather", "timeofday": "time of day", "scene": "scene"}
# More different values are no table but a list.
_MOST_VALUES = 12


@dataclass(frozen=True, slots=True)
class TruthRow:
    """The objects of one frame without their masks; arrays as in `FrameTruth`.

    Attributes:
        facts: what the set says of the image.
    """

    groups: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    shapeless: NDArray[np.bool_]
    judged: NDArray[np.int64]
    areas: NDArray[np.float64]
    visible: NDArray[np.float64]
    occluded: NDArray[np.float64]
    distances: NDArray[np.float64]
    near: NDArray[np.int64]
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, truth: FrameTruth, facts: Mapping[str, Any]) -> TruthRow:
        """Keep what tables need."""
        return cls(
            truth.groups, truth.crowd, truth.shapeless, truth.judged, truth.areas, truth.visible, truth.occluded,
            truth.distances, truth.near, facts,
        )  # fmt: skip


Chooses = Callable[[TruthRow], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class _Choice:
    """Some of the objects.

    Attributes:
        dimension, name: as in `Stratum`.
        chooses: bool `[N]` of a frame's objects.
        groups: road groups that are looked at.
        sizes: least and largest area of results that are wrong when they match nothing.
        fact: key and value that images must have.
    """

    dimension: str
    name: str
    chooses: Chooses
    groups: tuple[int, ...] = tuple(range(len(ROAD_GROUPS)))
    sizes: tuple[float, float] | None = None
    fact: tuple[str, str] | None = None

    def frames(self, rows: Sequence[TruthRow]) -> list[int]:
        """Places of the images that are looked at."""
        if self.fact is None:
            return list(range(len(rows)))
        key, value = self.fact
        return [place for place, row in enumerate(rows) if row.facts.get(key) == value]


def strata(runs: Sequence[ModelRun], rows: Sequence[TruthRow]) -> tuple[Stratum, ...]:
    """All tables; what has no object is left out."""
    return tuple(each for choice in _choices(rows) if (each := _stratum(choice, runs, rows)).objects)


def group_matches(run: ModelRun, kind: str, rows: Sequence[TruthRow]) -> MatchedResults:
    """All results of a model matched with all objects, by road group."""
    choice = _Choice("all", "all", _every)
    return _matches(run, kind, choice, rows, choice.frames(rows))


def curves(model: int, run: ModelRun, rows: Sequence[TruthRow]) -> Iterator[Curve]:
    """Precision over recall at IoU 0.5 of each road group that has objects, and their mean."""
    for kind in KINDS:
        found = []
        for group, matches in group_matches(run, kind, rows).classes.items():
            precision, scores = matches.curve(0)
            if not np.isnan(precision).any():
                found.append(Curve(model, kind, group, 0.5, RECALL_LEVELS, precision, scores))
        if found:
            mean = np.mean([each.precision for each in found], axis=0)
            nowhere = np.full(len(RECALL_LEVELS), np.nan)
            yield Curve(model, kind, "all", 0.5, RECALL_LEVELS, mean, nowhere)
        yield from found


def boundary_scores(run: ModelRun, rows: Sequence[TruthRow]) -> dict[str, BoundaryScore]:
    """Outlines of found objects, by road group and over all."""
    groups = np.concatenate([np.zeros(0, np.int32), *(row.groups[row.judged] for row in rows)])
    mask_iou, outline_iou = (
        np.concatenate([np.zeros(0), *(getattr(each, name) for each in run.objects)])
        for name in ("mask_iou", "boundary_iou")
    )
    scores = {}
    for name, chosen in (("all", groups >= 0), *((name, groups == group) for group, name in enumerate(ROAD_GROUPS))):
        own = chosen & ~np.isnan(mask_iou)
        scores[name] = BoundaryScore(int(own.sum()), _mean(mask_iou[own]), _mean(outline_iou[own]))
    return scores


def _choices(rows: Sequence[TruthRow]) -> Iterator[_Choice]:
    yield _Choice("all", "all", _every)
    for group, name in enumerate(ROAD_GROUPS):
        yield _Choice("road group", name, _every, (group,))
    for low, high in pairwise(SIZE_EDGES):
        name = f"{low:g} to {high:g} px" if np.isfinite(high) else f"{low:g} px and more"
        yield _Choice("size", name, _between("areas", low**2, high**2), sizes=(low**2, high**2))
    for (low, high), name in zip(pairwise(VISIBLE_EDGES), VISIBLE_NAMES, strict=True):
        yield _Choice("visible part", name, _between("visible", low, high))
    for mark, name in enumerate(("no", "yes")):
        yield _Choice("marked as occluded", name, _between("occluded", mark, mark + 1))
    for (first, last), name in zip(pairwise(NEAR_EDGES), NEAR_NAMES, strict=True):
        yield _Choice("crowding", name, _between("near", first, last))
    for low, high in pairwise(DISTANCE_EDGES):
        name = f"{low:g} to {high:g} m" if np.isfinite(high) else f"{low:g} m and more"
        yield _Choice("distance", name, _between("distances", low, high))
    for key, dimension in FACTS.items():
        # The street world numbers its scenes: those are drives, not kinds of places.
        values = sorted({row.facts[key] for row in rows if isinstance(row.facts.get(key), str)})
        if 1 < len(values) <= _MOST_VALUES:
            for value in values:
                yield _Choice(dimension, value, _every, fact=(key, value))


def _every(row: TruthRow) -> NDArray[np.bool_]:
    return np.ones(len(row.groups), bool)


def _between(name: str, low: float, high: float) -> Chooses:
    """Objects with a value of at least `low` and below `high`; none where it is not known."""

    def chooses(row: TruthRow) -> NDArray[np.bool_]:
        values = getattr(row, name)
        chosen: NDArray[np.bool_] = (values >= low) & (values < high)
        return chosen

    return chooses


def _stratum(choice: _Choice, runs: Sequence[ModelRun], rows: Sequence[TruthRow]) -> Stratum:
    places = choice.frames(rows)
    chosen = [choice.chooses(rows[place])[rows[place].judged] for place in places]
    wanted = [
        each & np.isin(rows[place].groups[rows[place].judged], choice.groups)
        for place, each in zip(places, chosen, strict=True)
    ]
    # Objects without a mask are among those to be found as boxes.
    objects = sum(
        np.count_nonzero(choice.chooses(row) & ~row.crowd & np.isin(row.groups, choice.groups))
        for row in (rows[place] for place in places)
    )
    scores = tuple(_score(choice, run, rows, places, wanted) for run in runs) if objects else ()
    return Stratum(choice.dimension, choice.name, objects, scores)


def _score(
    choice: _Choice, run: ModelRun, rows: Sequence[TruthRow], places: list[int], wanted: list[NDArray[np.bool_]]
) -> StratumScore:
    precision = {kind: _matches(run, kind, choice, rows, places).average_precision() for kind in KINDS}
    found, mask_iou, outline_iou = (
        np.concatenate([getattr(run.objects[place], name)[own] for place, own in zip(places, wanted, strict=True)])
        for name in ("found", "mask_iou", "boundary_iou")
    )
    return StratumScore(
        precision["mask"].overall, precision["mask"].at_50, precision["box"].overall, precision["box"].at_50,
        _mean(found), _mean(mask_iou[found]), _mean(outline_iou[found]),
    )  # fmt: skip


def _matches(run: ModelRun, kind: str, choice: _Choice, rows: Sequence[TruthRow], places: list[int]) -> MatchedResults:
    counted = {place: choice.chooses(rows[place]) & ~rows[place].crowd for place in places}
    if kind == "mask":
        counted = {place: each & ~rows[place].shapeless for place, each in counted.items()}
    classes = {}
    for group in choice.groups:
        overlaps = [(place, run.overlaps[kind][place][group]) for place in places]
        classes[ROAD_GROUPS[group]] = ClassMatches.of(
            [each.outcome(~counted[place][each.truths], choice.sizes) for place, each in overlaps]
        )
    return MatchedResults(kind, places, classes)


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
