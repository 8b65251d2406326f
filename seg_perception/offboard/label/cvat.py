"""Labels as CVAT's XML, "CVAT for images 1.1" (https://docs.cvat.ai/docs/other/xml_format).

Polygons that share a `group_id` within an image are the parts of one object. The run lengths of a `mask` go along the
rows of its own rectangle and begin with outside.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import SourceError
from seg_perception.core.text import printable
from seg_perception.offboard.evaluation.omissions import Omissions
from seg_perception.offboard.metrics.compact import CompactMask
from seg_perception.offboard.metrics.segmentations import check_image_size, mask_of_polygons

from .records import MOST_TRACKS, Category, LabelledFrame, LabelledObject, MaskStyle, ReadLabels, score_and_track
from .shapes import crop_runs, ellipse, mask_of_crop_runs, turned, union

CVAT, CVAT_LABELS = "cvat.xml", "cvat_labels.json"
# Longest file; one of a hundred thousand images has a tenth of it.
MOST_BYTES = 1 << 30
_CHUNK = 1 << 16
# Elements of CVAT lie four deep.
_DEEPEST = 32
_READ = ("mask", "polygon", "box", "ellipse")
# Why other shapes are not read.
_UNREAD = {
    "polyline": "a line has no area",
    "points": "points have no area",
    "skeleton": "a skeleton has no area",
    "cuboid": "a cuboid is no region of the image",
    "tag": "it is of the whole image",
}
# An object whose own mask is hidden by more than this share is called occluded.
_VISIBLE = 0.95
_COMMON: dict[str, Any] = {"mutable": False, "default_value": ""}
_ATTRIBUTES: tuple[dict[str, Any], ...] = (
    {
        "name": "track_id",
        "input_type": "number",
        **_COMMON,
        "default_value": "0",
        "values": ["0", str(MOST_TRACKS), "1"],
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
    """Return what is to be pasted under "Raw" where CVAT asks for the labels of a new task."""
    content = [{"name": each.name, "type": "any", "attributes": _ATTRIBUTES} for each in categories]
    return json.dumps(content, indent=1).encode()


def read_cvat(stream: IO[bytes], path: Path) -> ReadLabels:
    """Read the labels of an XML file; what is no region of an image is left out and counted.

    Args:
        stream: the content.
        path: of the file, for messages.

    Raises:
        SourceError: it is no such file.
    """
    omitted = Omissions()
    try:
        return ReadLabels([_frame(image, omitted) for image in _image_elements(stream)], omitted)
    except (ElementTree.ParseError, expat.ExpatError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise SourceError(f'{path}: expected an XML file of "CVAT for images 1.1": {printable(error, 400)}') from error


def _image_elements(stream: IO[bytes]) -> Iterator[ElementTree.Element]:
    """The images of an XML file, one at a time, so that memory does not grow with the file."""
    # CVAT writes no document type; entities, which may grow without end or name files, need one.
    guard = expat.ParserCreate()
    guard.StartDoctypeDeclHandler = _refuse_doctype
    parser: Any = ElementTree.XMLPullParser(("start", "end"))
    parents: list[ElementTree.Element] = []
    size = 0
    for chunk in iter(partial(stream.read, _CHUNK), b""):
        size += len(chunk)
        if size > MOST_BYTES:
            raise ValueError(f"files of more than {MOST_BYTES >> 20} MiB are not supported here; export it in parts")
        guard.Parse(chunk, False)
        parser.feed(chunk)
        yield from _finished(parser.read_events(), parents)
    parser.close()
    yield from _finished(parser.read_events(), parents)


def _finished(
    events: Iterable[tuple[str, ElementTree.Element]], parents: list[ElementTree.Element]
) -> Iterator[ElementTree.Element]:
    """The images that are complete by now; what was given is forgotten. `parents` are the elements that are open."""
    for event, element in events:
        if event == "end":
            parents.pop()
            if len(parents) == 1:
                if element.tag == "image":
                    yield element
                parents[0].clear()
            continue
        if not parents and element.tag != "annotations":
            raise ValueError(f"its root is <{element.tag}>")
        if len(parents) == 1 and element.tag == "track":
            raise ValueError('it has <track>, as of "CVAT for video"; export the task as "CVAT for images 1.1"')
        parents.append(element)
        if len(parents) > _DEEPEST:
            raise ValueError(f"elements lie in one another more than {_DEEPEST} deep")


def _refuse_doctype(name: str, *_: object) -> None:
    raise ValueError(f"it has a document type, {name}, which CVAT does not write")


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
    boxes: list[NDArray[np.float64]] = field(default_factory=list)
    polygons: list[NDArray[np.float64]] = field(default_factory=list)
    masks: list[CompactMask] = field(default_factory=list)

    def whole(self, size: tuple[int, int]) -> LabelledObject:
        """Return the object that the shapes are parts of."""
        mask = union([*self.masks, mask_of_polygons([*self.boxes, *self.polygons], size)])
        shapeless = not self.polygons and not self.masks
        return LabelledObject(self.category, mask, self.score, self.track, shapeless=shapeless)


def _frame(image: ElementTree.Element, omitted: Omissions) -> LabelledFrame:
    name, size = printable(image.attrib["name"]), (int(image.attrib["height"]), int(image.attrib["width"]))
    check_image_size(*size)
    objects: dict[Any, _Parts] = {}
    for number, shape in enumerate(image):
        if shape.tag not in _READ:
            omitted.add(f"<{shape.tag}>: {_UNREAD.get(shape.tag, 'not known')}", name)
            continue
        label = printable(shape.attrib["label"])
        known = score_and_track({each.attrib["name"]: each.text or "" for each in shape.iter("attribute")})
        group = int(shape.attrib.get("group_id", 0))
        parts = objects.setdefault((group, label) if group else number, _Parts(label, *known))
        if shape.tag == "mask":
            parts.masks.append(_mask(shape.attrib, size))
        elif shape.tag == "box":
            parts.boxes.append(_corners(shape.attrib))
        else:
            parts.polygons.append(_ellipse(shape.attrib) if shape.tag == "ellipse" else _points(shape.attrib["points"]))
    return LabelledFrame(name, size[1], size[0], tuple(each.whole(size) for each in objects.values()))


def _points(text: str) -> NDArray[np.float64]:
    return np.array([[float(value) for value in pair.split(",")] for pair in text.split(";")]).reshape(-1, 2)


def _mask(attributes: Mapping[str, str], size: tuple[int, int]) -> CompactMask:
    left, top, width, height = (int(attributes[name]) for name in ("left", "top", "width", "height"))
    return mask_of_crop_runs([int(each) for each in attributes["rle"].split(",")], (left, top, width, height), size)


def _corners(attributes: Mapping[str, str]) -> NDArray[np.float64]:
    """The corners of a box, float64 `[4, 2]`, turned around its centre."""
    x1, y1, x2, y2 = _numbers(attributes, "xtl", "ytl", "xbr", "ybr")
    centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    (degrees,) = _numbers({"rotation": "0", **attributes}, "rotation")
    placed: NDArray[np.float64] = turned(corners - centre, degrees) + centre
    return placed


def _ellipse(attributes: Mapping[str, str]) -> NDArray[np.float64]:
    x, y, across, down, degrees = _numbers({"rotation": "0", **attributes}, "cx", "cy", "rx", "ry", "rotation")
    return ellipse((x, y), (across, down), degrees)


def _numbers(attributes: Mapping[str, str], *names: str) -> list[float]:
    values = [float(attributes[name]) for name in names]
    if not np.isfinite(values).all():
        raise ValueError(f"expected finite numbers as {', '.join(names)}, got {values}")
    return values
