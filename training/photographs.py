"""The photographs that the default model learns from: COCO's, of licences under which weights may be passed on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.evaluation.coco import CocoSet

# Where a checkout of ours has them; COCO's annotations, and `labelled` for each image.
DEFAULT = Path(__file__).parents[2] / "shared" / "data" / "road_train" / "instances.json"
# COCO's numbers of CC BY, CC BY-SA, no known restriction, and works of the United States' government.
LICENCES = (4, 5, 7, 8)
# Of the photographs, so many choose the best epoch.
_HELD_BACK, _SEED = 60, 16
# COCO labels no signs but stop signs. Of the photographs with vehicles, lights or signs that are labelled for all its
# classes, which were looked through, those of these COCO numbers show other signs.
_OTHER_SIGNS = (257, 6723, 8762, 107438, 116740, 196610, 231460, 252639)


def photographs(path: Path) -> tuple[CocoSet, CocoSet]:
    """The photographs to learn from, and those held back, drawn by chance.

    Raises:
        ConfigurationError: there are too few.
    """
    data = CocoSet.load(path)
    entries = [_without_signs(each) for each in data.annotations["images"]]
    chosen = {each["id"] for each in entries if each.get("license") in LICENCES} & set(data.image_ids)
    if len(chosen) < 2 * _HELD_BACK:
        raise ConfigurationError(
            f"{path}: expected at least {2 * _HELD_BACK} photographs with `license` {', '.join(map(str, LICENCES))}, "
            f"got {len(chosen)}"
        )
    order = np.random.default_rng(_SEED).permutation(sorted(chosen)).tolist()
    # COCO's own names, so that its class table is found: the set's other sources know more kinds of signs.
    names = [each for each in data.annotations["categories"] if each["name"] != "traffic sign"]
    objects = [each for each in data.annotations["annotations"] if each["image_id"] in chosen]
    content = {**data.annotations, "images": entries, "categories": names, "annotations": objects}
    data = replace(data, annotations=content)
    return data.only(order[_HELD_BACK:]), data.only(order[:_HELD_BACK])


def _without_signs(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry of an image, not labelled for signs if it shows others than stop signs."""
    if entry.get("coco_id") not in _OTHER_SIGNS:
        return entry
    return {**entry, "labelled": [name for name in entry["labelled"] if name != "stop sign"]}
