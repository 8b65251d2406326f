"""The one form that every labelled data set is turned into, and how one is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.encodings.compressed import decode_pixels, read_header
from seg_perception.core.errors import FrameError, SourceError
from seg_perception.offboard.data.base import FrameSource
from seg_perception.offboard.data.images import read_image
from seg_perception.offboard.metrics.compact import CompactMask
from seg_perception.offboard.metrics.segmentations import encode_compact, mask_of_box

from ..coco import CocoSet, LabelledImage
from ..omissions import Omissions

# Shows how far a reader is: takes what it goes through, and gives it again.
Watch = Callable[[Sequence[Path]], Iterable[Path]]


@dataclass(frozen=True, slots=True)
class StuffMap:
    """What of an image belongs to no object.

    Attributes:
        labels: uint8 `[H, W]`, index into the set's `stuff_names`, or `NO_STUFF`; pixels of objects may have any value.
        void: bool `[H, W]`, pixels of no known class.
    """

    labels: NDArray[np.uint8]
    void: NDArray[np.bool_]


NO_STUFF = 255


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Images with ground truth, whatever format it came in.

    The truth is in COCO's form. Next to COCO's own fields an annotation may have `track_id`, `occlusion` (0-1, hidden
    share), `occluded`, `truncated`, `distance` (metres), and `void` (a crowd that stands for pixels of no known class,
    once for each category); an image may have `stamp_ns`, `sequence`, `weather`, `timeofday` and `scene`.

    Attributes:
        kind: the format, human-readable.
        labels: the truth.
        source: the images, each under its image number as name, sequence after sequence in the order of time.
        notes: what is to be known of it.
        labelled_names: the classes whose objects are labelled, where a road group has others that are not; None where
            all of a group are.
        stuff_names: classes of `stuff`.
        stuff: what of an image belongs to no object, by image number; None for sets that do not say.
    """

    kind: str
    labels: CocoSet
    source: FrameSource
    notes: tuple[str, ...] = ()
    labelled_names: frozenset[str] | None = None
    stuff_names: tuple[str, ...] = ()
    stuff: Callable[[int], StuffMap] | None = None

    @property
    def images(self) -> Mapping[int, Mapping[str, Any]]:
        """The labels of each image, by its number."""
        return {int(image["id"]): image for image in self.labels.annotations["images"]}

    def sequence_of(self) -> dict[int, str]:
        """The sequence of each image by its number; nothing for sets of single images."""
        tracked = any("track_id" in each for each in self.labels.annotations["annotations"])
        images = self.images
        if not tracked or not all("stamp_ns" in image for image in images.values()):
            return {}
        return {number: str(image.get("sequence", image.get("scene", ""))) for number, image in images.items()}


class Reader(Protocol):
    """A module that reads one format."""

    KIND: str

    def recognises(self, path: Path) -> bool:
        """Return whether a path looks like this format."""

    def read(self, path: Path, images: Path | None, watch: Watch) -> LabelledSet:
        """Read it; `images` is the folder of the images."""


@dataclass(slots=True)
class TruthBuilder:
    """Collects the truth of images in COCO's form.

    Attributes:
        categories: names, numbered from 1 in this order.
        missing: names of images that are not there.
        omitted: what is left out, and why.
    """

    categories: Sequence[str]
    missing: list[str] = field(default_factory=list)
    omitted: Omissions = field(default_factory=Omissions)
    _images: list[dict[str, Any]] = field(default_factory=list)
    _annotations: list[dict[str, Any]] = field(default_factory=list)
    _files: list[LabelledImage] = field(default_factory=list)

    def add_image(self, path: Path, width: int, height: int, *, stamp_ns: int | None = None, **facts: object) -> int:
        """Add an image; returns its number."""
        number = len(self._images) + 1
        known = {name: value for name, value in {**facts, "stamp_ns": stamp_ns}.items() if value is not None}
        entry = {"id": number, "file_name": path.name, "width": width, "height": height, **known}
        self._images.append(entry)
        self._files.append(LabelledImage(number, path, width, height, stamp_ns or 0))
        return number

    def add(self, image: int, category: int, mask: CompactMask, *, crowd: bool = False, **facts: object) -> None:
        """Add an object of an image; `category` is a number. What has no pixel is left out and counted."""
        if mask.area:
            self._add(image, category, mask, encode_compact(mask), crowd, facts)
        else:
            self.omitted.add("object: it holds no pixel of the image", self._images[image - 1]["file_name"])

    def add_box(self, image: int, category: int, sides: Sequence[float], crowd: bool, **facts: object) -> None:
        """Add an object of which only the box is known: x1 y1 x2 y2 in pixels."""
        entry = self._images[image - 1]
        mask = mask_of_box(sides, (entry["height"], entry["width"]))
        if mask.area:
            self._add(image, category, mask, [], crowd, facts)
        else:
            self.omitted.add("object: its box lies outside of the image", entry["file_name"])

    def _add(
        self, image: int, category: int, mask: CompactMask, runs: object, crowd: bool, facts: Mapping[str, object]
    ) -> None:
        known = {name: value for name, value in facts.items() if value is not None}
        box = facts.get("bbox") or [mask.left, mask.top, mask.right - mask.left, mask.bottom - mask.top]
        self._annotations.append(
            {
                "id": len(self._annotations) + 1,
                "image_id": image,
                "category_id": category,
                "iscrowd": int(crowd),
                "area": mask.area,
                **known,
                "bbox": box,
                "segmentation": runs,
            }
        )

    def add_void(self, image: int, mask: CompactMask) -> None:
        """Add a region in which nothing is judged."""
        runs = encode_compact(mask)
        for category in range(1, len(self.categories) + 1 if mask.area else 1):
            self._add(image, category, mask, runs, True, {"void": True})

    def labels(self, path: Path) -> CocoSet:
        """The truth of all images.

        Raises:
            SourceError: there is not a single image.
        """
        if not self._images:
            reasons = [*(f"{name} is missing" for name in self.missing[:3]), *self.omitted.lines()[:3]]
            raise SourceError(
                f"{path}: expected images with ground truth, got none: {'; '.join(reasons) or 'it is empty'}; "
                "name the folder of the images with --images"
            )
        categories = [{"id": number, "name": name} for number, name in enumerate(self.categories, 1)]
        content = {"images": self._images, "annotations": self._annotations, "categories": categories}
        return CocoSet(path, content, tuple(self._files), tuple(self.missing), self.omitted.lines())


def read_label_image(path: Path, channels: int) -> NDArray[Any]:
    """Return the pixels of a PNG of labels, unchanged: `[H, W]` of one channel, else `[H, W, channels]`.

    Raises:
        SourceError: it is no such file, or damaged.
    """
    expected = "a PNG of one channel" if channels == 1 else f"a PNG of {channels} channels"
    try:
        if not path.is_file():
            raise SourceError(f"{path}: expected {expected}, this is no regular file")
        values, _ = decode_pixels(path.read_bytes(), cv2.IMREAD_UNCHANGED, remedy="copy it again")
    except (OSError, FrameError) as error:
        raise SourceError(f"{path}: expected {expected}: {error}") from error
    if (1 if values.ndim == 2 else values.shape[2]) != channels:
        raise SourceError(f"{path}: expected {expected}; it is damaged or another image")
    return values


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width of an image file, for labels that do not state them.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        header = read_header(memoryview(path.read_bytes()), "the file is damaged")
        return header.height, header.width
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    except FrameError:
        # No JPEG or PNG, or a damaged one: the reader of images knows more formats, and says what is wrong.
        frame = read_image(path)
        return frame.height, frame.width


def files_below(folder: Path, pattern: str) -> list[Path]:
    """Return the regular files below a folder whose names match, sorted."""
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


def require_images(path: Path, images: Path | None) -> Path:
    """The folder of the images of a set that does not say where they are.

    Raises:
        SourceError: none was given, or it is no folder.
    """
    if images is None:
        raise SourceError(f"{path}: holds labels without their images; name the folder of these with --images")
    if not images.is_dir():
        raise SourceError(f"--images {images}: expected the folder of the images, there is no such folder")
    return images
