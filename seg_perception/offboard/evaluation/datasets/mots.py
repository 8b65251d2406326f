"""MOTS: tracks of cars and pedestrians with masks, as images or as text.

The format is that of KITTI MOTS and MOTSChallenge (https://www.vision.rwth-aachen.de/page/mots). An object's number is
1000 times its class (1 car, 2 pedestrian) plus its track; 10000 is a region in which nothing is judged, 0 background.

- Images: `SEQUENCE/000000.png`, one channel of 16 bits, each pixel an object's number.
- Text: `SEQUENCE.txt`, or `SEQUENCE/gt/gt.txt`; a line is `frame id class height width rle`, the run lengths as COCO
  writes them.

The images of a camera are `SEQUENCE/*.png` or `.jpg`, or lie in `SEQUENCE/img1`; their names are frame numbers.
Trucks, buses and the like are not labelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from seg_perception.core.errors import SourceError
from seg_perception.core.text import printable
from seg_perception.offboard.data.images import IMAGE_SUFFIXES
from seg_perception.offboard.metrics.compact import CompactMask
from seg_perception.offboard.metrics.segmentations import decode_segmentation

from ..omissions import Omissions
from .labelled import LabelledSet, TruthBuilder, Watch, image_size, read_label_image, require_images

KIND = "MOTS"
_CATEGORIES = {1: 1, 2: 2}
_IGNORE = 10
_PER_CLASS = 1000
# The sets do not say; KITTI has this rate. It only sets how far tracks are expected to move.
_FRAMES_PER_SECOND = 10
# Of a line of labels, and of a frame number.
_WORDS, _DIGITS = 6, 9
# Largest number of an object, 16 bits as in the images.
_LARGEST = 0xFFFF


def recognises(path: Path) -> bool:
    """Return whether a folder has sequences in this format."""
    return path.is_dir() and bool(_texts(path, Omissions()) or _folders(path))


def read(path: Path, images: Path | None, watch: Watch) -> LabelledSet:
    """Read all sequences of a folder.

    Args:
        path: folder of the labels.
        images: folder of the images, one folder for each sequence.
        watch: shows how far it is.

    Raises:
        SourceError: a line cannot be understood, or none of the images is there.
    """
    folder = require_images(path, images)
    builder = TruthBuilder(["car", "person"])
    texts = _texts(path, builder.omitted, folder)
    for each in watch(list(texts.values()) or _folders(path)):
        name = next((name for name, file in texts.items() if file == each), each.name)
        image_paths = _images(folder / name)
        if not image_paths:
            builder.missing.append(f"{folder / name}/*")
        elif each.is_dir():
            _add_images(builder, name, each, image_paths)
        else:
            _add_text(builder, name, each, image_paths)
    labels = builder.labels(path)
    notes = ("MOTS labels cars and people alone: other classes of the models are not judged",)
    return LabelledSet(KIND, labels, labels.source(), notes, frozenset({"car", "person", "pedestrian"}))


def _texts(path: Path, omitted: Omissions, images: Path | None = None) -> dict[str, Path]:
    """Label files by sequence; of texts of another form is told where the folder of the images is known."""
    found = {}
    for file in sorted(each for each in path.glob("*.txt") if each.is_file()):
        words = _first_words(file)
        # A sequence in which nothing is labelled has an empty file; that it is a sequence its images say.
        if len(words) == _WORDS or (not words and images is not None and (images / file.stem).is_dir()):
            found[file.stem] = file
        elif images is not None:
            omitted.add("text file: it has no labels of a sequence", file.name)
    deep = {file.parent.parent.name: file for file in sorted(path.glob("*/gt/gt.txt")) if file.is_file()}
    return {**found, **deep}


def _first_words(file: Path) -> list[str]:
    """The words of the first line that has any."""
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        return next((line.split() for line in lines if line.strip()), [])


def _folders(path: Path) -> list[Path]:
    """Folders of label images: of one channel with 16 bits."""
    found = []
    for folder in sorted(each for each in path.iterdir() if each.is_dir()):
        try:
            first = next(iter(sorted(folder.glob("*.png"))), None)
            if first is not None and read_label_image(first, 1).dtype == np.uint16:
                found.append(folder)
        except SourceError:
            continue
    return found


def _images(folder: Path) -> dict[int, Path]:
    """Images of a sequence by frame number."""
    inner = folder / "img1"
    files = sorted((inner if inner.is_dir() else folder).glob("*"))
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    return {int(file.stem): file for file in images if file.stem.isdecimal() and len(file.stem) <= _DIGITS}


def _stamp(frame: int) -> int:
    return frame * 1_000_000_000 // _FRAMES_PER_SECOND


def _add_images(builder: TruthBuilder, name: str, folder: Path, image_paths: dict[int, Path]) -> None:
    for file in sorted(folder.glob("*.png")):
        if not file.stem.isdecimal() or len(file.stem) > _DIGITS:
            builder.omitted.add("label file: its name is no frame number", file)
            continue
        try:
            values = read_label_image(file, 1)
        except SourceError as error:
            builder.omitted.add("label file: it cannot be read", error)
            continue
        image_path = image_paths.get(int(file.stem))
        if image_path is None:
            builder.missing.append(f"{name}/{file.name}")
            continue
        height, width = values.shape
        image = builder.add_image(image_path, width, height, sequence=name, stamp_ns=_stamp(int(file.stem)))
        for number in np.unique(values[values > 0]).tolist():
            _add(builder, image, number, number // _PER_CLASS, CompactMask.of(values == number), file)


def _add_text(builder: TruthBuilder, name: str, file: Path, image_paths: dict[int, Path]) -> None:
    by_frame: dict[int, list[tuple[int, int, CompactMask]]] = {}
    for frame, number, label, mask in _lines(file):
        by_frame.setdefault(frame, []).append((number, label, mask))
    # A frame in which there is nothing has no line; all images of a sequence are of one size.
    if by_frame:
        height, width = next(iter(by_frame.values()))[0][2].size
    else:
        height, width = image_size(next(iter(image_paths.values())))
    builder.missing += [f"{name}/{frame:06d}" for frame in by_frame if frame not in image_paths]
    for frame, image_path in sorted(image_paths.items()):
        image = builder.add_image(image_path, width, height, sequence=name, stamp_ns=_stamp(frame))
        for number, label, mask in by_frame.get(frame, []):
            _add(builder, image, number, label, mask, file)


def _lines(file: Path) -> Iterator[tuple[int, int, int, CompactMask]]:
    """Frame, object, class and mask of each line."""
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        for place, line in enumerate(lines, 1):
            words = line.split()
            if not words:
                continue
            try:
                frame, number, label, height, width = map(int, words[: _WORDS - 1])
                if not 0 < number <= _LARGEST or not 0 <= frame < 10**_DIGITS:
                    raise ValueError(f"frame {frame} or object {number} is out of range")
                runs = {"size": [height, width], "counts": words[_WORDS - 1]}
                yield frame, number, label, decode_segmentation(runs, height, width)
            except (ValueError, IndexError) as error:
                raise SourceError(
                    f"{file}, line {place}: expected `frame id class height width rle`, got "
                    f"{printable(repr(line[:60]))}: {printable(error)}"
                ) from error


def _add(builder: TruthBuilder, image: int, number: int, label: int, mask: CompactMask, file: Path) -> None:
    if label == _IGNORE:
        builder.add_void(image, mask)
    elif label in _CATEGORIES:
        builder.add(image, _CATEGORIES[label], mask, track_id=number)
    else:
        builder.omitted.add(f"object: class {label} is not known, expected 1, 2 or 10", file)
