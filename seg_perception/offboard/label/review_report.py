"""A review in files: what training takes, and how far people agreed with the labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import ConfigurationError, SourceError
from seg_perception.core.files import inside, writable_folder, write_atomically
from seg_perception.offboard.data.images import read_image
from seg_perception.offboard.report.gallery import Layer, Shot, gallery, share_of_bytes
from seg_perception.offboard.report.page import Section, number, paragraph, table, verdict, write_page
from seg_perception.offboard.report.plots import histogram, plots
from seg_perception.onboard.pipeline.overlay import colour_map

from .coco import INSTANCES, coco_bytes
from .dataset import IMAGES
from .records import LabelledObject, MaskStyle
from .review import FrameReview, Review

AGREEMENT, PAGE = "agreement.json", "agreement.html"
HEADER = (
    "group",
    "labels",
    "kept as is",
    "share",
    "reshaped",
    "relabelled",
    "removed",
    "added",
    "mask IoU",
    "boundary",
)
# Frames of the page's gallery.
_SHOWN = 12
_TINT = 0.5


def write_review(review: Review, dataset: Path, folder: Path) -> None:
    """Write `instances.json` with the reviewed labels, `agreement.json` and `agreement.html`.

    Args:
        review: of the labels.
        dataset: whose images it is about.
        folder: for the files; made if it is not there.

    Raises:
        ConfigurationError: it cannot be written.
    """
    writable_folder(folder)
    frames = (each.after for each in review.frames)
    write_atomically(folder / INSTANCES, coco_bytes(frames, review.categories, MaskStyle()))
    write_atomically(folder / AGREEMENT, json.dumps(agreement(review), indent=1).encode())
    _write_page(review, dataset, folder / PAGE)


def agreement(review: Review) -> dict[str, Any]:
    """The figures as plain values; None for a mean of nothing."""
    return {
        "groups": [
            {name: None if isinstance(value, float) and isnan(value) else value for name, value in row.items()}
            for row in ({**asdict(each), "group": each.group or "all", "kept": each.kept} for each in review.groups)
        ],
        "frames": [
            {
                "file_name": each.before.file_name,
                "changes": round(each.changes, 4),
                "matched": len(each.matched),
                "unchanged": sum(pair.unchanged for pair in each.matched),
                "relabelled": len(each.relabelled),
                "removed": len(each.removed),
                "added": len(each.added),
            }
            for each in review.frames
        ],
        "unreviewed": list(review.unreviewed),
        "foreign": list(review.foreign),
        "renamed": dict(review.renamed),
        "boxes": review.boxes,
        "omitted": list(review.omitted),
    }


def rows(review: Review) -> list[list[str]]:
    """The table of the groups in text, in the order of `HEADER`."""
    return [
        [
            each.group or "all", str(each.labels), str(each.unchanged),
            "-" if isnan(each.kept) else f"{100 * each.kept:.1f} %", str(each.matched - each.unchanged),
            str(each.relabelled), str(each.removed), str(each.added), number(each.mean_iou), number(each.mean_boundary),
        ]
        for each in review.groups
    ]  # fmt: skip


def notes(review: Review) -> Iterator[str]:
    """Return what else is to be said, in sentences."""
    if review.unreviewed:
        yield f"{len(review.unreviewed)} images did not come back and are left out, such as {review.unreviewed[0]}."
    if review.foreign:
        yield f"{len(review.foreign)} images are not of the data set and are left out, such as {review.foreign[0]}."
    if review.boxes:
        yield f"{review.boxes} objects are boxes without a mask: training ignores these regions."
    for line in review.omitted:
        yield f"Left out: {line}."
    for name, category in review.renamed.items():
        yield f"{name} counts as {category}."


def _write_page(review: Review, dataset: Path, path: Path) -> None:
    whole = review.groups[0]
    share = "none of no labels" if isnan(whole.kept) else f"{100 * whole.kept:.1f} % of {whole.labels} labels"
    lead = verdict(f"People left {share} as they were, in {len(review.frames)} images.", None, notes(review))
    changed = sorted((each for each in review.frames if each.changes), key=lambda each: -each.changes)[:_SHOWN]
    iou = {
        each.group: [
            pair.iou
            for frame in review.frames
            for pair in frame.matched
            if _group(review, frame.before.objects[pair.before]) == each.group
        ]
        for each in review.groups[1:]
    }
    most = share_of_bytes(2 * len(changed))
    meaning = paragraph(
        "A label is kept as is if its category is the same and no pixel of its mask differs but some at the outline, "
        "which formats round. Reshaped ones still share half of both masks. Boundary is the boundary IoU."
    )
    sections = [
        Section("Agreement", [table(HEADER, rows(review), numbers=1), meaning]),
        Section("Masks of labels that were kept or reshaped", plots(histogram("Mask IoU", iou, "IoU"))),
        Section("Images that were changed most", gallery(_shots(changed, dataset), most)),
    ]
    write_page(path, "Review of labels", lead, sections)


def _group(review: Review, labelled: LabelledObject) -> str:
    return next(each.group for each in review.categories if each.name == labelled.category)


def _shots(changed: Iterable[FrameReview], dataset: Path) -> Iterator[Shot]:
    for each in changed:
        try:
            path = inside(dataset, f"{IMAGES}/{each.before.file_name}", what="image of a data set")
            image = to_bgr(read_image(path))
        except (ConfigurationError, SourceError):
            image = np.full((each.before.height, each.before.width, 3), 60, np.uint8)
        numbers = {pair.after: pair.before + 1 for pair in each.matched}
        first = len(each.before.objects) + 1
        after = [numbers.get(row, first + row) for row in range(len(each.after.objects))]
        text = f"{len(each.removed)} removed, {len(each.added)} added, {len(each.relabelled)} relabelled"
        layers = (
            Layer("labels", _drawn(image, each.before.objects, list(range(1, first)))),
            Layer("reviewed", _drawn(image, each.after.objects, after)),
        )
        yield Shot(each.before.file_name, text, layers)


def _drawn(image: NDArray[np.uint8], objects: Iterable[LabelledObject], numbers: Iterable[int]) -> NDArray[np.uint8]:
    """The image with each object in the colour of its number."""
    pixels = np.zeros(image.shape[:2], np.uint16)
    for each, value in zip(objects, numbers, strict=True):
        pixels[each.mask.full()] = value
    tinted = cv2.addWeighted(image, 1 - _TINT, colour_map(pixels), _TINT, 0)
    return np.where(pixels[..., None] > 0, tinted, image).astype(np.uint8)
