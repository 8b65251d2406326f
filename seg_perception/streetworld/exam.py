"""How well a model knows the street world: average precision by road group, size and weather.

`python -m seg_perception.streetworld.exam MODEL.onnx OUT/instances.json` runs a canonical model over a set that
`seg_perception streetworld --coco OUT` made. Classes become road groups on both sides, so that a model with any class
table can sit the exam.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..classes import ROAD_GROUPS, ClassTable
from ..evaluation.coco import CocoSet
from ..evaluation.collect import coco_results, collect
from ..frame import Frame
from ..metrics.average_precision import match_results
from ..pipeline.segmenter import Segmenter
from .truth import CLASS_NAMES, CLASS_TABLE

# "Of at least 16 x 16 pixels" is meant of the box's area.
_LARGE = 16 * 16
_LOWEST_SCORE = 0.01


@dataclass(frozen=True, slots=True)
class ExamResult:
    """Average precision over some of the pictures and objects.

    Attributes:
        name: which ones.
        kind: `mask` or `box`.
        pictures: how many.
        at_50: AP at IoU 0.50 by road group; NaN where there is nothing to be found.
        overall: AP over IoU 0.50 to 0.95 by road group.
    """

    name: str
    kind: str
    pictures: int
    at_50: Mapping[str, float]
    overall: Mapping[str, float]


def examine(
    segmenter: Segmenter, classes: ClassTable, data: CocoSet, frames: Iterable[tuple[str, Frame]] | None = None
) -> list[ExamResult]:
    """Run the model and compare.

    Args:
        segmenter: of the model.
        classes: the model's class table.
        data: a set of the street world.
        frames: names and frames of `data`, if they are to be watched on their way; by default `data.source()`.

    Returns:
        Masks and boxes of: everything; objects of at least 16 x 16 pixels; each weather.
    """
    groups = classes.groups(segmenter.spec.class_names)
    # Numbers of groups begin with 1, as COCO's categories do; -1 leaves a class out.
    categories = np.where(groups >= 0, groups + 1, -1).astype(np.int64)
    results: list[dict[str, Any]] = []
    for found in collect(segmenter, data.source() if frames is None else frames, _LOWEST_SCORE):
        results += coco_results(found.instances, int(found.name), categories)
    pictures: dict[str, list[int]] = {}
    for image in data.annotations["images"]:
        pictures.setdefault(str(image.get("weather", "unknown")), []).append(int(image["id"]))
    everything = list(data.image_ids)
    parts = [("all", everything, _any), ("16 x 16 or more", everything, _large)]
    parts += [(weather, ids, _any) for weather, ids in sorted(pictures.items())]
    return [_compare(name, kind, data, results, ids, counts) for name, ids, counts in parts for kind in ("mask", "box")]


def _any(_: Mapping[str, Any]) -> bool:
    return True


def _large(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation["bbox"][2] * annotation["bbox"][3] >= _LARGE)


def _compare(
    name: str, kind: str, data: CocoSet, results: Sequence[Mapping[str, Any]], ids: Sequence[int],
    counts: Callable[[Mapping[str, Any]], bool],
) -> ExamResult:  # fmt: skip
    """Objects that do not count are crowds to COCO: neither to be found nor wrong when found."""
    names = {int(each["id"]): str(each["name"]) for each in data.annotations["categories"]}
    group_of = dict(zip(CLASS_NAMES, CLASS_TABLE.groups(CLASS_NAMES).tolist(), strict=True))
    annotations = {
        "images": data.annotations["images"],
        "categories": [{"id": number, "name": group} for number, group in enumerate(ROAD_GROUPS, 1)],
        "annotations": [
            {**each, "category_id": group_of[names[each["category_id"]]] + 1, "iscrowd": int(not counts(each))}
            for each in data.annotations["annotations"]
        ],
    }
    matched = match_results(annotations, results, ids, kind)
    scores = {group: matched.only([group]).average_precision() for group in ROAD_GROUPS}
    return ExamResult(
        name,
        kind,
        len(ids),
        {group: score.at_50 for group, score in scores.items()},
        {group: score.overall for group, score in scores.items()},
    )


def table(results: Sequence[ExamResult]) -> str:
    """A Markdown table: AP50 and, behind the stroke, AP."""
    lines = [f"| | | pictures | {' | '.join(ROAD_GROUPS)} |", f"| --- | --- | ---: |{' ---: |' * len(ROAD_GROUPS)}"]
    for each in results:
        cells = [f"{each.at_50[group]:.3f} / {each.overall[group]:.3f}" for group in ROAD_GROUPS]
        lines.append(f"| {each.name} | {each.kind} | {each.pictures} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
        print(table(examine(segmenter, classes, data, tqdm(source, total=len(source), unit="frame", disable=None))))


if __name__ == "__main__":
    _main()
