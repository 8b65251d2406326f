"""How well a model knows the street world: average precision by road group, size and weather.

`python -m seg_perception.streetworld.exam MODEL.onnx OUT/instances.json` runs a canonical model over a set that
`seg_perception streetworld --coco OUT` made, or over any set in COCO's format. Classes become road groups on both
sides, so that a model with any class table can sit the exam.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ..classes import ClassTable
from ..evaluation.by_group import SIZES, Counts, GroupPrecision, every, group_precision, precision_table
from ..evaluation.coco import CocoSet
from ..evaluation.collect import coco_results, collect
from ..frame import Frame
from ..pipeline.segmenter import Segmenter

_LOWEST_SCORE = 0.01


def examine(
    segmenter: Segmenter, classes: ClassTable, data: CocoSet, frames: Iterable[tuple[str, Frame]] | None = None,
    sizes: Mapping[str, Counts] = SIZES,
) -> list[GroupPrecision]:  # fmt: skip
    """Run the model and compare.

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
    pictures: dict[str, list[int]] = {}
    chosen = set(data.image_ids)
    for image in data.annotations["images"]:
        if "weather" in image and image["id"] in chosen:
            pictures.setdefault(str(image["weather"]), []).append(int(image["id"]))
    parts = [(size, list(data.image_ids), counts) for size, counts in sizes.items()]
    parts += [(weather, ids, every) for weather, ids in sorted(pictures.items())]
    return [
        group_precision(name, kind, annotations, results, ids, counts)
        for name, ids, counts in parts
        for kind in ("mask", "box")
    ]


def _main() -> None:
    from tqdm import tqdm

    from ..backend.base import RunOptions
    from ..pipeline.host import open_backend
    from ..sources.class_tables import resolve_class_table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, metavar="instances.json")
    parser.add_argument("--classes", default="auto", help="class table of the model")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    data = CocoSet.load(arguments.data)
    with closing(open_backend(arguments.model, "", RunOptions(threads=arguments.threads))) as backend:
        classes = resolve_class_table(arguments.classes, backend.spec.class_names)
        segmenter, source = Segmenter(backend, classes), data.source()
        watched = tqdm(source, total=len(source), unit="frame", disable=None)
        print(precision_table(examine(segmenter, classes, data, watched)))


if __name__ == "__main__":
    _main()
