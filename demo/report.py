"""What the demo shows in the end: a table and a contact sheet."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from demo.session import Report
from seg_perception.classes import ROAD_GROUPS

_COLUMNS, _ROWS, _CELL = 3, 4, (480, 270)


def tables(report: Report) -> str:
    """Counts, latency, stages and instances, as plain text."""
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
    lines += ["", "instances per road group (sum over frames)"]
    lines += [f"    {group:<15} {report.instances.get(group, 0):6d}" for group in ROAD_GROUPS]
    return "\n".join(lines)


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


def contact_sheet(overlays: list[Path], target: Path) -> Path | None:
    """Up to twelve overlays, evenly spread, on one picture; None when there are none."""
    if not overlays:
        return None
    count = min(len(overlays), _COLUMNS * _ROWS)
    chosen = [overlays[round(index)] for index in np.linspace(0, len(overlays) - 1, count)]
    cells = [cv2.resize(cv2.imread(str(path)), _CELL, interpolation=cv2.INTER_AREA) for path in chosen]
    while len(cells) % _COLUMNS:
        cells.append(np.zeros_like(cells[0]))
    rows = [np.hstack(cells[start : start + _COLUMNS]) for start in range(0, len(cells), _COLUMNS)]
    cv2.imwrite(str(target), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return target
