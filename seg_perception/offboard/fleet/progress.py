"""How far a fleet is, in one line."""

from __future__ import annotations

import sys
from collections import deque
from time import monotonic
from typing import TextIO

from .driver import TaskQueue

# Seconds between two lines: on a terminal, where each replaces the one before, and elsewhere.
_TERMINAL, _PLAIN = 0.5, 10.0
# Seconds over which the rate of frames is taken.
_RECENT = 30.0


class FleetProgress:
    """Shows a line; to be called as often as one likes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._shown = self._begin = monotonic()
        self._frames: deque[tuple[float, int]] = deque([(self._begin, 0)])
        self._width = 0

    def __call__(self, queue: TaskQueue) -> None:
        """Show how far it is, if the last time is long enough ago."""
        now = monotonic()
        if now - self._shown < (_TERMINAL if self._terminal else _PLAIN):
            return
        self._shown = now
        self._write(self.line(queue, now))

    def close(self) -> None:
        """Leave the terminal to others."""
        if self._width:
            self._stream.write("\n")
            self._width = 0

    def line(self, queue: TaskQueue, now: float) -> str:
        """Return what there is to say at a time of `monotonic`."""
        frames = queue.frames_so_far()
        self._frames.append((now, frames))
        while len(self._frames) > 2 and now - self._frames[0][0] > _RECENT:
            self._frames.popleft()
        then, before = self._frames[0]
        # Frames of an attempt that failed are taken back.
        rate = max(0, frames - before) / max(now - then, 1e-9)
        share, running = queue.share(), queue.running
        left = (now - queue.begin) * (1 - share) / share if share else float("nan")
        return (
            f"bags: {len(queue.results)} done, {len(queue.failures)} failed, {running} in flight, "
            f"{len(queue.tasks) - len(queue.results) - len(queue.failures) - running} to come; "
            f"workers: {queue.workers}; {frames} frames, {rate:.1f} a second; left: {_clock(left)}"
        )

    def _write(self, line: str) -> None:
        if self._terminal:
            self._stream.write(f"\r{line.ljust(self._width)}")
            self._width = len(line)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds; a question mark for NaN."""
    if seconds != seconds:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
