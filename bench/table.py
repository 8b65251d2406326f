"""Medians and plain tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, sleep

import numpy as np

from seg_perception.core.text import aligned


def interleaved(jobs: Sequence[Callable[[], object]], rounds: int, warm_up: int = 3, pause: float = 0.0) -> list[float]:
    """Median seconds of several jobs, run in turn so that the machine's moods hit all of them alike.

    `pause` seconds pass before each: threads of one runtime may spin for a while after its run, at the cost of another.
    """
    seconds = np.empty((rounds, len(jobs)))
    for _ in range(warm_up):
        for job in jobs:
            job()
    for row in seconds:
        for column, job in enumerate(jobs):
            sleep(pause)
            begin = perf_counter()
            job()
            row[column] = perf_counter() - begin
    return [float(value) for value in np.median(seconds, axis=0)]


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; the first column is text, the others are right-aligned."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    cells.insert(1, ["-" * max(map(len, column)) for column in zip(*cells, strict=True)])
    print("\n  ".join([f"\n{title}", *aligned(cells)]))


def machine() -> str:
    """The machine in words, for the head of a report."""
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as info:
            name = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), name)
    except OSError:
        pass
    return (
        f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )
