"""What `top` knows of the nodes that it hears."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

LEVELS = ("OK", "WARN", "ERROR", "STALE")
STALE = "STALE"
# A node is stale after so many of its periods without a word; before its period is known, and at least, after seconds.
_PERIODS, _FIRST_SECONDS, _LEAST_SECONDS = 2.5, 5.0, 3.0
# Anybody on the domain may publish any number of names. When so many are known, those that are silent for longer make
# room; others are passed over.
MOST_NODES, _FORGOTTEN_SECONDS = 50, 60.0
MOST_CAMERAS = 50
# What ROS allows for a node's full name, without the first slash. Others are no nodes, whatever they say.
_NODE_NAME = re.compile(r"[A-Za-z0-9_/]{1,255}")
# Whole numbers of more digits count nothing, and Python refuses to read those of thousands.
_MOST_DIGITS = 18
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
        return {
            key.removeprefix("dropped_"): frames
            for key, value in self.values.items()
            if key.startswith("dropped_") and (frames := count(value))
        }

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
        period: seconds between its last two messages; 0 after the first.
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
    """All nodes that were heard, by name.

    Attributes:
        passed_over: how many statuses, cameras and values were not taken in: of names that no node can have, or beyond
            the most that are kept.
    """

    def __init__(self, wanted: Iterable[str] = ()) -> None:
        """Begin; `wanted` are names of nodes, with or without namespace; without any, all are."""
        self._wanted = tuple(name.lstrip("/") for name in wanted)
        self._views: dict[str, NodeView] = {}
        self.passed_over = 0

    def __len__(self) -> int:
        return len(self._views)

    def __iter__(self) -> Any:
        return iter(sorted(self._views.values(), key=lambda view: view.name))

    def hear(self, statuses: Sequence[Status], now: float) -> None:
        """Take in the statuses of one message; those of others than our nodes are passed over."""
        for status in statuses:
            name, colon, part = status["name"].rpartition(": ")
            if not (colon and part == "model" and "state" in status["values"]):
                continue
            if not _NODE_NAME.fullmatch(name):
                self.passed_over += 1
            elif not self._wanted or any(name == each or name.endswith(f"/{each}") for each in self._wanted):
                self._take(name, status, statuses, now)

    def _take(self, name: str, model: Status, statuses: Sequence[Status], now: float) -> None:
        if name not in self._views and not self._has_room(now):
            self.passed_over += 1
            return
        view = self._views.setdefault(name, NodeView(name))
        if view.heard:
            view.period = now - view.heard
        view.heard = now
        view.level, view.message, view.values = level_of(model), model["message"], model["values"]
        prefix = f"{name}: camera "
        cameras = [each for each in statuses if each["name"].startswith(prefix)]
        self.passed_over += max(0, len(cameras) - MOST_CAMERAS)
        view.cameras = [
            CameraView(each["name"].removeprefix(prefix), level_of(each), each["message"], each["values"])
            for each in cameras[:MOST_CAMERAS]
        ]

    def _has_room(self, now: float) -> bool:
        if len(self._views) < MOST_NODES:
            return True
        quietest = min(self._views.values(), key=lambda view: view.heard)
        if now - quietest.heard > _FORGOTTEN_SECONDS:
            del self._views[quietest.name]
        return len(self._views) < MOST_NODES


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
    """A whole number that a value holds; None for anything else, and for one of more digits than a count has."""
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None
