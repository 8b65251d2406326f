"""Human-readable images: the instances over the camera image, and the instance map in colours."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import group_name
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.instances import Instances, Segmentation

from .label_layout import Box, Colour, Label, LabelLayout, Sizes, draw_label, shade
from .overlay_panel import OverlayStats, draw_figures, draw_legend

OUTLINE, FILL, BOTH = SHAPES = ("outline", "fill", "both")
_FILL = 0.42
# A full label may be this much wider than its box.
_WIDER = 2.0
# Turning by the golden angle keeps every run of successive hues far apart, however long it gets.
_GOLDEN_ANGLE = np.pi * (3.0 - np.sqrt(5.0))
# Lightness and chroma alternate, so that hues that come close after some turns still differ.
_LIGHTNESS = np.array([0.74, 0.64, 0.82])
_CHROMA = np.array([0.17, 0.19, 0.14])


def colour_map(pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return an instance map in colours.

    Args:
        pixels: uint16 `[H, W]`, instance ids; 0 is background.

    Returns:
        uint8 `[H, W, 3]`, bgr; an id always has the same colour, near ids differ clearly, ids hundreds apart may look
        alike, and the background is black.
    """
    # A gather of whole 32-bit words is several times faster than one of three bytes. Unlike indexing, `take` gives
    # rows in order whatever the order of the map in memory, which the view as bytes needs.
    words = np.take(_colour_words(), pixels)
    return cv2.cvtColor(words.view(np.uint8).reshape(*pixels.shape, 4), cv2.COLOR_BGRA2BGR).view(np.uint8)


@dataclass(frozen=True, slots=True)
class OverlayStyle:
    """The style in which instances are drawn.

    Attributes:
        shape: one of `SHAPES`: their outlines, their areas, or both.
        numbers: whether labels show the instance ids.
        figures: whether figures of the camera and a legend are drawn.

    Raises:
        ConfigurationError: there is no such shape.
    """

    shape: str = BOTH
    numbers: bool = False
    figures: bool = False

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ConfigurationError(f"overlay_style: expected {', '.join(SHAPES)}, got {self.shape!r}")


PLAIN = OverlayStyle()


def draw_overlay(
    image_bgr: NDArray[np.uint8],
    segmentation: Segmentation,
    class_names: Sequence[str],
    style: OverlayStyle = PLAIN,
    figures: OverlayStats | None = None,
) -> NDArray[np.uint8]:
    """Return the camera image with every instance marked and named.

    Args:
        image_bgr: uint8 `[H, W, 3]`, the whole camera image at any size; it is left unchanged.
        segmentation: what was found in it; the instance map may have another size.
        class_names: the model's class names, indexed by the instances' labels.
        style: how.
        figures: of the camera, for a style that has them.

    Returns:
        uint8 `[H, W, 3]`, bgr.
    """
    canvas = np.ascontiguousarray(image_bgr).copy()
    height, width = canvas.shape[:2]
    instances, sizes, layout = segmentation.instances, Sizes.of(width, height), LabelLayout(width, height)
    frame = segmentation.frame
    boxes_canvas = instances.boxes_camera * np.array([width / frame.width, height / frame.height] * 2)
    corners = np.concatenate([np.floor(boxes_canvas[:, :2]), np.ceil(boxes_canvas[:, 2:])], axis=1)
    boxes = [(x1, y1, x2, y2) for x1, y1, x2, y2 in corners.astype(int).tolist()]
    colours = [(b, g, r) for b, g, r in _colour_table()[instances.ids].tolist()]

    # Lowest score first, so that the best instances lie on top.
    masks = _masks(segmentation, boxes, (height, width)) if len(instances) else iter(())
    for index, region, mask in masks:
        _draw_mask(canvas[region], mask, colours[index], sizes, style.shape)
    for index in reversed(range(len(boxes))):
        _draw_corners(canvas, boxes[index], colours[index], sizes)
    if style.figures:
        draw_legend(canvas, instances.groups, sizes, layout)
        if figures is not None:
            draw_figures(canvas, figures, sizes, layout)
    labels = [
        layout.find(sizes, _candidates(instances, index, class_names, style, sizes, box), box)
        for index, box in enumerate(boxes)
    ]
    for (label, region), colour in reversed(list(zip(labels, colours, strict=True))):
        draw_label(canvas, region, label, colour, sizes)
    return canvas


def _masks(
    segmentation: Segmentation, boxes: Sequence[Box], shape: tuple[int, int]
) -> Iterator[tuple[int, tuple[slice, slice], NDArray[np.uint8]]]:
    """The worst instance first: its index, the region of the image around it, and its pixels there."""
    pixels, (height, width) = segmentation.instance_map.pixels, shape
    if pixels.shape != shape:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).view(np.uint16)
    for index in reversed(range(len(boxes))):
        number = int(segmentation.instances.ids[index])
        x1, y1, x2, y2 = boxes[index]
        # One pixel more: a map of another size rounds the box's border its own way. The blocks of a much coarser map
        # may reach further, and are cut there.
        region = np.s_[max(0, y1 - 1) : max(0, y2 + 1), max(0, x1 - 1) : max(0, x2 + 1)]
        if pixels[region].size:  # a model may give a box that ends before it begins
            yield index, region, cv2.inRange(pixels[region], number, number).view(np.uint8)


def _draw_mask(region: NDArray[np.uint8], mask: NDArray[np.uint8], colour: Colour, sizes: Sizes, shape: str) -> None:
    """Tint an instance's pixels and draw their outline."""
    if shape != OUTLINE:
        cv2.copyTo(shade(region, colour, _FILL), mask, region)
    if shape != FILL:
        # Thick smooth lines cost by the corner, and a border drawn pixel by pixel has one at each step.
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_TC89_KCOS)
        cv2.drawContours(region, contours, -1, colour, sizes.line, cv2.LINE_AA)


def _draw_corners(canvas: NDArray[np.uint8], box: Box, colour: Colour, sizes: Sizes) -> None:
    """Mark the four corners of a box."""
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = max(0, box[0]), max(0, box[1]), min(width, box[2]) - 1, min(height, box[3]) - 1
    side = max(0, min(x2 - x1, y2 - y1))
    length = min(max(4, side // 4), 16 * sizes.line, side)
    for x, dx in ((x1, length), (x2, -length)):
        for y, dy in ((y1, length), (y2, -length)):
            corner = np.array([(x + dx, y), (x, y), (x, y + dy)], np.int32)
            cv2.polylines(canvas, [corner], False, colour, sizes.line, cv2.LINE_AA)


def _candidates(
    instances: Instances, index: int, class_names: Sequence[str], style: OverlayStyle, sizes: Sizes, box: Box
) -> list[Label]:
    """Return possible labels of an instance, the fullest first, without one that is much wider than its box."""
    group, score = int(instances.groups[index]), f"{instances.scores[index]:.2f}"
    number = f"#{instances.ids[index]} " if style.numbers else ""
    name = _legible(class_names[instances.labels[index]]) or group_name(group).replace("_", " ")
    full = Label(f"{name} {number}{score}", group)
    shorter = [Label(number + score, group), Label("", group)]
    return [full, *shorter] if sizes.width(full) <= _WIDER * (box[2] - box[0]) else shorter


@lru_cache(maxsize=1024)
def _legible(name: str) -> str:
    """A name in the letters of OpenCV's font, which are those of ASCII; empty where none of its letters is."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    text = plain.encode("ascii", "replace").decode()
    return text if any(letter.isalnum() for letter in text) else ""


@lru_cache(maxsize=1)
def _colour_table() -> NDArray[np.uint8]:
    """Return the colour of every instance id: uint8 `[65536, 3]`, bgr.

    The colours are chosen in Oklab (https://bottosson.github.io/posts/oklab), where equal steps look equal, so that
    none is much louder than the others.
    """
    numbers = np.arange(1 << 16)
    hue = 0.5 + numbers * _GOLDEN_ANGLE
    lightness, chroma = _LIGHTNESS[numbers % 3], _CHROMA[numbers % 3]
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    cone = lab @ np.array([[1.0, 1.0, 1.0], [0.3963377774, -0.1055613458, -0.0894841775],
                           [0.2158037573, -0.0638541728, -1.2914855480]])  # fmt: skip
    linear_rgb = cone**3 @ np.array([[4.0767416621, -1.2684380046, -0.0041960863],
                                     [-3.3077115913, 2.6097574011, -0.7034186147],
                                     [0.2309699292, -0.3413193965, 1.7076147010]])  # fmt: skip
    linear = np.clip(linear_rgb[:, ::-1], 0.0, 1.0)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table = np.round(srgb * 255).astype(np.uint8)
    table[0] = 0
    return table


@lru_cache(maxsize=1)
def _colour_words() -> NDArray[np.uint32]:
    """Return `_colour_table` as one word for each id, bgr and a zero byte: uint32 `[65536]`."""
    table = np.zeros((1 << 16, 4), np.uint8)
    table[:, :3] = _colour_table()
    return table.view(np.uint32)[:, 0].copy()
