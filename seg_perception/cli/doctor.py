"""`seg_perception doctor`: whether this machine is fit to drive, and what to do where it is not."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import get_terminal_size

from seg_perception.core.text import MESSAGE_LIMIT, printable
from seg_perception.onboard.doctor.finding import Finding, Level, failed
from seg_perception.onboard.doctor.graph import RosGraph
from seg_perception.onboard.monitor.probe import ask, seconds_between

HELP = "check this machine before driving: packages, ROS, DDS, GPU, model, cameras, clocks; says what to do"
EPILOG = """\
Each finding is OK, WARN (works, but look at it), FAIL (would not work) or SKIPPED (cannot be looked at here, or is not
needed). Exit code: 0 if nothing failed, 1 otherwise. Run it in the shell that starts the node: what it finds of ROS and
DDS depends on the environment. It starts nothing, changes nothing, and needs neither ROS nor a GPU.

JSON: `ok`, `counts` by level, and `findings`, each with `group`, `check`, `level`, `found`, `advice` and `facts`, which
are numbers: of a camera's topic hz, frames, missed, width, height, encoding, size, frame_id and qos, of its stamps
age_min, age_median and age_max in seconds.
"""
_COLOURS = {Level.OK: "32", Level.WARN: "33", Level.FAIL: "31;1", Level.SKIPPED: "2"}
_WIDEST, _NARROWEST = 140, 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("--params", type=Path, metavar="FILE", help="the node's parameter file: model, cameras, clock")
    parser.add_argument("--model", default="", help="canonical model or engine (default: what the node would open)")
    parser.add_argument("--classes", default="", metavar="TABLE", help="class table, as parameter `classes`")
    parser.add_argument(
        "--camera",
        nargs="+",
        default=[],
        metavar="TOPIC",
        help="image topics that must be there (default: those of --params, else all that carry images are measured)",
    )
    parser.add_argument(
        "--seconds",
        type=seconds_between(0.1, 600),
        default=3.0,
        metavar="S",
        help="how long topics are measured (default: 3)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Examine and print; returns 1 if something failed."""
    from seg_perception.onboard.doctor.examine import examine
    from seg_perception.onboard.doctor.settings import full_name, read_settings
    from seg_perception.onboard.doctor.surroundings import Surroundings

    settings = read_settings(arguments.params)
    settings = replace(
        settings,
        model=arguments.model or settings.model,
        classes=arguments.classes or settings.classes,
        topics=tuple(map(full_name, arguments.camera)) or settings.topics,
    )

    def look(topics: Sequence[str]) -> RosGraph:
        command = ["--seconds", str(arguments.seconds), "cameras", *topics]
        return RosGraph.from_json(ask(command, arguments.seconds))

    findings = examine(settings, Surroundings(), look, _tell)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    bad = failed(findings)
    listed = [finding.as_json() for finding in findings]
    content = {"ok": not bad, "counts": _counts(findings), "findings": listed}
    print(json.dumps(content, indent=1) if arguments.json else "\n".join(_report(findings)))
    return int(bad)


def _report(findings: Sequence[Finding]) -> list[str]:
    """Return the findings as lines of text, group by group."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = min(max(get_terminal_size((_WIDEST, 24)).columns, _NARROWEST), _WIDEST)
    lines, group = [], ""
    for finding in findings:
        if finding.group != group:
            lines += ["", finding.group] if group else [finding.group]
            group = finding.group
        level = finding.level.value.ljust(7)
        if colour:
            level = f"\x1b[{_COLOURS[finding.level]}m{level}\x1b[0m"
        # Names, types and messages in it may be of whoever speaks DDS, or of a model.
        wrapped = _wrapped(printable(f"{finding.check}: {finding.found}", MESSAGE_LIMIT), width)
        lines.append(f"  {level}  {wrapped[0]}")
        lines += [" " * 11 + line for line in wrapped[1:]]
        if finding.advice and finding.level is not Level.OK:
            lines += [" " * 11 + line for line in _wrapped(printable(f"-> {finding.advice}", MESSAGE_LIMIT), width)]
    counts = ", ".join(f"{count} {name}" for name, count in _counts(findings).items() if count)
    verdict = "not fit: see FAIL above" if failed(findings) else "nothing failed"
    return [*lines, "", f"{verdict} ({counts})"]


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    counted = Counter(finding.level for finding in findings)
    return {level.value: counted[level] for level in Level}


def _wrapped(text: str, width: int) -> list[str]:
    # Paths and commands stay whole, so that they can be copied.
    return textwrap.wrap(text, width - 11, break_long_words=False, break_on_hyphens=False) or [""]


def _tell(step: str) -> None:
    """Say what people wait for, where they can see it and a later line replaces it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{step} ...", end="", file=sys.stderr, flush=True)
