"""The corners of the overlay: figures of the camera at the top, a legend of the road groups at the bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS, group_name

from .label_layout import BLACK, WHITE, Box, Colour, Label, LabelLayout, Sizes, draw_content, shade

_DARK = 0.62
_AMBER = (64, 190, 255)


@dataclass(frozen=True, slots=True)
class OverlayStats:
    """Statistics of a camera, shown on its image.

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


def draw_figures(canvas: NDArray[np.uint8], figures: OverlayStats, sizes: Sizes, layout: LabelLayout) -> None:
    """Write figures into the upper left corner of a canvas uint8 `[H, W, 3]`, bgr."""
    lines = figures.lines()
    high, widest = sizes.label_height, canvas.shape[1]
    wide = min(widest, max(sizes.width(Label(text)) for text, _ in lines))
    _darken(canvas, (0, 0, wide, high * len(lines)), layout)
    for number, (text, colour) in enumerate(lines):
        draw_content(canvas, (0, number * high, wide, number * high + high), Label(text), colour, sizes)


def draw_legend(canvas: NDArray[np.uint8], groups: NDArray[np.int32], sizes: Sizes, layout: LabelLayout) -> None:
    """Explain the pictograms in the lower left corner, with how many there are of each.

    Args:
        canvas: uint8 `[H, W, 3]`, bgr.
        groups: int32 `[N]`, of the instances.
        sizes: in pixels.
        layout: where the legend takes its place.
    """
    height, width = canvas.shape[:2]
    shown = [*range(len(ROAD_GROUPS)), *([NO_GROUP] if (groups == NO_GROUP).any() else [])]
    labels = [
        Label(f"{group_name(group).replace('_', ' ')} {np.count_nonzero(groups == group)}", group) for group in shown
    ]
    for row in reversed(_rows(labels, sizes, width)):
        height -= sizes.label_height
        if height < 0:
            return
        _darken(canvas, (0, height, min(width, sum(map(sizes.width, row))), height + sizes.label_height), layout)
        left = 0
        for label in row:
            draw_content(canvas, (left, height, width, height + sizes.label_height), label, WHITE, sizes)
            left += sizes.width(label)


def _rows(labels: Sequence[Label], sizes: Sizes, width: int) -> list[list[Label]]:
    """Return labels in rows, as many to a row as have room."""
    rows: list[list[Label]] = []
    left = width
    for label in labels:
        left -= sizes.width(label)
        if left < 0 or not rows:
            rows.append([])
            left = width - sizes.width(label)
        rows[-1].append(label)
    return rows


def _darken(canvas: NDArray[np.uint8], region: Box, layout: LabelLayout) -> None:
    layout.take(region)
    pixels = canvas[region[1] : region[3], region[0] : region[2]]
    if pixels.size:
        pixels[...] = shade(pixels, BLACK, _DARK)
