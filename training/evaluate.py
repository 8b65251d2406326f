"""How good a model is: the canonical model that users would run, ONNX Runtime, COCO metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from seg_perception.backend.base import RunOptions
from seg_perception.evaluation.by_group import SIZES, Counts, GroupPrecision
from seg_perception.evaluation.coco import CocoSet
from seg_perception.pipeline.host import open_backend
from seg_perception.pipeline.segmenter import Segmenter
from seg_perception.sources.class_tables import resolve_class_table
from seg_perception.streetworld.exam import examine


def evaluate_model(
    model: Path, data: CocoSet, sizes: Mapping[str, Counts] = SIZES, threads: int = 0
) -> list[GroupPrecision]:
    """Average precision of a canonical model by road group: of objects of some sizes, and of all in each weather.

    Raises:
        SourceError: a picture cannot be read, or is of another size than the set says.
    """
    with closing(open_backend(model, "onnxruntime", RunOptions(threads=threads))) as opened:
        classes = resolve_class_table("auto", opened.spec.class_names)
        segmenter, source = Segmenter(opened, classes), data.source()
        frames = tqdm(source, "evaluation", len(source), unit="frame", disable=None, leave=False)
        results = examine(segmenter, classes, data, frames, sizes)
    if source.failures:
        raise source.failures[0]
    return results


def mean_at_50(results: Sequence[GroupPrecision], name: str = "16 x 16 or more", kind: str = "mask") -> float:
    """One number to choose by: AP50 of masks, the mean over the road groups that there are."""
    chosen = next(each for each in results if each.name == name and each.kind == kind)
    values = [value for value in chosen.at_50.values() if not math.isnan(value)]
    return sum(values) / len(values) if values else 0.0
