"""BDD100K instance segmentation and segmentation tracking, as bitmasks or as JSON with polygons.

The format is described at https://doc.bdd100k.com/format.html.

- Bitmasks: `NAME.png`, or `VIDEO/VIDEO-0000001.png` of tracks, with four channels: R the category from 1 (0 is
  background), G the attributes `truncated << 3 | occluded << 2 | crowd << 1 | ignore`, B and A the object's number
  `B << 8 | A`.
- JSON: a list of frames, or an object with `frames`. A frame has `name`, `attributes` (weather, scene, timeofday) and
  `labels`; a label has `category`, `attributes` and `poly2d`: outlines with `vertices`, and `types` of one letter each,
  L for a corner and C for a control point of a cubic Bezier curve.

Objects marked crowd or ignore are neither to be found nor wrong when found. The pictures are `NAME.jpg`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FrameError, SourceError
from ...metrics.compact import CompactMask
from ...metrics.segmentations import decode_segmentation
from ...sources.compressed import read_header, stored_pixels
from .labelled import LabelledSet, TruthBuilder, Watch, require_images

KIND = "BDD100K"
CATEGORIES = ("pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
_TRUNCATED, _OCCLUDED, _CROWD, _IGNORE = 8, 4, 2, 1
_FRAMES_PER_SECOND = 5
# Straight lines that stand for a curve between two corners.
_STEPS = 8
_HEAD = 4096


def recognises(path: Path) -> bool:
    """Whether a path is a file of frames, or a folder of pictures with four channels."""
    if path.is_file() and path.suffix.lower() == ".json":
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(_HEAD).lstrip()
        return head.startswith("[") or '"frames"' in head
    first = next(iter(sorted(path.rglob("*.png"))), None) if path.is_dir() else None
    values = None if first is None else stored_pixels(first)
    return values is not None and values.ndim == 3 and values.shape[2] == 4


def read(path: Path, images: Path | None, watch: Watch) -> LabelledSet:
    """Read a split.

    Args:
        path: folder of bitmasks, or a JSON file.
        images: folder of the pictures.
        watch: shows how far it is.

    Raises:
        SourceError: it has another form, or none of the pictures is there.
    """
    folder = require_images(path, images)
    pictures = {file.stem: file for file in folder.rglob("*.jpg")}
    pictures |= {file.stem: file for file in folder.rglob("*.png") if file.stem not in pictures}
    builder = TruthBuilder(CATEGORIES)
    if path.is_dir():
        for file in watch(sorted(path.rglob("*.png"))):
            _add_bitmask(builder, file, pictures, "" if file.parent == path else file.parent.name)
    else:
        for frame in _frames(path):
            _add_frame(builder, path, frame, pictures)
    labels = builder.labels(path)
    return LabelledSet(KIND, labels, labels.source(), tuple(builder.notes))


def _add_bitmask(builder: TruthBuilder, file: Path, pictures: Mapping[str, Path], sequence: str) -> None:
    values = stored_pixels(file)
    if values is None or values.ndim != 3 or values.shape[2] != 4:
        builder.notes.append(f"{file}: expected a PNG with four channels; it is damaged or another picture")
        return
    if file.stem not in pictures:
        builder.missing.append(file.stem)
        return
    height, width = values.shape[:2]
    stamp_ns = _stamp(file.stem) if sequence else None
    image = builder.add_image(pictures[file.stem], width, height, stamp_ns=stamp_ns, sequence=sequence or None)
    # OpenCV has the channels in the order B, G, R, A.
    pixels = values.astype(np.uint32)
    numbers = pixels[..., 0] << 8 | pixels[..., 3]
    category, attributes = pixels[..., 2], pixels[..., 1]
    code = category << 16 | numbers
    for each in np.unique(code[category > 0]).tolist():
        region = code == each
        bits = int(attributes[region][0])
        if each >> 16 <= len(CATEGORIES):
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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: expected a JSON file of BDD100K: {error}") from error
    frames = content.get("frames") if isinstance(content, dict) else content
    if not isinstance(frames, list) or not all(isinstance(each, dict) and "name" in each for each in frames):
        raise SourceError(f"{path}: expected a list of frames, or an object with `frames`, each with a `name`")
    return frames


def _add_frame(builder: TruthBuilder, path: Path, frame: Mapping[str, Any], pictures: Mapping[str, Path]) -> None:
    name = str(frame["name"])
    picture = pictures.get(Path(name).stem)
    if picture is None:
        builder.missing.append(name)
        return
    try:
        size = _size(picture)
    except SourceError as error:
        builder.notes.append(str(error))
        return
    attributes = frame.get("attributes") or {}
    facts = {key: attributes.get(key) for key in ("weather", "timeofday", "scene")}
    facts = {key: None if value == "undefined" else value for key, value in facts.items()}
    image = builder.add_image(picture, size[0], size[1], **facts)
    for label in frame.get("labels") or []:
        if label.get("category") not in CATEGORIES or not label.get("poly2d"):
            continue
        marks = label.get("attributes") or {}
        try:
            outlines = [outline(each["vertices"], each.get("types", "")) for each in label["poly2d"]]
            mask = decode_segmentation([each.ravel().tolist() for each in outlines], size[1], size[0])
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"{path}: frame {name}: a `poly2d` cannot be understood: {error}") from error
        builder.add(
            image, CATEGORIES.index(label["category"]) + 1, mask,
            crowd=any(marks.get(each) for each in ("crowd", "ignore", "ignored")),
            occluded=marks.get("occluded"), truncated=marks.get("truncated"),
        )  # fmt: skip


def _size(picture: Path) -> tuple[int, int]:
    """Width and height of a picture; JSON frames do not state them.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        header = read_header(memoryview(picture.read_bytes()), "the file is damaged")
    except (OSError, FrameError) as error:
        raise SourceError(f"{picture}: {error}") from error
    return header.width, header.height


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
