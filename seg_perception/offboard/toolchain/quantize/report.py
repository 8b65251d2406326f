"""What quantization did and what it cost: one JSON value that travels in the model's metadata and into manifests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from seg_perception.core.errors import ModelError
from seg_perception.core.text import printable

REPORT_KEY = "seg_perception_quantization"
REPORT_VERSION = 2
# What version 1 called the counts of instances.
_FIRST_NAMES = {"missed": "false_negatives", "extra": "false_positives", "switched": "class_confusions"}
# Fewer than these on the gate's side, and its verdict is a matter of chance.
ENOUGH_FRAMES, ENOUGH_INSTANCES = 16, 100
# Numbers of a report that was read are below it.
_LARGEST = 10**12


@dataclass(frozen=True, slots=True)
class Precision:
    """How well the float and the quantized model agree on the held-back frames.

    Attributes:
        frames: held-back frames.
        instances: that the float model found in them.
        mask_iou: mean over matched instances; None without any.
        class_map_share: part of the pixels whose class is the same in both models' class maps, 0 to 1; None for models
            without, or without a pixel of a class.
        class_map_iou: mean IoU of the classes in these maps, see `ClassMapAgreement.mean_iou`; None likewise.
        false_negatives, false_positives, class_confusions: instances that only the float model has, that only the
            quantized one has, or whose label changed.
        labelled_frames: those with ground truth.
        float_mask_ap, mask_ap, float_box_ap, box_ap: COCO's AP, 0 to 1, of the float and the quantized model on the
            labelled frames; None without any.
        mask_loss: lost points of mask AP (hundredths); None without labels.
        mask_loss_low, mask_loss_high: limits of its 95 % interval, by a paired bootstrap over images.
    """

    frames: int
    instances: int
    mask_iou: float | None
    false_negatives: int
    false_positives: int
    class_confusions: int
    labelled_frames: int = 0
    float_mask_ap: float | None = None
    mask_ap: float | None = None
    float_box_ap: float | None = None
    box_ap: float | None = None
    mask_loss: float | None = None
    mask_loss_low: float | None = None
    mask_loss_high: float | None = None
    class_map_share: float | None = None
    class_map_iou: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Precision:
        """Read what `dataclasses.asdict` made of one, of reports of version 1, too.

        Raises:
            TypeError: it is no mapping, or one with other keys.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"expected figures by name, got {type(values).__name__}")
        return cls(**{_FIRST_NAMES.get(key, key): value for key, value in values.items()})

    @property
    def fault_share(self) -> float:
        """False negatives, false positives and class confusions per instance of the float model."""
        return (self.false_negatives + self.false_positives + self.class_confusions) / max(self.instances, 1)

    @property
    def caution(self) -> str:
        """What to say where so little was held back that the verdict proves little; empty where it is enough."""
        if self.frames >= ENOUGH_FRAMES and (self.instances >= ENOUGH_INSTANCES or self.class_map_share is not None):
            return ""
        found, better = f"{self.frames} held-back frames", f"{ENOUGH_FRAMES}"
        if self.class_map_share is None or self.instances:
            found, better = f"{self.instances} instances in {found}", f"{ENOUGH_INSTANCES} in {better}"
        return f"weak proof: {found} (better {better}); give more frames, or let `seg_perception verify` see others"

    def __str__(self) -> str:
        found = (
            f"mask IoU {'-' if self.mask_iou is None else format(self.mask_iou, '.4f')}, "
            f"{self.false_negatives} false negatives, {self.false_positives} false positives, "
            f"{self.class_confusions} class confusions of {self.instances} in {self.frames} frames"
        )
        if self.class_map_share is not None:
            iou = "" if self.class_map_iou is None else f", mean class IoU {self.class_map_iou:.4f}"
            maps = f"class map {100 * self.class_map_share:.2f} % the same{iou}"
            found = f"{found}, {maps}" if self.instances or self.false_positives else f"{maps} in {self.frames} frames"
        if self.mask_loss is None:
            return found
        return (
            f"mask AP {self.float_mask_ap:.4f} to {self.mask_ap:.4f}: {self.mask_loss:+.2f} points lost "
            f"[{self.mask_loss_low:+.2f}, {self.mask_loss_high:+.2f}]; {found}"
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """A layer that stays in float16.

    Attributes:
        name, operator: of the layer.
        share: of the model's multiply-accumulates, 0 to 1.
        reason: why.
    """

    name: str
    operator: str
    share: float
    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried, and what came of it.

    Attributes:
        action: in words.
        int8_share: of the multiply-accumulates, 0 to 1.
        precision: measured on the held-back frames.
        fits: whether that is within the budget.
    """

    action: str
    int8_share: float
    precision: Precision
    fits: bool


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """All of it.

    Attributes:
        method: how the ranges of the activations were found.
        calibration_frames: how many set the scales.
        calibration_sha256: of all frames, those of the gate included, whatever their order.
        failures: frames that could not be read.
        int8_share: of the multiply-accumulates, 0 to 1.
        kept: layers in float16.
        budget: `max_loss` in points of mask AP, `min_iou` and `max_faults`.
        steps: what was tried, in order, but for the result, which stands last.
        forced: whether the result is over the budget and left all the same.
        version: of this description.
    """

    method: str
    calibration_frames: int
    calibration_sha256: str
    failures: int
    int8_share: float
    kept: tuple[Kept, ...]
    budget: Mapping[str, float]
    steps: tuple[Step, ...]
    forced: bool = False
    version: int = REPORT_VERSION

    @property
    def precision(self) -> Precision:
        """Of the result."""
        return self.steps[-1].precision

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, origin: str = "model") -> QuantizationReport:
        """Read what `to_json` wrote.

        Raises:
            ModelError: another version wrote it, or it is damaged.
        """
        try:
            values = json.loads(text)
            if values["version"] not in (1, REPORT_VERSION):
                raise ValueError(f"expected version {REPORT_VERSION} or 1, got {values['version']}")
            values["version"] = REPORT_VERSION
            steps = [
                Step(**{**step, "precision": _checked(Precision.from_dict(step["precision"]))})
                for step in values["steps"]
            ]
            kept = [Kept(**layer) for layer in values["kept"]]
            known = {field.name: values[field.name] for field in fields(cls)}
            if not steps:
                raise ValueError("expected at least one step")
            return cls(**{**known, "steps": tuple(steps), "kept": tuple(kept)})
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise ModelError(
                f"{origin}: its report of quantization cannot be read ({printable(error)}); quantize the float32 model "
                "again"
            ) from error


def _checked(precision: Precision) -> Precision:
    """The same, whose fields came out of JSON.

    Raises:
        ValueError: one is no number, or one that can be shown is missing.
    """
    for field in fields(precision):
        value, counts = getattr(precision, field.name), field.type == "int"
        if value is None and not counts:
            continue
        kinds = (int,) if counts else (int, float)
        if type(value) not in kinds or not (0 if counts else -_LARGEST) <= value <= _LARGEST:
            raise ValueError(f"{field.name}: expected a number, got one of type {type(value).__name__}")
    rest = (precision.float_mask_ap, precision.mask_ap, precision.mask_loss_low, precision.mask_loss_high)
    if precision.mask_loss is not None and None in rest:
        raise ValueError("mask_loss: expected the average precisions and the interval with it")
    return precision


def report_of(metadata: Mapping[str, str], origin: str = "model") -> QuantizationReport | None:
    """The report in a model's metadata; None for a model that `quantize` did not make.

    Raises:
        ModelError: it cannot be read.
    """
    return QuantizationReport.from_json(metadata[REPORT_KEY], origin) if REPORT_KEY in metadata else None
