"""What the demo says in the end, as plain text."""

from __future__ import annotations

from demo.session import Report
from demo.street import LOWEST_SCORE, RULE
from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.offboard.evaluation.published import Alignment, IdAgreement, PublishedComparison
from seg_perception.offboard.metrics.agreement import Agreement


def session_text(report: Report) -> str:
    """Counts, latency and stages."""
    maps = len(report.latencies_ms)
    p50, p95, p99 = report.percentiles(50, 95, 99)
    lines = [
        "",
        f"frames sent        {report.sent:6d}   ({report.sent / report.seconds:.1f} Hz)",
        f"frames processed   {maps:6d}   ({maps / report.seconds:.1f} Hz)",
        f"frames dropped     {report.sent - maps:6d}   ({causes(report)})",
        "",
        "camera stamp to instance map in another process",
        f"    p50 {p50:7.1f} ms    p95 {p95:7.1f} ms    p99 {p99:7.1f} ms",
        "",
        "time per stage (median, ms)",
    ]
    lines += [f"    {stage:<12} {text:>8}" for stage, text in stages(report).items()]
    return "\n".join(lines)


def instances_text(report: Report) -> str:
    """What was found, where there is no truth."""
    lines = ["", "instances per road group (sum over frames)"]
    lines += [f"    {group:<15} {report.instances.get(group, 0):6d}" for group in ROAD_GROUPS]
    return "\n".join(lines)


def truth_text(seen: PublishedComparison) -> str:
    """What was received against the truth."""
    return "\n".join([
        "",
        f"received against the truth, {seen.frames} frames: mask AP of all that is published from score "
        f"{LOWEST_SCORE:g} on",
        *_precision(seen),
        "",
        f"at score {RULE.score:g}, objects with {RULE.min_pixels} visible pixels or more",
        *_found(seen.agreement),
        "",
        "numbers",
        *_ids(seen.ids),
        "",
        "road group by pixel, received and true over either",
        *_alignment(seen.alignment),
    ])  # fmt: skip


def _precision(seen: PublishedComparison) -> list[str]:
    lines = [f"    {'':<22}" + "".join(f"{group:>15}" for group in ROAD_GROUPS)]
    for each in seen.precision:
        for name, values in (("AP50", each.at_50), ("AP", each.overall)):
            lines.append(f"    {each.name:<17}{name:<5}" + "".join(f"{values[group]:15.3f}" for group in ROAD_GROUPS))
    return lines


def _found(found: Agreement) -> list[str]:
    right = found.reference - found.missed - found.switched
    return [
        f"    found {right} of {found.reference} ({_share(right, found.reference)}), {found.switched} in another road "
        f"group; {found.extra} of {found.tested} reported are not there",
        f"    mean IoU of the masks of found objects {found.mean_iou:.3f}",
    ]


def _ids(ids: IdAgreement) -> list[str]:
    return [
        f"    {_share(ids.known_pixels, ids.pixels):>7} of the pixels in instance maps have the id of a detection",
        f"    {_share(ids.shown, ids.detections):>7} of the detections have pixels in the map; their boxes and the "
        f"boxes around these pixels: mean IoU {ids.box_iou:.3f}",
        f"    {_share(ids.kept, ids.seen_again):>7} of the objects found again have the number of the last time",
    ]


def _alignment(alignment: Alignment) -> list[str]:
    before, own, after = (alignment.frames[shift] for shift in (-1, 0, 1))
    if not own > 0:  # NaN of fewer than three frames, too
        return ["    nothing to compare"]
    sideways, upright = (
        max((values[shift] for shift in values if shift), default=float("nan"))
        for values in (alignment.right, alignment.down)
    )
    return [
        f"    {own:.3f} with the frame of the same stamp; {before:.3f} with the one before, {after:.3f} with the next",
        f"    {sideways:.3f} at best if moved sideways, {upright:.3f} up or down, by 2 or 4 pixels",
        f"    stamps and geometry {'fit' if alignment.fits else 'DO NOT FIT: another frame or place fits better'}",
    ]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def stages(report: Report) -> dict[str, str]:
    """The node's own stage times in milliseconds, from its diagnostics."""
    model = next((values for name, values in report.diagnostics.items() if name.endswith(": model")), {})
    return {key.removesuffix("_ms"): value for key, value in model.items() if key.endswith("_ms")}


def causes(report: Report) -> str:
    """Why frames were dropped, by the node's own count."""
    prefix = "dropped_"
    counted = {
        key.removeprefix(prefix).replace("_", " "): int(value)
        for name, values in report.diagnostics.items()
        if ": camera " in name
        for key, value in values.items()
        if key.startswith(prefix) and int(value)
    }
    return ", ".join(f"{count} {cause}" for cause, count in counted.items()) or "none by the node's count"
