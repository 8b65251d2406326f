"""The corners of the overlay: figures of the camera at the top, a legend of the road groups at the bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS, group_name

from .label_layout import BLACK, WHITE, Box, Colour, LabelLayout, Sizes, Writing, draw_writing, shade

_DARK = 0.62
_AMBER = (64, 190, 255)


@dataclass(frozen=True, slots=True)
class OverlayStats:
    """What is told about a camera next to its image.

    Attributes:
        camera: its name.
        age: seconds since the image was taken; NaN where nobody knows.
        rate: results a second; NaN where nobody knows.
        dropped: frames given up lately, by cause.
        seconds: how long `rate` and `dropped` look back.
        expected: causes of which a few are nothing to worry about.
    """

    camera: str
    age: float = nan
    rate: float = nan
    dropped: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    expected: frozenset[str] = frozenset()

    def lines(self) -> list[tuple[str, Colour]]:
        """As text, each line with its colour."""
        parts = [self.camera] if self.camera else []
        parts.append("- results/s" if isnan(self.rate) else f"{self.rate:.1f} results/s")
        parts.append("age -" if isnan(self.age) else f"age {1e3 * self.age:.0f} ms")
        lines = [("   ".join(parts), WHITE)]
        dropped = {cause: count for cause, count in self.dropped.items() if count > 0}
        if self.seconds:
            causes = ", ".join(f"{count} {cause.replace('_', ' ')}" for cause, count in dropped.items())
            colour = _AMBER if dropped.keys() - self.expected else WHITE
            lines.append((f"dropped in {self.seconds:.0f} s: {causes or 'none'}", colour))
        return lines


def draw_figures(canvas: NDArray[np.uint8], figures: OverlayStats, sizes: Sizes, places: LabelLayout) -> None:
    """Write figures into the upper left corner of a canvas uint8 `[H, W, 3]`, bgr."""
    lines = figures.lines()
    high, widest = sizes.plate_height, canvas.shape[1]
    wide = min(widest, max(sizes.width(Writing(text)) for text, _ in lines))
    _darken(canvas, (0, 0, wide, high * len(lines)), places)
    for number, (text, colour) in enumerate(lines):
        draw_writing(canvas, (0, number * high, wide, number * high + high), Writing(text), colour, sizes)


def draw_legend(canvas: NDArray[np.uint8], groups: NDArray[np.int32], sizes: Sizes, places: LabelLayout) -> None:
    """Explain the pictograms in the lower left corner, with how many there are of each.

    Args:
        canvas: uint8 `[H, W, 3]`, bgr.
        groups: int32 `[N]`, of the instances.
        sizes: in pixels.
        places: what the legend takes.
    """
    height, width = canvas.shape[:2]
    shown = [*range(len(ROAD_GROUPS)), *([NO_GROUP] if (groups == NO_GROUP).any() else [])]
    writings = [
        Writing(f"{group_name(group).replace('_', ' ')} {np.count_nonzero(groups == group)}", group) for group in shown
    ]
    for row in reversed(_rows(writings, sizes, width)):
        height -= sizes.plate_height
        if height < 0:
            return
        _darken(canvas, (0, height, min(width, sum(map(sizes.width, row))), height + sizes.plate_height), places)
        left = 0
        for writing in row:
            draw_writing(canvas, (left, height, width, height + sizes.plate_height), writing, WHITE, sizes)
            left += sizes.width(writing)


def _rows(writings: Sequence[Writing], sizes: Sizes, width: int) -> list[list[Writing]]:
    """As many to a row as have room."""
    rows: list[list[Writing]] = []
    left = width
    for writing in writings:
        left -= sizes.width(writing)
        if left < 0 or not rows:
            rows.append([])
            left = width - sizes.width(writing)
        rows[-1].append(writing)
    return rows


def _darken(canvas: NDArray[np.uint8], place: Box, places: LabelLayout) -> None:
    places.take(place)
    region = canvas[place[1] : place[3], place[0] : place[2]]
    if region.size:
        region[...] = shade(region, BLACK, _DARK)
