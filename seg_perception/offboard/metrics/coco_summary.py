"""COCO's summary of a result set: average precision and recall of all objects, and of small, medium and large ones.

pycocotools keeps tens of kilobytes of each image until it sums up. So images are given to it some at a time, what it
matched is kept as a few arrays, and the sum is done here; it is that of `COCOeval.summarize`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .average_precision import ClassMatches, MatchedResults, coco_evaluation

# Least and largest area in pixels: all, small, medium, large.
_AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
# Results of an image and class that average recall looks at; all of them come last.
_MOST = (1, 10, 100)
# The IoU levels 0.5 and 0.75 by their places.
_HALF, _THREE_QUARTERS = 0, 5

Batch = tuple[Sequence[int], Sequence[Mapping[str, Any]]]


def summarize(
    annotations: Mapping[str, Any], batches: Iterable[Batch], kind: str
) -> tuple[MatchedResults, NDArray[np.float64]]:
    """Match results with ground truth, and sum them up.

    Args:
        annotations: the content of a COCO annotation file.
        batches: numbers of some images, ascending over all batches, with the COCO results of these images.
        kind: `mask` or `box`.

    Returns:
        The matched results, and what `COCOeval.stats` has, float64 `[12]`: AP over all IoU levels, at 0.50 and at 0.75,
        of small, medium and large objects; AR with 1, 10 and 100 results an image, of small, medium and large objects.
        NaN where there is nothing to be found. A result is small, medium or large by its box, for masks, too, if it has
        both: that is pycocotools' reading.

    Raises:
        BackendUnavailable: pycocotools is not installed.
        ValueError: there is no batch.
    """
    names = {each["id"]: str(each["name"]) for each in annotations["categories"]}
    parts: dict[tuple[int, int], list[list[ClassMatches]]] = {}
    image_ids: list[int] = []
    for ids, results in batches:
        image_ids += ids
        evaluation = coco_evaluation(annotations, results, ids, kind, _AREAS)
        rows = np.reshape(np.array(evaluation.evalImgs, dtype=object), (-1, len(_AREAS), len(set(ids))))
        for category, areas in zip(evaluation.params.catIds, rows, strict=True):
            for key, images in _views(areas):
                parts.setdefault(key, [[] for _ in names])[list(names).index(category)].append(ClassMatches.of(images))
    if not image_ids:
        raise ValueError("batches: expected at least one image, got none")
    joined = {}
    for key, by_class in parts.items():
        classes = zip(names.values(), map(ClassMatches.joined, by_class), strict=True)
        joined[key] = MatchedResults(kind, image_ids, dict(classes))
    return joined[0, _MOST[-1]], _stats(joined)


def _views(areas: NDArray[np.object_]) -> Iterable[tuple[tuple[int, int], list[Mapping[str, Any] | None]]]:
    """Return what one class has of each image, by place of the area and number of results that are looked at."""
    for place, images in enumerate(areas):
        for most in _MOST if place == 0 else _MOST[-1:]:
            yield (place, most), [_best(each, most) for each in images]


def _best(image: Mapping[str, Any] | None, most: int) -> Mapping[str, Any] | None:
    """The best results of one class in an image."""
    if image is None or most >= len(image["dtScores"]):
        return image
    arrays = {name: np.asarray(image[name])[:, :most] for name in ("dtMatches", "dtIgnore")}
    return {**arrays, "dtScores": image["dtScores"][:most], "gtIgnore": image["gtIgnore"]}


def _stats(matched: Mapping[tuple[int, int], MatchedResults]) -> NDArray[np.float64]:
    levels = {key: each.levels() for key, each in matched.items()}
    recall = {key: _mean([matches.recall() for matches in each.classes.values()]) for key, each in matched.items()}
    most = _MOST[-1]
    every = levels[0, most]
    precision = [
        _mean([every]), _mean([every[:, _HALF]]), _mean([every[:, _THREE_QUARTERS]]),
        *(_mean([levels[place, most]]) for place in range(1, len(_AREAS))),
    ]  # fmt: skip
    recalls = [*(recall[0, count] for count in _MOST), *(recall[place, most] for place in range(1, len(_AREAS)))]
    return np.array([*precision, *recalls], np.float64)


def _mean(values: Sequence[NDArray[np.float64]]) -> float:
    """Mean of what is a number; NaN where nothing is."""
    numbers = np.concatenate([np.ravel(each) for each in values]) if values else np.zeros(0)
    numbers = numbers[~np.isnan(numbers)]
    return float(numbers.mean()) if len(numbers) else float("nan")
