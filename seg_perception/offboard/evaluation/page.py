"""The report of an evaluation: how good and how fast the models are, where they fail, and what they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from seg_perception.offboard.metrics.average_precision import Difference
from seg_perception.offboard.report.agreement import agreement_rows
from seg_perception.offboard.report.axes import Axis
from seg_perception.offboard.report.html import MISSING, Content, Html
from seg_perception.offboard.report.page import (
    Section,
    bullets,
    collapsed,
    comparison,
    number,
    paragraph,
    subheading,
    table,
    verdict,
    write_page,
)
from seg_perception.offboard.report.plots import (
    Bar,
    Series,
    bar_chart,
    cumulative,
    histogram,
    line_plot,
    plots,
    time_line,
)

from .page_frames import frames
from .results import COCO_STATS, Comparison, Evaluation, Stratum
from .tracking import ALL_GROUPS

_ALL = "all"


def write_evaluation_report(path: Path, evaluation: Evaluation) -> Path:
    """Write the report of an evaluation as one file that fetches nothing.

    Args:
        path: of the file; its folder exists.
        evaluation: what was found.

    Returns:
        `path`.

    Raises:
        ConfigurationError: it cannot be written.
    """
    names = ", ".join(each.name for each in evaluation.models)
    return write_page(path, f"Evaluation of {names}", _lead(evaluation), [*_sections(evaluation)])


def _sections(found: Evaluation) -> Iterator[Section]:
    yield Section("Models", [_summary(found), *_comparisons(found)])
    yield Section("Average precision as COCO sums it up", _coco(found))
    yield Section("Where objects are found", _strata(found))
    yield Section("Precision and recall", _curves(found))
    yield Section("Speed", _speed(found))
    yield Section("Panoptic quality", _panoptic(found))
    yield Section("Outlines", _boundaries(found))
    yield Section("Tracking", _tracking(found))
    yield from frames(found)
    yield Section("What the models are", _manifests(found))
    yield Section("Data and settings", _settings(found))


def _lead(found: Evaluation) -> list[Html]:
    data = found.data
    objects = ", ".join(f"{count} of {group}" for group, count in data.objects.items())
    about = f"{data.frames} frames of {data.name} ({data.kind}), with {objects} to be found."
    differences = [_difference_line(found, each) for each in found.comparisons]
    left_out = [f"Not counted: {each}." for each in data.left_out()]
    return [paragraph(about), verdict(_sentence(found), None, [*left_out, *differences]), bullets(found.notes)]


def _sentence(found: Evaluation) -> str:
    """The first model in a sentence."""
    first = found.scores[0]
    values = ", ".join(f"{each.kind} AP {number(each.stats['AP'])}" for each in first.coco)
    return f"{found.models[0].name}: {values}, {first.throughput.frames_per_second:.1f} frames/s."


def _difference_line(found: Evaluation, each: Comparison) -> str:
    """Return what another model gains and loses against the first."""
    first, other = (found.scores[n].throughput.frames_per_second for n in (0, each.model))
    changes = ", ".join(
        f"{kind} AP {_points(groups[_ALL])} points" for kind, groups in each.differences.items() if _ALL in groups
    )
    speed = f"{other / first:.2f} times its speed" if first > 0 else f"{other:.1f} frames/s"
    return f"{found.models[each.model].name} against {found.models[0].name}: {changes}; {speed}"


def _summary(found: Evaluation) -> Html:
    header = ["model", "mask AP", "mask AP50", "box AP", "PQ", "boundary IoU"]
    tracked = any(each.tracking for each in found.scores)
    header += ["HOTA", "IDF1"] if tracked else []
    header += ["frames/s", "p50 (ms)", "p99 (ms)"]
    rows = []
    for model, scores in zip(found.models, found.scores, strict=True):
        coco = {each.kind: each.stats for each in scores.coco}
        quality = [coco.get("mask", {}).get("AP"), coco.get("mask", {}).get("AP50"), coco.get("box", {}).get("AP")]
        panoptic, boundary = scores.panoptic.means.get(_ALL), scores.boundary.get(_ALL)
        quality += [panoptic.quality if panoptic else None, boundary.boundary_iou if boundary else None]
        tracking = (scores.tracking or {}).get(ALL_GROUPS)
        quality += [tracking.hota if tracking else None, tracking.idf1 if tracking else None] if tracked else []
        total = scores.throughput.stages.get("total")
        speed = [number(scores.throughput.frames_per_second, 1)]
        speed += [number(total.p50, 1), number(total.p99, 1)] if total else [MISSING, MISSING]
        rows.append([model.name, *map(_share, quality), *speed])
    return table(header, rows, numbers=1, sortable=len(rows) > 1)


def _comparisons(found: Evaluation) -> Iterator[Html]:
    """Every further model against the first."""
    if not found.comparisons:
        return
    first = found.models[0].name
    names = {each.model: found.models[each.model].name for each in found.comparisons}
    yield subheading(f"Against {first}")
    yield paragraph("Differences of average precision in points, with the interval that holds 95 % of a paired ",
                    "bootstrap over frames.")  # fmt: skip
    charts, rows = [], []
    for kind in found.comparisons[0].differences:
        groups = list(found.comparisons[0].differences[kind])
        bars = {
            names[each.model]: [_bar(each.differences[kind].get(group)) for group in groups]
            for each in found.comparisons
        }
        charts.append(bar_chart(f"{kind} AP", groups, bars, Axis(f"points above {first}"), digits=2))
        for group in groups:
            values = (each.differences[kind].get(group) for each in found.comparisons)
            rows.append([f"{kind}, {group}", *(_points(each) if each else MISSING for each in values)])
    yield plots(*charts)
    yield table(["AP", *names.values()], rows, numbers=1)
    agreed = [agreement_rows(each.agreement) for each in found.comparisons]
    together = [[lines[0][0], *(value for _, value in lines)] for lines in zip(*agreed, strict=True)]
    yield collapsed(f"what they find and {first} finds", table(["", *names.values()], together, numbers=1))


def _coco(found: Evaluation) -> Iterator[Html]:
    over = "the data set's categories" if found.by_categories else "the road groups, as a model lacks some categories"
    names = ", ".join(found.data.categories)
    yield paragraph(f"The mean over {over}: {names}.")
    pairs = [
        (model.name, coco) for model, scores in zip(found.models, found.scores, strict=True) for coco in scores.coco
    ]
    rows = [[name, coco.kind, *(_share(coco.stats.get(stat)) for stat in COCO_STATS)] for name, coco in pairs]
    yield table(["model", "of", *COCO_STATS], rows, numbers=2, sortable=True)
    header = ["category", *(f"{name}, {coco.kind}" for name, coco in pairs)]
    categories = dict.fromkeys(name for _, coco in pairs for name in coco.per_category)
    lines = [[each, *(_share(coco.per_category.get(each)) for _, coco in pairs)] for each in categories]
    yield collapsed("AP by category", table(header, lines, numbers=1, sortable=True))


def _strata(found: Evaluation) -> Iterator[Html]:
    if not found.strata:
        return
    yield paragraph(
        "Some of the objects at a time; the others are neither to be found nor wrong when found. Average precision is ",
        f"the mean over road groups; found is the share with a result of score {found.score:g} or more and a mask IoU ",
        "of 0.5 or more, the IoU of mask and outline the mean over these.",
    )
    dimensions = [(name, list(rows)) for name, rows in groupby(found.strata, lambda each: each.dimension)]
    yield plots(*(_stratum_chart(found, name, rows) for name, rows in dimensions))
    for name, rows in dimensions:
        yield collapsed(f"by {name}" if name != _ALL else "all objects", _stratum_table(found, name, rows))


def _stratum_chart(found: Evaluation, dimension: str, rows: Sequence[Stratum]) -> Html:
    bars = {model.name: [Bar(row.scores[place].mask_ap) for row in rows] for place, model in enumerate(found.models)}
    names = [f"{row.name} ({row.objects})" for row in rows]
    title = f"mask AP by {dimension}" if dimension != _ALL else "mask AP, all objects"
    return bar_chart(title, names, bars, Axis("mask AP (objects in brackets)", 0))


def _stratum_table(found: Evaluation, dimension: str, rows: Sequence[Stratum]) -> Html:
    header = [dimension, "model", "objects", "mask AP", "AP50", "box AP", "AP50", "found", "mask IoU", "boundary IoU"]
    lines = []
    for row in rows:
        for model, score in zip(found.models, row.scores, strict=True):
            values = (score.mask_ap, score.mask_ap50, score.box_ap, score.box_ap50, score.found, score.mask_iou,
                      score.boundary_iou)  # fmt: skip
            lines.append([row.name, model.name, str(row.objects), *map(_share, values)])
    return table(header, lines, numbers=2, sortable=True)


def _curves(found: Evaluation) -> Iterator[Html]:
    """Masks of all groups first; the rest on demand."""
    if not found.curves:
        return
    by_plot: dict[tuple[str, str, float], list[Series]] = {}
    for curve in found.curves:
        says = ["" if score != score else f"score {score:.3f}" for score in curve.scores.tolist()]
        series = Series(found.models[curve.model].name, curve.recall, curve.precision, says)
        by_plot.setdefault((curve.kind, curve.group, curve.iou), []).append(series)
    drawn = {
        key: line_plot(f"{key[0]}, {key[1]}, IoU {key[2]:.2f}", series, Axis("recall", 0, 1), Axis("precision", 0, 1))
        for key, series in by_plot.items()
    }
    first = [plot for key, plot in drawn.items() if key[1] == _ALL]
    others = [plot for key, plot in drawn.items() if key[1] != _ALL]
    yield paragraph("Under the mouse: recall, precision, and the score threshold that gives them.")
    yield plots(*(first or others))
    if first and others:
        yield collapsed("by road group", plots(*others))


def _speed(found: Evaluation) -> Iterator[Html]:
    speeds = {model.name: scores.throughput for model, scores in zip(found.models, found.scores, strict=True)}
    yield paragraph(
        "From the decoded image to the instance map, on the machine that evaluated; milliseconds a frame."
    )
    rows = [
        [name, stage, *(number(value, 2) for value in (each.mean, each.p50, each.p90, each.p99, each.largest))]
        for name, speed in speeds.items()
        for stage, each in speed.stages.items()
    ]
    yield table(["model", "stage", "mean", "p50", "p90", "p99", "largest"], rows, numbers=2, sortable=True)
    samples = {name: speed.samples_ms for name, speed in speeds.items()}
    in_order = [Series(name, range(len(values)), values) for name, values in samples.items()]
    yield plots(
        histogram("How often which time", samples, "time of a frame (ms)"),
        cumulative("Frames done within a time", samples, Axis("time of a frame (ms)", log=True)),
        time_line("From frame to frame", in_order, Axis("frame"), Axis("time (ms)", 0)),
    )


def _panoptic(found: Evaluation) -> Iterator[Html]:
    header = ["", "model", "PQ", "SQ", "RQ", "matched", "extra", "missed"]

    def rows(tables: Sequence[Mapping[str, Any]]) -> Iterator[list[Content]]:
        for name in dict.fromkeys(name for entries in tables for name in entries):
            for model, entries in zip(found.models, tables, strict=True):
                if (score := entries.get(name)) is not None:
                    shares = map(_share, (score.quality, score.segmentation, score.recognition))
                    yield [name, model.name, *shares, f"{score.matched}", f"{score.extra}", f"{score.missed}"]

    means = [each.panoptic.means for each in found.scores]
    if not any(means):
        return
    yield paragraph(
        "Of the painted maps, where every pixel belongs to one instance. Quality is segmentation (mean IoU of matched ",
        "segments) times recognition (F1 of segments).",
    )
    yield table(header, rows(means), numbers=2)
    yield collapsed("by class", table(header, rows([each.panoptic.per_class for each in found.scores]), numbers=2,
                                      sortable=True))  # fmt: skip


def _boundaries(found: Evaluation) -> Iterator[Html]:
    rows = [
        [group, model.name, f"{each.objects}", _share(each.mask_iou), _share(each.boundary_iou)]
        for group in dict.fromkeys(group for scores in found.scores for group in scores.boundary)
        for model, scores in zip(found.models, found.scores, strict=True)
        if (each := scores.boundary.get(group)) is not None
    ]
    if rows:
        yield paragraph("Mean IoU of the objects found, of whole masks and of strips along their outlines.")
        yield table(["road group", "model", "objects", "mask IoU", "boundary IoU"], rows, numbers=2, sortable=True)


def _tracking(found: Evaluation) -> Iterator[Html]:
    rows = [
        [group, model.name, *map(_share, (each.hota, each.detection, each.association, each.idf1)), f"{each.switches}",
         f"{each.fragments}", f"{each.reported_tracks}", f"{each.true_tracks}"]
        for group in dict.fromkeys(group for scores in found.scores for group in scores.tracking or {})
        for model, scores in zip(found.models, found.scores, strict=True)
        if scores.tracking and (each := scores.tracking.get(group)) is not None
    ]  # fmt: skip
    header = ["road group", "model", "HOTA", "DetA", "AssA", "IDF1", "switches", "fragments", "tracks", "true tracks"]
    if rows:
        yield paragraph(f"Over {found.data.sequences} sequences.")
        yield table(header, rows, numbers=2, sortable=True)


def _manifests(found: Evaluation) -> Iterator[Html]:
    yield comparison({each.name: {"file": each.file, **each.identity} for each in found.models})
    groups = {each.name: dict(zip(each.class_names, each.group_names, strict=True)) for each in found.models}
    yield collapsed("classes and their road groups", comparison(groups))
    yield collapsed(
        "what the models say of themselves", comparison({e.name: dict(_flat(e.spec)) for e in found.models})
    )
    engines = {each.name: dict(_flat(each.manifest)) for each in found.models if each.manifest is not None}
    if engines:
        yield collapsed("manifests of the engines", comparison(engines))


def _settings(found: Evaluation) -> Iterator[Html]:
    data = found.data
    times = {f"seconds of {what}": f"{value:.1f}" for what, value in found.seconds.items()}
    yield comparison({"": {
        "data": data.name, "kind": data.kind, "frames": f"{data.frames}", "sequences": f"{data.sequences}",
        "score threshold": f"{found.score:g}", "made": found.created, "seg_perception": found.package_version, **times,
        **{f"results of {m.name}": s.results_file for m, s in zip(found.models, found.scores, strict=True)},
    }})  # fmt: skip
    for what, lines in (
        ("files that are not there", data.missing),
        ("what could not be read", data.unreadable),
        ("frames for which a model gave NaN or infinity", data.without_output),
    ):
        if lines:
            yield collapsed(f"{what}: {len(lines)}", bullets(lines))


def _flat(values: object, name: str = "") -> Iterable[tuple[str, str]]:
    """Nested values by the names that lead to them; lists of plain values as one text."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, list | tuple) and any(isinstance(each, Mapping | list | tuple) for each in values):
        for place, value in enumerate(values):
            yield from _flat(value, f"{name}.{place}")
    else:
        yield name, ", ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)


def _share(value: float | None) -> str:
    return MISSING if value is None else number(value)


def _bar(difference: Difference | None) -> Bar:
    if difference is None:
        return Bar(float("nan"))
    return Bar(100 * difference.value, 100 * difference.low, 100 * difference.high)


def _points(difference: Difference) -> str:
    if difference.value != difference.value:
        return MISSING
    value, low, high = (
        number(100 * each, 2, sign=True) for each in (difference.value, difference.low, difference.high)
    )
    return f"{value} ({low} to {high})"
