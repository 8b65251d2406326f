"""COCO's average precision of boxes and masks, per class and road group, and whether a difference of two is real.

pycocotools matches results with the ground truth, image by image. The sum over images is done here, because a bootstrap
needs it many times: the same definition (101 recall levels, IoU 0.50 to 0.95, at most 100 results per image and class),
with a weight for each image. Resampling images with repetition is the same as weighting them by whole numbers.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import ROAD_GROUPS, ClassTable

from .segmentations import encode_compact, filled_box
from .segmentations import require_pycocotools as require_pycocotools

KINDS = {"mask": "segm", "box": "bbox"}
_IOU_LEVELS = 10
RECALL_LEVELS = np.linspace(0.0, 1.0, 101, dtype=np.float64)
# Resamples computed at once: bounds the memory of (resamples, results) arrays.
_AT_ONCE = 25


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """Average precision over some images, 0-1; NaN where there is no ground truth.

    Attributes:
        kind: `mask` or `box`.
        overall: COCO's AP, the mean over classes with ground truth and IoU 0.50 to 0.95.
        at_50: the same at IoU 0.50.
        per_class: AP by class name, for classes with ground truth.
        per_group: by road group, the mean over its classes with ground truth, for groups that have any.
    """

    kind: str
    overall: float
    at_50: float
    per_class: Mapping[str, float]
    per_group: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Difference:
    """The gain in average precision of one result set over another on the same images.

    Attributes:
        value: second minus first.
        low, high: limits of the 95 % interval.
        samples: resamples it comes from.
    """

    value: float
    low: float
    high: float
    samples: int


@dataclass(frozen=True, slots=True)
class ClassMatches:
    """The results of one class, best first, and how they match.

    Attributes:
        scores: float64 `[D]`, descending.
        image: int64 `[D]`, index of each result's image.
        right, wrong: bool `[10, D]` by IoU level; neither where a result lies on a crowd region.
        truths: int64 `[I]`, objects to be found in each image.
    """

    scores: NDArray[np.float64]
    image: NDArray[np.int64]
    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    truths: NDArray[np.int64]

    @classmethod
    def of(cls, images: Sequence[Mapping[str, Any] | None]) -> ClassMatches:
        """Join what pycocotools finds for one class image by image.

        Args:
            images: of each image `dtScores`, `dtMatches`, `dtIgnore` and `gtIgnore`, named and shaped as pycocotools
                has them; None stands for nothing there.
        """
        truths = np.zeros(len(images), np.int64)
        scores: list[NDArray[np.float64]] = [np.empty(0)]
        image: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        matched, ignored = [np.zeros((_IOU_LEVELS, 0), bool)], [np.zeros((_IOU_LEVELS, 0), bool)]
        for index, found in enumerate(images):
            if found is None:
                continue
            truths[index] = np.count_nonzero(np.asarray(found["gtIgnore"]) == 0)
            scores.append(np.asarray(found["dtScores"], np.float64))
            image.append(np.full(len(found["dtScores"]), index))
            matched.append(np.asarray(found["dtMatches"]).reshape(_IOU_LEVELS, -1) != 0)
            ignored.append(np.asarray(found["dtIgnore"], bool).reshape(_IOU_LEVELS, -1))
        joined = np.concatenate(scores)
        order = np.argsort(-joined, kind="stable")
        hit, left_out = (np.concatenate(each, axis=1)[:, order] for each in (matched, ignored))
        return cls(joined[order], np.concatenate(image)[order], hit & ~left_out, ~hit & ~left_out, truths)

    @classmethod
    def joined(cls, parts: Sequence[ClassMatches]) -> ClassMatches:
        """Of the images of all parts, one part after the other."""
        firsts = np.cumsum([0, *(len(each.truths) for each in parts[:-1])])
        scores = np.concatenate([each.scores for each in parts])
        image = np.concatenate([each.image + first for each, first in zip(parts, firsts.tolist(), strict=True)])
        right, wrong = (np.concatenate([getattr(each, name) for each in parts], axis=1) for name in ("right", "wrong"))
        order = np.argsort(-scores, kind="stable")
        truths = np.concatenate([each.truths for each in parts])
        return cls(scores[order], image[order], right[:, order], wrong[:, order], truths)

    def recall(self) -> NDArray[np.float64]:
        """Share of the objects that are found at each IoU level, float64 `[10]`; NaN where there are none."""
        truths = self.truths.sum()
        found = np.count_nonzero(self.right, axis=1).astype(np.float64)
        return found / truths if truths else np.full(_IOU_LEVELS, np.nan)

    def curve(self, level: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision and score at each of `RECALL_LEVELS`, at one IoU level.

        Returns:
            float64 `[101]` each: the best precision at this or any higher recall, 0 where it is never reached; the
            score of the result that reaches it, NaN where none does. Both NaN where there is nothing to be found.
        """
        precision, scores = np.full(len(RECALL_LEVELS), np.nan), np.full(len(RECALL_LEVELS), np.nan)
        truths = self.truths.sum()
        if not truths:
            return precision, scores
        right, wrong = np.cumsum(self.right[level]), np.cumsum(self.wrong[level])
        best = np.maximum.accumulate((right / (right + wrong + np.spacing(1)))[::-1])[::-1]
        first = np.searchsorted(right / truths, RECALL_LEVELS, side="left")
        reached = first < len(self.scores)
        precision[:] = 0.0
        precision[reached], scores[reached] = best[first[reached]], self.scores[first[reached]]
        return precision, scores


class MatchedResults:
    """One result set, matched with the ground truth of some images."""

    def __init__(self, kind: str, image_ids: Sequence[int], classes: Mapping[str, ClassMatches]) -> None:
        """Take what `match_results` made."""
        self.kind = kind
        self.image_ids = tuple(image_ids)
        self._classes = dict(classes)

    @property
    def classes(self) -> Mapping[str, ClassMatches]:
        """The matches of each class."""
        return self._classes

    def only(self, names: Sequence[str]) -> MatchedResults:
        """The same for some of the classes."""
        chosen = {name: matches for name, matches in self._classes.items() if name in set(names)}
        return MatchedResults(self.kind, self.image_ids, chosen)

    def levels(self) -> NDArray[np.float64]:
        """AP of each class at each IoU level, float64 `[C, 10]`; NaN where there is nothing to be found."""
        once = np.ones((1, len(self.image_ids)))
        return np.array([_weighted(matches, once)[0] for matches in self._classes.values()]).reshape(-1, _IOU_LEVELS)

    def average_precision(self, table: ClassTable | None = None) -> AveragePrecision:
        """Sum up all images; road groups after `table`, none without."""
        each = dict(zip(self._classes, self.levels(), strict=True))
        each = {name: levels for name, levels in each.items() if not np.isnan(levels).any()}
        groups: dict[str, list[float]] = {}
        if table is not None:
            for (_, levels), group in zip(each.items(), table.groups(list(each)).tolist(), strict=True):
                if group >= 0:
                    groups.setdefault(ROAD_GROUPS[group], []).append(float(levels.mean()))
        return AveragePrecision(
            self.kind,
            float(np.mean([levels.mean() for levels in each.values()])) if each else float("nan"),
            float(np.mean([levels[0] for levels in each.values()])) if each else float("nan"),
            {name: float(levels.mean()) for name, levels in each.items()},
            {group: float(np.mean(groups[group])) for group in ROAD_GROUPS if group in groups},
        )

    def resampled(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Overall AP with each image counted several times or not at all.

        Args:
            weights: float64 `[S, I]`, how often each image counts, for each of S resamples.

        Returns:
            float64 `[S]`; NaN where a resample has no ground truth.
        """
        total, count = np.zeros(len(weights)), np.zeros(len(weights))
        for matches in self._classes.values():
            for start in range(0, len(weights), _AT_ONCE):
                part = slice(start, start + _AT_ONCE)
                values = _weighted(matches, weights[part]).mean(axis=1)
                total[part] += np.nan_to_num(values)
                count[part] += ~np.isnan(values)
        mean: NDArray[np.float64] = np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)
        return mean


def match_results(
    annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]], image_ids: Sequence[int], kind: str = "mask"
) -> MatchedResults:
    """Match results with ground truth.

    Args:
        annotations: the content of a COCO annotation file: `images`, `annotations`, `categories`.
        results: COCO results: `image_id`, `category_id`, `score`, `bbox` and `segmentation`.
        image_ids: the images that count; ground truth and results of others are left out.
        kind: `mask` or `box`.

    Raises:
        BackendUnavailable: pycocotools is not installed.
    """
    evaluation = coco_evaluation(annotations, results, image_ids, kind)
    categories = {each["id"]: str(each["name"]) for each in annotations["categories"]}
    wanted = list(evaluation.params.imgIds)
    rows = np.reshape(np.array(evaluation.evalImgs, dtype=object), (-1, len(wanted)))
    return MatchedResults(
        kind,
        wanted,
        {
            categories[category]: ClassMatches.of(images)
            for category, images in zip(evaluation.params.catIds, rows, strict=True)
        },
    )


def coco_evaluation(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    image_ids: Sequence[int],
    kind: str,
    areas: Sequence[tuple[float, float]] = ((0.0, 1e10),),
) -> Any:
    """A `COCOeval` after its first step: `evalImgs` has what was matched, by category, then area, then image.

    Args:
        annotations, results, image_ids, kind: as for `match_results`.
        areas: least and largest area in pixels of objects that count.

    Raises:
        BackendUnavailable: pycocotools is not installed.
    """
    require_pycocotools()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    wanted = sorted(set(image_ids))
    if not wanted:
        raise ValueError("image_ids: expected at least one image, got none")
    chosen = set(wanted)
    sizes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"] if "height" in image}
    # pycocotools reports each step on standard output, and writes into what it is given.
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [image for image in annotations["images"] if image["id"] in chosen],
            "annotations": _numbered(
                for_kind([each for each in annotations["annotations"] if each["image_id"] in chosen], sizes, kind)
            ),
            "categories": annotations["categories"],
        }
        truth.createIndex()
        found = COCO()
        if own := [dict(each) for each in results if each["image_id"] in chosen]:
            found = truth.loadRes(own)
        evaluation = COCOeval(truth, found, KINDS[kind])
        evaluation.params.imgIds = wanted
        evaluation.params.areaRng = [list(limits) for limits in areas]
        evaluation.params.areaRngLbl = [str(place) for place in range(len(areas))]
        evaluation.evaluate()
    return evaluation


def for_kind(
    annotations: Sequence[Mapping[str, Any]], sizes: Mapping[int, tuple[int, int]], kind: str
) -> list[Mapping[str, Any]]:
    """Return annotations in the form in which one kind of average precision takes them.

    For masks an object of which only the box is known becomes a crowd that fills the box: it is not to be found, and a
    result that lies on it is neither right nor wrong. For boxes it is an object like any other.

    Args:
        annotations: of a COCO file.
        sizes: height and width of the images that have an object without a mask, by number.
        kind: `mask` or `box`.
    """
    if kind != "mask":
        return list(annotations)
    return [
        each if each["segmentation"] else {
            **each, "iscrowd": 1, "segmentation": encode_compact(filled_box(each, sizes[each["image_id"]]))
        }
        for each in annotations
    ]  # fmt: skip


def paired_bootstrap(
    first: MatchedResults,
    second: MatchedResults,
    samples: int = 1000,
    blocks: Sequence[int] = (),
) -> Difference:
    """The difference of the overall AP of two result sets on the same images, second minus first.

    Images are drawn with repetition, the same ones for both sets, so that what makes an image hard cancels out.

    Args:
        first, second: of the same images and kind.
        samples: how many resamples.
        blocks: number of the block of each image, from 0, in the order of `image_ids`: images of a block resemble one
            another, as those of a film do, and are drawn together; none for images on their own.

    Raises:
        ValueError: the two were not matched on the same images, or for different kinds.
    """
    if (first.kind, first.image_ids) != (second.kind, second.image_ids):
        raise ValueError("paired bootstrap: expected two result sets of one kind on the same images")
    images = len(first.image_ids)
    block = np.asarray(blocks, np.int64) if len(blocks) else np.arange(images)
    count = int(block.max()) + 1
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), samples)
    weights = drawn[:, block].astype(np.float64)
    differences = second.resampled(weights) - first.resampled(weights)
    once = np.ones((1, images))
    # A resample may have no object of the classes in it.
    usable = differences[~np.isnan(differences)]
    low, high = np.percentile(usable, [2.5, 97.5]).tolist() if usable.size else (float("nan"), float("nan"))
    return Difference(float(second.resampled(once)[0] - first.resampled(once)[0]), low, high, samples)


def _numbered(annotations: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies with what pycocotools relies on; to it an object with the id 0 is one that nothing was matched with."""
    return [
        {"iscrowd": 0, "area": each["bbox"][2] * each["bbox"][3], **each, "id": number}
        for number, each in enumerate(annotations, 1)
    ]


def _weighted(matches: ClassMatches, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """AP of one class at each IoU level.

    Args:
        matches: of the class.
        weights: float64 `[S, I]`, how often each image counts.

    Returns:
        float64 `[S, 10]`; NaN where there is nothing to be found.
    """
    truths = weights @ matches.truths
    result = np.full((len(weights), _IOU_LEVELS), np.nan)
    possible = truths > 0
    result[possible] = 0.0
    if not possible.any() or not len(matches.image):
        return result
    share = weights[possible][:, matches.image]
    before = np.cumsum(share, axis=1)
    for level in range(_IOU_LEVELS):
        # Precision rises, and a recall level is reached, only where a result is right: nothing else need be looked at.
        places = np.flatnonzero(matches.right[level])
        if len(places):
            left_out = np.flatnonzero(~(matches.right[level] | matches.wrong[level]))
            skipped = np.pad(np.cumsum(share[:, left_out], axis=1), ((0, 0), (1, 0)))
            counted = before[:, places] - skipped[:, np.searchsorted(left_out, places)]
            right = np.cumsum(share[:, places], axis=1)
            result[possible, level] = _area(right, counted, truths[possible])
    return result


def _area(right: NDArray[np.float64], counted: NDArray[np.float64], truths: NDArray[np.float64]) -> NDArray[np.float64]:
    """AP of resamples.

    Args:
        right: float64 `[S, R]`, how many results are right up to each right one.
        counted: float64 `[S, R]`, how many there are up to it.
        truths: float64 `[S]`, how many objects there are.

    Returns:
        float64 `[S]`.
    """
    # The best precision at this or any higher recall, counted once for each recall level that is newly reached.
    best = np.maximum.accumulate((right / (counted + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALL_LEVELS, right / truths[:, None], side="right")
    area: NDArray[np.float64] = (np.diff(reached, axis=1, prepend=0) * best).sum(axis=1) / len(RECALL_LEVELS)
    return area
