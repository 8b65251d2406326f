"""INT8 for `build`: the calibration frames, and the quantizer with its gate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import onnx

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.manifest import BuildSettings, file_sha256

from ..quantize.frames import CalibrationSet, gather
from ..quantize.gate import Budget
from ..quantize.progress import bar
from ..quantize.quantize import Quantized, QuantizeOptions, quantize

Report = Callable[[str], None]


def calibration_frames(settings: BuildSettings) -> CalibrationSet | None:
    """The frames that the settings name, each looked at; None where they name none.

    Raises:
        ConfigurationError: not for INT8, or see `gather`.
        SourceError: see `gather`.
    """
    given = "--calibration" if settings.calibration else "--max-loss" if settings.max_loss is not None else ""
    if given and settings.precision != "int8":
        raise ConfigurationError(
            f"{given}: for --precision int8, got {settings.precision}; leave one of the two options out"
        )
    if not settings.calibration:
        return None
    return gather([Path(name) for name in settings.calibration], progress=bar)


def frames_sha256(frames: CalibrationSet | None) -> str:
    """Over the frames and their labels; empty for none."""
    if frames is None:
        return ""
    labels = file_sha256(frames.labels.path) if frames.labels else ""
    return hashlib.sha256((frames.sha256 + labels).encode()).hexdigest()


def quantized(
    model: onnx.ModelProto, settings: BuildSettings, frames: CalibrationSet | None, origin: Path, report: Report
) -> Quantized:
    """A float32 canonical model in INT8, within the budget of the settings or forced.

    Raises:
        ConfigurationError: there are no frames to calibrate with, or see `quantize`.
        ModelError: see `quantize`.
    """
    if frames is None:
        raise ConfigurationError(
            "--precision int8: needs images like those that the cameras will send: --calibration PATH (images, "
            "folders, videos, bags or a COCO file); or give a model that `seg_perception quantize` made"
        )
    budget = Budget() if settings.max_loss is None else Budget(settings.max_loss)
    options = QuantizeOptions(budget, force=settings.force)
    return quantize(model, frames, options, report, bar, str(origin))
