"""Labels on images: sizes that suit an image, free places, and drawing of a pictogram and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .pictograms import pictogram

Box = tuple[int, int, int, int]
Colour = tuple[int, int, int]

BLACK, WHITE = (16, 16, 16), (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT = 22.0  # pixels of a capital of `_FONT` at scale 1
# A layout knows what is taken in steps of this many pixels.
_CELL = 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes in pixels that suit an image.

    Attributes:
        line: thickness of outlines and corners.
        capital: height of a capital letter.
        font_scale: scale of the font.
        font_line: thickness of its strokes.
        margin: space around a label's text.
        icon: side of a pictogram.
    """

    line: int
    capital: int
    font_scale: float
    font_line: int
    margin: int
    icon: int

    @classmethod
    def of(cls, width: int, height: int) -> Sizes:
        """Return sizes that suit an image of this width and height."""
        side = min(width, height * 16 / 9) / 1280
        capital = max(8, round(10 * side))
        return cls(
            line=max(1, round(1.5 * side)),
            capital=capital,
            font_scale=capital / _FONT_HEIGHT,
            font_line=max(1, round(capital / 9)),
            margin=max(3, round(0.4 * capital)),
            icon=capital + capital // 2,
        )

    @property
    def label_height(self) -> int:
        """Height of a label."""
        # The third of a capital below the base line is for letters like g.
        return self.capital + self.capital // 3 + 2 * self.margin

    def width(self, label: Label) -> int:
        """Return the width of a label."""
        icon = 0 if label.group is None else self.icon
        gap = self.margin if icon and label.text else 0
        text = cv2.getTextSize(label.text, _FONT, self.font_scale, self.font_line)[0][0] if label.text else 0
        return icon + gap + text + 2 * self.margin


@dataclass(frozen=True, slots=True)
class Label:
    """The content of a label.

    Attributes:
        text: to the right of the pictogram.
        group: whose pictogram; None for none.
    """

    text: str
    group: int | None = None


class LabelLayout:
    """The parts of an image that are taken by labels."""

    def __init__(self, width: int, height: int) -> None:
        """Begin with an image that is free everywhere."""
        self._taken = np.zeros((height // _CELL + 1, width // _CELL + 1), np.bool_)
        self._width, self._height = width, height

    def find(self, sizes: Sizes, candidates: Sequence[Label], box: Box) -> tuple[Label, Box]:
        """Find a place for a label at a box, free if possible, and take it.

        Args:
            sizes: in pixels.
            candidates: the fullest label first; the shorter ones are for crowded places.
            box: x1 y1 x2 y2 of what it belongs to.

        Returns:
            The label that is used, and its x1 y1 x2 y2.
        """
        x1, y1, _, y2 = box
        high = sizes.label_height
        tops = [y1 - high, y1, y2 - high, y2, *(y1 + step * high for step in (1, 2, 3))]
        tops = [top for top in tops if 0 <= top <= self._height - high] or [0]
        for label in candidates:
            wide = sizes.width(label)
            left = max(0, min(x1, self._width - wide))
            for top in tops:
                region = (left, top, left + wide, top + high)
                if self.take(region):
                    return label, region
        return label, (left, tops[0], left + wide, tops[0] + high)

    def take(self, region: Box) -> bool:
        """Take a region, x1 y1 x2 y2, if it is free; return whether it was."""
        x1, y1, x2, y2 = region
        cells = self._taken[y1 // _CELL : -(-y2 // _CELL), x1 // _CELL : -(-x2 // _CELL)]
        if cells.any():
            return False
        cells[...] = True
        return True


def draw_label(canvas: NDArray[np.uint8], region: Box, label: Label, colour: Colour, sizes: Sizes) -> None:
    """Draw a label on a background of its own.

    Args:
        canvas: uint8 `[H, W, 3]`, bgr.
        region: x1 y1 x2 y2; what lies outside the canvas is cut.
        label: its content.
        colour: of the background.
        sizes: in pixels.
    """
    cv2.rectangle(canvas, region[:2], (region[2] - 1, region[3] - 1), colour, cv2.FILLED)
    draw_content(canvas, region, label, ink(colour), sizes)


def draw_content(canvas: NDArray[np.uint8], region: Box, label: Label, colour: Colour, sizes: Sizes) -> None:
    """Draw the pictogram and text of a label without a background."""
    x, y = region[0] + sizes.margin, region[1]
    if label.group is not None:
        _draw_pictogram(canvas, label.group, (x, y + (sizes.label_height - sizes.icon) // 2), colour, sizes.icon)
        x += sizes.icon + sizes.margin
    if label.text:
        origin = (x, y + sizes.margin + sizes.capital)
        cv2.putText(canvas, label.text, origin, _FONT, sizes.font_scale, colour, sizes.font_line, cv2.LINE_AA)


def ink(colour: Colour) -> Colour:
    """Black or white, whichever is easier to read on `colour` (Rec. 709 luma)."""
    blue, green, red = colour
    return BLACK if 0.0722 * blue + 0.7152 * green + 0.2126 * red > 110 else WHITE


def shade(region: NDArray[np.uint8], colour: Colour, share: float) -> NDArray[np.uint8]:
    """A region `[h, w, 3]` under a translucent colour; `share` (0-1) is the colour's."""
    return cv2.LUT(region, _shades(colour, share)).view(np.uint8)


@lru_cache(maxsize=256)
def _shades(colour: Colour, share: float) -> NDArray[np.uint8]:
    """Return what each value of each channel becomes: uint8 `[1, 256, 3]`."""
    values = np.arange(256.0)[:, None] * (1 - share) + np.array(colour) * share
    return np.round(values).astype(np.uint8)[None]


def _draw_pictogram(canvas: NDArray[np.uint8], group: int, corner: tuple[int, int], colour: Colour, side: int) -> None:
    x, y = corner
    region = canvas[max(0, y) : y + side, max(0, x) : x + side]
    if not region.size:
        return
    covered = pictogram(group, side)[max(0, -y) :, max(0, -x) :][: region.shape[0], : region.shape[1]]
    share = covered[..., None] / np.float32(255)
    region[...] = region * (1 - share) + np.array(colour, np.float32) * share + np.float32(0.5)
