"""Labelled images: a COCO annotation file and the folder of its images."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.class_tables import category_groups
from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS, name_key
from seg_perception.core.encodings.bit_depth import AUTO, BitDepth
from seg_perception.core.errors import ConfigurationError, SourceError
from seg_perception.core.files import inside
from seg_perception.core.frame import Frame
from seg_perception.core.text import printable
from seg_perception.offboard.data.base import FrameSource, WarningCounts
from seg_perception.offboard.data.images import read_image
from seg_perception.offboard.metrics.segmentations import check_image_size, checked_segmentation, has_mask

from .omissions import Omissions

# The road groups as COCO's categories, whose numbers begin with 1.
CATEGORIES = [{"id": number, "name": group} for number, group in enumerate(ROAD_GROUPS, 1)]
_KEYS = ("images", "annotations", "categories")
# Largest number that any field can have; it fits into 64 bits.
_LARGEST = 1 << 62
# Texts of images that reports and tables show.
_SHOWN = ("weather", "timeofday", "scene", "sequence")
# What is used if it is stated; `null` states nothing.
_STATED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {"stamp_ns": int},
    "annotations": {
        "area": (int, float), "iscrowd": int, "track_id": int, "occlusion": (int, float), "occluded": (int, float),
        "distance": (int, float),
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image of a labelled set.

    Attributes:
        image_id: its number in the annotation file.
        path: its file.
        width, height: what the annotation file says, in pixels.
        stamp_ns: when it was taken, if that is known.
    """

    image_id: int
    path: Path
    width: int
    height: int
    stamp_ns: int = 0


@dataclass(frozen=True, slots=True)
class CocoSet:
    """Images with ground truth.

    Attributes:
        path: the annotation file.
        annotations: its content.
        images: those whose files are there, in the order of the annotation file.
        missing: file names of the others.
        omitted: what the reader left out and why, in words.
    """

    path: Path
    annotations: Mapping[str, Any]
    images: tuple[LabelledImage, ...]
    missing: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path, folder: Path | None = None) -> CocoSet:
        """Read an annotation file and look for its images.

        Args:
            path: the annotation file (`instances_val2017.json` or the like).
            folder: of the images; by default `images` next to the file or, if none of them is there, the file's own.

        Raises:
            SourceError: the file cannot be read or has another form, or none of its images is there.
        """
        content, omitted = read_annotations(path)
        broken = checked_annotations(path, content)
        for reason in broken.values():
            omitted.add("image: its size or an annotation of it cannot be used", reason)
        if broken and len(broken) == len(content["images"]):
            raise SourceError(next(iter(broken.values())))
        for key, field in (("images", "id"), ("annotations", "image_id")):
            content[key] = [each for each in content[key] if each[field] not in broken]
        folders = [folder] if folder is not None else [path.parent / "images", path.parent]
        names = [str(image["file_name"]) for image in content["images"]]
        refused = Omissions()
        for forms in _name_forms(names):
            for each in folders:
                refused = Omissions()
                files = [_file(each, name, refused) for name in forms]
                if not any(files):
                    continue
                images = tuple(
                    LabelledImage(image["id"], file, image["width"], image["height"], int(image.get("stamp_ns", 0)))
                    for image, file in zip(content["images"], files, strict=True)
                    if file is not None
                )
                missing = tuple(name for name, file in zip(names, files, strict=True) if file is None)
                omitted.update(refused)
                return cls(path, content, images, missing, omitted.lines())
        raise SourceError(
            f"{path}: lists {len(names)} images such as {printable(names[0]) if names else '-'}, none of which is in "
            f"{' or '.join(map(str, folders))}; name the folder of the images"
            + "".join(f"; {line}" for line in refused.lines())
        )

    @property
    def without_mask(self) -> int:
        """Return the number of objects, in images that are there, that have a box alone; crowds do not count."""
        own = set(self.image_ids)
        return sum(
            not has_mask(each) and not each.get("iscrowd")
            for each in self.annotations["annotations"]
            if each["image_id"] in own
        )

    def left_out(self) -> tuple[str, ...]:
        """Return what the reader left out, and how many objects mask metrics do not judge, in words."""
        boxes = self.without_mask
        words = f"{boxes} objects have a box but no mask: mask metrics ignore them, box metrics use them"
        return (*self.omitted, *([words] if boxes else []))

    @property
    def image_ids(self) -> tuple[int, ...]:
        """Numbers of the images that are there."""
        return tuple(image.image_id for image in self.images)

    def only(self, image_ids: Collection[int]) -> CocoSet:
        """The same set with some of its images."""
        chosen = set(image_ids)
        return replace(self, images=tuple(image for image in self.images if image.image_id in chosen), missing=())

    def source(self) -> FrameSource:
        """The images, each under its number as name."""
        return _Images(self)

    def matching(self, class_names: Sequence[str]) -> CocoSet:
        """The set as it fits a model: by road groups, if these are the model's classes, as the default model's are."""
        groups = {name_key(group) for group in ROAD_GROUPS}
        return self.by_group() if {name_key(name) for name in class_names} == groups else self

    def by_group(self) -> CocoSet:
        """The same images with the road groups as categories (`CATEGORIES`); what belongs to none is left out.

        Raises:
            ClassTableError: no class table of the package knows any of the set's categories.
        """
        group_of = category_groups(self.annotations["categories"])
        annotations = [
            {**each, "category_id": group_of[each["category_id"]] + 1}
            for each in self.annotations["annotations"]
            if group_of[each["category_id"]] != NO_GROUP
        ]
        return replace(self, annotations={**self.annotations, "categories": CATEGORIES, "annotations": annotations})

    def categories(self, class_names: Sequence[str]) -> NDArray[np.int64]:
        """The number that the set gives to each of a model's classes, int64 `[C]`; -1 for those that it lacks.

        Raises:
            SourceError: it has none of them.
        """
        known = {name_key(str(each["name"])): int(each["id"]) for each in self.annotations["categories"]}
        numbers = np.array([known.get(name_key(name), -1) for name in class_names], np.int64)
        if (numbers < 0).all():
            raise SourceError(
                f"{self.path}: expected a category for at least one of the model's classes "
                f"({', '.join(class_names[:8])}, ...), got only {', '.join(map(repr, list(known)[:8]))}"
            )
        return numbers


def is_annotation_file(path: Path) -> bool:
    """Return whether a path is meant as a COCO annotation file, by its suffix."""
    return path.suffix.lower() == ".json"


class _Images(FrameSource):
    """The images of a set; those that cannot be read, or are of another size than the set says, are failures."""

    def __init__(self, labelled: CocoSet) -> None:
        super().__init__()
        self._set = labelled

    def chosen(self, names: Collection[str]) -> Iterator[tuple[str, Frame]]:
        """Yield the images of these numbers; the others are read only where the bit depth follows from them."""
        if self.bit_depth == AUTO:
            return super().chosen(names)
        some = _Images(self._set.only([int(name) for name in names]))
        some.bit_depth = self.bit_depth
        return iter(some)

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        self.failures, self.warnings = [], WarningCounts()
        depth = BitDepth(self.bit_depth)
        for image in self._set.images:
            try:
                frame = read_image(image.path, depth=depth, labelled_size=(image.width, image.height))
            except SourceError as error:
                self.failures.append(error)
                continue
            if (frame.width, frame.height) == (image.width, image.height):
                self.warnings.add(str(image.path), frame)
                yield str(image.image_id), replace(frame, stamp_ns=image.stamp_ns)
            else:
                remedy = "the annotations are of another image"
                if (frame.width, frame.height) == (image.height, image.width):
                    remedy = (
                        "the sides are exchanged, as by an EXIF orientation that the labelling tool did not apply: "
                        "store the images turned, without the orientation, and label these"
                    )
                self.failures.append(
                    SourceError(
                        f"{image.path}: {self._set.path.name} says {image.width} x {image.height} pixels, the file has "
                        f"{frame.width} x {frame.height}; {remedy}"
                    )
                )
        for hint in depth.at_end():
            self.warnings.add_warning(str(self._set.images[-1].path), hint)

    def __len__(self) -> int:
        return len(self._set.images)


def read_json(path: Path, what: str) -> Any:
    """Return the content of a JSON file, in UTF-8, 16 or 32, with or without a byte order mark.

    Args:
        path: of the file.
        what: that is expected, for messages.

    Raises:
        SourceError: it cannot be read, or is no JSON.
    """
    try:
        if not path.is_file():
            kind = "is no regular file" if path.exists() else "does not exist"
            raise SourceError(f"{path}: {kind}; expected {what}")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: expected {what}, this is not JSON: {printable(error)}") from error


def read_annotations(path: Path) -> tuple[dict[str, Any], Omissions]:
    """Return the content of an annotation file with the keys and fields that are used, and what is left out of it.

    Segmentations are as they stand in the file; see `checked_annotations`.

    Raises:
        SourceError: it cannot be read, or has another form.
    """
    return annotations_of(path, read_json(path, "a COCO annotation file"))


def annotations_of(path: Path, content: Any) -> tuple[dict[str, Any], Omissions]:
    """Check the content of an annotation file, as `read_annotations`; `path` is for messages."""
    if isinstance(content, list):
        _refuse(path, "got a list, as of results; give the annotations that the results are of")
    lacking = [key for key in _KEYS if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if lacking:
        _refuse(path, f"these lists are missing: {', '.join(lacking)}{_other_format(content)}")
    _check(path, content, "images", {"id": int, "file_name": str, "width": int, "height": int})
    _check(path, content, "categories", {"id": int, "name": str})
    for each in content["annotations"]:
        # Of objects without a mask some tools leave it out, or write `null`.
        if isinstance(each, dict) and each.get("segmentation") is None:
            each["segmentation"] = []
    _check(
        path, content, "annotations", {"image_id": int, "category_id": int, "bbox": list, "segmentation": (list, dict)}
    )
    for key, stated in _STATED.items():
        content[key] = [
            each if all(each.get(field, 0) is not None for field in stated)
            else {field: value for field, value in each.items() if value is not None or field not in stated}
            for each in content[key]
        ]  # fmt: skip
        _check(path, content, key, stated, optional=True)
    for key in ("images", "categories"):
        _check_numbers(path, content, key)
    for each in content["categories"]:
        each["name"] = printable(each["name"])
    for each in content["images"]:
        each.update({key: printable(each[key]) for key in _SHOWN if isinstance(each.get(key), str)})
    known = {each["id"] for each in content["categories"]}
    for number, each in enumerate(content["annotations"]):
        if each["category_id"] not in known:
            _refuse(path, f"`annotations` number {number}: category {each['category_id']} is not in `categories`")
        if len(each["bbox"]) != 4 or not all(
            isinstance(side, (int, float)) and abs(side) <= _LARGEST for side in each["bbox"]
        ):
            _refuse(path, f"`annotations` number {number}: expected `bbox` as 4 numbers, got {each['bbox']!r:.60}")
    omitted = Omissions()
    images = {each["id"] for each in content["images"]}
    for number, each in enumerate(content["annotations"]):
        if each["image_id"] not in images:
            omitted.add("annotation: its image is not in `images`", f"number {number}, image {each['image_id']}")
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in images]
    return dict(content), omitted


def checked_annotations(path: Path, content: dict[str, Any]) -> dict[int, str]:
    """Make the segmentations of annotations safe to use, in place; see `metrics.segmentations.checked_segmentation`.

    Args:
        path: of the annotation file, for messages.
        content: of it, as `read_annotations` returns it.

    Returns:
        Why the images cannot be used that have a wrong size or an annotation that cannot be understood, by number.
    """
    sizes = {each["id"]: (each["height"], each["width"]) for each in content["images"]}
    broken: dict[int, str] = {}
    for each in content["images"]:
        try:
            check_image_size(each["height"], each["width"])
        except ValueError as error:
            broken[each["id"]] = f"{path}: image {each['id']}: {error}"
    for each in content["annotations"]:
        image = each["image_id"]
        if image in broken:
            continue
        try:
            each["segmentation"] = checked_segmentation(each["segmentation"], *sizes[image])
        except ValueError as error:
            broken[image] = f"{path}: annotation {each.get('id', '?')} of image {image}: {printable(error)}"
    return broken


def _name_forms(names: Sequence[str]) -> Iterator[list[str]]:
    """The file names as they stand, with the slashes of Windows turned, and without folders if they still differ."""
    turned = [name.replace("\\", "/") for name in names]
    plain = [name.rpartition("/")[2] for name in turned]
    yield list(names)
    if turned != names:
        yield turned
    if plain != turned and len(set(plain)) == len(plain):
        yield plain


def _file(folder: Path, name: str, refused: Omissions) -> Path | None:
    """The file of an image; None where there is none or its name leads out of the folder."""
    try:
        path = inside(folder, name, what="file_name")
        return path if path.is_file() else None
    except ConfigurationError:
        reason = "image: its `file_name` is no regular file inside of the folder of the images, it is not opened"
        refused.add(reason, name)
        return None


def _check(
    path: Path,
    content: Mapping[str, Any],
    key: str,
    fields: Mapping[str, type | tuple[type, ...]],
    optional: bool = False,
) -> None:
    for number, entry in enumerate(content[key]):
        for field, kind in fields.items():
            if optional and field not in entry:
                continue
            if not isinstance(entry, dict) or not isinstance(entry.get(field), kind):
                got = entry.get(field) if isinstance(entry, dict) else entry
                kinds = kind if isinstance(kind, tuple) else (kind,)
                expected = " or ".join(each.__name__ for each in kinds)
                _refuse(path, f"`{key}` number {number}: expected `{field}` as {expected}, got {got!r:.60}")
            # NaN is not at most anything.
            if isinstance(entry[field], (int, float)) and not abs(entry[field]) <= _LARGEST:
                got = entry[field]
                _refuse(path, f"`{key}` number {number}: expected `{field}` as a finite number, got {got!r:.60}")


def _check_numbers(path: Path, content: Mapping[str, Any], key: str) -> None:
    """Two entries of one number could not be told apart."""
    seen: set[int] = set()
    for number, entry in enumerate(content[key]):
        if entry["id"] in seen:
            _refuse(path, f"`{key}` number {number}: the id {entry['id']} comes twice")
        seen.add(entry["id"])


def _other_format(content: object) -> str:
    """Return what a file of another known format is taken for, for the message."""
    if isinstance(content, dict) and "shapes" in content:
        return "; it has `shapes`, as LabelMe's files: review reads a folder of them"
    via = ("_via_img_metadata" in content or "_via_settings" in content) if isinstance(content, dict) else False
    entries = content.values() if isinstance(content, dict) else ()
    if via or any(isinstance(each, dict) and "regions" in each for each in entries):
        return "; it is a project of the VGG Image Annotator: export its annotations in COCO's format"
    return ""


def _refuse(path: Path, reason: str) -> NoReturn:
    raise SourceError(f"{path}: expected a COCO annotation file with the lists {', '.join(_KEYS)}; {reason}")
