"""COCO instance annotations, and what `seg_perception streetworld --coco` writes: COCO with more fields."""

from __future__ import annotations

from pathlib import Path

from ..coco import CocoSet, is_annotation_file
from .labelled import LabelledSet, Watch

KIND = "COCO"
_INSTANCES = "instances.json"


def recognises(path: Path) -> bool:
    """Return whether a path is an annotation file, or a folder that has one under the usual name."""
    return is_annotation_file(path) or (path / _INSTANCES).is_file()


def read(path: Path, images: Path | None, watch: Watch) -> LabelledSet:
    """Read an annotation file.

    Raises:
        SourceError: it cannot be read or has another form, or none of its images is there.
    """
    labels = CocoSet.load(path / _INSTANCES if path.is_dir() else path, images)
    return LabelledSet(KIND, labels, labels.source())
