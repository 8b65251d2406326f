"""The street world as images with COCO annotations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.metrics.masks import encode_rle

from .truth import CLASS_NAMES, CLASS_TABLE, TrueInstance
from .world import WorldFrame

_JPEG_QUALITY = 95


def write_coco(folder: Path, shots: Iterable[WorldFrame]) -> dict[str, int]:
    """Write `instances.json` and the images in `images` next to it.

    Next to the usual fields an annotation has `track_id`, `full_segmentation` and `full_bbox` (as if nothing stood
    before the object; the box also outside the image), `distance` in metres, `occlusion` and `truncation` (shares), and
    `box_3d` with the fields of `TrueBox` if the world was asked for `boxes_3d`.

    Args:
        folder: made if it is not there.
        shots: frames with their truth.

    Returns:
        How many `images` and `annotations` were written.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for number, shot in enumerate(shots, 1):
            images.append(_image(folder, number, shot))
            for instance in shot.truth.instances:
                annotations.append(_annotation(len(annotations) + 1, number, instance))
        content = {
            "info": {"description": "street world: made by a program, exact"},
            "images": images,
            "annotations": annotations,
            "categories": [
                {"id": label, "name": name, "supercategory": CLASS_TABLE.group_of[name]}
                for label, name in enumerate(CLASS_NAMES, 1)
            ],
        }
        (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--coco {folder}: cannot be written ({error.strerror or error})") from error
    return {"images": len(images), "annotations": len(annotations)}


def _image(folder: Path, number: int, shot: WorldFrame) -> dict[str, Any]:
    frame = shot.frame
    name = f"{shot.name}.jpg"
    pixels = frame.data.reshape(frame.height, frame.width, 3)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    (folder / "images" / name).write_bytes(data.tobytes())
    return {
        "id": number,
        "file_name": name,
        "width": frame.width,
        "height": frame.height,
        "stamp_ns": frame.stamp_ns,
        "weather": shot.weather,
        "scene": shot.scene,
    }


def _annotation(number: int, image: int, instance: TrueInstance) -> dict[str, Any]:
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": image,
        "category_id": instance.label + 1,
        "iscrowd": 0,
        "area": instance.visible.area,
        "bbox": _corner_and_size(instance.box),
        "segmentation": encode_rle(instance.visible.full()),
        "track_id": instance.number,
        "full_bbox": _corner_and_size(instance.full_box),
        "full_segmentation": encode_rle(instance.full.full()),
        "distance": round(instance.distance, 2),
        "occlusion": round(instance.occlusion, 4),
        "truncation": round(instance.truncation, 4),
    }
    if instance.box_3d is not None:
        annotation["box_3d"] = _rounded(asdict(instance.box_3d))
    return annotation


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, and tuples of numbers, with four digits."""
    return {name: np.round(value, 4).tolist() for name, value in values.items()}


def _corner_and_size(box: tuple[float, float, float, float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)]
