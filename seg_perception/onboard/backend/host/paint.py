"""Mask logits to one number per pixel.

Output pixel (u, v) has its centre at (u + 0.5, v + 0.5). The map shows the whole camera image, so per axis

    network = centre * content size / output size + padding
    grid    = network / stride - 0.5                               mask grid spanning the network input (`frame`)
    grid    = (network - box start) / box size * grid size - 0.5   mask grid spanning the box (`box`)

and the logit there is sampled bilinearly with clamped borders. A pixel belongs to the best instance whose box contains
its centre and whose logit is > 0. Work is done only inside boxes, best instance first, on pixels still free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.geometry import ResizeGeometry
from seg_perception.core.instances import InstanceMap

from ..base import not_finite

# Rows painted at once: the working set (a few float32 rows of the widest box) stays in the second-level cache.
_ROWS_AT_ONCE = 64


def paint(
    masks: NDArray[np.floating],
    boxes_network: NDArray[np.float32],
    numbers: NDArray[np.uint16],
    geometry: ResizeGeometry,
    output_size: tuple[int, int],
    mask_frame: str = "frame",
) -> InstanceMap:
    """Paint instances into one map.

    Args:
        masks: float32 or float16 `[K, h, w]`, logits.
        boxes_network: float32 `[K, 4]`, x1 y1 x2 y2 in network pixels, best row first.
        numbers: uint16 `[K]`, pixel value of each row; 0 leaves the row out.
        geometry: where the camera image lies in the network input.
        output_size: height and width of the map.
        mask_frame: `frame` or `box`, what the mask grid spans.

    Returns:
        The map, uint16 `[height, width]`, and the visible pixels of every row.

    Raises:
        ModelOutputError: a logit that was needed is NaN or infinite.
    """
    height, width = output_size
    pixels = np.zeros((height, width), np.uint16)
    areas = np.zeros(len(masks), np.int64)
    grid_height, grid_width = masks.shape[1:]
    across = _Axis.of_frame(width, geometry.content_width, geometry.left, geometry.network_width, grid_width)
    down = _Axis.of_frame(height, geometry.content_height, geometry.top, geometry.network_height, grid_height)
    for row in np.flatnonzero(numbers):
        x1, y1, x2, y2 = boxes_network[row].tolist()
        columns, lines = across.inside(x1, x2), down.inside(y1, y2)
        if columns.start >= columns.stop or lines.start >= lines.stop:
            continue
        if mask_frame == "frame":
            x, y = across.cut(columns), down.cut(lines)
        else:
            x, y = across.spanning(x1, x2, columns), down.spanning(y1, y2, lines)
        areas[row] = _paint_one(masks[row], x, y, numbers[row], pixels[lines, columns])
    return InstanceMap(pixels, areas)


def _paint_one(
    mask: NDArray[np.floating], x: _Samples, y: _Samples, number: np.uint16, region: NDArray[np.uint16]
) -> int:
    """Paint one mask `[h, w]` on the free pixels of `region` `[len(y), len(x)]`; returns how many there were."""
    logits = mask[y.first : y.last + 1, x.first : x.last + 1].astype(np.float32, copy=False)
    if not np.isfinite(logits).all():
        raise not_finite("mask logits")
    left = logits[:, x.low]
    # Grid rows resampled to output columns, and the step from each to the next (the last has none).
    stretched = left + x.weight * (logits[:, x.high] - left)
    step = np.zeros_like(stretched)
    np.subtract(stretched[1:], stretched[:-1], out=step[:-1])
    area = 0
    for start in range(0, len(region), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        low = y.low[part]
        sampled = np.take(step, low, axis=0)
        sampled *= y.weight[part, None]
        sampled += np.take(stretched, low, axis=0)
        rows = region[part]
        visible = sampled > 0
        visible &= rows == 0
        area += int(np.count_nonzero(visible))
        rows += visible * number
    return area


@dataclass(frozen=True, slots=True)
class _Samples:
    """Positions of output pixels between grid cells along one axis.

    Attributes:
        first, last: the grid cells needed, inclusive.
        low, high: int64 `[n]`, the two neighbours of each pixel, counted from `first`; equal at the last cell.
        weight: float32 `[n]`, share of the higher neighbour.
    """

    first: int
    last: int
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.float32]

    @classmethod
    def at(cls, position: NDArray[np.float64], size: int) -> _Samples:
        """Sample positions (in cells, cell centres at whole numbers) on a grid of `size` cells, clamped."""
        clamped = np.clip(position, 0, size - 1)
        low = clamped.astype(np.int64)
        weight = (clamped - low).astype(np.float32)
        first, last = int(low[0]), min(int(low[-1]) + 1, size - 1)
        low -= first
        return cls(first, last, low, np.minimum(low + 1, last - first), weight)


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of the output.

    Attributes:
        centres: float64 `[n]`, pixel centres in network pixels.
        position: float64 `[n]`, the same on a mask grid that spans the network input.
        size: cells of the mask grid.
    """

    centres: NDArray[np.float64]
    position: NDArray[np.float64]
    size: int

    @classmethod
    def of_frame(cls, length: int, content: int, padding: int, network: int, size: int) -> _Axis:
        """Lay `length` output pixels over `content` network pixels that start at `padding`."""
        centres = (np.arange(length, dtype=np.float64) + 0.5) * np.float64(content / length) + padding
        return cls(centres, centres * (size / network) - 0.5, size)

    def inside(self, start: float, stop: float) -> slice:
        """The output pixels whose centres lie in `[start, stop)` network pixels."""
        first, last = np.searchsorted(self.centres, (start, stop))
        return slice(int(first), int(last))

    def cut(self, part: slice) -> _Samples:
        """Samples on a grid that spans the network input."""
        return _Samples.at(self.position[part], self.size)

    def spanning(self, start: float, stop: float, part: slice) -> _Samples:
        """Samples on a grid that spans `[start, stop)` network pixels."""
        return _Samples.at((self.centres[part] - start) / (stop - start) * self.size - 0.5, self.size)
