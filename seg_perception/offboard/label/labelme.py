"""Labels as the files of LabelMe, one for each image (https://github.com/wkentaro/labelme).

Shapes that share a `group_id` within an image are the parts of one object. A shape of the type `mask` has two corners,
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

from seg_perception.core.encodings.compressed import decode_pixels
from seg_perception.core.errors import ConfigurationError, FrameError, SourceError
from seg_perception.core.files import inside
from seg_perception.core.text import printable
from seg_perception.offboard.evaluation.coco import read_json
from seg_perception.offboard.evaluation.omissions import Omissions
from seg_perception.offboard.metrics.compact import CompactMask
from seg_perception.offboard.metrics.segmentations import check_image_size, mask_of_polygons

from .records import LabelledFrame, LabelledObject, MaskStyle, ReadLabels, score_and_track
from .shapes import ellipse, mask_of_crop, union

LABELME = "labelme"
# The first release whose files have masks.
_VERSION = "5.3.0"
_READ = ("polygon", "mask", "rectangle", "circle")
# Why other shapes are not read.
_UNREAD = {
    "line": "a line has no area",
    "linestrip": "a line has no area",
    "point": "a point has no area",
    "points": "points have no area",
}


def labelme_bytes(frame: LabelledFrame, style: MaskStyle, images: str) -> bytes:
    """The content of the file of one image; `images` is the folder of the images as seen from the file."""
    content: dict[str, Any] = {
        "version": _VERSION,
        "flags": {},
        "shapes": [
            shape for group, each in enumerate(frame.objects, 1) for shape in _shapes(each, group, style)
        ],
        "imagePath": f"{images}/{frame.file_name}",
        "imageData": None,
        "imageHeight": frame.height,
        "imageWidth": frame.width,
    }  # fmt: skip
    return json.dumps(content, indent=1).encode()


def read_labelme(folder: Path) -> ReadLabels:
    """Read the labels in a folder; what is no region of an image is left out and counted.

    Raises:
        SourceError: there are no such files, or one of them cannot be read.
    """
    omitted = Omissions()
    frames = []
    for path in sorted(folder.glob("*.json")):
        try:
            inside(folder, path.name, what="file of LabelMe")
        except ConfigurationError as error:
            omitted.add("file: no regular file inside of the folder, it is not opened", error)
            continue
        frames.append(_frame(path, omitted))
    if not frames:
        reasons = "".join(f"; {line}" for line in omitted.lines())
        raise SourceError(f"{folder}: expected LabelMe's files, one ending in .json for each image; got none{reasons}")
    return ReadLabels(frames, omitted)


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
    image = base64.b64encode(data.tobytes()).decode()
    return [{**common, "shape_type": "mask", "points": last, "mask": image}]


def _frame(path: Path, omitted: Omissions) -> LabelledFrame:
    content = read_json(path, "a file of LabelMe")
    try:
        size = (content["imageHeight"], content["imageWidth"])
        check_image_size(*size)
        objects: dict[Any, list[Mapping[str, Any]]] = {}
        for number, shape in enumerate(content["shapes"]):
            # The first releases had polygons alone, and did not name them.
            kind = shape.get("shape_type") or "polygon"
            if kind not in _READ:
                omitted.add(f"{kind}: {_UNREAD.get(kind, 'not known')}", path.name)
                continue
            group = shape.get("group_id")
            named = {**shape, "shape_type": kind}
            objects.setdefault(number if group is None else (group, shape["label"]), []).append(named)
        whole = tuple(_object(shapes, size) for shapes in objects.values())
        # A path of Windows is one for everybody who reviews there.
        name = printable(str(content["imagePath"]).replace("\\", "/").rpartition("/")[2])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, FrameError, cv2.error) as error:
        raise SourceError(f"{path}: expected a file of LabelMe: {printable(repr(error), 400)}") from error
    return LabelledFrame(name, size[1], size[0], whole)


def _object(shapes: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> LabelledObject:
    outlines = [_outline(each) for each in shapes if each["shape_type"] != "mask"]
    painted = [_painted(each, size) for each in shapes if each["shape_type"] == "mask"]
    first = shapes[0]
    return LabelledObject(
        printable(first["label"]),
        union([*painted, mask_of_polygons(outlines, size)]),
        *score_and_track(first),
        shapeless=all(each["shape_type"] == "rectangle" for each in shapes),
    )


def _outline(shape: Mapping[str, Any]) -> NDArray[np.float64]:
    """The corners of a polygon, rectangle or circle, float64 `[P, 2]`."""
    points = _points(shape)
    if shape["shape_type"] == "rectangle":
        (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
        return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    if shape["shape_type"] == "circle":
        centre, edge = points
        radius = float(np.hypot(*(edge - centre)))
        return ellipse((float(centre[0]), float(centre[1])), (radius, radius))
    return points


def _points(shape: Mapping[str, Any]) -> NDArray[np.float64]:
    return np.array(shape["points"], np.float64).reshape(-1, 2)


def _painted(shape: Mapping[str, Any], size: tuple[int, int]) -> CompactMask:
    try:
        region, _ = decode_pixels(base64.b64decode(shape["mask"]), cv2.IMREAD_GRAYSCALE, remedy="export it again")
    except FrameError as error:
        raise ValueError(f"the mask of a shape: {error}") from error
    corner = _points(shape).min(axis=0)
    if not np.isfinite(corner).all():
        raise ValueError("the corners of a mask are no finite numbers")
    return mask_of_crop(region > 0, round(float(corner[0])), round(float(corner[1])), size)
