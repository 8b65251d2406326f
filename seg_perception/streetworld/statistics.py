"""How large, how many and how covered the objects of annotated sets are, side by side.

`python -m seg_perception.streetworld.statistics A/instances.json B/instances.json` prints Markdown tables. Only what
belongs to a road group counts, and only pictures with a vehicle, a sign or a light, as a street has.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..classes import NO_GROUP, ROAD_GROUPS
from ..errors import SourceError
from ..metrics.boxes import most_covered
from ..sources.class_tables import category_groups

SIZE_EDGES = (0, 8, 16, 32, 64, 128, 256, float("inf"))
COUNT_EDGES = (0, 5, 10, 20, 40, float("inf"))
COVER_EDGES = (0, 0.001, 0.25, 0.5, 0.75, 1.01)
# Boxes are measured in pictures scaled to this width.
_WIDTH = 640


@dataclass(frozen=True, slots=True)
class SetStatistics:
    """Shares of a set's objects (or pictures) that lie between neighbouring edges; each sums up to 1.

    Attributes:
        name: of the set.
        pictures, objects: how many there are.
        groups: share of each of `ROAD_GROUPS`.
        sizes: square root of the area of the box in pixels, the picture scaled to 640 pixels of width.
        counts: objects in a picture.
        covers: share of an object's box that the box of another object covers most; a measure that every set has.
        hidden: share of an object that is hidden; none for sets that do not know what is hidden.
    """

    name: str
    pictures: int
    objects: int
    groups: NDArray[np.float64]
    sizes: NDArray[np.float64]
    counts: NDArray[np.float64]
    covers: NDArray[np.float64]
    hidden: NDArray[np.float64] | None


def statistics(path: Path) -> SetStatistics:
    """Of a COCO annotation file.

    Raises:
        SourceError: it cannot be read, or has no street in it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: expected a COCO annotation file: {error}") from error
    group_of = category_groups(content["categories"])
    widths = {each["id"]: each["width"] for each in content["images"]}
    by_picture: dict[int, list[tuple[int, list[float], float | None]]] = {}
    for each in content["annotations"]:
        group = group_of[each["category_id"]]
        if group != NO_GROUP and not each.get("iscrowd", 0):
            by_picture.setdefault(each["image_id"], []).append((group, each["bbox"], each.get("occlusion")))
    streets = {key: rows for key, rows in by_picture.items() if any(group > 0 for group, _, _ in rows)}
    if not streets:
        raise SourceError(f"{path}: expected pictures with vehicles, signs or lights, found none")
    boxes = [np.array([box for _, box, _ in rows]) for rows in streets.values()]
    scales = [_WIDTH / widths[key] for key in streets]
    sizes = np.concatenate([scale * np.sqrt(b[:, 2] * b[:, 3]) for scale, b in zip(scales, boxes, strict=True)])
    groups = np.array([group for rows in streets.values() for group, _, _ in rows])
    hidden = [share for rows in streets.values() for _, _, share in rows if share is not None]
    covers = np.concatenate([most_covered(np.hstack([b[:, :2], b[:, :2] + b[:, 2:]])) for b in boxes])
    return SetStatistics(
        path.parent.name,
        len(streets),
        len(groups),
        np.bincount(groups, minlength=len(ROAD_GROUPS)) / len(groups),
        _shares(sizes, SIZE_EDGES),
        _shares(np.array([len(each) for each in boxes]), COUNT_EDGES),
        _shares(covers, COVER_EDGES),
        _shares(np.array(hidden), COVER_EDGES) if len(hidden) == len(groups) else None,
    )


def tables(sets: Sequence[SetStatistics]) -> str:
    """Markdown tables of all sets beside one another."""
    head = f"| | {' | '.join(each.name for each in sets)} |\n| --- |{' ---: |' * len(sets)}\n"
    plain = [
        ("pictures", [str(each.pictures) for each in sets]),
        ("objects", [str(each.objects) for each in sets]),
        ("objects in a picture", [f"{each.objects / each.pictures:.1f}" for each in sets]),
    ]
    rows = plain + [(group, [f"{100 * s.groups[k]:.0f} %" for s in sets]) for k, group in enumerate(ROAD_GROUPS)]
    texts = [head + _rows(rows)]
    for title, edges, attribute in (
        ("size of the box in pixels", SIZE_EDGES, "sizes"),
        ("objects in a picture", COUNT_EDGES, "counts"),
        ("share covered by another box", COVER_EDGES, "covers"),
        ("share really hidden", COVER_EDGES, "hidden"),
    ):
        ranges = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
        shares = [[_percent(getattr(each, attribute), k) for each in sets] for k in range(len(ranges))]
        texts.append(head.replace("| |", f"| {title} |", 1) + _rows(list(zip(ranges, shares, strict=True))))
    return "\n".join(texts)


def _percent(shares: NDArray[np.float64] | None, place: int) -> str:
    return "not known" if shares is None else f"{100 * shares[place]:.0f} %"


def _rows(rows: Sequence[tuple[str, list[str]]]) -> str:
    return "".join(f"| {name} | {' | '.join(values)} |\n" for name, values in rows)


def _shares(values: NDArray[Any], edges: Sequence[float]) -> NDArray[np.float64]:
    counts, _ = np.histogram(values, edges)
    return np.asarray(counts / len(values), np.float64)


if __name__ == "__main__":
    print(tables([statistics(Path(name)) for name in sys.argv[1:]]))
