"""Frames for a gallery: instances over the image, and where two lists of instances differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import NO_GROUP
from seg_perception.core.frame import Frame
from seg_perception.core.instances import InstanceMap, Instances, Segmentation
from seg_perception.offboard.metrics.compact import CompactMask, FrameInstances
from seg_perception.onboard.pipeline.overlay import draw_overlay

from .html import Html, element

# bgr: only the first list has it, only the second, another label.
ONLY_FIRST = (60, 60, 235)
ONLY_SECOND = (235, 140, 40)
RELABELLED = (40, 210, 245)
_TEXT = 0.42  # scale of the font
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_Pixel = TypeVar("_Pixel", bound=np.generic)


def _no_pairs() -> NDArray[np.int64]:
    return np.empty((0, 2), np.int64)


@dataclass(frozen=True, slots=True)
class Pairing:
    """The pairs of two lists of instances of one frame.

    Attributes:
        pairs: int64 `[P, 2]`, rows of counterparts.
        missed: int64 `[M]`, rows that only the first list has.
        extra: int64 `[E]`, rows that only the second list has.
        switched: int64 `[S, 2]`, rows of counterparts of different labels.
    """

    pairs: NDArray[np.int64]
    missed: NDArray[np.int64]
    extra: NDArray[np.int64]
    switched: NDArray[np.int64] = field(default_factory=_no_pairs)

    @property
    def first(self) -> NDArray[np.int64]:
        """Rows of the first list that take part."""
        return np.concatenate([self.pairs[:, 0], self.switched[:, 0], self.missed])

    @property
    def second(self) -> NDArray[np.int64]:
        """Rows of the second list that take part."""
        return np.concatenate([self.pairs[:, 1], self.switched[:, 1], self.extra])

    def numbers(self, first: int) -> NDArray[np.uint16]:
        """Numbers for `second` that give counterparts one colour.

        Args:
            first: length of the first list, whose instances have the numbers row + 1.

        Returns:
            uint16 `[P + S + E]`; those without a counterpart have numbers of their own.
        """
        shared, own = np.concatenate([self.pairs[:, 0], self.switched[:, 0]]), first + np.arange(len(self.extra))
        numbers: NDArray[np.int64] = np.concatenate([shared, own]) + 1
        return numbers.astype(np.uint16)


def resized_instances(found: FrameInstances, width: int, height: int, like: NDArray[np.uint8]) -> FrameInstances:
    """Instances of a frame of `width` x `height` pixels as they lie in an image of another size, `like`."""
    size = (like.shape[1], like.shape[0])
    if size == (width, height):
        return found
    scale = np.array([size[0] / width, size[1] / height] * 2)
    masks = (
        cv2.resize(mask.full().view(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127 for mask in found.masks
    )
    return FrameInstances.of(found.boxes_camera * scale, found.scores, found.labels, masks)


def draw_instances(
    image_bgr: NDArray[np.uint8],
    found: FrameInstances,
    class_names: Sequence[str],
    rows: NDArray[np.int64] | None = None,
    numbers: NDArray[np.uint16] | None = None,
    groups: Sequence[int] = (),
) -> NDArray[np.uint8]:
    """Instances over the image, as the node draws them.

    Args:
        image_bgr: uint8 `[H, W, 3]`; left unchanged.
        found: of the same size.
        class_names: by label.
        rows: int64 `[N]`, the instances to draw; None: all.
        numbers: uint16 `[N]`, not 0, which choose the colours; None: row + 1.
        groups: road group by label, whose sign the names carry; none are known where it is empty.
    """
    rows = np.arange(len(found)) if rows is None else rows
    numbers = (rows + 1).astype(np.uint16) if numbers is None else numbers
    order = np.argsort(-found.scores[rows], kind="stable")
    kept, given = rows[order].astype(np.int32), numbers[order].astype(np.uint16)
    pixels = np.zeros(image_bgr.shape[:2], np.uint16)
    for row, number in zip(kept[::-1].tolist(), given[::-1], strict=True):
        region = _region(pixels, found.masks[row])
        region[found.masks[row].region()] = number
    labels = found.labels[kept]
    group = np.array([groups[label] if groups else NO_GROUP for label in labels], np.int32)
    instances = Instances(kept, given, found.boxes_camera[kept], found.scores[kept], labels, group)
    painted = InstanceMap(pixels, found.areas())
    return draw_overlay(
        image_bgr, Segmentation(Frame.from_bgr(image_bgr), instances, painted, found.areas()[kept], {}), class_names
    )


def draw_difference(
    image_bgr: NDArray[np.uint8],
    first: FrameInstances,
    second: FrameInstances,
    pairing: Pairing,
    class_names: Sequence[str],
    relabelled: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """The image in dark grey; in colour what only one of two lists has, with names on whole instances.

    Args:
        image_bgr: uint8 `[H, W, 3]`.
        first, second: of the same size.
        pairing: of their rows.
        class_names: by label.
        relabelled: bool `[H, W]`, pixels whose class in a class map differs.
    """
    grey = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
    canvas = cv2.cvtColor((grey * 0.55).astype(np.uint8), cv2.COLOR_GRAY2BGR).view(np.uint8)
    if relabelled is not None:
        canvas[relabelled] = RELABELLED
    for row, column in pairing.pairs.tolist():
        mine, its = first.masks[row].full(), second.masks[column].full()
        canvas[mine & ~its] = ONLY_FIRST
        canvas[its & ~mine] = ONLY_SECOND
    for row, column in pairing.switched.tolist():
        text = f"{class_names[first.labels[row]]} -> {class_names[second.labels[column]]}"
        _mark(canvas, first, row, RELABELLED, text)
    for row in pairing.missed.tolist():
        _mark(canvas, first, row, ONLY_FIRST, f"missed: {class_names[first.labels[row]]}")
    for row in pairing.extra.tolist():
        text = f"extra: {class_names[second.labels[row]]} {second.scores[row]:.2f}"
        _mark(canvas, second, row, ONLY_SECOND, text)
    return canvas


def colour_key(entries: Iterable[tuple[tuple[int, int, int], str]]) -> Html:
    """A legend of colours, bgr, with what each means."""
    return element("ul", (element("li", _patch(bgr), text) for bgr, text in entries), class_="legend")


def _patch(bgr: tuple[int, int, int]) -> Html:
    fill = "#" + "".join(f"{value:02x}" for value in reversed(bgr))
    return element("svg", element("rect", width=28, height=12, fill=fill), viewBox="0 0 28 12", aria_hidden="true")


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


def _region(image: NDArray[_Pixel], mask: CompactMask) -> NDArray[_Pixel]:
    """The part of an image that a mask's rectangle covers; a view."""
    return image[mask.top : mask.bottom, mask.left : mask.right]
