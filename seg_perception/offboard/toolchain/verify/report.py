"""The report of a verification: one HTML file with its images inside, readable without a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from pathlib import Path

import numpy as np

from seg_perception.offboard.metrics.compact import FrameInstances
from seg_perception.offboard.report import agreement
from seg_perception.offboard.report.drawing import ONLY_FIRST, ONLY_SECOND, RELABELLED, colour_key
from seg_perception.offboard.report.gallery import Shot, gallery, share_of_bytes
from seg_perception.offboard.report.html import Html
from seg_perception.offboard.report.page import (
    Section,
    bullets,
    collapsed,
    comparison,
    paragraph,
    table,
    verdict,
    write_page,
)

from .compare import ComparedFrame, PrecisionPair, Verification
from .overlays import layers


def write_report(folder: Path, verification: Verification, data: str, notes: Sequence[str] = ()) -> Path:
    """Write `report.html`.

    Args:
        folder: exists.
        verification: what came out.
        data: what the frames were, for people.
        notes: what else should be known, such as frames that were skipped.

    Returns:
        Its path.

    Raises:
        ConfigurationError: it cannot be written.
    """
    title = f"Verification of {Path(verification.tested['model']).name}"
    return write_page(folder / "report.html", title, _verdict(verification), [*_sections(verification, data, notes)])


def _verdict(found: Verification) -> Html:
    sentence = "Over the budget." if found.violations else "Within the budget."
    return verdict(sentence, not found.violations, found.violations)


def _sections(found: Verification, data: str, notes: Sequence[str]) -> Iterator[Section]:
    models = comparison({"tested": found.tested, "reference": found.reference})
    frames = f"{found.agreement.frames} frames: {data}"
    yield Section("Models and frames", [models, bullets([frames, *_settings(found), *notes])])
    title = "Agreement of the class maps" if found.semantic else "Agreement, instance by instance"
    yield Section(title, table(("", "value"), agreement_rows(found), numbers=1))
    header = ("", "reference", "tested", "difference in points")
    for pair in found.precision:
        by_class = collapsed("by class", table(header, class_rows(pair), numbers=1, sortable=True))
        rows = table(header, precision_rows(pair), numbers=1)
        yield Section(f"Average precision, {pair.reference.kind}", [rows, by_class])
    yield Section("Frames that differ most", _frames(found))


def _settings(found: Verification) -> list[str]:
    rule, budget = found.options.rule, found.options.budget
    if found.semantic:
        return [
            f"budget: the same class in {100 * budget.min_iou:g} % of the pixels, and a mean IoU of the classes of at "
            f"least {budget.min_class_iou:g}"
        ] if budget is not None else []
    lines = [
        f"an instance counts from score {rule.score:g} and {rule.min_pixels} pixels on; its counterpart has the same "
        f"class, a mask IoU of at least {rule.iou:g} and a score of at least {rule.lowest_score:g}"
    ]
    if budget is not None:
        lines.append(f"budget: mean mask IoU of at least {budget.min_iou:g}")
        if isfinite(budget.max_faults):
            faults = "false negatives, false positives and class confusions"
            lines.append(f"budget: at most {100 * budget.max_faults:g} % {faults}")
    if found.options.max_loss is not None:
        lines.append(f"budget: a loss of at most {found.options.max_loss:g} points of mask AP")
    return lines


def agreement_rows(found: Verification) -> list[tuple[str, str]]:
    """Label and value of each line about agreement."""
    rows = [] if found.semantic else agreement.agreement_rows(found.agreement, found.differing)
    if found.class_maps is not None:
        worst = sorted((value, found.class_names[label]) for label, value in found.class_maps.iou().items())
        rows += [
            ("class map: pixels of the same class", f"{100 * found.class_maps.share:.2f} %"),
            ("class map: mean IoU of the classes", f"{found.class_maps.mean_iou:.4f}"),
            ("class map: lowest IoU of a class", f"{worst[0][0]:.4f} ({worst[0][1]})" if worst else "-"),
        ]
    return rows


def precision_rows(pair: PrecisionPair) -> list[tuple[str, str, str, str]]:
    """Label, reference, tested and difference in points: overall and by road group."""
    first, second, difference = pair.reference, pair.tested, pair.difference
    interval = f"{100 * difference.value:+.2f} ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})"
    return [
        ("AP (95 % interval)", f"{first.overall:.4f}", f"{second.overall:.4f}", interval),
        ("AP at IoU 0.50", *_compared(first.at_50, second.at_50)),
        *((group, *_compared(value, second.per_group[group])) for group, value in first.per_group.items()),
    ]


def class_rows(pair: PrecisionPair) -> list[tuple[str, str, str, str]]:
    """Label, reference, tested and difference in points: by class."""
    second = pair.tested.per_class
    return [(name, *_compared(value, second[name])) for name, value in pair.reference.per_class.items()]


def _compared(first: float, second: float) -> tuple[str, str, str]:
    return f"{first:.4f}", f"{second:.4f}", f"{100 * (second - first):+.2f}"


def _frames(found: Verification) -> list[Html]:
    if not found.worst:
        return [paragraph("No frame differs." if found.options.images else "No images were asked for.")]
    key = colour_key(
        [
            (ONLY_FIRST, "only in the reference"),
            (ONLY_SECOND, "only in the tested model"),
            (RELABELLED, "another class"),
        ]
    )
    shots = (
        Shot(frame.name, describe(frame, found.class_names), layers(frame, found.class_names)) for frame in found.worst
    )
    return [
        paragraph("Counterparts have the same colour in both images. In the difference:"),
        key,
        gallery(shots, share_of_bytes(3 * len(found.worst))),
    ]


def describe(frame: ComparedFrame, class_names: Sequence[str]) -> str:
    """Return what differs in a frame, in words."""
    agreement, ours, theirs = frame.agreement, frame.reference, frame.tested
    parts = []
    if len(agreement.missed):
        parts.append("false negatives " + ", ".join(_names(ours, agreement.missed.tolist(), class_names)))
    if len(agreement.extra):
        parts.append("false positives " + ", ".join(_names(theirs, agreement.extra.tolist(), class_names)))
    for row, column in agreement.switched.tolist():
        (before,), (after,) = _names(ours, [row], class_names), _names(theirs, [column], class_names)
        parts.append(f"{before} became {after}")
    if len(agreement.iou):
        parts.append(
            f"{len(agreement.iou)} matched with a mask IoU of {agreement.iou.mean():.3f} on average and "
            f"{agreement.iou.min():.3f} at least"
        )
    if frame.relabelled is not None:
        parts.append(f"another class in {100 * np.mean(frame.relabelled):.2f} % of the class map")
    return "; ".join(parts)


def _names(found: FrameInstances, rows: Iterable[int], class_names: Sequence[str]) -> list[str]:
    return [f"{class_names[found.labels[row]]} ({found.scores[row]:.2f})" for row in rows]
