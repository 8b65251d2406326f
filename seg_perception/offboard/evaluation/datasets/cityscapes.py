"""Cityscapes fine annotations: `gtFine/SPLIT/CITY/CITY_SEQUENCE_FRAME_gtFine_instanceIds.png`.

Each is a PNG of one channel with 16 bits. A pixel of an object is 1000 times the class number plus the object's number;
any other pixel is the class number alone. Of classes that have objects, the latter are groups too dense to be told
apart: neither to be found nor wrong when found. Class numbers and which of them are evaluated are those of the
`labels.py` of cityscapesScripts (https://github.com/mcordts/cityscapesScripts). The images are
`leftImg8bit/SPLIT/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import SourceError
from seg_perception.offboard.metrics.compact import CompactMask

from .labelled import (
    NO_STUFF,
    LabelledSet,
    StuffMap,
    TruthBuilder,
    Watch,
    files_below,
    read_label_image,
    require_images,
)

KIND = "Cityscapes"
_SUFFIX, _IMAGE_SUFFIX = "_gtFine_instanceIds.png", "_leftImg8bit.png"
THINGS = {24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"}
STUFF = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
}  # fmt: skip
_OBJECTS_FROM = 1000


def recognises(path: Path) -> bool:
    """Return whether a folder has instance images, however deep."""
    return path.is_dir() and next(path.rglob(f"*{_SUFFIX}"), None) is not None


def read(path: Path, images: Path | None, watch: Watch) -> LabelledSet:
    """Read a split.

    Args:
        path: folder of the instance images, those of the cities in it or not.
        images: folder of the images; by default the folder next to `gtFine` on the way to `path`.
        watch: shows how far it is.

    Raises:
        SourceError: there is none, or none of the images is there.
    """
    folder = require_images(path, images or _beside(path))
    image_paths = {file.name: file for file in files_below(folder, f"*{_IMAGE_SUFFIX}")}
    builder = TruthBuilder(list(THINGS.values()))
    files: dict[int, Path] = {}
    for file in watch(files_below(path, f"*{_SUFFIX}")):
        name = file.name.removesuffix(_SUFFIX) + _IMAGE_SUFFIX
        if name not in image_paths:
            builder.missing.append(name)
            continue
        try:
            values = _values(file)
        except SourceError as error:
            builder.omitted.add("label file: it cannot be read", error)
            continue
        files[_add(builder, image_paths[name], values)] = file
    labels = builder.labels(path)
    stuff = partial(_stuff, files)
    return LabelledSet(KIND, labels, labels.source(), (), None, tuple(STUFF.values()), stuff)


def _beside(path: Path) -> Path | None:
    """Return where the data set's own layout has the images of these labels."""
    parts = path.resolve().parts
    if "gtFine" not in parts:
        return None
    place = len(parts) - 1 - parts[::-1].index("gtFine")
    return Path(*parts[:place], "leftImg8bit", *parts[place + 1 :])


def _values(file: Path) -> NDArray[np.uint16]:
    """uint16 `[H, W]`."""
    return read_label_image(file, 1).astype(np.uint16)


def _add(builder: TruthBuilder, image_path: Path, values: NDArray[np.uint16]) -> int:
    height, width = values.shape
    image = builder.add_image(image_path, width, height)
    categories = {number: place for place, number in enumerate(THINGS, 1)}
    for value in np.unique(values).tolist():
        single = value >= _OBJECTS_FROM
        category = categories.get(value // _OBJECTS_FROM if single else value)
        if category is not None:
            builder.add(image, category, CompactMask.of(values == value), crowd=not single)
    builder.add_void(image, CompactMask.of(_void(values)))
    return image


def _void(values: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Pixels of classes that are not evaluated."""
    classes = np.where(values >= _OBJECTS_FROM, values // _OBJECTS_FROM, values)
    return ~np.isin(classes, [*THINGS, *STUFF])


def _stuff(files: dict[int, Path], image: int) -> StuffMap:
    values = _values(files[image])
    table = np.full(1 << 16, NO_STUFF, np.uint8)
    table[list(STUFF)] = np.arange(len(STUFF))
    return StuffMap(table[values], _void(values))
