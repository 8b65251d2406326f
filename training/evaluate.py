"""How good a model is: the canonical model that users would run, ONNX Runtime, COCO metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from seg_perception.core.classes import ClassTable
from seg_perception.core.frame import Frame
from seg_perception.offboard.evaluation.by_group import SIZES, Counts, GroupPrecision, every, group_precision
from seg_perception.offboard.evaluation.coco import CocoSet
from seg_perception.offboard.evaluation.collect import coco_results, collect
from seg_perception.onboard.pipeline.opening import ModelChoice, open_segmenter
from seg_perception.onboard.pipeline.segmenter import Segmenter

from .known import unknown_groups

_LOWEST_SCORE = 0.01


def benchmark(
    segmenter: Segmenter, classes: ClassTable, data: CocoSet, frames: Iterable[tuple[str, Frame]] | None = None,
    sizes: Mapping[str, Counts] = SIZES,
) -> list[GroupPrecision]:  # fmt: skip
    """Measure the average precision of a model by road group, size and weather.

    Classes become road groups on both sides, so that a model with any class table can be measured.

    Args:
        segmenter: of the model.
        classes: the model's class table.
        data: a set of the street world, or photographs in COCO's format.
        frames: names and frames of `data`, if they are to be watched on their way; by default `data.source()`.
        sizes: which objects count, by name.

    Returns:
        Masks and boxes of each size, and of all sizes in each weather, where the set names it.
    """
    groups = classes.groups(segmenter.spec.class_names)
    # -1 leaves a class out.
    categories = np.where(groups >= 0, groups + 1, -1).astype(np.int64)
    results: list[dict[str, Any]] = []
    for found in collect(segmenter, data.source() if frames is None else frames, _LOWEST_SCORE):
        results += coco_results(found.instances, int(found.name), categories)
    annotations = data.by_group().annotations
    images: dict[str, list[int]] = {}
    chosen = set(data.image_ids)
    unknown = unknown_groups(data)
    # What an image may show without a label is not judged there.
    results = [each for each in results if not unknown.get(each["image_id"], 0) >> (each["category_id"] - 1) & 1]
    for image in data.annotations["images"]:
        if "weather" in image and image["id"] in chosen:
            images.setdefault(str(image["weather"]), []).append(int(image["id"]))
    parts = [(size, list(data.image_ids), counts) for size, counts in sizes.items()]
    parts += [(weather, ids, every) for weather, ids in sorted(images.items())]
    return [
        group_precision(name, kind, annotations, results, ids, counts)
        for name, ids, counts in parts
        for kind in ("mask", "box")
    ]


def evaluate_model(
    model: Path, data: CocoSet, sizes: Mapping[str, Counts] = SIZES, threads: int = 0
) -> list[GroupPrecision]:
    """Average precision of a canonical model by road group: of objects of some sizes, and of all in each weather.

    Raises:
        SourceError: an image cannot be read, or is of another size than the set says.
    """
    with closing(open_segmenter(ModelChoice(str(model), "onnxruntime", threads=threads))) as segmenter:
        classes, source = segmenter.table, data.source()
        frames = tqdm(source, "evaluation", len(source), unit="frame", disable=None, leave=False)
        results = benchmark(segmenter, classes, data, frames, sizes)
    if source.failures:
        raise source.failures[0]
    return results


def mean_at_50(results: Sequence[GroupPrecision], name: str = "16 x 16 or more", kind: str = "mask") -> float:
    """One number to choose by: AP50 of masks, the mean over the road groups that there are."""
    chosen = next(each for each in results if each.name == name and each.kind == kind)
    values = [value for value in chosen.at_50.values() if not math.isnan(value)]
    return sum(values) / len(values) if values else 0.0
