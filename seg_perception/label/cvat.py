"""Labels as CVAT's XML, "CVAT for images 1.1" (https://docs.cvat.ai/docs/other/xml_format).

Polygons that share a `group_id` within an image are the parts of one object. The run lengths of a `mask` go along the
rows of its own rectangle and begin with outside.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from ..metrics.compact import CompactMask
from .records import Category, LabelledFrame, LabelledObject, MaskStyle, score_and_track
from .shapes import crop_runs, mask_of_box, mask_of_crop_runs, mask_of_polygons

CVAT, CVAT_LABELS = "cvat.xml", "cvat_labels.json"
_MOST_TRACKS = 2**31 - 1
# An object whose own mask is hidden by more than this share is called occluded.
_VISIBLE = 0.95
_COMMON: dict[str, Any] = {"mutable": False, "default_value": ""}
_ATTRIBUTES: tuple[dict[str, Any], ...] = (
    {
        "name": "track_id",
        "input_type": "number",
        **_COMMON,
        "default_value": "0",
        "values": ["0", str(_MOST_TRACKS), "1"],
    },
    {"name": "score", "input_type": "text", **_COMMON, "values": []},
)


def cvat_bytes(frames: Iterable[LabelledFrame], categories: Sequence[Category], style: MaskStyle) -> bytes:
    """The content of an XML file; each object has its track and its score as attributes."""
    root = ElementTree.Element("annotations")
    _child(root, "version", "1.1")
    images = [_image(number, frame, style) for number, frame in enumerate(frames)]
    task = _child(_child(root, "meta"), "task")
    for name, text in {"name": "labels", "size": str(len(images)), "mode": "annotation", "overlap": "0"}.items():
        _child(task, name, text)
    labels = _child(task, "labels")
    for each in categories:
        _label(labels, each.name)
    root.extend(images)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True)) + b"\n"


def cvat_labels(categories: Sequence[Category]) -> bytes:
    """What is to be pasted under "Raw" where CVAT asks for the labels of a new task."""
    content = [{"name": each.name, "type": "any", "attributes": _ATTRIBUTES} for each in categories]
    return json.dumps(content, indent=1).encode()


def read_cvat(data: bytes, path: Path) -> list[LabelledFrame]:
    """The labels of an XML file; objects that are neither mask, polygon nor box are left out.

    Args:
        data: the content.
        path: of the file, for messages.

    Raises:
        SourceError: it is no such file.
    """
    try:
        root = ElementTree.fromstring(data)
        if root.tag != "annotations":
            raise ValueError(f"its root is <{root.tag}>")
        if root.find("track") is not None:
            raise ValueError('it has <track>, as of "CVAT for video"; export the task as "CVAT for images 1.1"')
        return [_frame(each) for each in root.iter("image")]
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise SourceError(f'{path}: expected an XML file of "CVAT for images 1.1": {error}') from error


def _child(parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _label(labels: ElementTree.Element, name: str) -> None:
    label = _child(labels, "label")
    _child(label, "name", name)
    attributes = _child(label, "attributes")
    for each in _ATTRIBUTES:
        attribute = _child(attributes, "attribute")
        for key, value in each.items():
            _child(attribute, key, "\n".join(value) if isinstance(value, list) else str(value))


def _image(number: int, frame: LabelledFrame, style: MaskStyle) -> ElementTree.Element:
    size = {"width": str(frame.width), "height": str(frame.height)}
    image = ElementTree.Element("image", {"id": str(number), "name": frame.file_name, **size})
    for group, each in enumerate(frame.objects, 1):
        hidden = each.visible is not None and each.visible < _VISIBLE
        common = {"label": each.category, "source": "auto", "occluded": str(int(hidden)), "z_order": "0"}
        shapes = _shapes(each, style)
        # Only where it is needed: tools that duplicate a shape may keep its group, which would make them one object.
        together = {"group_id": str(group)} if len(shapes) > 1 else {}
        for tag, geometry in shapes:
            element = _child(image, tag, **common, **geometry, **together)
            _child(element, "attribute", str(each.track), name="track_id")
            _child(element, "attribute", "" if each.score is None else f"{each.score:.4f}", name="score")
    return image


def _shapes(each: LabelledObject, style: MaskStyle) -> list[tuple[str, dict[str, str]]]:
    mask = each.mask
    if each.shapeless:
        sides = {"xtl": mask.left, "ytl": mask.top, "xbr": mask.right, "ybr": mask.bottom}
        return [("box", {name: str(side) for name, side in sides.items()})]
    polygons = style.polygons(mask)
    if polygons is None:
        place = {"left": mask.left, "top": mask.top, "width": mask.right - mask.left, "height": mask.bottom - mask.top}
        runs = ", ".join(map(str, crop_runs(mask)))
        return [("mask", {"rle": runs, **{name: str(value) for name, value in place.items()}})]
    return [("polygon", {"points": ";".join(f"{x:.2f},{y:.2f}" for x, y in each)}) for each in polygons]


@dataclass(slots=True)
class _Parts:
    """What shapes of one object have shown so far."""

    category: str
    score: float | None
    track: int
    shapeless: bool = True
    polygons: list[NDArray[np.float64]] = field(default_factory=list)
    masks: list[CompactMask] = field(default_factory=list)

    def whole(self, size: tuple[int, int]) -> LabelledObject:
        mask = np.zeros(size, bool)
        for each in (*self.masks, mask_of_polygons(self.polygons, size)):
            mask |= each.full()
        return LabelledObject(self.category, CompactMask.of(mask), self.score, self.track, shapeless=self.shapeless)


def _frame(image: ElementTree.Element) -> LabelledFrame:
    size = (int(image.attrib["height"]), int(image.attrib["width"]))
    objects: dict[Any, _Parts] = {}
    for number, shape in enumerate(image):
        if shape.tag not in ("mask", "polygon", "box"):
            continue
        known = score_and_track({each.attrib["name"]: each.text or "" for each in shape.iter("attribute")})
        group = int(shape.attrib.get("group_id", 0))
        key = (group, shape.attrib["label"]) if group else number
        parts = objects.setdefault(key, _Parts(shape.attrib["label"], *known))
        if shape.tag == "polygon":
            parts.polygons.append(_points(shape.attrib["points"]))
        else:
            parts.masks.append(_mask(shape.attrib, size) if shape.tag == "mask" else _filled(shape.attrib, size))
        parts.shapeless = parts.shapeless and shape.tag == "box"
    return LabelledFrame(image.attrib["name"], size[1], size[0], tuple(each.whole(size) for each in objects.values()))


def _points(text: str) -> NDArray[np.float64]:
    return np.array([[float(value) for value in pair.split(",")] for pair in text.split(";")]).reshape(-1, 2)


def _mask(attributes: Mapping[str, str], size: tuple[int, int]) -> CompactMask:
    left, top, width, height = (int(attributes[name]) for name in ("left", "top", "width", "height"))
    return mask_of_crop_runs([int(each) for each in attributes["rle"].split(",")], (left, top, width, height), size)


def _filled(attributes: Mapping[str, str], size: tuple[int, int]) -> CompactMask:
    return mask_of_box([float(attributes[name]) for name in ("xtl", "ytl", "xbr", "ybr")], size)
