"""Labelled images as training samples: any COCO-format set, one instance map for each entry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm import tqdm

from seg_perception.core.class_tables import category_groups
from seg_perception.core.classes import NO_GROUP
from seg_perception.core.errors import SourceError
from seg_perception.offboard.evaluation.coco import CocoSet, LabelledImage
from seg_perception.offboard.metrics.segmentations import decode_segmentation, filled_box, has_mask

from .augment import Augmentation, augmented

# Values of an instance map: 0 is nothing, 255 is a region where anything may be (COCO's crowds).
IGNORED = 255
_MOST = 254
# An object with fewer visible pixels at the network's size is nothing to learn from.
_FEWEST_PIXELS = 12
# Objects of one image that a batch has room for.
ROOM = 96


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """One labelled entry.

    Attributes:
        path: of the image file.
        map_path: of its instance map, uint8 PNG of the same size: 0 for nothing, k for the k-th object.
        labels: road group of each object.
    """

    path: Path
    map_path: Path
    labels: tuple[int, ...]


def load_images(sets: Sequence[CocoSet], cache: Path, processes: int = 2) -> list[TrainingImage]:
    """The images of several sets; instance maps are drawn once and kept in `cache`.

    Args:
        sets: their categories are brought to road groups by the class table that knows most of them; others are
            background.
        cache: folder for the instance maps.
        processes: how many sets are drawn at once.
    """
    jobs = [(each, cache / fingerprint(each)) for each in sets]
    missing = [job for job in jobs if not (job[1] / "labels.json").exists()]
    if missing:
        with ProcessPoolExecutor(min(processes, len(missing))) as pool:
            drawn = pool.map(_draw_set, *zip(*missing, strict=True))
            for _ in tqdm(drawn, "instance maps", len(missing), unit="set", disable=None):
                pass
    images = []
    for each, folder in jobs:
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        images += [
            TrainingImage(image.path, folder / f"{image.image_id}.png", tuple(labels[str(image.image_id)]))
            for image in each.images
        ]
    return images


def fingerprint(data: CocoSet) -> str:
    """Of the annotation file as it is now, and of the images in use."""
    state = data.path.stat()
    text = f"{data.path.resolve()} {state.st_size} {state.st_mtime_ns} {data.image_ids}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _draw_set(data: CocoSet, folder: Path) -> None:
    """Draw the instance maps of one set; `labels.json`, written last, says that they are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    group_of = category_groups(data.annotations["categories"])
    objects: dict[int, list[Mapping[str, Any]]] = {}
    for annotation in data.annotations["annotations"]:
        if group_of.get(int(annotation["category_id"]), NO_GROUP) != NO_GROUP:
            objects.setdefault(int(annotation["image_id"]), []).append(annotation)
    labels = {}
    for image in data.images:
        _check_image(image, data.path)
        map_, order = draw_map(objects.get(image.image_id, []), image.height, image.width)
        labels[image.image_id] = [group_of[int(each["category_id"])] for each in order]
        cv2.imwrite(str(folder / f"{image.image_id}.png"), map_, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")


def _check_image(image: LabelledImage, labels: Path) -> None:
    """See that it can be read and is the image that was labelled.

    Raises:
        SourceError: it is not.
    """
    pixels = cv2.imread(str(image.path))
    if pixels is None:
        raise SourceError(f"{image.path}: expected an image, cannot be read; repair it or take it out of {labels}")
    height, width = pixels.shape[:2]
    if (width, height) != (image.width, image.height):
        raise SourceError(
            f"{image.path}: {labels.name} says {image.width} x {image.height} pixels, the file has {width} x {height}; "
            "give the images that were labelled"
        )


def draw_map(
    objects: Sequence[Mapping[str, Any]], height: int, width: int
) -> tuple[NDArray[np.uint8], list[Mapping[str, Any]]]:
    """The instance map of one image, and its objects in the order of their numbers.

    What is to be ignored comes first: crowds, boxes without a shape, and what a map has no numbers for. Then come large
    objects, so that a small one in front of a large one stays whole.
    """
    map_ = np.zeros((height, width), np.uint8)
    shapes = [(each, _mask(each, height, width)) for each in objects]
    single = [(each, mask) for each, mask in shapes if not each.get("iscrowd") and has_mask(each)]
    single.sort(key=lambda one: -np.count_nonzero(one[1]))
    kept = single[:_MOST]
    numbered = {id(each) for each, _ in kept}
    for each, mask in shapes:
        if id(each) not in numbered:
            map_[mask] = IGNORED
    for number, (_, mask) in enumerate(kept, 1):
        map_[mask] = number
    return map_, [each for each, _ in kept]


def _mask(annotation: Mapping[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """The mask of one annotation, or its box if it has none, bool `[height, width]`."""
    if not has_mask(annotation):
        return filled_box(annotation, (height, width)).full()
    return decode_segmentation(annotation["segmentation"], height, width).full()


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one step; B of them, M objects at most in each.

    Attributes:
        images: uint8 `[B, 3, H, W]`, RGB.
        maps: uint8 `[B, H, W]`, number of the object of each pixel, from 1; 255 to be ignored.
        boxes: float `[B, M, 4]`, x1 y1 x2 y2 in network pixels, around what is visible.
        labels: int64 `[B, M]`, road group; -1 in unused rows. Row k belongs to number k + 1.
    """

    images: torch.Tensor
    maps: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(each.to(device) for each in (self.images, self.maps, self.boxes, self.labels)))


class Samples(Dataset[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]]):
    """Augmented images; the same sample number of the same epoch is always the same sample."""

    def __init__(self, images: Sequence[TrainingImage], augmentation: Augmentation, seed: int, epoch: int) -> None:
        self._images, self._augmentation, self._seed, self._epoch = images, augmentation, seed, epoch

    def __len__(self) -> int:
        """How many images."""
        return len(self._images)

    def __getitem__(
        self, index: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
        """Image, map, boxes and labels of one sample, as in `Batch` without its first axis."""
        entry = self._images[index]
        read, drawn = cv2.imread(str(entry.path)), cv2.imread(str(entry.map_path), cv2.IMREAD_GRAYSCALE)
        if read is None or drawn is None or read.shape[:2] != drawn.shape:
            raise SourceError(f"{entry.path}: is not the image any more that {entry.map_path} was drawn for")
        random = np.random.default_rng((self._seed, self._epoch, index))
        image, map_ = augmented(random, read.astype(np.uint8), drawn.astype(np.uint8), self._augmentation)
        map_, boxes, labels = targets(map_, entry.labels)
        return np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)), map_, boxes, labels


def targets(
    map_: NDArray[np.uint8], labels: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """What is left of the objects: the map renumbered, boxes `[ROOM, 4]` and labels `[ROOM]`.

    What is too small to learn from is ignored rather than called background.
    """
    counts = np.bincount(map_.reshape(-1), minlength=256)
    numbers = np.flatnonzero(counts[1 : len(labels) + 1]) + 1
    numbers = numbers[np.argsort(-counts[numbers], kind="stable")]
    boxes, kept = np.zeros((ROOM, 4), np.float32), np.full(ROOM, -1, np.int64)
    renumbered = np.full(256, IGNORED, np.uint8)
    renumbered[0] = 0
    numbers = numbers[counts[numbers] >= _FEWEST_PIXELS][:ROOM]
    for row, number in enumerate(numbers.tolist()):
        x, y, width, height = cv2.boundingRect((map_ == number).view(np.uint8))
        boxes[row], kept[row] = (x, y, x + width, y + height), labels[number - 1]
        renumbered[number] = row + 1
    return renumbered[map_], boxes, kept


def collate(
    samples: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]],
) -> Batch:
    """One batch of samples."""
    images, maps, boxes, labels = (torch.from_numpy(np.stack(parts)) for parts in zip(*samples, strict=True))
    # Used rows come first; what no image uses costs time only.
    most = max(1, int((labels >= 0).sum(1).max()))
    return Batch(images, maps, boxes[:, :most], labels[:, :most])
