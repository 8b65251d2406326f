"""Samples made of several images: mosaics, and objects pasted where they were not; labels stay true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .augment import other_light

# Numbers of objects in a map; 255 is to be ignored.
_MOST, _IGNORED = 254, 255
# Longer side of a pasted object in pixels, and how much larger than it was it may become.
_PASTED, _ENLARGED = (14.0, 220.0), 1.3


@dataclass(slots=True)
class Sample:
    """An image with its labels.

    Attributes:
        image: uint8 `[h, w, 3]`, BGR.
        map_: uint8 `[h, w]`, numbers of objects; 255 is to be ignored.
        unknown: uint8 `[h, w]`, bit k is set where an object of road group k may be without a label.
        labels: road group of each object, that of number k at k - 1.
    """

    image: NDArray[np.uint8]
    map_: NDArray[np.uint8]
    unknown: NDArray[np.uint8]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Cutout:
    """An object out of an image.

    Attributes:
        image: uint8 `[h, w, 3]`, BGR.
        mask: uint8 `[h, w]`, 1 where the object is.
        label: its road group.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    label: int


def mosaic(tiles: Sequence[Sample]) -> Sample:
    """Four samples as one: upper left, upper right, lower left, lower right."""
    labels: list[int] = []
    maps = []
    for tile in tiles:
        raised = tile.map_.astype(np.int32) + len(labels)
        # What a map has no numbers for is ignored.
        raised[(tile.map_ == _IGNORED) | (raised > _MOST)] = _IGNORED
        maps.append(np.where(tile.map_ == 0, 0, raised).astype(np.uint8))
        labels += tile.labels

    def joined(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        return np.vstack((np.hstack(parts[:2]), np.hstack(parts[2:])))

    return Sample(
        joined([tile.image for tile in tiles]), joined(maps), joined([tile.unknown for tile in tiles]), labels
    )


def paste(random: np.random.Generator, sample: Sample, cutout: Cutout, light: float) -> None:
    """Put an object somewhere onto a sample, in another size and light; it covers what is there."""
    height, width = sample.map_.shape
    if len(sample.labels) >= _MOST:
        return
    own = max(cutout.mask.shape)
    largest = min(_PASTED[1], own * _ENLARGED, height * 0.9)
    longest = float(np.exp(random.uniform(np.log(min(_PASTED[0], largest)), np.log(largest))))
    size = tuple(max(2, round(side * longest / own)) for side in cutout.mask.shape[::-1])
    image: NDArray[np.uint8] = cv2.resize(cutout.image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    share: NDArray[np.float32] = cv2.resize(cutout.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if random.random() < 0.5:
        image, share = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(share[:, ::-1])
    if light:
        image = other_light(random, image, light / 2)
    rooms = zip(size, (width, height), strict=True)
    x, y = (int(random.integers(-side // 4, room - 3 * side // 4)) for side, room in rooms)
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + size[0], width), min(y + size[1], height)
    inner, outer = np.s_[y1 - y : y2 - y, x1 - x : x2 - x], np.s_[y1:y2, x1:x2]
    part = share[inner][..., None]
    sample.image[outer] = (image[inner] * part + sample.image[outer] * (1 - part) + 0.5).astype(np.uint8)
    sample.labels.append(cutout.label)
    inside = share[inner] >= 0.5
    sample.map_[outer][inside] = len(sample.labels)
    sample.unknown[outer][inside] = 0
