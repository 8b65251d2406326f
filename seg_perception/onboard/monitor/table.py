"""The table of `top`, as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seg_perception.core.text import aligned, printable

from .load import ProcessLoad
from .nodes import STALE, CameraView, Nodes, NodeView, number

_COLOURS = {"OK": "32", "WARN": "33", "ERROR": "31;1", STALE: "35"}
_HEAD = ("camera", "status", "in Hz", "out Hz", "p50 ms", "p95 ms", "p99 ms", "received", "results", "dropped")
_TEXT_COLUMNS = (0, 1, len(_HEAD) - 1)
# Characters of a message, of a model's identity and of the causes of drops.
_LONGEST = 1000
# Values from here on are shown with an exponent.
_LARGE = 1e12


@dataclass(frozen=True, slots=True)
class Screen:
    """The place of a table: columns, rows (0: any number), and whether it knows colours."""

    columns: int = 120
    rows: int = 0
    colour: bool = False

    def shown(self, level: str) -> str:
        """A level's name, coloured."""
        return f"\x1b[{_COLOURS.get(level, '0')}m{level}\x1b[0m" if self.colour else level


def table(
    nodes: Nodes,
    machine: Mapping[str, Any],
    loads: Mapping[str, ProcessLoad],
    screen: Screen,
    now: float,
    clock: str,
) -> list[str]:
    """The lines of the table.

    Args:
        nodes: what is known of nodes.
        machine: `cpu_percent`, `cpus`, `gpu_percent`, `gpu_memory_mib`, `gpu_memory_total_mib`; what is absent is
            left out.
        loads: of the nodes' processes on this machine, by name.
        screen: where it goes.
        now: on the monotonic clock.
        clock: time of day.
    """
    lines = [_cut("  ".join(["seg_perception top", clock, *_machine(machine)]), screen)]
    for node in nodes:
        lines += ["", *_node(node, loads.get(node.name), screen, now)]
    if nodes.passed_over:
        text = (
            f"{nodes.passed_over} statuses, cameras and values on /diagnostics were passed over: of names that no node "
            "can have, or more than are kept; to watch some nodes only, name them"
        )
        lines += ["", *textwrap.wrap(text, screen.columns)]
    if screen.rows and len(lines) > screen.rows:
        hidden = len(lines) - screen.rows + 1
        lines = [
            *lines[: screen.rows - 1],
            _cut(f"... {hidden} more lines: enlarge the terminal or name a node", screen),
        ]
    return lines


def _machine(machine: Mapping[str, Any]) -> list[str]:
    words = []
    if machine.get("cpu_percent") is not None:
        words.append(f"CPU {machine['cpu_percent']:.0f} % of {machine['cpus']}")
    if "gpu_percent" in machine:
        words.append(f"GPU {machine['gpu_percent']:.0f} %")
    if "gpu_memory_total_mib" in machine:
        words.append(f"GPU memory {machine['gpu_memory_mib']:.0f} of {machine['gpu_memory_total_mib']:.0f} MiB")
    return [f"this machine: {', '.join(words)}"] if words else []


def _node(node: NodeView, load: ProcessLoad | None, screen: Screen, now: float) -> list[str]:
    silence = node.silence(now)
    level = STALE if silence else node.level
    message = f"nothing came for {silence:.1f} s; its last words:" if silence else node.message
    text = f"/{node.name}  {level}  {printable(message, _LONGEST)}"
    first, *rest = textwrap.wrap(text, screen.columns, subsequent_indent="    ")
    lines = [_coloured(first, len(node.name) + 3, level, screen), *rest]
    details = [("model", _identity(node.values)), ("stages", _stages(node)), ("process", _process(load))]
    lines += [_cut(f"  {name:<8} {printable(text, _LONGEST)}", screen) for name, text in details if text]
    return lines + (_cameras(node, silence > 0, screen) if node.cameras else [])


def _cameras(node: NodeView, silent: bool, screen: Screen) -> list[str]:
    rows = [_HEAD, *(_camera(camera, STALE if silent else camera.level) for camera in node.cameras)]
    # On a narrow terminal the drops, which are the last column and the longest, go below.
    below = any(len(line) + 2 > screen.columns for line in aligned(rows, _TEXT_COLUMNS))
    head, *shown = aligned([row[:-1] for row in rows] if below else rows, _TEXT_COLUMNS)
    lines = [_cut(f"  {head}", screen)]
    # Where the status stands: behind the widest name.
    place = 4 + max(len(row[0]) for row in rows)
    for row, line, camera in zip(rows[1:], shown, node.cameras, strict=True):
        lines.append(_coloured(_cut(f"  {line}", screen), place, row[1], screen))
        if below and camera.drops:
            lines += _wrapped(f"dropped: {row[-1]}", screen)
        if camera.level != "OK" and not silent:
            lines += _wrapped(printable(camera.message, _LONGEST), screen)
    return lines


def _coloured(line: str, place: int, level: str, screen: Screen) -> str:
    """A line with the level that stands at a place coloured, unless it was cut there."""
    end = place + len(level)
    return f"{line[:place]}{screen.shown(level)}{line[end:]}" if line[place:end] == level else line


def _identity(values: Mapping[str, str]) -> str:
    name, space, version = values.get("backend", "").partition(" ")
    # What follows a version, such as the commit of its source, tells nobody here anything.
    backend = f"{name}{space}{version.partition('-')[0]}"
    words = [values.get("model", "").rpartition("/")[2], values.get("family", ""), values.get("network_size", "")]
    words += [backend, values.get("device", ""), values.get("precision", "")]
    words += [f"sha256 {values['sha256'][:12]}"] if values.get("sha256") else []
    return ", ".join(word for word in words if word)


def _stages(node: NodeView) -> str:
    stages = node.stages
    return "p50 ms: " + ", ".join(f"{name} {_shown(value, 1)}" for name, value in stages.items()) if stages else ""


def _process(load: ProcessLoad | None) -> str:
    if load is None:
        return ""
    cpu = "" if load.cpu is None else f"CPU {load.cpu:.0f} % of one core, "
    return f"{cpu}{load.memory:.0f} MiB"


def _camera(camera: CameraView, level: str) -> tuple[str, ...]:
    values = camera.values
    rates = [_figure(values.get(name, ""), 1) for name in ("received_hz", "processed_hz")]
    latencies = [_figure(values.get(f"latency_{part}_ms", ""), 1) for part in ("p50", "p95", "p99")]
    counts = [_figure(values.get(name, ""), 0) for name in ("received", "processed")]
    drops = ", ".join(f"{cause} {count}" for cause, count in camera.drops.items()) or "-"
    return (printable(camera.name), level, *rates, *latencies, *counts, printable(drops, _LONGEST))


def _figure(text: str, digits: int) -> str:
    value = number(text)
    return "-" if value is None else _shown(value, digits)


def _shown(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if abs(value) < _LARGE else f"{value:.1e}"


def _wrapped(text: str, screen: Screen) -> list[str]:
    return textwrap.wrap(text, screen.columns, initial_indent="    ", subsequent_indent="    ")


def _cut(line: str, screen: Screen) -> str:
    return line if len(line) <= screen.columns else line[: screen.columns - 3] + "..."
