"""The page of a fleet: what is done, what failed and why, and who did it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seg_perception.offboard.report.axes import Axis
from seg_perception.offboard.report.html import Content
from seg_perception.offboard.report.page import (
    Section,
    bullets,
    collapsed,
    comparison,
    number,
    paragraph,
    table,
    verdict,
    write_page,
)
from seg_perception.offboard.report.plots import cumulative, plots

# More rows make a page that no browser likes; fleet.json has all of them.
_MOST_ROWS = 2000


def write_fleet_page(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the page of a fleet as one file that fetches nothing.

    Args:
        path: of the file; its folder exists.
        summary: what `FleetOutcome.as_json` gives.

    Raises:
        ConfigurationError: it cannot be written.
    """
    write_page(path, f"Fleet: {summary['command']}", _lead(summary), list(_sections(summary)))


def _lead(summary: Mapping[str, Any]) -> Content:
    bags = summary["bags"]
    sentence = f"{bags['done']} bags are done, {bags['of an earlier run']} of them by an earlier run"
    if not bags["failed"] and not bags["left"]:
        return verdict(f"All {sentence}.", True)
    reasons = [f"{each['name']}: {each['errors'][-1]}" for each in summary["failed"][:10]]
    return verdict(f"{sentence}; {bags['failed']} failed, {bags['left']} are left.", False, reasons)


def _sections(summary: Mapping[str, Any]) -> Iterator[Section]:
    results = summary["results"]
    yield Section("All together", comparison({"value": dict(_lines(summary["totals"]))}))
    failed = [[each["name"], each["path"], " / ".join(each["errors"])] for each in summary["failed"][:_MOST_ROWS]]
    yield Section("Failed", table(["bag", "path", "errors of the attempts"], failed) if failed else "")
    yield Section("Speed", _speed(results))
    yield Section("Bags", _bags(results))
    yield Section("Notes", bullets(summary["notes"]))
    yield Section("What was asked for", comparison({"value": dict(_lines(summary["settings"]))}))


def _speed(results: Sequence[Mapping[str, Any]]) -> Content:
    rates = [each["frames"] / each["seconds"] for each in results if each["frames"] and each["seconds"]]
    bags: Counter[tuple[str, int]] = Counter((each["host"], each["worker"]) for each in results if each["in_this_run"])
    frames, seconds = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for each in results:
        if each["in_this_run"]:
            frames[each["host"], each["worker"]] += each["frames"]
            seconds[each["host"], each["worker"]] += each["seconds"]
    rows = [
        [f"{key[0]} {key[1]}", f"{bags[key]}", f"{frames[key]}", number(frames[key] / max(seconds[key], 1e-9), 1)]
        for key in sorted(bags)
    ]
    return [
        plots(cumulative("Share of the bags up to a speed", {"bags": rates}, Axis("frames per second", low=0)))
        if rates
        else "",
        collapsed("Workers", table(["worker", "bags", "frames", "frames/s at work"], rows, numbers=1)) if rows else "",
    ]


def _bags(results: Sequence[Mapping[str, Any]]) -> Content:
    rows = [
        [each["name"], each["path"], f"{each['frames']}", f"{each['faults']}", number(each["seconds"], 1),
         f"{each['attempt']}", f"{each['host']} {each['worker']}"]
        for each in results[:_MOST_ROWS]
    ]  # fmt: skip
    more = len(results) - len(rows)
    return [
        table(["bag", "path", "frames", "faults", "seconds", "attempt", "worker"], rows, numbers=2, sortable=True)
        if rows else "",
        paragraph(f"{more} more are in fleet.json.") if more else "",
    ]  # fmt: skip


def _lines(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Keys and values of nested ones, as text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{prefix}{key}: ")
        else:
            yield f"{prefix}{key}", f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value}"
