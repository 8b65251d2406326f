"""All that an evaluation found: what its report shows and its JSON file holds.

Tables are in road groups, so that models with other class tables can be compared. NaN stands for "nothing to be found".
Instances in these records carry a road group as their label: an index into `classes.ROAD_GROUPS`, or `NO_GROUP`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.offboard.metrics.agreement import Agreement
from seg_perception.offboard.metrics.average_precision import Difference
from seg_perception.offboard.metrics.compact import FrameInstances

from .tracking import TrackingScores

# What COCO's summary lists, in its order.
COCO_STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
GALLERY_KINDS = ("best", "worst", "changed")


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """Which model was evaluated.

    Attributes:
        name: short and unique among the models.
        file: path of the model, as given.
        identity: what ran, human-readable: backend, device, precision, threads, file, sha256.
        class_names: in label order.
        group_names: road group of each class, or `other`.
        class_map: whether it has a class map.
        spec: what the model says of itself, as in its metadata.
        manifest: content of the engine's manifest; None for a model that is no engine.
    """

    name: str
    file: str
    identity: Mapping[str, str]
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    class_map: bool
    spec: Mapping[str, Any]
    manifest: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class DataDescription:
    """What the models were evaluated on.

    Attributes:
        name: path of the data set, as given.
        kind: `COCO`, `Cityscapes`, `BDD100K`, `MOTS` or `bag`.
        frames: that were evaluated.
        sequences: how many of them are in order of time with true tracks; 0 for single images.
        objects: truth objects by road group (`other` for those of none), crowds not counted.
        categories: names of the categories that average precision is the mean of.
        missing: files that the set names and that are not there.
        unreadable: what could not be read, in words.
        without_mask: truth objects of which only the box is known; crowds not counted.
        omitted: what the reader of the labels left out and why, in words.
        without_output: frames left out because a model gave NaN or infinity, in words.
    """

    name: str
    kind: str
    frames: int
    sequences: int
    objects: Mapping[str, int]
    categories: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    without_mask: int = 0
    omitted: tuple[str, ...] = ()
    without_output: tuple[str, ...] = ()

    def left_out(self) -> tuple[str, ...]:
        """Return what the numbers do not count, in words, to stand next to them."""
        counts = {
            f"{self.without_mask} objects have no mask: mask AP, PQ, found and tracks ignore them, box AP counts them":
                self.without_mask,
            f"{len(self.without_output)} frames are left out because a model gave NaN or infinity":
                len(self.without_output),
            f"{len(self.unreadable)} frames could not be used": len(self.unreadable),
            f"{len(self.missing)} images of the data set are not there": len(self.missing),
        }  # fmt: skip
        return (*(words for words, count in counts.items() if count), *self.omitted)


@dataclass(frozen=True, slots=True)
class CocoScores:
    """COCO's summary of one model.

    Attributes:
        kind: `mask` or `box`.
        stats: by the names `COCO_STATS`, 0-1.
        per_category: AP by category, for those with ground truth.
    """

    kind: str
    stats: Mapping[str, float]
    per_category: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class StratumScore:
    """The scores of one model on some of the truth objects; those outside are neither to be found nor wrong when found.

    Attributes:
        mask_ap, mask_ap50, box_ap, box_ap50: average precision, the mean over the road groups present. All false
            alarms count (those of the size, where objects are chosen by size).
        found: share of the objects with a result of the threshold's score and a mask IoU of 0.5 or more.
        mask_iou: mean IoU of the masks of those.
        boundary_iou: the same along the outline.
    """

    mask_ap: float
    mask_ap50: float
    box_ap: float
    box_ap50: float
    found: float
    mask_iou: float
    boundary_iou: float


@dataclass(frozen=True, slots=True)
class Stratum:
    """Some of the truth objects.

    Attributes:
        dimension: what they are chosen by: `all`, `road group`, `size`, `visible part`, `crowding`, `weather`, ...
        name: which ones: `vehicle`, `16 to 32 px`, ...
        objects: how many, those without a mask among them.
        scores: of each model, in the order of the models.
    """

    dimension: str
    name: str
    objects: int
    scores: tuple[StratumScore, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision over recall of one model.

    Attributes:
        model: index of the model.
        kind: `mask` or `box`.
        group: road group, or `all` for the mean over the groups present.
        iou: from which on a result is right.
        recall: float64 `[101]`, 0 to 1.
        precision: float64 `[101]`, the best at this or any higher recall, as COCO has it; 0 where never reached.
        scores: float64 `[101]`, the threshold at which this recall is reached; NaN where never, and throughout of
            `all`.
    """

    model: int
    kind: str
    group: str
    iou: float
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of one stage, milliseconds a frame."""

    mean: float
    p50: float
    p90: float
    p99: float
    largest: float


@dataclass(frozen=True, slots=True)
class Throughput:
    """The speed of one model, from the decoded image to the instance map.

    Attributes:
        frames_per_second: 1000 over the mean of `samples_ms`.
        stages: by stage, and `total`.
        samples_ms: float32 `[frames]`, total of each frame in their order.
    """

    frames_per_second: float
    stages: Mapping[str, Latency]
    samples_ms: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PanopticScore:
    """Panoptic quality of a class, or the mean over several.

    Attributes:
        quality: PQ, 0-1.
        segmentation: SQ, mean IoU of matched segments.
        recognition: RQ, F1 of segments.
        matched, extra, missed: segments; of a mean, their sums.
    """

    quality: float
    segmentation: float
    recognition: float
    matched: int
    extra: int
    missed: int


@dataclass(frozen=True, slots=True)
class PanopticResult:
    """Panoptic quality of one model.

    Attributes:
        per_class: by class.
        means: `all`, and `things` and `stuff` where both are there.
    """

    per_class: Mapping[str, PanopticScore]
    means: Mapping[str, PanopticScore]


@dataclass(frozen=True, slots=True)
class BoundaryScore:
    """Outlines of found objects.

    Attributes:
        objects: how many pairs of a truth object and a result of the threshold's score, mask IoU 0.5 or more.
        mask_iou: mean of these pairs.
        boundary_iou: mean of these pairs.
    """

    objects: int
    mask_iou: float
    boundary_iou: float


@dataclass(frozen=True, slots=True)
class ModelScores:
    """Everything about one model, in the order of `Evaluation.models`.

    Attributes:
        coco: for masks and for boxes.
        throughput: speed on this machine.
        panoptic: of the painted instance maps, and class maps where model and truth have them.
        boundary: by road group, and `all`.
        tracking: by road group, and `all`; None without sequences.
        results_file: name of the file with its COCO results.
    """

    coco: tuple[CocoScores, ...]
    throughput: Throughput
    panoptic: PanopticResult
    boundary: Mapping[str, BoundaryScore]
    tracking: Mapping[str, TrackingScores] | None
    results_file: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model against the first one.

    Attributes:
        model: index of the model, 1 or more.
        differences: of AP, this model minus the first, by kind (`mask`, `box`) and by road group or `all`, with the
            95 % interval of a paired bootstrap over frames.
        agreement: what both found, whatever the truth; the reference is the first model.
    """

    model: int
    differences: Mapping[str, Mapping[str, Difference]]
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class FrameVerdict:
    """What of one model is right and wrong in a frame, of instances from the threshold's score on.

    Attributes:
        found: int64 `[P, 2]`, rows of truth and instances that go together.
        missed: int64 `[M]`, rows of the truth.
        extra: int64 `[E]`, rows of the instances.
        score: 0-1, the frame's panoptic quality: the sum of the found ones' IoU over found + (missed + extra) / 2.
        words: what is wrong, human-readable.
    """

    found: NDArray[np.int64]
    missed: NDArray[np.int64]
    extra: NDArray[np.int64]
    score: float
    words: str


@dataclass(frozen=True, slots=True)
class GalleryFrame:
    """A frame worth looking at.

    Attributes:
        kind: one of `GALLERY_KINDS`. Best and worst by the first model's score; changed: where a model finds most else
            than the first one.
        name: of the frame.
        jpeg: the image, scaled down to `IMAGE_WIDTH` if it is wider.
        width, height: of the camera image in pixels, which boxes and masks refer to.
        truth: objects to be found; crowds are left out.
        instances: of each model, from the threshold's score on, best first.
        verdicts: of each model.
        words: why the frame is here, human-readable.
    """

    kind: str
    name: str
    jpeg: bytes
    width: int
    height: int
    truth: FrameInstances
    instances: tuple[FrameInstances, ...]
    verdicts: tuple[FrameVerdict, ...]
    words: str


# Images of the gallery are no wider.
IMAGE_WIDTH = 1280


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything.

    Attributes:
        models: in the order in which they were given; the first is what the others are compared with.
        data: what they ran on.
        score: threshold from which on an instance counts as reported; average precision looks at all of them.
        by_categories: whether average precision is over the data set's own categories; else over road groups, because
            a model lacks some of the categories.
        scores: of each model.
        strata: tables, rows of one dimension after one another.
        curves: precision over recall.
        comparisons: of the second and further models with the first.
        gallery: frames by kind, the most telling first.
        notes: what a reader has to know, such as images that were skipped.
        seconds: what took how long: `reading`, `inference`, `metrics`, ...
        created: when, UTC, ISO 8601.
        package_version: of this package.
    """

    models: tuple[EvaluatedModel, ...]
    data: DataDescription
    score: float
    by_categories: bool
    scores: tuple[ModelScores, ...]
    strata: tuple[Stratum, ...]
    curves: tuple[Curve, ...]
    comparisons: tuple[Comparison, ...]
    gallery: tuple[GalleryFrame, ...]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    created: str
    package_version: str
