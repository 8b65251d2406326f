"""The accuracy gate: what a quantized model finds in held-back frames, against what the float model finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import onnx

from seg_perception.core.classes import ClassTable
from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.evaluation.collect import CollectedFrame, coco_results, collect
from seg_perception.offboard.metrics.agreement import Agreement, AgreementBudget, AgreementRule, FrameAgreement, compare
from seg_perception.offboard.metrics.average_precision import MatchedResults, match_results, paired_bootstrap
from seg_perception.offboard.metrics.class_maps import ClassMapAgreement
from seg_perception.onboard.backend.host.backend import HostBackend
from seg_perception.onboard.pipeline.segmenter import Segmenter

from ..export import spec_of
from .emulation import ExactRunner
from .frames import CalibrationImage, CalibrationSet
from .progress import Progress, silent
from .report import Precision

# The AP of fewer images than this says little: then instances have to agree, too.
_FEWEST_LABELLED = 16
# COCO's AP counts weak instances, too; agreement only those that a user would see.
_LOWEST_FOR_AP = 0.01
_RULE = AgreementRule()
# For ranking, where an instance that crosses the threshold must not outweigh what happens to all others.
_SMOOTH = AgreementRule(margin=0.15)
# Nothing is selected here, so that road groups play no part.
_NO_GROUPS = ClassTable("none", (), {})


@dataclass(frozen=True, slots=True)
class Budget:
    """What quantization may cost.

    Attributes:
        max_loss: points of mask AP (hundredths), where there are labels.
        agreement: where there are none or few; of class maps always, since labels have instances only. Of semantic
            models, which have no instances, the class maps alone are judged.
    """

    max_loss: float = 0.5
    agreement: AgreementBudget = field(default_factory=AgreementBudget)

    def __post_init__(self) -> None:
        if not 0 <= self.max_loss <= 100:
            raise ConfigurationError(f"--max-loss: expected 0 to 100 points of mask AP, got {self.max_loss:g}")

    def to_dict(self) -> dict[str, float]:
        """For the report."""
        return {"max_loss": self.max_loss, **asdict(self.agreement)}


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What the gate says of a model.

    Attributes:
        precision: what was measured.
        over: what is over the budget, in words; nothing for a model that may leave.
        differs: how the instances differ by more than the agreement budget, in words. Without labels the same as
            `over`. With labels a model may leave all the same, but the AP of a few frames is a matter of chance as long
            as the models differ this much.
    """

    precision: Precision
    over: tuple[str, ...]
    differs: tuple[str, ...]


class ReferenceMeasurement:
    """Holds models against a reference on some frames.

    Args:
        reference: the float model.
        frames: the set that `images` are of.
        images: the frames.
        lowest_score: weaker instances are not looked at.
        progress: see `Progress`.
    """

    def __init__(
        self,
        reference: onnx.ModelProto,
        frames: CalibrationSet,
        images: Sequence[CalibrationImage],
        lowest_score: float = _SMOOTH.lowest_score,
        progress: Progress = silent,
    ) -> None:
        self._frames, self._images, self._progress = frames, images, progress
        # What a semantic model's class map falls apart into are no instances of the model's.
        self.semantic = not spec_of(reference).max_instances
        self._lowest_score = math.inf if self.semantic else lowest_score
        self.reference = self.found(reference, "float model")

    def found(self, model: onnx.ModelProto, title: str = "", *, fused: bool = False) -> list[CollectedFrame]:
        """Return what a model finds, see `exact_session` for `fused`; the frames' names are their digests."""
        segmenter = Segmenter(HostBackend(ExactRunner(model, fused=fused)), _NO_GROUPS)
        try:
            frames = self._progress(self._frames.frames(self._images), title, len(self._images))
            named = ((image.digest, frame) for image, frame in frames)
            return list(collect(segmenter, named, self._lowest_score))
        finally:
            segmenter.close()

    def compared(self, found: Sequence[CollectedFrame], rule: AgreementRule = _RULE) -> list[FrameAgreement]:
        """Frame by frame against the reference."""
        return [
            compare(ours.instances, theirs.instances, rule) for ours, theirs in zip(self.reference, found, strict=True)
        ]

    def compared_maps(self, found: Sequence[CollectedFrame]) -> ClassMapAgreement | None:
        """Class maps of all frames against the reference; None for models without."""
        pairs = [(ours.class_map, theirs.class_map) for ours, theirs in zip(self.reference, found, strict=True)]
        maps = [ClassMapAgreement.of(ours.full(), theirs.full()) for ours, theirs in pairs if ours and theirs]
        return ClassMapAgreement.sum(maps) if maps else None

    def distortion(self, model: onnx.ModelProto) -> float:
        """How far a model is from the reference; 0 for the same. Smoother than AP, so that layers can be ranked by it.

        Mean over the reference's instances of the part of the masks' union that differs, where a false negative, false
        positive or class confusion counts 1, and of the difference of the scores; and the part of the class maps that
        differs. Of semantic models, what the mean IoU of the classes lacks is added, for the gate looks at it: a layer
        that loses a small class changes few pixels.
        """
        found = self.found(model, fused=True)
        parts, maps = self.compared(found, _SMOOTH), self.compared_maps(found)
        scores = sum(float(abs(part.score_difference).sum()) for part in parts)
        differing = 0.0
        if maps is not None and maps.pixels:
            differing = 1 - maps.share + (1 - maps.mean_iou if self.semantic else 0.0)
        instances = max(sum(part.reference for part in parts), 1)
        return (sum(part.disagreement for part in parts) + scores) / instances + differing


class Gate:
    """Measures models on the held-back frames.

    Args:
        reference: the float model.
        frames: of which the held-back ones are used.
        budget: what a model may lose.
        progress: see `Progress`.
    """

    def __init__(
        self,
        reference: onnx.ModelProto,
        frames: CalibrationSet,
        budget: Budget,
        progress: Progress = silent,
    ) -> None:
        self._budget, self._class_names = budget, spec_of(reference).class_names
        self._labels = frames.labels and frames.labels.matching(self._class_names)
        self._ids = {each.digest: each.image_id for each in frames.held_back if each.image_id is not None}
        lowest = _LOWEST_FOR_AP if self._ids else _RULE.lowest_score
        self._measurement = ReferenceMeasurement(reference, frames, frames.held_back, lowest, progress)
        if self._measurement.semantic:
            self._ids = {}  # The labels are of instances.
        self._truth = self._matched(self._measurement.reference)

    def measure(self, model: onnx.ModelProto, title: str) -> GateVerdict:
        """Return what a model loses, and whether that is too much."""
        found = self._measurement.found(model, title)
        agreement = Agreement.of(self._measurement.compared(found))
        maps = self._measurement.compared_maps(found)
        budget = self._budget.agreement
        if self._measurement.semantic and maps is not None:
            differs = budget.semantic_violations(maps)
        else:
            differs = budget.violations(agreement, maps)
        precision = Precision(
            frames=agreement.frames,
            instances=agreement.reference,
            mask_iou=_number(agreement.mean_iou),
            false_negatives=agreement.missed,
            false_positives=agreement.extra,
            class_confusions=agreement.switched,
            class_map_share=None if maps is None else _number(maps.share),
            class_map_iou=None if maps is None else _number(maps.mean_iou),
        )
        if not self._truth:
            return GateVerdict(precision, over=differs, differs=differs)
        precision = self._with_labels(precision, self._matched(found))
        loss, most = precision.mask_loss, f"lost mask AP: expected at most {self._budget.max_loss:g} points, got "
        if loss is None:
            return GateVerdict(
                precision,
                (most + "none, for the labelled frames have no object of the classes that has a mask",),
                differs,
            )
        over = () if loss <= self._budget.max_loss else (f"{most}{loss:.2f}",)
        few = len(self._ids) < _FEWEST_LABELLED
        return GateVerdict(precision, (*over, *(differs if few else budget.map_violations(maps))), differs)

    def _matched(self, found: Sequence[CollectedFrame]) -> dict[str, MatchedResults]:
        """Results of the labelled frames, matched with their labels; nothing without labels."""
        if self._labels is None or not self._ids:
            return {}
        categories = self._labels.categories(self._class_names)
        labelled = [(each, number) for each in found if (number := self._ids.get(each.name)) is not None]
        results = [entry for each, number in labelled for entry in coco_results(each.instances, number, categories)]
        ids = list(self._ids.values())
        return {kind: match_results(self._labels.annotations, results, ids, kind) for kind in ("mask", "box")}

    def _with_labels(self, precision: Precision, found: dict[str, MatchedResults]) -> Precision:
        loss = paired_bootstrap(found["mask"], self._truth["mask"])
        before, after = (
            {kind: each[kind].average_precision().overall for kind in ("mask", "box")} for each in (self._truth, found)
        )
        return replace(
            precision,
            labelled_frames=len(self._ids),
            float_mask_ap=_number(before["mask"]),
            mask_ap=_number(after["mask"]),
            float_box_ap=_number(before["box"]),
            box_ap=_number(after["box"]),
            mask_loss=_number(100 * loss.value),
            mask_loss_low=_number(100 * loss.low),
            mask_loss_high=_number(100 * loss.high),
        )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
