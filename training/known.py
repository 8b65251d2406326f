"""What the labels of an image are silent about: sets in which some images are labelled for some classes only."""

from __future__ import annotations

from seg_perception.core.class_tables import category_groups
from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS
from seg_perception.offboard.evaluation.coco import CocoSet


def unknown_groups(data: CocoSet) -> dict[int, int]:
    """Road groups that are not labelled completely, of the images that name what is (`labelled`).

    Returns:
        By number of the image; bit k is set if objects of road group k may be in it without a label. A group is
        labelled completely if all its categories are in `labelled`.
    """
    group_of = category_groups(data.annotations["categories"])
    names: dict[int, set[str]] = {group: set() for group in range(len(ROAD_GROUPS))}
    for category in data.annotations["categories"]:
        if (group := group_of[category["id"]]) != NO_GROUP:
            names[group].add(category["name"])
    return {
        image["id"]: sum(1 << group for group, own in names.items() if not own <= set(image["labelled"]))
        for image in data.annotations["images"]
        if "labelled" in image
    }
