"""BDD100K instance segmentation and segmentation tracking, as bitmasks or as JSON with polygons.

The format is described at https://doc.bdd100k.com/format.html.

- Bitmasks: `NAME.png`, or `VIDEO/VIDEO-0000001.png` of tracks, with four channels: R the category from 1 (0 is
  background), G the attributes `truncated << 3 | occluded << 2 | crowd << 1 | ignore`, B and A the object's number
  `B << 8 | A`.
- JSON: a list of frames, or an object with `frames`. A frame has `name`, `attributes` (weather, scene, timeofday) and
  `labels`; a label has `category`, `attributes`, and its shape in one or more of these forms, of which the first is
  used: `rle`, run lengths as COCO writes them; `poly2d`, outlines with `vertices`, and `types` of one letter each, L
  for a corner and C for a control point of a cubic Bezier curve; `box2d`, a box without a mask: x1, y1, x2, y2.

Names are those of 2020, or those of 2018 that stand for them. Traffic lights and signs are labelled, with boxes, in the
files for detection alone.

Objects marked crowd or ignore are neither to be found nor wrong when found. The images are `NAME.jpg`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import SourceError
from seg_perception.core.text import printable
from seg_perception.offboard.metrics.compact import CompactMask
from seg_perception.offboard.metrics.segmentations import decode_segmentation

from ..coco import read_json
from .labelled import LabelledSet, TruthBuilder, Watch, files_below, image_size, read_label_image, require_images

KIND = "BDD100K"
CATEGORIES = ("pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
# Labelled in the files for detection alone.
_DETECTED = ("traffic light", "traffic sign")
# Names of 2018, and of finer classes, by what they are called since.
_ALIASES = {"person": "pedestrian", "bike": "bicycle", "motor": "motorcycle", "van": "car", "caravan": "car"}
# What is neither to be found nor wrong when it is found as what it resembles.
_IGNORED = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}
_TRUNCATED, _OCCLUDED, _CROWD, _IGNORE = 8, 4, 2, 1
_FRAMES_PER_SECOND = 5
# Straight lines that stand for a curve between two corners.
_STEPS = 8
_HEAD = 4096
_CHANNELS = 4
_SIDES = ("x1", "y1", "x2", "y2")


def recognises(path: Path) -> bool:
    """Return whether a path is a file of frames, or a folder of images with four channels."""
    if path.is_file() and path.suffix.lower() == ".json":
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            head = file.read(_HEAD).lstrip()
        return head.startswith("[") or '"frames"' in head
    first = next(iter(files_below(path, "*.png")), None) if path.is_dir() else None
    if first is None:
        return False
    try:
        read_label_image(first, _CHANNELS)
    except SourceError:
        return False
    return True


def read(path: Path, images: Path | None, watch: Watch) -> LabelledSet:
    """Read a split.

    Args:
        path: folder of bitmasks, or a JSON file.
        images: folder of the images.
        watch: shows how far it is.

    Raises:
        SourceError: it has another form, or none of the images is there.
    """
    folder = require_images(path, images)
    image_paths = {file.stem: file for file in files_below(folder, "*.jpg")}
    image_paths |= {file.stem: file for file in files_below(folder, "*.png") if file.stem not in image_paths}
    if path.is_dir():
        builder = TruthBuilder(CATEGORIES)
        for file in watch(files_below(path, "*.png")):
            _add_bitmask(builder, file, image_paths, "" if file.parent == path else file.parent.name)
    else:
        frames = _frames(path)
        named = {label.get("category") for frame in frames for label in _labels(path, frame)}
        # What a file does not label must not be judged.
        builder = TruthBuilder((*CATEGORIES, *(name for name in _DETECTED if name in named)))
        for frame in frames:
            _add_frame(builder, path, frame, image_paths)
    labels = builder.labels(path)
    return LabelledSet(KIND, labels, labels.source())


def _add_bitmask(builder: TruthBuilder, file: Path, image_paths: Mapping[str, Path], sequence: str) -> None:
    if file.stem not in image_paths:
        builder.missing.append(file.stem)
        return
    try:
        values = read_label_image(file, _CHANNELS)
    except SourceError as error:
        builder.omitted.add("label file: it cannot be read", error)
        return
    height, width = values.shape[:2]
    stamp_ns = _stamp(file.stem) if sequence else None
    image = builder.add_image(image_paths[file.stem], width, height, stamp_ns=stamp_ns, sequence=sequence or None)
    # OpenCV has the channels in the order B, G, R, A.
    pixels = values.astype(np.uint32)
    numbers = pixels[..., 0] << 8 | pixels[..., 3]
    category, attributes = pixels[..., 2], pixels[..., 1]
    code = category << 16 | numbers
    for each in np.unique(code[category > 0]).tolist():
        region = code == each
        bits = int(attributes[region][0])
        if each >> 16 > len(CATEGORIES):
            builder.omitted.add(f"object: category number {each >> 16} is not known", file.name)
            continue
        builder.add(
            image, each >> 16, CompactMask.of(region), crowd=bool(bits & (_CROWD | _IGNORE)),
            track_id=each & 0xFFFF if sequence else None, occluded=bool(bits & _OCCLUDED),
            truncated=bool(bits & _TRUNCATED),
        )  # fmt: skip


def _stamp(name: str) -> int:
    """Frames of a video are numbered at the end of their names."""
    number = name.rpartition("-")[2]
    return (int(number) if number.isdecimal() else 0) * 1_000_000_000 // _FRAMES_PER_SECOND


def _frames(path: Path) -> Sequence[Mapping[str, Any]]:
    content = read_json(path, "a JSON file of BDD100K")
    frames = content.get("frames") if isinstance(content, dict) else content
    if not isinstance(frames, list) or not all(isinstance(each, dict) and "name" in each for each in frames):
        raise SourceError(f"{path}: expected a list of frames, or an object with `frames`, each with a `name`")
    return frames


def _labels(path: Path, frame: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The labels of a frame; absent and `null` are none."""
    labels = frame.get("labels") or []
    if not isinstance(labels, list) or not all(isinstance(each, dict) for each in labels):
        raise SourceError(
            f"{path}: frame {printable(frame['name'])}: expected `labels` as a list of objects, got {labels!r:.60}"
        )
    return labels


def _add_frame(builder: TruthBuilder, path: Path, frame: Mapping[str, Any], image_paths: Mapping[str, Path]) -> None:
    name = printable(frame["name"])
    image_path = image_paths.get(PureWindowsPath(name).stem)
    if image_path is None:
        builder.missing.append(name)
        return
    try:
        height, width = image_size(image_path)
    except SourceError as error:
        builder.omitted.add("image: it cannot be read", error)
        return
    attributes = frame.get("attributes")
    stated = attributes if isinstance(attributes, dict) else {}
    facts = {key: stated.get(key) for key in ("weather", "timeofday", "scene")}
    known: dict[str, Any] = {
        key: printable(value) for key, value in facts.items() if isinstance(value, str) and value != "undefined"
    }
    image = builder.add_image(image_path, width, height, **known)
    for label in _labels(path, frame):
        try:
            _add_label(builder, image, (height, width), label, name)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise SourceError(f"{path}: frame {name}: a label cannot be understood: {printable(error)}") from error


def _add_label(builder: TruthBuilder, image: int, size: tuple[int, int], label: Mapping[str, Any], frame: str) -> None:
    name = str(label.get("category"))
    category = _IGNORED.get(name) or _ALIASES.get(name, name)
    if category not in builder.categories:
        builder.omitted.add(f"object: {printable(name, 40)} is none of the categories of BDD100K's objects", frame)
        return
    marks = label.get("attributes") or {}
    ignored = name in _IGNORED or any(marks.get(each) for each in ("crowd", "ignore", "ignored"))
    number = builder.categories.index(category) + 1
    facts = {"occluded": marks.get("occluded"), "truncated": marks.get("truncated")}
    if label.get("rle"):
        builder.add(image, number, decode_segmentation(label["rle"], *size), crowd=ignored, **facts)
    elif label.get("poly2d"):
        outlines = [outline(each["vertices"], each.get("types") or "") for each in label["poly2d"]]
        mask = decode_segmentation([each.ravel().tolist() for each in outlines], *size)
        builder.add(image, number, mask, crowd=ignored, **facts)
    elif label.get("box2d"):
        builder.add_box(image, number, [float(label["box2d"][side]) for side in _SIDES], ignored, **facts)
    else:
        builder.omitted.add("object: it has neither `rle` nor `poly2d` nor `box2d`", frame)


def outline(vertices: Sequence[Sequence[float]], types: str) -> NDArray[np.float64]:
    """The corners of a closed outline, float64 `[N, 2]`, curves in short straight lines.

    Args:
        vertices: x and y in pixels.
        types: a letter for each, L or C; empty where all are corners. After two control points comes where their curve
            ends, whatever its letter; the last curve may end where the outline begins.
    """
    points = np.asarray(vertices, np.float64).reshape(-1, 2)
    letters = types or "L" * len(points)
    found: list[NDArray[np.float64]] = []
    place = 0
    while place < len(points):
        if letters[place] == "C" and found and place + 1 < len(points):
            end = points[place + 2] if place + 2 < len(points) else points[0]
            found += _curve(found[-1], points[place], points[place + 1], end)
            place += 3
        else:
            found.append(points[place])
            place += 1
    return np.array(found).reshape(-1, 2)


def _curve(
    begin: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64], end: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Points of a cubic Bezier curve after its beginning."""
    steps = np.arange(1, _STEPS + 1)[:, None] / _STEPS
    rest = 1 - steps
    points = rest**3 * begin + 3 * rest**2 * steps * first + 3 * rest * steps**2 * second + steps**3 * end
    return list(points)
