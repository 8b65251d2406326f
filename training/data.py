"""Labelled images as training samples: any COCO-format set, one instance map for each entry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm import tqdm

from seg_perception.core.class_tables import category_groups
from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS
from seg_perception.core.errors import SourceError
from seg_perception.offboard.evaluation.coco import CocoSet, LabelledImage
from seg_perception.offboard.metrics.segmentations import decode_segmentation, filled_box, has_mask

from .augment import Augmentation, augmented
from .known import unknown_groups
from .mix import Cutout, Sample, mosaic, paste

# Values of an instance map: 0 is nothing, 255 is a region where anything may be (COCO's crowds).
IGNORED = 255
_MOST = 254
# An object with fewer visible pixels at the network's size is nothing to learn from.
_FEWEST_PIXELS = 12
# Objects of one image that a batch has room for.
ROOM = 96
# Objects that are pasted onto one sample, at most, and the least width and height they had.
_MOST_PASTED, _SMALLEST_CUTOUT = 3, 12
# Size of the images of a mosaic, relative to images by themselves.
_IN_MOSAIC = 0.6


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """One labelled entry.

    Attributes:
        path: of the image file.
        map_path: of its instance map, uint8 PNG of the same size: 0 for nothing, k for the k-th object.
        labels: road group of each object.
        unknown: bit k is set if objects of road group k may be in it without a label.
        lends: whether it may be part of a mosaic, and its objects be pasted onto others.
    """

    path: Path
    map_path: Path
    labels: tuple[int, ...]
    unknown: int = 0
    lends: bool = False


def load_images(sets: Sequence[CocoSet], cache: Path, processes: int = 2, lends: bool = False) -> list[TrainingImage]:
    """The images of several sets; instance maps are drawn once and kept in `cache`.

    Args:
        sets: their categories are brought to road groups by the class table that knows most of them; others are
            background.
        cache: folder for the instance maps.
        processes: how many sets are drawn at once.
        lends: as in `TrainingImage`, of all of them.
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
        unknown = unknown_groups(each)
        images += [
            TrainingImage(
                image.path, folder / f"{image.image_id}.png", tuple(labels[str(image.image_id)]),
                unknown.get(image.image_id, 0), lends,
            )
            for image in each.images
        ]  # fmt: skip
    return images


def fingerprint(data: CocoSet) -> str:
    """Of the annotation file as it is now, and of the images and categories in use."""
    state = data.path.stat()
    names = [each["name"] for each in data.annotations["categories"]]
    text = f"{data.path.resolve()} {state.st_size} {state.st_mtime_ns} {data.image_ids} {names}"
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
        unknown: uint8 `[B, H, W]`, bit k is set where an object of road group k may be without a label.
    """

    images: torch.Tensor
    maps: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    unknown: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__slots__))


# Image, map, boxes, labels and unknown groups of one sample, as in `Batch` without its first axis.
Arrays = tuple[
    NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64], NDArray[np.uint8]
]  # fmt: skip


class Samples(Dataset[Arrays]):
    """Augmented images; the same sample number of the same epoch is always the same sample."""

    def __init__(self, images: Sequence[TrainingImage], augmentation: Augmentation, seed: int, epoch: int) -> None:
        self._images, self._augmentation, self._seed, self._epoch = images, augmentation, seed, epoch
        # What is repeated in an epoch lends once.
        self._lending = sorted({each for each in images if each.lends}, key=lambda each: str(each.path))
        self._objects: list[list[tuple[TrainingImage, int]]] = [[] for _ in ROAD_GROUPS]
        for entry in self._lending:
            for number, label in enumerate(entry.labels, 1):
                self._objects[label].append((entry, number))

    def __len__(self) -> int:
        """How many images."""
        return len(self._images)

    def __getitem__(self, index: int) -> Arrays:
        """One sample."""
        random = np.random.default_rng((self._seed, self._epoch, index))
        entry, options = self._images[index], self._augmentation
        if entry.lends and random.random() < options.mosaic:
            sample = self._mosaic(random, entry)
        else:
            sample = _sample(random, entry, options)
        for _ in range(min(int(random.poisson(options.pastes)), _MOST_PASTED)):
            if (cutout := self._cutout(random)) is not None:
                paste(random, sample, cutout, options.light)
        map_, boxes, labels = targets(sample.map_, sample.labels)
        image = np.ascontiguousarray(sample.image[:, :, ::-1].transpose(2, 0, 1))
        return image, map_, boxes, labels, sample.unknown

    def _mosaic(self, random: np.random.Generator, entry: TrainingImage) -> Sample:
        """Four images around a point, smaller than by themselves."""
        options = self._augmentation
        y, x = (int(size * random.uniform(0.3, 0.7)) for size in (options.height, options.width))
        smaller = replace(options, smallest=options.smallest * _IN_MOSAIC, largest=options.largest * _IN_MOSAIC)
        tiles = []
        for height in (y, options.height - y):
            for width in (x, options.width - x):
                tiles.append(_sample(random, entry, replace(smaller, height=height, width=width)))
                entry = self._lending[int(random.integers(len(self._lending)))]
        return mosaic(tiles)

    def _cutout(self, random: np.random.Generator) -> Cutout | None:
        """An object of an image that lends; rare groups come as often as others. None if it is too small for it."""
        there = [objects for objects in self._objects if objects]
        if not there:
            return None
        objects = there[int(random.integers(len(there)))]
        entry, number = objects[int(random.integers(len(objects)))]
        image, map_ = _read(entry)
        mask = (map_ == number).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        if min(width, height) < _SMALLEST_CUTOUT:
            return None
        window = np.s_[y : y + height, x : x + width]
        return Cutout(image[window], mask[window], entry.labels[number - 1])


def _read(entry: TrainingImage) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and instance map.

    Raises:
        SourceError: they do not belong together.
    """
    image, map_ = cv2.imread(str(entry.path)), cv2.imread(str(entry.map_path), cv2.IMREAD_GRAYSCALE)
    if image is None or map_ is None or image.shape[:2] != map_.shape:
        raise SourceError(f"{entry.path}: is not the image any more that {entry.map_path} was drawn for")
    return image.astype(np.uint8), map_.astype(np.uint8)


def _sample(random: np.random.Generator, entry: TrainingImage, options: Augmentation) -> Sample:
    """One image as a sample; what is labelled is known to be nothing else."""
    image, map_ = _read(entry)
    unknown = np.where(map_ == 0, np.uint8(entry.unknown), np.uint8(0))
    image, both = augmented(random, image, np.dstack((map_, unknown)), options)
    return Sample(image, np.ascontiguousarray(both[..., 0]), np.ascontiguousarray(both[..., 1]), list(entry.labels))


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


def collate(samples: Sequence[Arrays]) -> Batch:
    """One batch of samples."""
    images, maps, boxes, labels, unknown = (
        torch.from_numpy(np.stack(parts)) for parts in zip(*samples, strict=True)
    )  # fmt: skip
    # Used rows come first; what no image uses costs time only.
    most = max(1, int((labels >= 0).sum(1).max()))
    return Batch(images, maps, boxes[:, :most], labels[:, :most], unknown)
