"""Average precision by road group, over some of the images and objects of a labelled set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.offboard.metrics.average_precision import match_results

# "Of at least 16 x 16 pixels" is meant of the box's area.
_LARGE = 16 * 16


@dataclass(frozen=True, slots=True)
class GroupPrecision:
    """Average precision over some of the images and objects.

    Attributes:
        name: which ones.
        kind: `mask` or `box`.
        images: how many.
        at_50: AP at IoU 0.50 by road group; NaN where there is nothing to be found.
        overall: AP over IoU 0.50 to 0.95 by road group.
    """

    name: str
    kind: str
    images: int
    at_50: Mapping[str, float]
    overall: Mapping[str, float]


Counts = Callable[[Mapping[str, Any]], bool]


def every(_: Mapping[str, Any]) -> bool:
    """Counts any object."""
    return True


def large(annotation: Mapping[str, Any]) -> bool:
    """Counts objects whose box has 16 x 16 pixels or more."""
    return bool(annotation["bbox"][2] * annotation["bbox"][3] >= _LARGE)


# What most tables show, by name.
SIZES: Mapping[str, Counts] = {"all": every, "16 x 16 or more": large}


def group_precision(
    name: str, kind: str, annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]],
    image_ids: Sequence[int], counts: Counts = every,
) -> GroupPrecision:  # fmt: skip
    """Compare results with the truth.

    Args:
        name: of the outcome.
        kind: `mask` or `box`.
        annotations: the content of a COCO file with the categories `coco.CATEGORIES`.
        results: COCO results with these categories.
        image_ids: the images that count.
        counts: the annotations that count. The others are crowds to COCO: neither to be found nor wrong when found.

    Raises:
        BackendUnavailable: pycocotools is not installed.
    """
    marked = [
        {**each, "iscrowd": int(bool(each.get("iscrowd")) or not counts(each))} for each in annotations["annotations"]
    ]
    matched = match_results({**annotations, "annotations": marked}, results, image_ids, kind)
    scores = {group: matched.only([group]).average_precision() for group in ROAD_GROUPS}
    return GroupPrecision(
        name,
        kind,
        len(image_ids),
        {group: score.at_50 for group, score in scores.items()},
        {group: score.overall for group, score in scores.items()},
    )


def precision_table(results: Sequence[GroupPrecision]) -> str:
    """A Markdown table: AP50 and, behind the stroke, AP."""
    lines = [f"| | | images | {' | '.join(ROAD_GROUPS)} |", f"| --- | --- | ---: |{' ---: |' * len(ROAD_GROUPS)}"]
    for each in results:
        cells = [f"{each.at_50[group]:.3f} / {each.overall[group]:.3f}" for group in ROAD_GROUPS]
        lines.append(f"| {each.name} | {each.kind} | {each.images} | {' | '.join(cells)} |")
    return "\n".join(lines)
