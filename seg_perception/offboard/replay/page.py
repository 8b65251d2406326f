"""The report of a replay: what was read, how fast, what was found, and what changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.offboard.report.agreement import agreement_rows
from seg_perception.offboard.report.axes import Axis
from seg_perception.offboard.report.drawing import colour_key
from seg_perception.offboard.report.gallery import Shot, gallery, share_of_bytes
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
from seg_perception.offboard.report.plots import Series, histogram, plots, time_line

from .diff import Baseline
from .picks import CHANGED, COLOURS
from .record import Record


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a report shows.

    Attributes:
        inputs: the recordings.
        output: the bag that was written.
        size: of the bag in bytes.
        record: the result of the frames.
        seconds: that it took.
        identity: of the model.
        settings: of the run.
        shots: chosen frames by kind.
        earlier: what it was compared with, and the bag's path, if anything.
    """

    inputs: Sequence[Path]
    output: Path
    size: int
    record: Record
    seconds: float
    identity: Mapping[str, str]
    settings: Mapping[str, str]
    shots: Mapping[str, Sequence[Shot]]
    earlier: tuple[Path, Baseline] | None = None


def write_replay_report(path: Path, report: ReplayReport) -> Path:
    """Write the report of a replay as one file that fetches nothing.

    Args:
        path: of the file; its folder exists.
        report: what it shows.

    Returns:
        `path`.

    Raises:
        ConfigurationError: it cannot be written.
    """
    names = ", ".join(each.name for each in report.inputs[:3]) + (", ..." if len(report.inputs) > 3 else "")
    return write_page(path, f"Replay of {names}", _lead(report), list(_sections(report)))


def _lead(report: ReplayReport) -> Content:
    record = report.record
    rate = record.total / report.seconds if report.seconds else float("nan")
    if not record.fault_count:
        sentence = f"All {record.total} frames were processed, {rate:.1f} a second."
        return verdict(sentence, True)
    lost = sum(record.lost.values())
    sentence = f"{record.total} frames were processed, {rate:.1f} a second; {record.fault_count} faults."
    reasons = [f"{lost} frames were read and could not be processed"] if lost else []
    return verdict(sentence, False, reasons)


def _sections(report: ReplayReport) -> Iterator[Section]:
    record = report.record
    yield Section("Frames", _frames(report))
    yield Section("What was found", _found(record))
    yield Section("Speed", _speed(record))
    if report.earlier is not None:
        yield Section("Changes", _changes(*report.earlier))
    budget = share_of_bytes(sum(len(shot.layers) for shots in report.shots.values() for shot in shots))
    for kind, shots in report.shots.items():
        key = colour_key(COLOURS) if kind == CHANGED else ""
        yield Section(kind, [key, gallery(shots, budget)])
    yield Section("Faults", bullets(record.faults) if record.faults else "")
    yield Section(
        "Model and settings", [comparison({"model": report.identity}), comparison({"value": report.settings})]
    )


def _frames(report: ReplayReport) -> Content:
    record = report.record
    cameras = sorted({*record.frames, *record.lost})
    numbers = record.numbers()
    rows = [[name, f"{record.frames[name]}", f"{record.lost[name]}", f"{numbers.get(name, 0)}"] for name in cameras]
    return [
        table(["camera", "processed", "lost", "different numbers"], rows, numbers=1),
        paragraph(f"Written to {report.output} ({report.size / 1e6:.1f} MB) in {report.seconds:.1f} s."),
        collapsed("Recordings", bullets(map(str, report.inputs))),
    ]


def _found(record: Record) -> Content:
    total = max(record.total, 1)
    rows = [[group, f"{record.instances[group]}", number(record.instances[group] / total, 2)] for group in ROAD_GROUPS]
    samples = record.samples.rows()
    counts = [Series(group, samples[:, 0], samples[:, 3 + place]) for place, group in enumerate(ROAD_GROUPS)]
    scores = [Series("mean score", samples[:, 0], samples[:, 2])]
    return [
        table(["road group", "instances", "per frame"], rows, numbers=1),
        plots(
            time_line("Instances per frame", counts, Axis("time (s)"), Axis("instances", low=0)),
            time_line("Mean score", scores, Axis("time (s)"), Axis("score", 0, 1)),
        ),
    ]


def _speed(record: Record) -> Content:
    samples = record.samples.rows()
    taken = samples[:, 1] * 1e3
    frames = max(record.total, 1)
    stages = [[name, number(1e3 * seconds / frames, 2)] for name, seconds in record.stages.items()]
    return [
        table([*record.latency()], [[number(value, 1) for value in record.latency().values()]], numbers=0,
              caption="Milliseconds from frame to instance map"),
        table(["stage", "ms per frame"], stages, numbers=1),
        plots(
            histogram("Time per frame", {"all": taken}, "ms"),
            time_line("Time per frame", [Series("ms", samples[:, 0], taken)], Axis("time (s)"), Axis("ms", low=0)),
        ),
    ]  # fmt: skip


def _changes(path: Path, earlier: Baseline) -> Content:
    total = earlier.total()
    rows = agreement_rows(total, earlier.differing)
    lines = [
        *earlier.faults,
        *(f"{count} frames of {camera} were not in it" for camera, count in sorted(earlier.unmatched.items())),
    ]
    return [
        paragraph(f"Compared with {path}, which stands for the reference: {total.frames} frames."),
        bullets(lines),
        table(["", "value"], rows, numbers=1),
    ]
