"""How far two models agree on the same frames, instance by instance; no ground truth is needed.

A threshold makes a jump of a small change: an instance at score 0.251 that comes out at 0.249 is no disagreement of the
models. So there are two kinds of instances. *Certain* ones reach the score threshold and have enough pixels: each must
have a counterpart in the other model. *Doubtful* ones lie within a margin below the threshold, or are too small: they
may be a counterpart, but need none.

Counterparts have the same label and an IoU of their masks of at least `AgreementRule.iou`. They are chosen greedily by
IoU: certain with certain ones first, then those left over with doubtful ones. What is then left over but overlaps a
left-over of another label is a switched label; the rest is missed or extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import ConfigurationError

from .class_maps import ClassMapAgreement
from .compact import FrameInstances, compact_iou

# Of so many instances a single fault is no proof of more faults than a budget that allows less than one: of sixteen,
# one is seen in 28 % of all samples from models with a fault in fifty.
_ENOUGH_FOR_ONE = 10


@dataclass(frozen=True, slots=True)
class AgreementRule:
    """What counts as an instance, and what as its counterpart.

    Attributes:
        score: lowest score of a certain instance.
        margin: instances down to `score - margin` are doubtful.
        iou: lowest IoU of the masks of counterparts.
        min_pixels: smallest certain instance.
    """

    score: float = 0.25
    margin: float = 0.05
    iou: float = 0.5
    min_pixels: int = 16

    def __post_init__(self) -> None:
        for name in ("score", "margin", "iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"agreement: expected a {name} from 0 to 1, got {getattr(self, name)}")
        if self.min_pixels < 1:
            raise ConfigurationError(f"agreement: expected min_pixels of 1 or more, got {self.min_pixels}")

    @property
    def lowest_score(self) -> float:
        """The lowest score that matters; collect instances down to here."""
        return max(0.0, self.score - self.margin)


@dataclass(frozen=True, slots=True)
class FrameAgreement:
    """Two models on one frame. Rows are those of the two `FrameInstances` that were compared.

    Attributes:
        reference, tested: how many certain instances each model has.
        pairs: int64 `[P, 2]`, rows of counterparts (reference, tested), at least one of each pair certain.
        iou: float64 `[P]`, of their masks.
        box_difference: float64 `[P]`, the largest difference of a box side, camera pixels.
        score_difference: float64 `[P]`, tested minus reference.
        switched: int64 `[S, 2]`, rows of certain instances that overlap but have different labels.
        missed: int64 `[M]`, rows of certain instances that only the reference has.
        extra: int64 `[E]`, rows of certain instances that only the tested model has.
    """

    reference: int
    tested: int
    pairs: NDArray[np.int64]
    iou: NDArray[np.float64]
    box_difference: NDArray[np.float64]
    score_difference: NDArray[np.float64]
    switched: NDArray[np.int64]
    missed: NDArray[np.int64]
    extra: NDArray[np.int64]

    @property
    def faults(self) -> int:
        """Missed and extra instances and switched labels."""
        return len(self.missed) + len(self.extra) + len(self.switched)

    @property
    def disagreement(self) -> float:
        """One number to sort frames by: a fault counts 1, a pair the part of its masks' union that differs."""
        return self.faults + float(np.sum(1.0 - self.iou))


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two models on many frames; NaN where there is not a single pair.

    Attributes:
        frames: how many.
        reference, tested: certain instances of each model.
        matched: pairs of counterparts.
        missed, extra, switched: as in `FrameAgreement`.
        mean_iou: of the masks of pairs.
        iou_percentiles: the same at 1, 5, 10 and 50 %.
        mean_box_difference, box_difference_95, box_difference_max: largest difference of a box side, camera pixels.
        mean_score_difference: tested minus reference.
        score_difference_95: 95 % of the scores differ by no more.
    """

    frames: int
    reference: int
    tested: int
    matched: int
    missed: int
    extra: int
    switched: int
    mean_iou: float
    iou_percentiles: tuple[float, float, float, float]
    mean_box_difference: float
    box_difference_95: float
    box_difference_max: float
    mean_score_difference: float
    score_difference_95: float

    @classmethod
    def of(cls, frames: Sequence[FrameAgreement]) -> Agreement:
        """Sum up frames."""
        iou = np.concatenate([np.empty(0), *(frame.iou for frame in frames)])
        boxes = np.concatenate([np.empty(0), *(frame.box_difference for frame in frames)])
        scores = np.concatenate([np.empty(0), *(frame.score_difference for frame in frames)])
        low, five, ten, half = (_percentile(iou, share) for share in (1, 5, 10, 50))
        return cls(
            frames=len(frames),
            reference=sum(frame.reference for frame in frames),
            tested=sum(frame.tested for frame in frames),
            matched=len(iou),
            missed=sum(len(frame.missed) for frame in frames),
            extra=sum(len(frame.extra) for frame in frames),
            switched=sum(len(frame.switched) for frame in frames),
            mean_iou=float(iou.mean()) if iou.size else float("nan"),
            iou_percentiles=(low, five, ten, half),
            mean_box_difference=float(boxes.mean()) if boxes.size else float("nan"),
            box_difference_95=_percentile(boxes, 95),
            box_difference_max=_percentile(boxes, 100),
            mean_score_difference=float(scores.mean()) if scores.size else float("nan"),
            score_difference_95=_percentile(np.abs(scores), 95),
        )

    @property
    def faults(self) -> int:
        """Missed and extra instances and switched labels."""
        return self.missed + self.extra + self.switched

    @property
    def fault_share(self) -> float:
        """The same, per certain instance of the reference."""
        return self.faults / max(self.reference, 1)


@dataclass(frozen=True, slots=True)
class AgreementBudget:
    """The largest allowed distance of a model from its reference.

    Attributes:
        min_iou: lowest mean IoU of the masks of counterparts, and lowest share of pixels whose class is the same.
        max_faults: highest share of false negatives, false positives and class confusions. Of ten or more instances one
            fault is allowed, even if that is more; none where this is 0.
        min_class_iou: of models without instances, lowest mean IoU of the classes of their class maps. Lower than
            `min_iou`, because regions are small in some frames, and their borders decide.
    """

    min_iou: float = 0.97
    max_faults: float = 0.02
    min_class_iou: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.min_iou <= 1:
            raise ConfigurationError(f"lowest mean mask IoU: expected 0 to 1, got {self.min_iou}")
        if not 0 <= self.min_class_iou <= 1:
            raise ConfigurationError(f"lowest mean IoU of the classes: expected 0 to 1, got {self.min_class_iou}")
        # Not `< 0`: NaN would allow everything.
        if not self.max_faults >= 0:
            raise ConfigurationError(f"highest share of missed and extra instances: expected 0 or more, got {self}")

    def violations(self, agreement: Agreement, class_maps: ClassMapAgreement | None = None) -> tuple[str, ...]:
        """Return what is over the budget, in words; nothing where the models agree well enough.

        Args:
            agreement: of the instances.
            class_maps: of models that have class maps.
        """
        in_maps = self.map_violations(class_maps)
        if not agreement.reference and not agreement.tested:
            if class_maps is not None and class_maps.pixels:
                return in_maps  # Frames of nothing but road and sky are something to compare, too.
            return (f"nothing to compare: neither model found an instance in {agreement.frames} frames",)
        found = []
        # Also true of NaN: with not a single pair nothing agrees.
        if not agreement.mean_iou >= self.min_iou:
            found.append(
                f"mean mask IoU of {agreement.matched} matched instances: expected at least {self.min_iou:g}, "
                f"got {agreement.mean_iou:.4f}"
            )
        one = self.max_faults > 0 and agreement.reference >= _ENOUGH_FOR_ONE
        if agreement.fault_share > self.max_faults and not (one and agreement.faults == 1):
            found.append(
                f"faults: expected at most {'one or ' * one}{100 * self.max_faults:g} % of the reference's "
                f"{agreement.reference} instances, got {100 * agreement.fault_share:.2f} % ({agreement.missed} false "
                f"negatives, {agreement.extra} false positives, {agreement.switched} class confusions)"
            )
        return (*found, *in_maps)

    def semantic_violations(self, class_maps: ClassMapAgreement) -> tuple[str, ...]:
        """Return what is over the budget for models without instances, of which the class maps alone are judged."""
        if not class_maps.pixels:
            return ("nothing to compare: neither model's class map has a class in any pixel",)
        found = self.map_violations(class_maps)
        if class_maps.mean_iou < self.min_class_iou:
            expected = f"expected a mean IoU of the classes of at least {self.min_class_iou:g}"
            found += (f"class map: {expected}, got {class_maps.mean_iou:.4f}",)
        return found

    def map_violations(self, class_maps: ClassMapAgreement | None) -> tuple[str, ...]:
        """The same of class maps alone; nothing without any."""
        if class_maps is None or not class_maps.pixels or class_maps.share >= self.min_iou:
            return ()
        return (
            f"class map: expected the same class in at least {100 * self.min_iou:g} % of the pixels, "
            f"got {100 * class_maps.share:.2f} %",
        )


def compare(reference: FrameInstances, tested: FrameInstances, rule: AgreementRule | None = None) -> FrameAgreement:
    """Compare what two models found in one frame.

    Args:
        reference: of the model that is taken for right, down to `rule.lowest_score` or lower.
        tested: of the other one, the same; both models have the same class names.
        rule: what counts; default for None.

    Raises:
        ValueError: the masks are not of one image size.
    """
    rule = rule or AgreementRule()
    ours, theirs = _Side.of(reference, rule), _Side.of(tested, rule)
    overlap = np.zeros((len(reference), len(tested)))
    overlap[np.ix_(ours.used, theirs.used)] = compact_iou(
        [reference.masks[row] for row in ours.used], [tested.masks[row] for row in theirs.used]
    )
    same = reference.labels[:, None] == tested.labels
    matched = np.where(same, overlap, 0.0)
    pairs = _match(matched, ours.certain, theirs.certain, rule.iou)
    left, right = ours.certain & ~_taken(pairs, 0, len(reference)), theirs.certain & ~_taken(pairs, 1, len(tested))
    by_doubt = [
        _match(matched, left, theirs.doubtful, rule.iou),
        _match(matched, ours.doubtful, right, rule.iou),
    ]
    pairs = np.concatenate([pairs, *by_doubt])
    left, right = left & ~_taken(pairs, 0, len(reference)), right & ~_taken(pairs, 1, len(tested))
    switched = _match(np.where(same, 0.0, overlap), left, right, rule.iou)
    first, second = pairs[:, 0], pairs[:, 1]
    boxes = np.abs(reference.boxes_camera[first].astype(np.float64) - tested.boxes_camera[second])
    return FrameAgreement(
        reference=int(np.count_nonzero(ours.certain)),
        tested=int(np.count_nonzero(theirs.certain)),
        pairs=pairs,
        iou=overlap[first, second],
        box_difference=boxes.max(axis=1, initial=0.0),
        score_difference=tested.scores[second].astype(np.float64) - reference.scores[first],
        switched=switched,
        missed=np.flatnonzero(left & ~_taken(switched, 0, len(reference))),
        extra=np.flatnonzero(right & ~_taken(switched, 1, len(tested))),
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """The instances of one model: which are certain and doubtful, bool `[N]`, and the rows of either."""

    certain: NDArray[np.bool_]
    doubtful: NDArray[np.bool_]
    used: NDArray[np.int64]

    @classmethod
    def of(cls, instances: FrameInstances, rule: AgreementRule) -> _Side:
        areas = instances.areas()
        certain = (instances.scores >= rule.score) & (areas >= rule.min_pixels)
        doubtful = (instances.scores >= rule.lowest_score) & (areas > 0) & ~certain
        return cls(certain, doubtful, np.flatnonzero(certain | doubtful))


def _match(
    overlap: NDArray[np.float64], rows: NDArray[np.bool_], columns: NDArray[np.bool_], lowest: float
) -> NDArray[np.int64]:
    """Pairs of some rows and columns, each used once, best overlap first: int64 `[P, 2]`."""
    first, second = np.nonzero((overlap >= lowest) & (overlap > 0) & rows[:, None] & columns)
    # Of equal overlaps the order must not depend on which model is called the reference: this one leaves only (i, j)
    # and (j, i) undecided, which never compete.
    order = np.lexsort((np.abs(first - second), first + second, -overlap[first, second]))
    pairs: list[tuple[int, int]] = []
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    for row, column in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if row not in taken_rows and column not in taken_columns:
            pairs.append((row, column))
            taken_rows.add(row)
            taken_columns.add(column)
    return np.array(pairs, np.int64).reshape(-1, 2)


def _taken(pairs: NDArray[np.int64], side: int, count: int) -> NDArray[np.bool_]:
    flags = np.zeros(count, bool)
    flags[pairs[:, side]] = True
    return flags


def _percentile(values: NDArray[np.float64], share: float) -> float:
    return float(np.percentile(values, share)) if values.size else float("nan")
