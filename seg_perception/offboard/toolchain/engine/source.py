"""What is built: the user's model as a canonical one, in the precision that was asked for."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from seg_perception.core.class_tables import find_class_table, load_class_table
from seg_perception.core.contract import METADATA_KEY
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.manifest import BuildSettings

from ..export import load_model, metadata_of
from ..precision.cost import PrecisionSummary, precision_summary
from ..precision.half import to_half
from ..prepare import PrepareOptions, prepare
from ..quantize.frames import CalibrationSet
from ..quantize.report import report_of
from .int8 import quantized

Report = Callable[[str], None]
_PRECISION_OF = {"float32": "fp32", "float16": "fp16", "int8": "int8"}


@dataclass(frozen=True, slots=True)
class Source:
    """The file that the user named.

    Attributes:
        path: of the file.
        model: with its weights.
        sha256: of the file.
        content: SHA-256 of the model with weights that lie in files next to it.
    """

    path: Path
    model: onnx.ModelProto
    sha256: str
    content: str

    @classmethod
    def load(cls, path: Path) -> Source:
        """Read it.

        Raises:
            ModelError: missing, damaged, not ONNX, or beyond 2 GB.
        """
        model, sha256 = load_model(path)
        return cls(path, model, sha256, hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest())

    @property
    def is_canonical(self) -> bool:
        """Whether it need not be prepared."""
        return METADATA_KEY in metadata_of(self.model)


@dataclass(frozen=True, slots=True)
class Network:
    """What TensorRT gets.

    Attributes:
        model: canonical, in the precision that was asked for.
        summary: how much of its work is done in which type.
        quantization: how it became INT8 and what that cost; None for a model that was not quantized here.
        forced: whether it failed the accuracy gate and was kept all the same.
    """

    model: onnx.ModelProto
    summary: PrecisionSummary
    quantization: Mapping[str, Any] | None = None
    forced: bool = False


def canonical_model(source: Source, settings: BuildSettings, report: Report) -> onnx.ModelProto:
    """The source itself, or what `prepare` makes of a raw export.

    Raises:
        ConfigurationError: options for raw exports, and the source is none.
        ModelError, UnknownFamilyError, ClassTableError: see `prepare`.
    """
    given = [name for name in ("classes", "family", "input_size") if getattr(settings, name)]
    if source.is_canonical:
        if given:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ConfigurationError(f"{names}: for raw exports; {source.path} is canonical already, leave this out")
        return source.model
    options = PrepareOptions(
        classes=load_class_table(find_class_table(settings.classes, ())) if settings.classes else None,
        family=settings.family,
        input_size=parse_size(settings.input_size) if settings.input_size else None,
    )
    with tempfile.TemporaryDirectory(prefix="seg_perception-") as folder:
        prepared = Path(folder) / "canonical.onnx"
        prepare(source.path, prepared, options, report)
        model, _ = load_model(prepared)
    return model


def in_precision(
    model: onnx.ModelProto, settings: BuildSettings, origin: Path, frames: CalibrationSet | None, report: Report
) -> Network:
    """A canonical model in the precision of the settings; one that has it already stays as it is.

    Raises:
        ConfigurationError: the model is in a lower precision already, or INT8 lacks images to calibrate with.
        ModelError: it cannot be converted.
    """
    summary = precision_summary(model)
    present, wanted = precision_of(model, summary), settings.precision
    if present == wanted:
        if frames or settings.max_loss is not None:
            given = "--calibration" if frames else "--max-loss"
            raise ConfigurationError(f"{given}: {origin} is in {present} already, leave this out")
        return _with_report(Network(model, summary), settings, origin, report)
    if present != "fp32":
        raise ConfigurationError(
            f"--precision {wanted}: {origin} is in {present} already; build it with --precision {present}, or begin "
            "from the float32 model that it was made from"
        )
    if wanted == "int8":
        result = quantized(model, settings, frames, origin, report)
        return Network(result.model, precision_summary(result.model), result.report.to_dict(), result.report.forced)
    half, done = to_half(model)
    report(done.summary())
    for note in done.notes:
        report(note)
    return Network(half, precision_summary(half))


def precision_of(model: onnx.ModelProto, summary: PrecisionSummary) -> str:
    """Of a canonical model: the narrowest type that it multiplies in."""
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return "int8"
    return next((_PRECISION_OF[element] for element in summary.macs if element in _PRECISION_OF), "fp32")


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from a text such as `384x640`.

    Raises:
        ConfigurationError: it is none.
    """
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ConfigurationError(f"--input-size: expected HEIGHTxWIDTH such as 384x640, got {text!r}")
    return int(height), int(width)


def _with_report(network: Network, settings: BuildSettings, origin: Path, report: Report) -> Network:
    """A network that came in the precision asked for; one in INT8 with what `quantize` says of it."""
    if settings.precision != "int8":
        return network
    done = report_of(metadata_of(network.model), str(origin))
    if done is None:
        report(f"note: {origin} was quantized elsewhere; nothing is known of what that cost in accuracy")
        return network
    if done.forced and not settings.force:
        raise ConfigurationError(
            f"{origin}: lost more accuracy than its budget when it was quantized ({done.precision}); quantize it again "
            "with more or better images, or build it all the same with --force"
        )
    return replace(network, quantization=done.to_dict(), forced=done.forced)
