"""An evaluation as tables of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from seg_perception.core.text import aligned
from seg_perception.offboard.evaluation.results import COCO_STATS, Comparison, Evaluation

_STRATUM = ("mask_ap", "mask_ap50", "box_ap", "found", "mask_iou", "boundary_iou")
# Of more classes text is no overview; the report and the JSON file have them all.
_MOST_CLASSES = 24
_STRATUM_HEADS = ("mask AP", "AP50", "box AP", "found", "mask IoU", "boundary")


def tables(evaluation: Evaluation) -> Iterator[str]:
    """Tables, one after the other."""
    names = [model.name for model in evaluation.models]
    yield _coco(evaluation, names)
    yield _speed(evaluation, names)
    for place, name in enumerate(names):
        yield _strata(evaluation, place, f"{name}: by group, size and surroundings")
    yield _panoptic(evaluation, names)
    if any(scores.tracking for scores in evaluation.scores):
        yield _tracking(evaluation, names)
    for comparison in evaluation.comparisons:
        yield _comparison(comparison, names)


def text_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under a title; the first to the left, the others to the right."""
    rule = ["-" * max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return "\n  ".join([title, *aligned([heads, rule, *rows])])


def _coco(evaluation: Evaluation, names: Sequence[str]) -> str:
    over = "categories of the data set" if evaluation.by_categories else "road groups"
    rows = [
        [name, coco.kind, *(_number(coco.stats[stat]) for stat in COCO_STATS)]
        for name, scores in zip(names, evaluation.scores, strict=True)
        for coco in scores.coco
    ]
    lines = [text_table(f"COCO's summary over {over}", ["model", "of", *COCO_STATS], rows)]
    return "\n  ".join([*lines, *(f"not counted: {each}" for each in evaluation.data.left_out())])


def _speed(evaluation: Evaluation, names: Sequence[str]) -> str:
    rows = []
    for name, scores in zip(names, evaluation.scores, strict=True):
        speed = scores.throughput
        for stage, each in speed.stages.items():
            rate = f"{speed.frames_per_second:.1f}" if stage == "total" else ""
            times = (each.p50, each.p90, each.p99, each.largest)
            rows.append([name, stage, *(f"{value:.2f}" for value in times), rate])
    return text_table("Time of a frame, ms", ["model", "stage", "p50", "p90", "p99", "largest", "frames/s"], rows)


def _strata(evaluation: Evaluation, model: int, title: str) -> str:
    rows = []
    for stratum in evaluation.strata:
        scores = [_number(getattr(stratum.scores[model], name)) for name in _STRATUM]
        rows.append([stratum.dimension, stratum.name, str(stratum.objects), *scores])
    return text_table(title, ["by", "", "objects", *_STRATUM_HEADS], rows)


def _panoptic(evaluation: Evaluation, names: Sequence[str]) -> str:
    rows = []
    for name, scores in zip(names, evaluation.scores, strict=True):
        classes = scores.panoptic.per_class
        shown = classes if len(classes) <= _MOST_CLASSES else {}
        for what, each in {**scores.panoptic.means, **shown}.items():
            values = (each.quality, each.segmentation, each.recognition)
            counts = (each.matched, each.extra, each.missed)
            rows.append([name, what, *map(_number, values), *map(str, counts)])
    return text_table("Panoptic quality", ["model", "of", "PQ", "SQ", "RQ", "matched", "extra", "missed"], rows)


def _tracking(evaluation: Evaluation, names: Sequence[str]) -> str:
    rows = []
    for name, scores in zip(names, evaluation.scores, strict=True):
        for group, each in (scores.tracking or {}).items():
            values = (each.hota, each.detection, each.association, each.idf1)
            counts = (each.switches, each.fragments, each.true_tracks, each.reported_tracks)
            rows.append([name, group, *map(_number, values), *map(str, counts)])
    heads = ["model", "of", "HOTA", "DetA", "AssA", "IDF1", "switches", "fragments", "true tracks", "tracks"]
    return text_table("Tracks", heads, rows)


def _comparison(comparison: Comparison, names: Sequence[str]) -> str:
    rows = [
        [kind, group, *(f"{100 * value:+.2f}" for value in (each.value, each.low, each.high))]
        for kind, groups in comparison.differences.items()
        for group, each in groups.items()
    ]
    agreed = comparison.agreement
    title = f"{names[comparison.model]} against {names[0]}: points of AP gained, 95 % interval"
    total = (
        f"of {agreed.reference} instances {agreed.missed} lost and {agreed.switched} of another class, "
        f"{agreed.extra} new; counterparts, doubtful ones too, have a mean IoU of {_number(agreed.mean_iou)}"
    )
    return f"{text_table(title, ['of', '', 'gain', 'low', 'high'], rows)}\n  {total}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
