"""INT8 for `build`: the calibration frames, and the quantizer with its gate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from ...manifest import BuildSettings, file_sha256
from ..quantize.frames import CalibrationSet, gather

Report = Callable[[str], None]


def calibration_frames(settings: BuildSettings) -> CalibrationSet | None:
    """The frames that the settings name, each looked at; None where they name none.

    Raises:
        SourceError, ConfigurationError: see `gather`.
    """
    return gather([Path(name) for name in settings.calibration]) if settings.calibration else None


def frames_sha256(frames: CalibrationSet | None) -> str:
    """Over the frames and their labels; empty for none."""
    if frames is None:
        return ""
    labels = file_sha256(frames.labels.path) if frames.labels else ""
    return hashlib.sha256((frames.sha256 + labels).encode()).hexdigest()
