"""Labels as they come back from a review: COCO, CVAT's XML, or LabelMe's files."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from seg_perception.core.class_tables import AUTO, resolve_class_table
from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS, group_name, name_key
from seg_perception.core.errors import ClassTableError, ConfigurationError, SourceError
from seg_perception.core.files import inside
from seg_perception.core.text import printable
from seg_perception.offboard.evaluation.omissions import Omissions

from .coco import labels_of, read_coco
from .cvat import read_cvat
from .labelme import read_labelme
from .records import LabelledFrame, LabelledObject, ReadLabels

_EXPORT = "annotations.xml"
# Largest annotation file in an archive: a small archive must not take all memory.
_MOST_JSON = 1 << 28
# Labels are packed to a twentieth; only what is small may be packed further than this.
_SMALL, _MOST_PACKED = 1 << 24, 100
_EXPECTED = (
    'expected COCO\'s JSON, an XML file or a ZIP file of CVAT ("CVAT for images 1.1" or "COCO 1.0"), or a folder with '
    "LabelMe's files"
)


def read_reviewed(path: Path) -> ReadLabels:
    """Read the labels of a file or folder, with file names of images without folders.

    Raises:
        SourceError: it is none of what is known, cannot be read, or has an image twice.
        BackendUnavailable: COCO's format needs pycocotools, which is not installed.
    """
    read = _read(path)
    frames = [_plain(each, read.omitted) for each in read.frames]
    counts = Counter(each.file_name for each in frames)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise SourceError(f"{path}: expected each image once, got more than one of {', '.join(twice[:3])}")
    return ReadLabels(frames, read.omitted)


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


def _plain(frame: LabelledFrame, omitted: Omissions) -> LabelledFrame:
    """Without the folder of the image, and without shapes that hold no pixel."""
    name = frame.file_name.replace("\\", "/").rpartition("/")[2]
    kept = tuple(each for each in frame.objects if each.mask.area)
    for _ in range(len(frame.objects) - len(kept)):
        omitted.add("object: it holds no pixel of the image", name)
    return replace(frame, file_name=name, objects=kept)


def _grouped(names: Sequence[str]) -> Mapping[str, str]:
    """The road groups of names that a class table of the package knows."""
    try:
        groups = resolve_class_table(AUTO, names).groups(names).tolist()
    except ClassTableError:
        return {}
    return {name: group_name(group) for name, group in zip(names, groups, strict=True) if group != NO_GROUP}


def _read(path: Path) -> ReadLabels:
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            return _read_folder(path)
        if suffix in (".json", ".xml", ".zip") and not path.is_file():
            kind = "is no regular file" if path.exists() else "does not exist"
            raise SourceError(f"{path}: {kind}; {_EXPECTED}")
        if suffix == ".json":
            return read_coco(path)
        if suffix == ".xml":
            with path.open("rb") as stream:
                return read_cvat(stream, path)
        if suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return _read_archive(archive, path)
    # What zipfile raises for damaged, encrypted and unknown archives.
    except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise SourceError(f"{path}: cannot be read ({printable(error)}); {_EXPECTED}") from error
    raise SourceError(f"{path}: {'cannot be recognised' if path.exists() else 'does not exist'}; {_EXPECTED}")


def _read_folder(path: Path) -> ReadLabels:
    """The labels of an unpacked export of CVAT, or LabelMe's files."""
    try:
        if (path / _EXPORT).exists():
            with inside(path, _EXPORT, what="export of CVAT").open("rb") as stream:
                return read_cvat(stream, path / _EXPORT)
        exports = sorted(each.name for each in (path / "annotations").glob("instances_*.json"))
        files = [inside(path, f"annotations/{name}", what="export of CVAT") for name in exports]
    except ConfigurationError as error:
        raise SourceError(f"{path}: {error}") from error
    return _joined([read_coco(each) for each in files]) if files else read_labelme(path)


def _read_archive(archive: zipfile.ZipFile, path: Path) -> ReadLabels:
    """The labels of an export of CVAT, as "CVAT for images 1.1" or as "COCO 1.0"; nothing is unpacked."""
    names = archive.namelist()
    exports = [name for name in names if PurePosixPath(name).match("annotations/instances_*.json")]
    for name in [_EXPORT] if _EXPORT in names else exports:
        info = archive.getinfo(name)
        # What it claims is what zipfile reads at most.
        if info.file_size > max(_SMALL, _MOST_PACKED * info.compress_size):
            raise SourceError(
                f"{path}: {printable(name)} unpacks to {info.file_size >> 20} MiB, more than {_MOST_PACKED} times what "
                "is in the archive; no labels do that"
            )
    if _EXPORT in names:
        with archive.open(_EXPORT) as stream:
            return read_cvat(stream, path)
    if not exports:
        raise KeyError(f"neither {_EXPORT} nor annotations/instances_*.json is in it")
    parts = []
    for name in exports:
        if archive.getinfo(name).file_size > _MOST_JSON:
            raise SourceError(
                f"{path}: {printable(name)}: JSON of more than {_MOST_JSON >> 20} MiB in a ZIP file is not supported "
                "here; unpack it and give the JSON file"
            )
        try:
            content = json.loads(archive.read(name))
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{path}: {printable(name)}: this is not JSON: {printable(error)}") from error
        parts.append(labels_of(path, content))
    read = _joined(parts)
    for name in names:
        if PurePosixPath(name).match("annotations/*.json") and name not in exports:
            read.omitted.add("file in the ZIP: no instances of COCO", name)
    return read


def _joined(parts: Sequence[ReadLabels]) -> ReadLabels:
    """The labels of several files, such as the subsets of a task."""
    omitted = Omissions()
    for each in parts:
        omitted.update(each.omitted)
    return ReadLabels([frame for each in parts for frame in each.frames], omitted)
