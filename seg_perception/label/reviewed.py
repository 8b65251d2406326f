"""Labels as they come back from a review: COCO, CVAT's XML, or LabelMe's files."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..classes import NO_GROUP, ROAD_GROUPS, group_name, name_key
from ..errors import ClassTableError, SourceError
from ..sources.class_tables import AUTO, resolve_class_table
from .coco import read_coco
from .cvat import read_cvat
from .labelme import read_labelme
from .records import LabelledFrame, LabelledObject

_EXPORT = "annotations.xml"
_EXPECTED = "expected COCO's JSON, an XML file or a ZIP file of CVAT for images 1.1, or a folder with LabelMe's files"


def read_reviewed(path: Path) -> list[LabelledFrame]:
    """The labels of a file or folder, with file names of pictures without folders.

    Raises:
        SourceError: it is none of what is known, cannot be read, or has a picture twice.
        BackendUnavailable: COCO's format needs pycocotools, which is not installed.
    """
    frames = [_plain(each) for each in _read(path)]
    counts = Counter(each.file_name for each in frames)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise SourceError(f"{path}: expected each picture once, got more than one of {', '.join(twice[:3])}")
    return frames


def renamed(
    frames: Sequence[LabelledFrame], categories: Sequence[str], path: Path
) -> tuple[list[LabelledFrame], dict[str, str]]:
    """The same with the categories of a data set; finer classes become road groups where the data set has these.

    Args:
        frames: with the names that the reviewers' tool gave.
        categories: of the data set.
        path: of the labels, for messages.

    Returns:
        The frames, and the category of each name that differs from it.

    Raises:
        SourceError: a name stands for none of them.
    """
    names = {each.category for frame in frames for each in frame.objects}
    known = {name_key(name): name for name in categories}
    found = {name: known[name_key(name)] for name in names if name_key(name) in known}
    unknown = sorted(names - set(found))
    if unknown and set(categories) == set(ROAD_GROUPS):
        found |= _grouped(unknown)
        unknown = sorted(names - set(found))
    if unknown:
        raise SourceError(
            f"{path}: expected the categories {', '.join(categories)}, got {', '.join(unknown)}; rename them there"
        )
    return [
        replace(frame, objects=tuple(replace(each, category=found[each.category]) for each in frame.objects))
        for frame in frames
    ], {name: category for name, category in found.items() if name != category}


def with_tracks(reviewed: LabelledObject, labelled: LabelledObject) -> LabelledObject:
    """A reviewed object with what is known of the label it was made from."""
    return replace(reviewed, track=reviewed.track or labelled.track)


def _plain(frame: LabelledFrame) -> LabelledFrame:
    """Without the folder of the picture, and without shapes that hold no pixel."""
    name = frame.file_name.replace("\\", "/").rpartition("/")[2]
    return replace(frame, file_name=name, objects=tuple(each for each in frame.objects if each.mask.area))


def _grouped(names: Sequence[str]) -> Mapping[str, str]:
    """The road groups of names that a class table of the package knows."""
    try:
        groups = resolve_class_table(AUTO, names).groups(names).tolist()
    except ClassTableError:
        return {}
    return {name: group_name(group) for name, group in zip(names, groups, strict=True) if group != NO_GROUP}


def _read(path: Path) -> list[LabelledFrame]:
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            inner = path / _EXPORT
            return read_cvat(inner.read_bytes(), inner) if inner.is_file() else read_labelme(path)
        if suffix == ".json":
            return read_coco(path)
        if suffix == ".xml":
            return read_cvat(path.read_bytes(), path)
        if suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return read_cvat(archive.read(_EXPORT), path)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path}: cannot be read ({error}); {_EXPECTED}") from error
    raise SourceError(f"{path}: {'cannot be recognised' if path.exists() else 'does not exist'}; {_EXPECTED}")
