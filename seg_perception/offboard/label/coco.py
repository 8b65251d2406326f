"""Labels in COCO's format (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seg_perception.core.errors import SourceError
from seg_perception.core.text import printable
from seg_perception.offboard.evaluation.coco import annotations_of, checked_annotations, read_annotations, read_json
from seg_perception.offboard.metrics.segmentations import decode_segmentation, encode_compact, filled_box, has_mask

from .records import Category, LabelledFrame, LabelledObject, MaskStyle, ReadLabels, score_and_track

INSTANCES = "instances.json"


def coco_bytes(frames: Iterable[LabelledFrame], categories: Sequence[Category], style: MaskStyle) -> bytes:
    """The content of an annotation file.

    Next to the usual fields an image has `camera`, `stamp_ns`, `source` and, where it was given, `weather`; an
    annotation has `score`, `track_id` and `visible` where they are known. An object of which only the box is known has
    no segmentation; training ignores such regions.
    """
    number_of = {each.name: each.number for each in categories}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for frame in frames:
        images.append(_image(len(images) + 1, frame))
        for each in frame.objects:
            head = {"id": len(annotations) + 1, "image_id": len(images), "category_id": number_of[each.category]}
            annotations.append({**head, **_annotation(each, style)})
    content = {
        "info": {"description": "labels for review and training"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": each.number, "name": each.name, "supercategory": each.group} for each in categories],
    }
    return json.dumps(content).encode()


def read_coco(path: Path) -> ReadLabels:
    """Read the labels of an annotation file; its images need not be there.

    Raises:
        SourceError: it cannot be read, or has another form.
    """
    return labels_of(path, read_json(path, "a COCO annotation file"))


def labels_of(path: Path, content: object) -> ReadLabels:
    """Return the labels that the content of an annotation file has; `path` is for messages.

    Raises:
        SourceError: it has another form.
    """
    checked, omitted = annotations_of(path, content)
    if broken := checked_annotations(path, checked):
        raise SourceError(next(iter(broken.values())))
    names = {each["id"]: str(each["name"]) for each in checked["categories"]}
    images = {each["id"]: each for each in checked["images"]}
    objects: dict[int, list[LabelledObject]] = {number: [] for number in images}
    for each in checked["annotations"]:
        image = images[each["image_id"]]
        try:
            objects[each["image_id"]].append(_object(each, names, (image["height"], image["width"])))
        except (TypeError, ValueError) as error:
            raise SourceError(
                f"{path}: annotation {each.get('id', '?')}: no label can be made of it ({printable(error)})"
            ) from error
    frames = [
        LabelledFrame(
            str(image["file_name"]), image["width"], image["height"], tuple(objects[number]),
            source=str(image.get("source") or ""), camera=str(image.get("camera") or ""),
            stamp_ns=_whole(image.get("stamp_ns")), weather=str(image.get("weather") or ""),
        )
        for number, image in images.items()
    ]  # fmt: skip
    return ReadLabels(frames, omitted)


def read_categories(path: Path) -> list[Category]:
    """The categories of an annotation file that `coco_bytes` made.

    Raises:
        SourceError: it cannot be read, or has another form.
    """
    listed = read_annotations(path)[0]["categories"]
    return [Category(each["id"], str(each["name"]), str(each.get("supercategory", each["name"]))) for each in listed]


def _image(number: int, frame: LabelledFrame) -> dict[str, Any]:
    image = {
        "id": number,
        "file_name": frame.file_name,
        "width": frame.width,
        "height": frame.height,
        "camera": frame.camera,
        "stamp_ns": frame.stamp_ns,
        "source": frame.source,
    }
    return image | ({"weather": frame.weather} if frame.weather else {})


def _whole(value: object) -> int:
    """A whole number that may be missing, 0 then; not by way of a float, which cannot hold nanoseconds."""
    text = str(value)
    return int(text) if text.isdecimal() else 0


def _annotation(each: LabelledObject, style: MaskStyle) -> dict[str, Any]:
    mask = each.mask
    polygons = style.polygons(mask)
    segmentation: Any = []
    if polygons is not None and not each.shapeless:
        segmentation = [polygon.reshape(-1).tolist() for polygon in polygons]
    elif not each.shapeless:
        segmentation = encode_compact(mask)
    known = {"score": each.score, "track_id": each.track or None, "visible": each.visible}
    return {
        "iscrowd": 0,
        "area": mask.area,
        "bbox": [mask.left, mask.top, mask.right - mask.left, mask.bottom - mask.top],
        "segmentation": segmentation,
        **{name: value for name, value in known.items() if value is not None},
    }


def _object(annotation: Mapping[str, Any], names: Mapping[int, str], size: tuple[int, int]) -> LabelledObject:
    shaped = has_mask(annotation)
    mask = decode_segmentation(annotation["segmentation"], *size) if shaped else filled_box(annotation, size)
    # Tools put what they do not know of themselves under `attributes`.
    attributes = annotation.get("attributes")
    extra = {**(attributes if isinstance(attributes, Mapping) else {}), **annotation}
    visible = extra.get("visible")
    return LabelledObject(
        names[annotation["category_id"]],
        mask,
        *score_and_track(extra),
        None if visible is None else float(visible),
        shapeless=not shaped,
    )
