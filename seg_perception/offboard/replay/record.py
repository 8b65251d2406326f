"""What a replay remembers of its frames: numbers, whose memory is bounded however long it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.core.instances import Segmentation

# Frames of which each number is kept; beyond, every other one is, and so on.
_MOST_SAMPLES = 20_000
_MOST_FAULTS = 200
PERCENTILES = (50, 90, 95, 99)


class Samples:
    """Rows of numbers of which evenly spread ones are kept."""

    def __init__(self, columns: int) -> None:
        self._rows = np.empty((_MOST_SAMPLES, columns), np.float32)
        self._kept = 0
        self._seen = 0
        self._step = 1

    def add(self, row: tuple[float, ...]) -> None:
        """Add a row."""
        if self._seen % self._step == 0:
            if self._kept == _MOST_SAMPLES:
                self._rows[: _MOST_SAMPLES // 2] = self._rows[::2]
                self._kept, self._step = _MOST_SAMPLES // 2, 2 * self._step
            if self._seen % self._step == 0:
                self._rows[self._kept] = row
                self._kept += 1
        self._seen += 1

    def rows(self) -> NDArray[np.float32]:
        """Return the rows that were kept, float32 `[N, columns]`, in order."""
        return self._rows[: self._kept]


@dataclass
class Record:
    """The result of the frames of one recording, or of several.

    Attributes:
        frames: processed frames by camera.
        lost: frames that were processed in vain, by camera.
        faults: what went wrong, human-readable; no more than a few hundred, all of them counted.
        fault_count: how many there were.
        instances: published ones by road group.
        numbers: different instance numbers by camera, if frames are tracked; else the most in a frame.
        samples: for each kept frame the time in seconds since the first, the seconds it took, the instances of each
            road group, and the mean score.
        stages: summed seconds by stage.
    """

    frames: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    fault_count: int = 0
    instances: Counter[str] = field(default_factory=Counter)
    samples: Samples = field(default_factory=lambda: Samples(3 + len(ROAD_GROUPS)))
    stages: Counter[str] = field(default_factory=Counter)
    _numbers: dict[str, set[int]] = field(default_factory=dict)
    _first_ns: int | None = None

    def add(self, time_ns: int, segmentation: Segmentation) -> None:
        """Count a frame that was published; `time_ns` is when it was recorded."""
        if self._first_ns is None:
            self._first_ns = time_ns
        camera, instances = segmentation.frame.camera, segmentation.instances
        groups = np.bincount(instances.groups + 1, minlength=len(ROAD_GROUPS) + 1)[1:].tolist()
        self.frames[camera] += 1
        self.instances.update(dict(zip(ROAD_GROUPS, groups, strict=True)))
        self._numbers.setdefault(camera, set()).update(instances.ids.tolist())
        for stage, seconds in segmentation.timings.items():
            self.stages[stage] += seconds  # type: ignore[assignment]
        seconds = sum(segmentation.timings.values())
        score = float(instances.scores.mean()) if len(instances) else float("nan")
        self.samples.add(((time_ns - self._first_ns) / 1e9, seconds, score, *groups))

    def lose(self, camera: str, fault: str) -> None:
        """Count a frame that came to nothing."""
        self.lost[camera] += 1
        self.fault(fault)

    def fault(self, fault: str) -> None:
        """Remember that something went wrong."""
        self.fault_count += 1
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(fault)

    @property
    def total(self) -> int:
        """Processed frames."""
        return sum(self.frames.values())

    def numbers(self) -> Mapping[str, int]:
        """Different instance numbers by camera."""
        return {camera: len(numbers) for camera, numbers in self._numbers.items()}

    def latency(self) -> dict[str, float]:
        """Milliseconds that the pipeline took for a frame: mean and `PERCENTILES`; empty without frames."""
        taken = self.samples.rows()[:, 1] * 1e3
        if not len(taken):
            return {}
        values = np.percentile(taken, PERCENTILES).tolist()
        return {"mean": float(taken.mean()), **{f"p{p}": v for p, v in zip(PERCENTILES, values, strict=True)}}

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        frames = max(self.total, 1)
        return {
            "frames": dict(self.frames),
            "lost": dict(self.lost),
            "faults": self.fault_count,
            "first_faults": self.faults[:20],
            "instances": dict(self.instances),
            "numbers": dict(self.numbers()),
            "latency_ms": {name: round(value, 3) for name, value in self.latency().items()},
            "stage_ms": {name: round(1e3 * seconds / frames, 3) for name, seconds in self.stages.items()},
        }
