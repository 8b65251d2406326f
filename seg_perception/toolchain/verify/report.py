"""The report of a verification: one HTML file with its pictures inside, readable without a network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from math import isfinite
from pathlib import Path

import numpy as np

from ...files import write_atomically
from ...metrics.compact import FrameInstances
from .compare import ComparedFrame, PrecisionPair, Verification
from .pictures import ONLY_REFERENCE, ONLY_TESTED, RELABELLED, side_by_side

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #c62828; --good: #2e7d32; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #81c784; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1600px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.3rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 0.3rem; overflow-wrap: anywhere; }
.verdict { font-size: 1.1rem; border-left: 0.4rem solid; padding: 0.4rem 0.9rem; background: var(--soft); }
.good { border-color: var(--good); } .bad { border-color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.9rem 0.25rem 0; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td { overflow-wrap: anywhere; } td:first-child { overflow-wrap: normal; }
.side { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0.5rem; }
@media (max-width: 700px) { .side { grid-template-columns: 1fr; } }
figure { margin: 0; } figure img { width: 100%; height: auto; display: block; } figcaption { font-size: 0.85rem; }
.key { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px; margin: 0 0.3em 0 0.8em; }
"""


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
    path = folder / "report.html"
    write_atomically(path, "\n".join(_page(verification, data, notes)).encode())
    return path


def _page(found: Verification, data: str, notes: Sequence[str]) -> Iterator[str]:
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    title = f"Verification of {escape(Path(found.tested['model']).name)}"
    yield f"<title>{title}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{title}</h1>"
    yield from _verdict(found)
    yield "<h2>Models and frames</h2>"
    keys = dict.fromkeys([*found.tested, *found.reference])
    yield from _table(
        ("", "tested", "reference"), [(key, found.tested.get(key, ""), found.reference.get(key, "")) for key in keys]
    )
    yield from _list([f"{found.agreement.frames} frames: {data}", *_settings(found), *notes])
    yield "<h2>Agreement, instance by instance</h2>"
    yield from _table(("", "value"), agreement_rows(found), numbers=1)
    for pair in found.precision:
        header = ("", "reference", "tested", "difference in points")
        yield f"<h2>Average precision, {pair.reference.kind}</h2>"
        yield from _table(header, precision_rows(pair), numbers=1)
        yield "<details><summary>by class</summary>"
        yield from _table(header, class_rows(pair), numbers=1)
        yield "</details>"
    yield from _frames(found)
    yield "</body></html>"


def _verdict(found: Verification) -> Iterator[str]:
    if not found.violations:
        yield '<div class="verdict good"><strong>Within the budget.</strong></div>'
        return
    yield '<div class="verdict bad"><strong>Over the budget.</strong>'
    yield from _list(found.violations)
    yield "</div>"


def _settings(found: Verification) -> list[str]:
    rule, budget = found.options.rule, found.options.budget
    lines = [
        f"an instance counts from score {rule.score:g} and {rule.min_pixels} pixels on; its counterpart has the same "
        f"class, a mask IoU of at least {rule.iou:g} and a score of at least {rule.lowest_score:g}"
    ]
    if budget is not None:
        lines.append(f"budget: mean mask IoU of at least {budget.min_iou:g}")
        if isfinite(budget.max_faults):
            lines.append(f"budget: at most {100 * budget.max_faults:g} % missed, extra and relabelled instances")
    if found.options.max_loss is not None:
        lines.append(f"budget: a loss of at most {found.options.max_loss:g} points of mask AP")
    return lines


def agreement_rows(found: Verification) -> list[tuple[str, str]]:
    """Label and value of each line about agreement."""
    total = found.agreement
    low, five, ten, half = (f"{value:.4f}" for value in total.iou_percentiles)
    rows = [
        ("instances of the reference", f"{total.reference}"),
        ("instances of the tested model", f"{total.tested}"),
        ("matched", f"{total.matched}"),
        ("missed", f"{total.missed}"),
        ("extra", f"{total.extra}"),
        ("relabelled", f"{total.switched}"),
        ("missed, extra and relabelled, of the reference's", f"{100 * total.fault_share:.2f} %"),
        ("frames with any of these", f"{found.differing} of {total.frames}"),
        ("mask IoU of matched: mean", f"{total.mean_iou:.4f}"),
        ("mask IoU of matched: 1 %, 5 %, 10 %, 50 %", f"{low}, {five}, {ten}, {half}"),
        (
            "largest difference of a box side: mean, 95 %, most",
            f"{total.mean_box_difference:.2f}, {total.box_difference_95:.2f}, {total.box_difference_max:.2f} px",
        ),
        (
            "difference of scores: mean, 95 % within",
            f"{total.mean_score_difference:+.4f}, {total.score_difference_95:.4f}",
        ),
    ]
    if found.class_maps is not None:
        worst = sorted((value, found.class_names[label]) for label, value in found.class_maps.iou().items())
        rows += [
            ("class map: pixels of the same class", f"{100 * found.class_maps.share:.2f} %"),
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


def _frames(found: Verification) -> Iterator[str]:
    yield "<h2>Frames that differ most</h2>"
    if not found.worst:
        yield "<p>No frame differs.</p>" if found.options.pictures else "<p>No pictures were asked for.</p>"
        return
    keys = (
        ("only in the reference", ONLY_REFERENCE),
        ("only in the tested model", ONLY_TESTED),
        ("another class", RELABELLED),
    )
    legend = "".join(f'<span class="key" style="background: {_css(bgr)}"></span>{text}' for text, bgr in keys)
    yield f"<p>Counterparts have the same colour in both pictures. In the third: {legend}.</p>"
    for frame in found.worst:
        yield f"<h3>{escape(frame.name)}</h3>"
        yield f"<p>{escape(describe(frame, found.class_names))}</p>"
        yield '<div class="side">'
        pictures = side_by_side(frame, found.class_names)
        for caption, picture in zip(("reference", "tested", "difference"), pictures, strict=True):
            source = f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}"
            alt = escape(f"{frame.name}: {caption}")
            yield f'<figure><img src="{source}" alt="{alt}"><figcaption>{caption}</figcaption></figure>'
        yield "</div>"


def describe(frame: ComparedFrame, class_names: Sequence[str]) -> str:
    """What differs in a frame, in words."""
    agreement, ours, theirs = frame.agreement, frame.reference, frame.tested
    parts = []
    if len(agreement.missed):
        parts.append("missed " + ", ".join(_names(ours, agreement.missed.tolist(), class_names)))
    if len(agreement.extra):
        parts.append("extra " + ", ".join(_names(theirs, agreement.extra.tolist(), class_names)))
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


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: int | None = None) -> Iterator[str]:
    """A table; from column `numbers` on the cells are right-aligned."""

    def line(cells: Sequence[str], tag: str) -> str:
        first = len(cells) if numbers is None else numbers
        kinds = [' class="number"' if column >= first else "" for column in range(len(cells))]
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    yield f'<div class="scroll"><table><thead><tr>{line(header, "th")}</tr></thead><tbody>'
    for row in rows:
        yield f"<tr>{line(row, 'td')}</tr>"
    yield "</tbody></table></div>"


def _list(lines: Iterable[str]) -> Iterator[str]:
    yield "<ul>"
    for line in lines:
        yield f"<li>{escape(line)}</li>"
    yield "</ul>"


def _css(bgr: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in reversed(bgr))
