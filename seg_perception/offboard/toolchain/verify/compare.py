"""Run two models over the same frames and judge how far they are apart."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import ClassTable
from seg_perception.core.contract import ModelSpec
from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.frame import Frame
from seg_perception.offboard.evaluation.coco import CocoSet
from seg_perception.offboard.evaluation.collect import coco_results, find
from seg_perception.offboard.metrics.agreement import Agreement, AgreementBudget, AgreementRule, FrameAgreement, compare
from seg_perception.offboard.metrics.average_precision import (
    KINDS,
    AveragePrecision,
    Difference,
    MatchedResults,
    match_results,
    paired_bootstrap,
    require_pycocotools,
)
from seg_perception.offboard.metrics.class_maps import ClassMapAgreement
from seg_perception.offboard.metrics.compact import FrameInstances
from seg_perception.onboard.pipeline.segmenter import Segmenter

# Average precision looks at instances far below any threshold.
_LOWEST_SCORE = 0.01


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How to compare, and what is good enough.

    Attributes:
        rule: what counts as an instance and as its counterpart.
        budget: for agreement; None leaves it unjudged.
        max_loss: most points of mask AP that may be lost, for labelled images; None leaves it unjudged.
        images: frames to keep for the report, worst first.
        samples: resamples of the bootstrap.
    """

    rule: AgreementRule = field(default_factory=AgreementRule)
    budget: AgreementBudget | None = field(default_factory=AgreementBudget)
    max_loss: float | None = None
    images: int = 12
    samples: int = 1000

    def __post_init__(self) -> None:
        if self.max_loss is not None and not 0 <= self.max_loss <= 100:
            raise ConfigurationError(f"largest loss: expected 0 to 100 points of mask AP, got {self.max_loss}")
        if self.images < 0:
            raise ConfigurationError(f"images: expected 0 or more, got {self.images}")


@dataclass(frozen=True, slots=True)
class ComparedFrame:
    """One frame under both models, with all that an image of it needs.

    Attributes:
        name: of the frame.
        image_bgr: uint8 `[H, W, 3]`.
        reference, tested: what the models found.
        agreement: rows in it are those of `reference` and `tested`.
        relabelled: bool `[H, W]`, pixels whose class differs, for models with class maps.
    """

    name: str
    image_bgr: NDArray[np.uint8]
    reference: FrameInstances
    tested: FrameInstances
    agreement: FrameAgreement
    relabelled: NDArray[np.bool_] | None = None

    @property
    def disagreement(self) -> float:
        """One number to sort frames by: that of the instances, and the part of the class map that differs."""
        share = 0.0 if self.relabelled is None else float(np.mean(self.relabelled))
        return self.agreement.disagreement + share


@dataclass(frozen=True, slots=True)
class PrecisionPair:
    """Average precision of both models on the same labelled images, and their difference."""

    reference: AveragePrecision
    tested: AveragePrecision
    difference: Difference


@dataclass(frozen=True, slots=True)
class Verification:
    """What came out.

    Attributes:
        reference, tested: the models' identities, for people.
        class_names: of both.
        options: as given.
        agreement: over all frames.
        worst: the frames that differ most, worst first; only frames that differ.
        differing: how many frames have a fault (false negatives, false positives or class confusions).
        class_maps: over all frames, for models with class maps.
        precision: for masks and for boxes; empty without labels.
        violations: what is over the budgets, in words; empty when the model is good enough.
        semantic: whether the models have class maps and no instances.
    """

    reference: Mapping[str, str]
    tested: Mapping[str, str]
    class_names: tuple[str, ...]
    options: VerifyOptions
    agreement: Agreement
    worst: tuple[ComparedFrame, ...]
    differing: int
    class_maps: ClassMapAgreement | None
    precision: tuple[PrecisionPair, ...]
    violations: tuple[str, ...]
    semantic: bool = False


def verify(
    reference: Segmenter,
    tested: Segmenter,
    frames: Iterable[tuple[str, Frame]],
    options: VerifyOptions,
    labels: CocoSet | None = None,
    table: ClassTable | None = None,
) -> Verification:
    """Compare two models.

    Args:
        reference: runs the model that is taken for right.
        tested: runs the other; its network size and precision may differ, its classes may not.
        frames: with names; those of `labels.source()` if there are labels.
        options: how.
        labels: ground truth, for average precision.
        table: road groups for average precision.

    Raises:
        ConfigurationError: the models have different classes.
        ModelOutputError: a model produced NaN or infinity.
        BackendUnavailable: there are labels, and pycocotools is not installed.
    """
    check_classes(reference.spec, tested.spec)
    semantic = not reference.spec.max_instances
    lowest = options.rule.lowest_score if labels is None else min(options.rule.lowest_score, _LOWEST_SCORE)
    if semantic:
        lowest = math.inf  # What a semantic model's class map falls apart into are no instances of the model's.
    agreements: list[FrameAgreement] = []
    class_maps = ClassMapAgreement.sum([]) if tested.spec.class_map else None
    worst = _Worst(options.images)
    precision = _Precision(labels, reference.spec.class_names) if labels is not None else None
    for name, frame in frames:
        (ours, our_map), (theirs, their_map) = (find(each, name, frame, lowest) for each in (reference, tested))
        agreements.append(compare(ours, theirs, options.rule))
        relabelled = None
        if class_maps is not None and our_map is not None and their_map is not None:
            class_maps = ClassMapAgreement.sum([class_maps, ClassMapAgreement.of(our_map, their_map)])
            relabelled = our_map != their_map
        shown = name if precision is None else precision.add(int(name), ours, theirs)
        worst.add(ComparedFrame(shown, to_bgr(frame), ours, theirs, agreements[-1], relabelled))
    total = Agreement.of(agreements)
    pairs = precision.pairs(table, options.samples) if precision is not None else ()
    disagreement: tuple[str, ...] = ()
    if options.budget is not None:
        if class_maps is not None and semantic:
            disagreement = options.budget.semantic_violations(class_maps)
        else:
            disagreement = options.budget.violations(total, class_maps)
    return Verification(
        reference.identity,
        tested.identity,
        reference.spec.class_names,
        options,
        total,
        worst.frames(),
        sum(each.faults > 0 for each in agreements),
        class_maps,
        pairs,
        (*disagreement, *_loss(pairs, options.max_loss)),
        semantic,
    )


def check_classes(reference: ModelSpec, tested: ModelSpec) -> None:
    """See that two models speak of the same classes, and in the same way.

    Raises:
        ConfigurationError: they do not.
    """
    if reference.class_map != tested.class_map:
        which = "the reference" if reference.class_map else "the model"
        raise ConfigurationError(
            f"verify: expected both models with a class map or both without, but only {which} has one; "
            "give the canonical model that this one was made from as --reference"
        )
    first, second = ([*zip(spec.class_names, spec.things, strict=True)] for spec in (reference, tested))
    if first == second:
        return
    if len(first) != len(second):
        what = f"{len(first)} and {len(second)} classes"
    else:
        label, (ours, theirs) = next(
            (label, pair) for label, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]
        )
        what = f"for label {label} {_class(*ours)} and {_class(*theirs)}"
    raise ConfigurationError(
        f"verify: expected the model and its reference to have the same classes, got {what}; "
        "give the canonical model that this one was made from as --reference"
    )


class _Worst:
    """Keeps the frames that differ most."""

    def __init__(self, most: int) -> None:
        self._most = most
        # The number decides between equals, the earlier frame first.
        self._heap: list[tuple[float, int, ComparedFrame]] = []
        self._count = 0

    def add(self, frame: ComparedFrame) -> None:
        self._count += 1
        rank = (frame.disagreement, -self._count)
        if self._most and frame.disagreement:
            # A frame's pixels may be a view of a buffer that the source fills again.
            heapq.heappush(self._heap, (*rank, replace(frame, image_bgr=frame.image_bgr.copy())))
        if len(self._heap) > self._most:
            heapq.heappop(self._heap)

    def frames(self) -> tuple[ComparedFrame, ...]:
        return tuple(frame for _, _, frame in sorted(self._heap, key=lambda each: each[:2], reverse=True))


class _Precision:
    """Collects the results of both models on labelled images."""

    def __init__(self, labels: CocoSet, class_names: Sequence[str]) -> None:
        require_pycocotools()
        self._labels = labels = labels.matching(class_names)
        self._categories = labels.categories(class_names)
        self._names = {image.image_id: image.path.name for image in labels.images}
        self._image_ids: list[int] = []
        self._results: tuple[list[dict[str, object]], list[dict[str, object]]] = ([], [])

    def add(self, image_id: int, ours: FrameInstances, theirs: FrameInstances) -> str:
        """Add one image; returns the name of its file."""
        self._image_ids.append(image_id)
        for results, instances in zip(self._results, (ours, theirs), strict=True):
            results += coco_results(instances, image_id, self._categories)
        return self._names[image_id]

    def pairs(self, table: ClassTable | None, samples: int) -> tuple[PrecisionPair, ...]:
        return tuple(self._pair(kind, table, samples) for kind in KINDS) if self._image_ids else ()

    def _pair(self, kind: str, table: ClassTable | None, samples: int) -> PrecisionPair:
        def match(results: list[dict[str, object]]) -> MatchedResults:
            return match_results(self._labels.annotations, results, self._image_ids, kind)

        first, second = (match(results) for results in self._results)
        return PrecisionPair(
            first.average_precision(table), second.average_precision(table), paired_bootstrap(first, second, samples)
        )


def _loss(pairs: Sequence[PrecisionPair], most: float | None) -> tuple[str, ...]:
    """Return what the loss of mask AP has to say against the model."""
    if most is None:
        return ()
    masks = next((pair for pair in pairs if pair.reference.kind == "mask"), None)
    if masks is None or np.isnan(masks.difference.value):
        return ("nothing to compare: the labels have no object of the model's classes on images that can be read",)
    loss = -100 * masks.difference.value
    # Equal up to rounding is equal.
    if loss <= most + 1e-9:
        return ()
    low, high = 0.0 - 100 * masks.difference.high, 0.0 - 100 * masks.difference.low
    return (
        f"mask AP: expected a loss of at most {most:g} points, got {loss:.2f} (95 % interval {low:.2f} to {high:.2f}): "
        f"{masks.tested.overall:.4f} against {masks.reference.overall:.4f}",
    )


def _class(name: str, thing: bool) -> str:
    return f"{name!r} ({'thing' if thing else 'stuff'})"
