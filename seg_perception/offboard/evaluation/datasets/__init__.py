"""Labelled data sets in their formats, each read into the one form that evaluation works on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

from seg_perception.core.errors import SourceError

from .labelled import LabelledSet, Reader, Watch

AUTO = "auto"
# The first that recognises a path reads it: BDD100K's JSON is told from COCO's by its beginning.
FORMATS = ("bdd100k", "coco", "cityscapes", "mots")


def open_dataset(path: Path, images: Path | None = None, name: str = AUTO, watch: Watch = iter) -> LabelledSet:
    """Read a labelled data set.

    Args:
        path: its annotation file or folder of labels.
        images: folder of the images; some formats know where they are.
        name: one of `FORMATS`, or `auto`.
        watch: shows how far it is.

    Raises:
        SourceError: there is nothing, no format recognises it, or it cannot be read.
        BackendUnavailable: pycocotools is not installed.
    """
    if not path.exists():
        raise SourceError(f"{path}: does not exist; expected an annotation file or a folder of labels")
    if name != AUTO:
        return _reader(name).read(path, images, watch)
    for each in FORMATS:
        reader = _reader(each)
        if reader.recognises(path):
            return reader.read(path, images, watch)
    raise SourceError(
        f"{path}: expected a data set of one of the formats {', '.join(FORMATS)}, recognised none; "
        "name the format with --format, or see docs/evaluate.md for how each is laid out"
    )


def _reader(name: str) -> Reader:
    if name not in FORMATS:
        raise SourceError(f"format of a data set: expected {AUTO} or one of {', '.join(FORMATS)}; got {name!r}")
    return cast("Reader", import_module(f".{name}", __name__))
