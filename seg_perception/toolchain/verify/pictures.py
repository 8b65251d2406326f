"""Pictures of a frame under two models: both as overlays in the same colours, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ...classes import NO_GROUP
from ...frame import Frame
from ...instances import InstanceMap, Instances, Segmentation
from ...metrics.compact import CompactMask, FrameInstances
from ...pipeline.overlay import draw_overlay
from .compare import ComparedFrame

# bgr: only the reference has it, only the tested model has it, another label.
ONLY_REFERENCE = (60, 60, 235)
ONLY_TESTED = (235, 140, 40)
RELABELLED = (40, 210, 245)
_WIDTH = 800
_QUALITY = 85
_TEXT = 0.42  # scale of the font
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_Pixel = TypeVar("_Pixel", bound=np.generic)


def side_by_side(frame: ComparedFrame, class_names: Sequence[str]) -> tuple[bytes, bytes, bytes]:
    """Reference, tested model and difference, as JPEG files of at most 800 pixels width."""
    frame = _reduced(frame)
    agreement = frame.agreement
    common = [*agreement.pairs.tolist(), *agreement.switched.tolist()]
    ours, theirs = [row for row, _ in common] + agreement.missed.tolist(), [row for _, row in common]
    theirs += agreement.extra.tolist()
    # Counterparts have one number and so one colour; what only one model has comes after all of the other's.
    numbers = [*range(1, len(common) + 1), *range(len(ours) + 1, len(ours) + len(agreement.extra) + 1)]
    return (
        _jpeg(_overlay(frame.image_bgr, frame.reference, ours, range(1, len(ours) + 1), class_names)),
        _jpeg(_overlay(frame.image_bgr, frame.tested, theirs, numbers, class_names)),
        _jpeg(_difference(frame, class_names)),
    )


def _reduced(frame: ComparedFrame) -> ComparedFrame:
    """The frame at the width of the pictures, so that names drawn on it stay readable; smaller ones as they are."""
    height, width = frame.image_bgr.shape[:2]
    if width <= _WIDTH:
        return frame
    size = (_WIDTH, max(1, round(height * _WIDTH / width)))
    image = cv2.resize(frame.image_bgr, size, interpolation=cv2.INTER_AREA).view(np.uint8)

    def reduced(found: FrameInstances) -> FrameInstances:
        scale = np.array([size[0] / width, size[1] / height] * 2)
        masks = (
            cv2.resize(mask.full().view(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127
            for mask in found.masks
        )
        return FrameInstances.of(found.boxes_camera * scale, found.scores, found.labels, masks)

    relabelled = frame.relabelled
    if relabelled is not None:
        relabelled = cv2.resize(relabelled.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0
    return replace(
        frame,
        image_bgr=image,
        reference=reduced(frame.reference),
        tested=reduced(frame.tested),
        relabelled=relabelled,
    )


def _overlay(
    image: NDArray[np.uint8],
    found: FrameInstances,
    rows: Sequence[int],
    numbers: Sequence[int],
    class_names: Sequence[str],
) -> NDArray[np.uint8]:
    """Some instances over the image, as the node draws them."""
    order = np.argsort(-found.scores[list(rows)], kind="stable")
    kept, given = np.array(rows, np.int32)[order], np.array(numbers, np.uint16)[order]
    pixels = np.zeros(image.shape[:2], np.uint16)
    for row, number in zip(kept[::-1].tolist(), given[::-1], strict=True):
        region = _region(pixels, found.masks[row])
        region[found.masks[row].region()] = number
    instances = Instances(
        kept, given, found.boxes_camera[kept], found.scores[kept], found.labels[kept], np.full(len(kept), NO_GROUP)
    )
    frame = Frame.from_bgr(image)
    return draw_overlay(
        image, Segmentation(frame, instances, InstanceMap(pixels, found.areas()), found.areas()[kept], {}), class_names
    )


def _difference(frame: ComparedFrame, class_names: Sequence[str]) -> NDArray[np.uint8]:
    """The image in dark grey; in colour what only one model has, with names on whole instances."""
    agreement, ours, theirs = frame.agreement, frame.reference, frame.tested
    grey = cv2.cvtColor(frame.image_bgr, cv2.COLOR_BGR2GRAY)
    canvas = cv2.cvtColor((grey * 0.55).astype(np.uint8), cv2.COLOR_GRAY2BGR).view(np.uint8)
    if frame.relabelled is not None:
        canvas[frame.relabelled] = RELABELLED
    for row, column in agreement.pairs.tolist():
        first, second = ours.masks[row].full(), theirs.masks[column].full()
        canvas[first & ~second] = ONLY_REFERENCE
        canvas[second & ~first] = ONLY_TESTED
    for row, column in agreement.switched.tolist():
        text = f"{class_names[ours.labels[row]]} -> {class_names[theirs.labels[column]]}"
        _mark(canvas, ours, row, RELABELLED, text)
    for row in agreement.missed.tolist():
        _mark(canvas, ours, row, ONLY_REFERENCE, f"missed: {_name(ours, row, class_names)}")
    for row in agreement.extra.tolist():
        _mark(canvas, theirs, row, ONLY_TESTED, f"extra: {_name(theirs, row, class_names)}")
    return canvas


def _mark(canvas: NDArray[np.uint8], found: FrameInstances, row: int, colour: tuple[int, int, int], text: str) -> None:
    """Fill an instance and write over its box."""
    region = _region(canvas, found.masks[row])
    inside = found.masks[row].region()
    region[inside] = (0.4 * region[inside] + 0.6 * np.array(colour)).astype(np.uint8)
    x1, y1, x2, y2 = found.boxes_camera[row].round().astype(int).tolist()
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 1)
    (width, height), below = cv2.getTextSize(text, _FONT, _TEXT, 1)
    left = max(0, min(x1, canvas.shape[1] - width - 4))
    bottom = y1 if y1 > height + below + 2 else min(y2 + height + below + 2, canvas.shape[0])
    cv2.rectangle(canvas, (left, bottom - height - below - 2), (left + width + 4, bottom), colour, cv2.FILLED)
    cv2.putText(canvas, text, (left + 2, bottom - below), _FONT, _TEXT, (0, 0, 0), 1, cv2.LINE_AA)


def _name(found: FrameInstances, row: int, class_names: Sequence[str]) -> str:
    return f"{class_names[found.labels[row]]} {found.scores[row]:.2f}"


def _region(image: NDArray[_Pixel], mask: CompactMask) -> NDArray[_Pixel]:
    """The part of an image that a mask's rectangle covers; a view."""
    return image[mask.top : mask.bottom, mask.left : mask.right]


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes()
