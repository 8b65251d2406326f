"""The progress of a build, which can take twenty minutes; TensorRT tells of nested phases with steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

# How often a build without news says that it goes on, where there is no terminal to draw a bar on.
_HEARTBEAT_S = 30.0
_REFRESH_S = 0.2
# What is shown before the first phase.
_NO_PHASE = "building"
T = TypeVar("T")


@dataclass
class _Phase:
    parent: str
    steps: int
    done: int = 0


class BuildProgress:
    """Follows the phases of a build; TensorRT calls it from threads of its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._phases: dict[str, _Phase] = {}
        self._fraction = 0.0
        # Those right below the outermost one, in their order; some last for less than the time between two looks.
        self.outer_phases: list[str] = []
        self.cancelled = False

    def phase_start(self, name: str, parent: str, steps: int) -> None:
        """See `BuildListener`."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(1, steps))
            if parent in self._phases and not self._phases[parent].parent:
                self.outer_phases.append(name)

    def step_complete(self, name: str) -> bool:
        """See `BuildListener`."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done += 1
            return not self.cancelled

    def phase_finish(self, name: str) -> None:
        """See `BuildListener`."""
        with self._lock:
            self._phases.pop(name, None)

    @property
    def fraction(self) -> float:
        """From 0 to 1; never falls, although phases end before their parents count them as a step."""
        with self._lock:
            roots = [name for name, phase in self._phases.items() if phase.parent not in self._phases]
            self._fraction = max(self._fraction, *map(self._fraction_of, roots), 0.0)
            return self._fraction

    def _fraction_of(self, name: str) -> float:
        phase = self._phases[name]
        inner = sum(self._fraction_of(child) for child, other in self._phases.items() if other.parent == name)
        return min(1.0, (phase.done + inner) / phase.steps)


def run_watched(action: Callable[[], T], progress: BuildProgress, report: Callable[[str], None]) -> T:
    """Run `action` in a thread of its own and show its progress.

    Where standard error is a terminal, as a bar there; elsewhere as lines, one for each phase and for each 30 seconds.
    Ctrl-C cancels the action through `progress` and waits for its end.

    Args:
        action: a build that tells `progress` of its phases.
        progress: what it tells.
        report: takes the lines.

    Returns:
        What the action returns.

    Raises:
        KeyboardInterrupt: when the cancelled action has ended.
    """
    show: _Bar | _Lines = _Bar() if sys.stderr.isatty() else _Lines(report)
    with ThreadPoolExecutor(1, "build") as pool:
        future = pool.submit(action)
        try:
            while not wait([future], _REFRESH_S).done:
                show.update(progress)
            show.update(progress)
        except KeyboardInterrupt:
            progress.cancelled = True
            report("cancelling; TensorRT ends its current step first ...")
            raise
        finally:
            show.close()
    return future.result()


class _Bar:
    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(total=100, bar_format="{desc:<40.40}{percentage:4.0f} % |{bar}| {elapsed}", leave=False)

    def update(self, progress: BuildProgress) -> None:
        self._bar.n = 100 * progress.fraction
        self._bar.set_description([_NO_PHASE, *progress.outer_phases][-1])

    def close(self) -> None:
        self._bar.close()


class _Lines:
    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._begin = self._said = time.monotonic()
        self._told = 0

    def update(self, progress: BuildProgress) -> None:
        now = time.monotonic()
        news = progress.outer_phases[self._told :]
        self._told += len(news)
        if not news and now - self._said >= _HEARTBEAT_S:
            news = [_NO_PHASE, *progress.outer_phases][-1:]
        for phase in news:
            self._said = now
            self._report(f"{now - self._begin:7.1f} s  {progress.fraction:4.0%}  {phase}")

    def close(self) -> None:
        """Lines need no end."""
