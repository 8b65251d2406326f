"""Pictograms of the road groups, drawn from outlines, at any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import NO_GROUP

# They are drawn this many times larger and averaged, for smooth edges.
_FINER = 8
_Points = Sequence[tuple[float, float]]


@lru_cache(maxsize=64)
def pictogram(group: int, side: int) -> NDArray[np.uint8]:
    """Return how much of each pixel a pictogram covers.

    Args:
        group: index into `classes.ROAD_GROUPS`, or `NO_GROUP`.
        side: height and width in pixels.

    Returns:
        uint8 `[side, side]`, 0 to 255; read-only.
    """
    canvas = _Canvas(max(1, side) * _FINER)
    _DRAWINGS.get(group, _other)(canvas)
    covered = cv2.resize(canvas.pixels, (max(1, side), max(1, side)), interpolation=cv2.INTER_AREA).view(np.uint8)
    covered.flags.writeable = False
    return covered


class _Canvas:
    """A square of side 1, x to the right and y downwards."""

    def __init__(self, side: int) -> None:
        self.pixels = np.zeros((side, side), np.uint8)
        self._side = side

    def polygon(self, points: _Points, value: int = 255) -> None:
        corners = np.round(np.array(points) * self._side).astype(np.int32)
        cv2.fillPoly(self.pixels, [corners], value)

    def line(self, points: _Points, width: float) -> None:
        corners = np.round(np.array(points) * self._side).astype(np.int32)
        cv2.polylines(self.pixels, [corners], False, 255, max(1, round(width * self._side)))

    def disc(self, x: float, y: float, radius: float, value: int = 255) -> None:
        centre = (round(x * self._side), round(y * self._side))
        cv2.circle(self.pixels, centre, round(radius * self._side), value, cv2.FILLED)


def _pedestrian(canvas: _Canvas) -> None:
    canvas.disc(0.54, 0.13, 0.12)
    canvas.line([(0.52, 0.36), (0.50, 0.58)], 0.20)
    canvas.line([(0.53, 0.60), (0.68, 0.76), (0.72, 0.95)], 0.12)
    canvas.line([(0.48, 0.60), (0.42, 0.78), (0.28, 0.95)], 0.12)
    canvas.line([(0.55, 0.34), (0.70, 0.48), (0.84, 0.52)], 0.09)
    canvas.line([(0.47, 0.34), (0.32, 0.44), (0.27, 0.58)], 0.09)


def _vehicle(canvas: _Canvas) -> None:
    canvas.polygon([(0.32, 0.22), (0.70, 0.22), (0.84, 0.47), (0.20, 0.47)])
    canvas.polygon([(0.02, 0.52), (0.20, 0.46), (0.84, 0.46), (0.98, 0.54), (0.98, 0.76), (0.02, 0.76)])
    canvas.polygon([(0.31, 0.45), (0.38, 0.30), (0.49, 0.30), (0.49, 0.45)], 0)
    canvas.polygon([(0.56, 0.45), (0.56, 0.30), (0.66, 0.30), (0.74, 0.45)], 0)
    for x in (0.26, 0.74):
        canvas.disc(x, 0.76, 0.165, 0)
        canvas.disc(x, 0.76, 0.12)


def _traffic_sign(canvas: _Canvas) -> None:
    canvas.polygon([(0.5, 0.04), (0.99, 0.92), (0.01, 0.92)])
    canvas.polygon([(0.5, 0.28), (0.80, 0.81), (0.20, 0.81)], 0)
    canvas.line([(0.5, 0.46), (0.5, 0.60)], 0.10)
    canvas.disc(0.5, 0.72, 0.055)


def _traffic_light(canvas: _Canvas) -> None:
    canvas.polygon([(0.30, 0.02), (0.70, 0.02), (0.70, 0.98), (0.30, 0.98)])
    canvas.polygon([(0.26, 0.06), (0.74, 0.06), (0.74, 0.94), (0.26, 0.94)])
    for y in (0.21, 0.50, 0.79):
        canvas.disc(0.5, y, 0.105, 0)


def _other(canvas: _Canvas) -> None:
    canvas.polygon([(0.5, 0.08), (0.92, 0.5), (0.5, 0.92), (0.08, 0.5)])
    canvas.polygon([(0.5, 0.28), (0.72, 0.5), (0.5, 0.72), (0.28, 0.5)], 0)


# In the order of ROAD_GROUPS.
_DRAWINGS: dict[int, Callable[[_Canvas], None]] = {
    **dict(enumerate((_pedestrian, _vehicle, _traffic_sign, _traffic_light))),
    NO_GROUP: _other,
}
