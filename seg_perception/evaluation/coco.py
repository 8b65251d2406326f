"""Labelled pictures: a COCO annotation file and the folder of its images."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..classes import NO_GROUP, ROAD_GROUPS, name_key
from ..errors import SourceError
from ..frame import Frame
from ..sources.base import FrameSource, WarningCounts
from ..sources.bit_depth import BitDepth
from ..sources.class_tables import category_groups
from ..sources.images import read_image

# The road groups as COCO's categories, whose numbers begin with 1.
CATEGORIES = [{"id": number, "name": group} for number, group in enumerate(ROAD_GROUPS, 1)]
_KEYS = ("images", "annotations", "categories")
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
    """One picture of a labelled set.

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
    """Pictures with ground truth.

    Attributes:
        path: the annotation file.
        annotations: its content.
        images: those whose files are there, in the order of the annotation file.
        missing: file names of the others.
    """

    path: Path
    annotations: Mapping[str, Any]
    images: tuple[LabelledImage, ...]
    missing: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path, folder: Path | None = None) -> CocoSet:
        """Read an annotation file and look for its images.

        Args:
            path: the annotation file (`instances_val2017.json` or the like).
            folder: of the images; by default `images` beside the file or, if none of them is there, the file's own.

        Raises:
            SourceError: the file cannot be read or has another form, or none of its images is there.
        """
        content = read_annotations(path)
        names = [(image, Path(str(image["file_name"]))) for image in content["images"]]
        folders = [folder] if folder is not None else [path.parent / "images", path.parent]
        for each in folders:
            found = [(image, each / name) for image, name in names]
            images = tuple(
                LabelledImage(image["id"], file, image["width"], image["height"], int(image.get("stamp_ns", 0)))
                for image, file in found
                if file.is_file()
            )
            if images:
                missing = tuple(str(image["file_name"]) for image, file in found if not file.is_file())
                return cls(path, content, images, missing)
        raise SourceError(
            f"{path}: lists {len(names)} images such as {names[0][1] if names else '-'}, none of which is in "
            f"{' or '.join(map(str, folders))}; name the folder of the images"
        )

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
        """The same pictures with the road groups as categories (`CATEGORIES`); what belongs to none is left out.

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
    """Whether a path is meant as a COCO annotation file, by its suffix."""
    return path.suffix.lower() == ".json"


class _Images(FrameSource):
    """The images of a set; those that cannot be read, or are of another size than the set says, are failures."""

    def __init__(self, labelled: CocoSet) -> None:
        super().__init__()
        self._set = labelled

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
                self.failures.append(
                    SourceError(
                        f"{image.path}: {self._set.path.name} says {image.width} x {image.height} pixels, the file has "
                        f"{frame.width} x {frame.height}; the annotations are of another picture"
                    )
                )

    def __len__(self) -> int:
        return len(self._set.images)


def read_annotations(path: Path) -> dict[str, Any]:
    """The content of an annotation file, with the keys and fields that are used.

    Raises:
        SourceError: it cannot be read, or has another form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SourceError(f"{path}: does not exist; expected a COCO annotation file") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: expected a COCO annotation file, this is not JSON: {error}") from error
    if isinstance(content, list):
        _refuse(path, "got a list, as of results; give the annotations that the results are of")
    lacking = [key for key in _KEYS if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if lacking:
        _refuse(path, f"these lists are missing: {', '.join(lacking)}")
    _check(path, content, "images", {"id": int, "file_name": str, "width": int, "height": int})
    _check(path, content, "categories", {"id": int, "name": str})
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
    known = {each["id"] for each in content["categories"]}
    for number, each in enumerate(content["annotations"]):
        if each["category_id"] not in known:
            _refuse(path, f"`annotations` number {number}: category {each['category_id']} is not in `categories`")
        if len(each["bbox"]) != 4 or not all(
            isinstance(side, (int, float)) and isfinite(side) for side in each["bbox"]
        ):
            _refuse(path, f"`annotations` number {number}: expected `bbox` as 4 numbers, got {each['bbox']!r:.60}")
    return dict(content)


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


def _check_numbers(path: Path, content: Mapping[str, Any], key: str) -> None:
    """Two entries of one number could not be told apart."""
    seen: set[int] = set()
    for number, entry in enumerate(content[key]):
        if entry["id"] in seen:
            _refuse(path, f"`{key}` number {number}: the id {entry['id']} comes twice")
        seen.add(entry["id"])


def _refuse(path: Path, reason: str) -> NoReturn:
    raise SourceError(f"{path}: expected a COCO annotation file with the lists {', '.join(_KEYS)}; {reason}")
