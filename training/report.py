"""`python -m training.report MODEL.onnx [LABELS.json ...]`: the tables of docs/default-model.md.

Average precision of a canonical model on the street worlds that are kept from training, by road group, size and
weather, and on labelled images in COCO's format, if some are named.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from seg_perception.offboard.evaluation.by_group import SIZES, Counts, precision_table
from seg_perception.offboard.evaluation.coco import CocoSet, LabelledImage

from .evaluate import evaluate_model
from .worlds import make, splits

WORLDS = Path(__file__).parent / "runs" / "worlds"
# Side of a square as large as the box, in pixels of the image.
EDGES = (16, 32, 64, 1 << 16)


def size_ranges() -> Mapping[str, Counts]:
    """All objects, those of at least 16 x 16 pixels, and ranges of size."""

    def between(low: int, high: int) -> Counts:
        def counts(annotation: Mapping[str, Any]) -> bool:
            return bool(low * low <= annotation["bbox"][2] * annotation["bbox"][3] < high * high)

        return counts

    ranges = {f"{low} to {high}": between(low, high) for low, high in pairwise(EDGES[:-1])}
    return {**SIZES, **ranges, f"{EDGES[-2]} or more": between(*EDGES[-2:])}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("labels", type=Path, nargs="*", help="further sets, COCO annotations")
    arguments = parser.parse_args()
    for name in ("familiar", "unseen"):
        paths = make(WORLDS / name, splits(1)[name], 2)
        print(f"\n{name}: {', '.join(path.parent.name for path in paths)}\n")
        print(table(arguments.model, merged([CocoSet.load(path) for path in paths])))
    for path in arguments.labels:
        print(f"\n{path}\n\n{table(arguments.model, CocoSet.load(path))}")


def merged(sets: Sequence[CocoSet]) -> CocoSet:
    """Several sets of the same categories as one; images and annotations are numbered again."""
    images: list[LabelledImage] = []
    content: dict[str, Any] = {**sets[0].annotations, "images": [], "annotations": []}
    for each in sets:
        number = {old: len(images) + k for k, old in enumerate(each.image_ids, 1)}
        images += [replace(image, image_id=number[image.image_id]) for image in each.images]
        content["images"] += [{**image, "id": number[image["id"]]} for image in each.annotations["images"]]
        for annotation in each.annotations["annotations"]:
            new = {"id": len(content["annotations"]) + 1, "image_id": number[annotation["image_id"]]}
            content["annotations"].append({**annotation, **new})
    return CocoSet(sets[0].path, content, tuple(images))


def table(model: Path, data: CocoSet) -> str:
    """Average precision on one set."""
    return precision_table(evaluate_model(model, data, size_ranges()))


if __name__ == "__main__":
    main()
