"""What is to be found in an image, in the form in which results are held against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.boxes import most_covered
from seg_perception.core.class_tables import category_groups
from seg_perception.core.classes import NO_GROUP
from seg_perception.core.errors import ClassTableError, SourceError
from seg_perception.offboard.metrics.compact import CompactMask, FrameInstances
from seg_perception.offboard.metrics.segmentations import decode_segmentation, filled_box, has_mask

from .datasets.labelled import LabelledSet, StuffMap

# Another object is near if no more than this share of the longer side of the smaller one is between their boxes, ...
_NEAR = 0.5
# ... and neither is so many times larger: what passes far behind a truck is no crowd.
_SIMILAR = 3.0


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """The objects of one image; arrays share their first axis.

    Attributes:
        image_id: number of the image.
        name: of its file.
        size: height and width in pixels.
        masks: N of them; of an object without a mask the filled box.
        boxes: float64 `[N, 4]`, x1 y1 x2 y2.
        areas: float64 `[N]`, of the visible part, as the set states it.
        categories: int64 `[N]`, the set's numbers.
        groups: int32 `[N]`, road groups, or `NO_GROUP`.
        crowd: bool `[N]`, what stands for several objects or must not be judged.
        shapeless: bool `[N]`, objects of which only the box is known: to be found as boxes, not judged as masks.
        numbers: int64 `[N]`, track numbers, 0 where there is none.
        visible: float64 `[N]`, share of the object that can be seen; where the set does not say, the share of its box
            that no other box covers.
        occluded: float64 `[N]`, 1 where the set says that something stands before the object, 0 where it denies it; NaN
            where it does not say.
        distances: float64 `[N]`, metres; NaN where the set does not say.
        near: int64 `[N]`, how many other objects are near.
        void: bool `[H, W]`, pixels that must not be judged; None for none.
        stuff: what belongs to no object; None where the set does not say.
    """

    image_id: int
    name: str
    size: tuple[int, int]
    masks: tuple[CompactMask, ...]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    categories: NDArray[np.int64]
    groups: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    shapeless: NDArray[np.bool_]
    numbers: NDArray[np.int64]
    visible: NDArray[np.float64]
    occluded: NDArray[np.float64]
    distances: NDArray[np.float64]
    near: NDArray[np.int64]
    void: NDArray[np.bool_] | None = None
    stuff: StuffMap | None = None

    @property
    def unjudged(self) -> NDArray[np.bool_]:
        """Regions in which masks are neither right nor wrong: bool `[N]`."""
        return self.crowd | self.shapeless

    @property
    def judged(self) -> NDArray[np.int64]:
        """Places of the road users, signs and lights whose masks are to be found, int64 `[J]`."""
        return np.flatnonzero((self.groups != NO_GROUP) & ~self.unjudged)

    def segments(self) -> NDArray[np.int32]:
        """Place + 1 of the object that each pixel belongs to, 0 for none: int32 `[H, W]`.

        Smaller ones are in front, and objects without a mask behind all others.
        """
        pixels = np.zeros(self.size, np.int32)
        areas = np.array([-mask.area for mask in self.masks], np.int64)
        for place in np.lexsort((areas, ~self.shapeless)).tolist():
            mask = self.masks[place]
            pixels[mask.top : mask.bottom, mask.left : mask.right][mask.region()] = place + 1
        return pixels

    def instances(self) -> FrameInstances:
        """The judged objects as instances of score 1, labelled by road group."""
        rows = self.judged
        return FrameInstances(
            self.boxes[rows].astype(np.float32), np.ones(len(rows), np.float32), self.groups[rows],
            tuple(self.masks[row] for row in rows.tolist()),
        )  # fmt: skip


class Truths:
    """The truth of a labelled set, image by image.

    Attributes:
        groups: road group by category number; `NO_GROUP` throughout where no class table knows the categories.
        knows_visible: whether the set says how much of objects can be seen.
    """

    def __init__(self, labelled: LabelledSet) -> None:
        self._labelled = labelled
        self.knows_visible = any("occlusion" in each for each in labelled.labels.annotations["annotations"])
        self._images = labelled.images
        self._by_image: dict[int, list[Mapping[str, Any]]] = {}
        for each in labelled.labels.annotations["annotations"]:
            self._by_image.setdefault(int(each["image_id"]), []).append(each)
        categories = labelled.labels.annotations["categories"]
        try:
            self.groups = category_groups(categories)
        except ClassTableError:
            self.groups = {int(each["id"]): NO_GROUP for each in categories}

    def facts(self, image_id: int) -> Mapping[str, Any]:
        """Return what the set says of an image."""
        return self._images[image_id]

    def of(self, image_id: int, stuff: bool = False) -> FrameTruth:
        """The truth of an image.

        Args:
            image_id: its number.
            stuff: whether what belongs to no object is asked for, too.

        Raises:
            SourceError: the segmentation of an object cannot be understood.
        """
        image, entries = self._images[image_id], self._by_image.get(image_id, [])
        height, width = int(image["height"]), int(image["width"])
        masks = self._masks(entries, height, width)
        corners = np.array([each["bbox"] for each in entries], np.float64).reshape(-1, 4)
        boxes = np.hstack([corners[:, :2], corners[:, :2] + corners[:, 2:]])
        crowd = np.array([bool(each.get("iscrowd")) for each in entries], bool)
        hidden = _values(entries, "occlusion")
        single = boxes[~crowd]
        visible = np.ones(len(entries))
        visible[~crowd] = 1 - most_covered(single)
        near = np.zeros(len(entries), np.int64)
        near[~crowd] = near_objects(single)
        # What is void is listed once for each category.
        void = [mask for each, mask in zip(entries, masks, strict=True) if each.get("void")]
        read = self._labelled.stuff
        behind = read(image_id) if stuff and read is not None else None
        return FrameTruth(
            image_id,
            str(image["file_name"]),
            (height, width),
            masks,
            boxes,
            np.array([float(each.get("area", mask.area)) for each, mask in zip(entries, masks, strict=True)]),
            np.array([int(each["category_id"]) for each in entries], np.int64),
            np.array([self.groups[int(each["category_id"])] for each in entries], np.int32),
            crowd,
            np.array([not has_mask(each) for each in entries], bool),
            np.array([int(each.get("track_id", 0)) for each in entries], np.int64),
            np.where(np.isnan(hidden), visible, 1 - hidden),
            _values(entries, "occluded"),
            _values(entries, "distance"),
            near,
            behind.void if behind is not None else void[0].full() if void else None,
            behind,
        )

    def _masks(self, entries: Sequence[Mapping[str, Any]], height: int, width: int) -> tuple[CompactMask, ...]:
        masks: list[CompactMask] = []
        # What must not be judged is listed once for each category, with one and the same segmentation.
        known: dict[int, CompactMask] = {}
        for each in entries:
            key = id(each["segmentation"])
            try:
                if not has_mask(each):
                    known[key] = filled_box(each, (height, width))
                elif key not in known:
                    known[key] = decode_segmentation(each["segmentation"], height, width)
            except ValueError as error:
                place = f"annotation {each.get('id', '?')} of image {each['image_id']}"
                raise SourceError(f"{self._labelled.labels.path}: {place}: {error}") from error
            masks.append(known[key])
        return tuple(masks)


def _values(entries: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """A number of each annotation, NaN where it is not stated."""
    return np.array([float(each.get(name, np.nan)) for each in entries], np.float64)


def near_objects(boxes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many other boxes are near each one, int64 `[N]` of float64 `[N, 4]`."""
    if not len(boxes):
        return np.zeros(0, np.int64)
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    gap = np.maximum(np.maximum(low - boxes[:, 2:], boxes[:, :2] - high), 0).max(axis=2)
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    smaller, larger = np.minimum(longer[:, None], longer), np.maximum(longer[:, None], longer)
    count: NDArray[np.int64] = ((gap <= _NEAR * smaller) & (larger <= _SIMILAR * smaller)).sum(axis=1) - 1
    return count
