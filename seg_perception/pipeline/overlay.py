"""Pictures for people: the instances over the camera image, and the instance map in colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ..instances import Segmentation

_FILL = 0.42
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT = 22.0  # pixels of a capital of `_FONT` at scale 1
# Turning by the golden angle keeps every run of successive hues far apart, however long it gets.
_GOLDEN_ANGLE = np.pi * (3.0 - np.sqrt(5.0))
# Lightness and chroma alternate, so that hues that come close after some turns still differ.
_LIGHTNESS = np.array([0.74, 0.64, 0.82])
_CHROMA = np.array([0.17, 0.19, 0.14])


def colour_map(pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """An instance map in colours.

    Args:
        pixels: uint16 `[H, W]`, instance numbers; 0 is background.

    Returns:
        uint8 `[H, W, 3]`, bgr; a number always has the same colour, near numbers differ clearly, numbers hundreds apart
        may look alike, and the background is black.
    """
    # A gather of whole 32-bit words is several times faster than one of three bytes. Unlike indexing, `take` gives
    # rows in order whatever the order of the map in memory, which the view as bytes needs.
    words = np.take(_colour_words(), pixels)
    return cv2.cvtColor(words.view(np.uint8).reshape(*pixels.shape, 4), cv2.COLOR_BGRA2BGR).view(np.uint8)


def draw_overlay(
    image_bgr: NDArray[np.uint8], segmentation: Segmentation, class_names: Sequence[str]
) -> NDArray[np.uint8]:
    """The camera image with every instance filled, outlined, framed and named.

    Args:
        image_bgr: uint8 `[H, W, 3]`, the camera image; it is left unchanged.
        segmentation: what was found in it; the instance map may have another size.
        class_names: the model's class names, indexed by the instances' labels.

    Returns:
        uint8 `[H, W, 3]`, bgr.
    """
    canvas = np.ascontiguousarray(image_bgr).copy()
    instances = segmentation.instances
    if not len(instances):
        return canvas
    height, width = canvas.shape[:2]
    style = _Style.of(width, height)
    pixels = segmentation.instance_map.pixels
    if pixels.shape != (height, width):
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).view(np.uint16)
    corners = np.concatenate([np.floor(instances.boxes_camera[:, :2]), np.ceil(instances.boxes_camera[:, 2:])], axis=1)
    boxes = [(x1, y1, x2, y2) for x1, y1, x2, y2 in corners.astype(int).tolist()]
    colours = [(b, g, r) for b, g, r in _colour_table()[instances.numbers].tolist()]

    # Worst first, so that the names of the surest instances lie on top.
    for index in reversed(range(len(instances))):
        _fill(canvas, pixels, int(instances.numbers[index]), boxes[index], colours[index], style)
    for index in reversed(range(len(instances))):
        _draw_corners(canvas, boxes[index], colours[index], style)
    texts = [
        f"{class_names[label]} {score:.2f}" for label, score in zip(instances.labels, instances.scores, strict=True)
    ]
    plates = _place_labels(texts, boxes, (width, height), style)
    for index in reversed(range(len(instances))):
        _draw_label(canvas, texts[index], plates[index], colours[index], style)
    return canvas


_Box = tuple[int, int, int, int]
_Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Style:
    """Sizes in pixels that suit an image.

    Attributes:
        line: thickness of outlines and corners.
        capital: height of a capital letter.
        font_scale: scale of `_FONT`.
        font_line: thickness of its strokes.
        margin: space around a label's text.
    """

    line: int
    capital: int
    font_scale: float
    font_line: int
    margin: int

    @classmethod
    def of(cls, width: int, height: int) -> _Style:
        side = min(width, height * 16 / 9) / 1280
        capital = max(8, round(10 * side))
        return cls(
            line=max(1, round(1.5 * side)),
            capital=capital,
            font_scale=capital / _FONT_HEIGHT,
            font_line=max(1, round(capital / 9)),
            margin=max(3, round(0.4 * capital)),
        )

    def plate(self, text: str) -> tuple[int, int]:
        """Width and height of a label's plate."""
        (width, _), _ = cv2.getTextSize(text, _FONT, self.font_scale, self.font_line)
        # The third of a capital below the base line is for letters like g.
        return width + 2 * self.margin, self.capital + self.capital // 3 + 2 * self.margin


def _fill(
    canvas: NDArray[np.uint8], pixels: NDArray[np.uint16], number: int, box: _Box, colour: _Colour, style: _Style
) -> None:
    """Blend an instance's pixels with its colour and draw their outline, looking only inside its box."""
    x1, y1, x2, y2 = box
    # One pixel more: a map of another size rounds the box's border its own way. The blocks of a much coarser map may
    # reach further, and are cut there.
    x1, y1 = max(0, x1 - 1), max(0, y1 - 1)
    region = canvas[y1 : y2 + 1, x1 : x2 + 1]
    if not region.size:  # a model may give a box that ends before it begins
        return
    mask = cv2.inRange(pixels[y1 : y2 + 1, x1 : x2 + 1], number, number)
    blended = cv2.LUT(region, _blend_table(colour))
    cv2.copyTo(blended, mask, region)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(region, contours, -1, colour, style.line, cv2.LINE_AA)


def _blend_table(colour: _Colour) -> NDArray[np.uint8]:
    """What each value of each channel becomes under a translucent `colour`: uint8 `[1, 256, 3]`."""
    values = np.arange(256.0)[:, None] * (1 - _FILL) + np.array(colour) * _FILL
    return np.round(values).astype(np.uint8)[None]


def _draw_corners(canvas: NDArray[np.uint8], box: _Box, colour: _Colour, style: _Style) -> None:
    """Mark the four corners of a box."""
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = max(0, box[0]), max(0, box[1]), min(width, box[2]) - 1, min(height, box[3]) - 1
    side = max(0, min(x2 - x1, y2 - y1))
    length = min(max(4, side // 4), 16 * style.line, side)
    for x, dx in ((x1, length), (x2, -length)):
        for y, dy in ((y1, length), (y2, -length)):
            corner = np.array([(x + dx, y), (x, y), (x, y + dy)], np.int32)
            cv2.polylines(canvas, [corner], False, colour, style.line + 1, cv2.LINE_AA)


def _place_labels(texts: Sequence[str], boxes: Sequence[_Box], size: tuple[int, int], style: _Style) -> list[_Box]:
    """A place for every label at its box, clear of the labels before it if there is such a place.

    Args:
        texts: the labels, best instance first.
        boxes: their boxes.
        size: width and height of the image.
        style: sizes in pixels.

    Returns:
        The labels' plates, x1 y1 x2 y2.
    """
    width, height = size
    plates: list[_Box] = []
    for text, (x1, y1, _, y2) in zip(texts, boxes, strict=True):
        plate_width, plate_height = style.plate(text)
        left = max(0, min(x1, width - plate_width))
        tops = [top for top in (y1 - plate_height, y1, y2 - plate_height, y2) if 0 <= top <= height - plate_height]
        places = [(left, top, left + plate_width, top + plate_height) for top in tops or [0]]
        free = (place for place in places if not any(_overlap(place, plate) for plate in plates))
        plates.append(next(free, places[0]))
    return plates


def _draw_label(canvas: NDArray[np.uint8], text: str, plate: _Box, colour: _Colour, style: _Style) -> None:
    """Write `text` on a plate of `colour`."""
    cv2.rectangle(canvas, plate[:2], (plate[2] - 1, plate[3] - 1), colour, cv2.FILLED)
    origin = (plate[0] + style.margin, plate[1] + style.margin + style.capital)
    cv2.putText(canvas, text, origin, _FONT, style.font_scale, _ink(colour), style.font_line, cv2.LINE_AA)


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ink(colour: _Colour) -> _Colour:
    """Black or white, whichever is easier to read on `colour` (Rec. 709 luma)."""
    blue, green, red = colour
    return (16, 16, 16) if 0.0722 * blue + 0.7152 * green + 0.2126 * red > 110 else (255, 255, 255)


@lru_cache(maxsize=1)
def _colour_table() -> NDArray[np.uint8]:
    """The colour of every instance number: uint8 `[65536, 3]`, bgr.

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
    """`_colour_table` as one word for each number, bgr and a zero byte: uint32 `[65536]`."""
    table = np.zeros((1 << 16, 4), np.uint8)
    table[:, :3] = _colour_table()
    return table.view(np.uint32)[:, 0].copy()
