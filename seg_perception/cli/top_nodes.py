"""What `top` knows of the nodes that it hears."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

LEVELS = ("OK", "WARN", "ERROR", "STALE")
STALE = "STALE"
# A node is stale after so many of its periods without a word; before its period is known, and at least, after seconds.
_PERIODS, _FIRST_SECONDS, _LEAST_SECONDS = 2.5, 5.0, 3.0
Status = Mapping[str, Any]


@dataclass(slots=True)
class CameraView:
    """A camera as its node tells of it.

    Attributes:
        name: in the node's configuration.
        level, message: of its status.
        values: of its status.
    """

    name: str
    level: str
    message: str
    values: Mapping[str, str]

    @property
    def drops(self) -> dict[str, int]:
        """Frames given up since the node started, by cause, without those that never were."""
        dropped = {key.removeprefix("dropped_"): value for key, value in self.values.items() if _is_drop(key)}
        return {cause: frames for cause, value in dropped.items() if (frames := count(value))}

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        latency = {part: number(self.values.get(f"latency_{part}_ms", "")) for part in ("p50", "p95", "p99")}
        return {
            "name": self.name,
            "level": self.level,
            "message": self.message,
            "topic": self.values.get("topic", ""),
            **{name: number(self.values.get(name, "")) for name in ("received_hz", "processed_hz")},
            **{name: count(self.values.get(name, "")) for name in ("received", "processed", "publishers")},
            "latency_ms": latency,
            "dropped": self.drops,
            "values": dict(self.values),
        }


@dataclass(slots=True)
class NodeView:
    """A node as it tells of itself.

    Attributes:
        name: without the first slash.
        level, message: of the model's status.
        values: of the model's status: state, identity, times of the stages.
        cameras: in the node's order.
        heard: when it last spoke, on the monotonic clock.
        period: seconds between its last two words; 0 after the first.
    """

    name: str
    level: str = STALE
    message: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    cameras: list[CameraView] = field(default_factory=list)
    heard: float = 0.0
    period: float = 0.0

    def silence(self, now: float) -> float:
        """Seconds for which it has been silent, if that is too long; else 0."""
        allowed = max(_LEAST_SECONDS, _PERIODS * self.period) if self.period else _FIRST_SECONDS
        return now - self.heard if now - self.heard > allowed else 0.0

    @property
    def stages(self) -> dict[str, float]:
        """Median milliseconds of each stage, in the node's order."""
        found = {key.removesuffix("_ms"): number(value) for key, value in self.values.items() if key.endswith("_ms")}
        return {stage: value for stage, value in found.items() if value is not None}

    def as_json(self, now: float) -> dict[str, Any]:
        """For `--json`."""
        silence = self.silence(now)
        return {
            "name": self.name,
            "level": STALE if silence else self.level,
            "message": f"nothing came for {silence:.1f} s" if silence else self.message,
            "silent_s": round(now - self.heard, 2),
            "state": self.values.get("state", ""),
            "stages_ms": self.stages,
            "model": {key: value for key, value in self.values.items() if not key.endswith("_ms")},
            "cameras": [camera.as_json() for camera in self.cameras],
        }


class Nodes:
    """All nodes that were heard, by name."""

    def __init__(self, wanted: Iterable[str] = ()) -> None:
        """Begin; `wanted` are names of nodes, with or without namespace; without any, all are."""
        self._wanted = tuple(name.lstrip("/") for name in wanted)
        self._views: dict[str, NodeView] = {}

    def __len__(self) -> int:
        return len(self._views)

    def __iter__(self) -> Any:
        return iter(sorted(self._views.values(), key=lambda view: view.name))

    def hear(self, statuses: Sequence[Status], now: float) -> None:
        """Take in the statuses of one message; those of others than our nodes are passed over."""
        for status in statuses:
            name, colon, part = status["name"].rpartition(": ")
            if colon and part == "model" and "state" in status["values"] and self._is_wanted(name):
                self._take(name, status, statuses, now)

    def _is_wanted(self, name: str) -> bool:
        return not self._wanted or any(name == each or name.endswith(f"/{each}") for each in self._wanted)

    def _take(self, name: str, model: Status, statuses: Sequence[Status], now: float) -> None:
        view = self._views.setdefault(name, NodeView(name))
        if view.heard:
            view.period = now - view.heard
        view.heard = now
        view.level, view.message, view.values = level_of(model), model["message"], model["values"]
        prefix = f"{name}: camera "
        view.cameras = [
            CameraView(each["name"].removeprefix(prefix), level_of(each), each["message"], each["values"])
            for each in statuses
            if each["name"].startswith(prefix)
        ]


def level_of(status: Status) -> str:
    """A status' level by name; one that is unknown counts as an error."""
    return LEVELS[status["level"]] if 0 <= status["level"] < len(LEVELS) else "ERROR"


def number(text: str) -> float | None:
    """A number that a value holds; None for text, nan and nothing."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None


def count(text: str) -> int | None:
    """A whole number that a value holds; None for anything else."""
    return int(text) if text.isdecimal() else None


def _is_drop(key: str) -> bool:
    return key.startswith("dropped_")
