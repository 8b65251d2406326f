"""Labels as the files of LabelMe, one for each picture (https://github.com/wkentaro/labelme).

Shapes that share a `group_id` within a picture are the parts of one object. A shape of the type `mask` has two corners,
the last one within it, and a PNG of what lies between them. Keys that LabelMe does not know, it keeps.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError, SourceError
from ..metrics.compact import CompactMask
from ..sources.compressed import decode_pixels
from .records import LabelledFrame, LabelledObject, MaskStyle, score_and_track
from .shapes import mask_of_box, mask_of_crop, mask_of_polygons

LABELME = "labelme"
# The first release whose files have masks.
_VERSION = "5.3.0"


def labelme_bytes(frame: LabelledFrame, style: MaskStyle, pictures: str) -> bytes:
    """The content of the file of one picture; `pictures` is the folder of the pictures as seen from the file."""
    content: dict[str, Any] = {
        "version": _VERSION,
        "flags": {},
        "shapes": [
            shape for group, each in enumerate(frame.objects, 1) for shape in _shapes(each, group, style)
        ],
        "imagePath": f"{pictures}/{frame.file_name}",
        "imageData": None,
        "imageHeight": frame.height,
        "imageWidth": frame.width,
    }  # fmt: skip
    return json.dumps(content, indent=1).encode()


def read_labelme(folder: Path) -> list[LabelledFrame]:
    """The labels in a folder; shapes that are neither polygon, mask nor rectangle are left out.

    Raises:
        SourceError: there are no such files, or one of them cannot be read.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise SourceError(f"{folder}: expected LabelMe's files, one ending in .json for each picture; got none")
    return [_frame(path) for path in paths]


def _shapes(each: LabelledObject, group: int, style: MaskStyle) -> list[dict[str, Any]]:
    mask = each.mask
    known = {"score": each.score, "track_id": each.track or None}
    common: dict[str, Any] = {
        "label": each.category,
        # Only where it is needed: a duplicated shape keeps its group, which would make the two one object.
        "group_id": None,
        "description": ", ".join(f"{name} {value}" for name, value in known.items() if value is not None),
        "flags": {},
        **{name: value for name, value in known.items() if value is not None},
    }
    corners = [[mask.left, mask.top], [mask.right, mask.bottom]]
    if each.shapeless:
        return [{**common, "shape_type": "rectangle", "points": corners, "mask": None}]
    polygons = style.polygons(mask)
    if polygons is not None:
        if len(polygons) > 1:
            common["group_id"] = group
        return [
            {**common, "shape_type": "polygon", "points": polygon.tolist(), "mask": None} for polygon in polygons
        ]  # fmt: skip
    _, data = cv2.imencode(".png", mask.region().astype(np.uint8) * 255)
    last = [[mask.left, mask.top], [mask.right - 1, mask.bottom - 1]]
    picture = base64.b64encode(data.tobytes()).decode()
    return [{**common, "shape_type": "mask", "points": last, "mask": picture}]


def _frame(path: Path) -> LabelledFrame:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        size = (int(content["imageHeight"]), int(content["imageWidth"]))
        objects: dict[Any, list[Mapping[str, Any]]] = {}
        for number, shape in enumerate(content["shapes"]):
            if shape["shape_type"] in ("polygon", "mask", "rectangle"):
                group = shape.get("group_id")
                objects.setdefault(number if group is None else (group, shape["label"]), []).append(shape)
        whole = tuple(_object(shapes, size) for shapes in objects.values())
        # A path of Windows is one for everybody who reviews there.
        name = str(content["imagePath"]).replace("\\", "/").rpartition("/")[2]
    except (OSError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"{path}: expected a file of LabelMe: {error!r}") from error
    return LabelledFrame(name, size[1], size[0], whole)


def _object(shapes: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> LabelledObject:
    mask = mask_of_polygons([_points(each) for each in shapes if each["shape_type"] == "polygon"], size).full()
    for each in shapes:
        if each["shape_type"] == "mask":
            mask |= _painted(each, size).full()
        elif each["shape_type"] == "rectangle":
            mask |= _filled(each, size).full()
    first = shapes[0]
    return LabelledObject(
        str(first["label"]),
        CompactMask.of(mask),
        *score_and_track(first),
        shapeless=all(each["shape_type"] == "rectangle" for each in shapes),
    )


def _points(shape: Mapping[str, Any]) -> NDArray[np.float64]:
    return np.array(shape["points"], np.float64).reshape(-1, 2)


def _painted(shape: Mapping[str, Any], size: tuple[int, int]) -> CompactMask:
    try:
        picture, _ = decode_pixels(base64.b64decode(shape["mask"]), cv2.IMREAD_GRAYSCALE, remedy="export it again")
    except FrameError as error:
        raise ValueError(f"the mask of a shape: {error}") from error
    x, y = (round(float(side)) for side in _points(shape).min(axis=0))
    return mask_of_crop(picture > 0, x, y, size)


def _filled(shape: Mapping[str, Any], size: tuple[int, int]) -> CompactMask:
    points = _points(shape)
    return mask_of_box([*points.min(axis=0), *points.max(axis=0)], size)
