"""What a check finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any


class Level(Enum):
    """The severity of a finding: only FAIL decides about the exit code."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        group: what it is about: `python`, `ros`, `dds`, `machine`, `gpu`, `model`, `cameras`.
        check: what was looked at.
        level: how bad it is.
        found: what was found; for SKIPPED why nothing was looked at.
        advice: what to do; empty for nothing.
        facts: numbers for scripts.
    """

    group: str
    check: str
    level: Level
    found: str
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "level": self.level.value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Finding:
        """Return what `as_json` made."""
        return cls(**{**values, "level": Level(values["level"])})


def failed(findings: Iterable[Finding]) -> bool:
    """Return whether the machine is not fit to drive."""
    return any(finding.level is Level.FAIL for finding in findings)
