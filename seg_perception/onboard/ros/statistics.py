"""Counters of what happened to the frames; written by the worker, read by the diagnostics."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil, nan
from statistics import median
from threading import Lock
from time import monotonic

from seg_perception.core.text import message_text

# Percentiles look at this many latest frames.
WINDOW = 512
# What is recent.
RECENT_SECONDS = 5.0
# From this many seconds on, and below 0, the time since a stamp tells of two clocks and not of a latency.
LONGEST_LATENCY = 3600.0
_LATEST = 9
# A camera may be this much earlier than usual.
_EARLY = 0.3
# One that has been silent for this many intervals is not waited for.
_PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class CameraSnapshot:
    """Everything counted for a camera since the node started.

    Attributes:
        received: frames that were published to us as far as we know, those included that nobody looked at.
        processed: frames whose results were published.
        dropped: the other frames by cause.
        latencies: seconds from stamp to publication of the latest processed frames, sorted.
        last_frame: when the last frame was taken, on the monotonic clock; negative before the first.
        last_fault: text of the last fault, empty for none.
        last_fault_time: when that was, on the monotonic clock.
        warned: frames that were used although something was odd about their image, by kind.
        mismatched: processed frames whose stamps are not of the node's clock, so that they have no latency.
    """

    received: int = 0
    processed: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    latencies: tuple[float, ...] = ()
    last_frame: float = -1.0
    last_fault: str = ""
    mismatched: int = 0
    last_fault_time: float = -1.0
    warned: Mapping[str, int] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        """Frames that came and could not be used."""
        return sum(
            count for cause, count in self.dropped.items() if cause not in (SUPERSEDED, LOST, TOO_OLD, NO_KEY_FRAME)
        )


# Replaced by a newer frame while the worker was busy; lost on the way while it was waiting.
SUPERSEDED, LOST = "superseded", "lost"
TOO_OLD = "too_old"
# Of video: no key frame came before it; it came faster than packets are decoded.
NO_KEY_FRAME, OVERRUN = "no_key_frame", "overrun"
MODEL_OUTPUT = "model_output"
# In flight when something failed that was no fault of the frame.
FAILURE = "failure"
# Causes that are always listed, so that a chart of them has no gaps; others appear when they occur.
CAUSES = (SUPERSEDED, LOST, TOO_OLD, "encoding", "layout", "size", "compressed", "memory", "message", MODEL_OUTPUT)


@dataclass(frozen=True, slots=True)
class Recent:
    """What was counted lately.

    Attributes:
        rate: results a second; NaN when too little is known.
        dropped: frames given up, by cause.
        seconds: how long that looks back; 0 when too little is known.
    """

    rate: float = nan
    dropped: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class CameraStatistics:
    """Counts the frames of one camera."""

    def __init__(self) -> None:
        # Counts at some moments, noted while somebody asks what is recent.
        self._noted: deque[tuple[float, int, Counter[str]]] = deque()
        self._lock = Lock()
        self._received = 0
        self._processed = 0
        self._dropped: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._last_frame = -1.0
        self._last_fault = ""
        self._last_fault_time = -1.0
        self._mismatched = 0
        self._warned: Counter[str] = Counter()

    @property
    def last_frame(self) -> float:
        """When the last frame was taken, on the monotonic clock; negative before the first."""
        with self._lock:
            return self._last_frame

    def taken(self, missed: int = 0, cause: str = SUPERSEDED) -> None:
        """A frame was taken; `missed` others were published since the one before and are gone."""
        with self._lock:
            self._received += 1 + missed
            self._dropped[cause] += missed
            self._last_frame = monotonic()

    def missed(self, count: int) -> None:
        """Frames were lost on the way, before a message that is no frame."""
        with self._lock:
            self._received += count
            self._dropped[LOST] += count

    def replaced(self) -> None:
        """A frame that had been taken was replaced by a newer one."""
        with self._lock:
            self._dropped[SUPERSEDED] += 1

    def processed(self, latency: float) -> None:
        """Results were published `latency` seconds after the frame's stamp."""
        with self._lock:
            self._processed += 1
            if 0 <= latency < LONGEST_LATENCY:
                self._latencies.append(latency)
            else:
                self._mismatched += 1

    def dropped(self, cause: str, fault: str = "") -> None:
        """A frame was given up; `fault` says why, human-readable."""
        with self._lock:
            self._dropped[cause] += 1
            if fault:
                self._last_fault, self._last_fault_time = fault, monotonic()

    def warned(self, kind: str) -> None:
        """Count a frame that was used although something was odd about its image."""
        with self._lock:
            self._warned[kind] += 1

    def recent(self) -> Recent:
        """Return what was counted in the last seconds, if it is asked for regularly."""
        with self._lock:
            now, noted = monotonic(), self._noted
            if noted and now - noted[-1][0] > RECENT_SECONDS:
                noted.clear()
            if not noted or now - noted[-1][0] >= RECENT_SECONDS / 20:
                noted.append((now, self._processed, self._dropped.copy()))
            while len(noted) > 1 and noted[1][0] <= now - RECENT_SECONDS:
                noted.popleft()
            since, processed, dropped = noted[0]
            elapsed = now - since
            if elapsed < RECENT_SECONDS / 10:
                return Recent()
            return Recent((self._processed - processed) / elapsed, self._dropped - dropped, elapsed)

    def snapshot(self) -> CameraSnapshot:
        """Return what was counted up to now."""
        with self._lock:
            counts = {cause: self._dropped[cause] for cause in (*CAUSES, *self._dropped)}
            latencies = tuple(sorted(self._latencies))
            return CameraSnapshot(
                self._received,
                self._processed,
                counts,
                latencies,
                self._last_frame,
                self._last_fault,
                self._mismatched,
                self._last_fault_time,
                dict(self._warned),
            )


class StageTimes:
    """Seconds per stage of the latest frames."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stages: dict[str, deque[float]] = {}
        self._batches: deque[int] = deque(maxlen=WINDOW)

    def add(self, timings: Mapping[str, float]) -> None:
        """Record one frame's seconds per stage."""
        with self._lock:
            for stage, seconds in timings.items():
                self._stages.setdefault(stage, deque(maxlen=WINDOW)).append(seconds)

    def began(self, frames: int) -> None:
        """Record how many frames went together."""
        with self._lock:
            self._batches.append(frames)

    def frames_at_once(self) -> float:
        """Return how many frames went together, on average; NaN before the first."""
        with self._lock:
            return sum(self._batches) / len(self._batches) if self._batches else nan

    def medians(self) -> dict[str, float]:
        """Median seconds per stage."""
        with self._lock:
            return {stage: percentile(sorted(times), 0.5) for stage, times in self._stages.items()}


def percentile(ordered: Iterable[float], part: float) -> float:
    """The smallest of the sorted values that `part` (0-1) of them do not exceed (nearest rank); NaN without values."""
    values = list(ordered)
    # Rounded, because 0.55 * 100 is a little more than 55.
    rank = ceil(round(part * len(values), 6))
    return values[max(rank, 1) - 1] if values else float("nan")


# Kinds of faults are named after cameras and topics, which come and go.
_MOST_KINDS = 1000


class FaultLog:
    """Decides which faults are logged: each kind once per period."""

    def __init__(self, period: float) -> None:
        """Set the period in seconds."""
        self._period = period
        # The executor, the worker and threads that open models all report.
        self._lock = Lock()
        self._logged: dict[str, float] = {}
        self._silent: Counter[str] = Counter()

    def admit(self, kind: str, text: str) -> str:
        """The line to log for a fault, safe to print; or an empty string while its kind is silent."""
        now, text = monotonic(), message_text(text)
        with self._lock:
            if now - self._logged.get(kind, -self._period) < self._period:
                self._silent[kind] += 1
                return ""
            if len(self._logged) >= _MOST_KINDS:
                self._logged = {kind: time for kind, time in self._logged.items() if now - time < self._period}
                self._silent = Counter({kind: self._silent[kind] for kind in self._logged})
            self._logged[kind] = now
            more = self._silent.pop(kind, 0)
        return f"{text} ({more} more like this since it was last logged)" if more else text


class RateEstimator:
    """Estimates when the next frame of a camera is due; all times are in seconds on the monotonic clock."""

    def __init__(self) -> None:
        self._last = 0.0
        self._intervals: deque[float] = deque(maxlen=_LATEST)

    def arrived(self, time: float, missed: int) -> None:
        """A frame came; `missed` others came between the one before and it."""
        if self._last and time > self._last:
            self._intervals.append((time - self._last) / (1 + missed))
        self._last = max(self._last, time)

    def due(self, now: float, until: float) -> bool:
        """Return whether the next frame is to be expected before `until`; never before two have come."""
        if not self._intervals:
            return False
        interval = median(self._intervals)
        earliest, latest = self._last + (1 - _EARLY) * interval, self._last + _PATIENCE * interval
        return earliest < until and now < latest
