"""Grids of values that are no numbers to interpolate, such as classes, on the pixels of the camera image.

A grid spans the network input. A pixel takes the value of the cell that contains its centre.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.geometry import ResizeGeometry

_Cell = TypeVar("_Cell", bound=np.generic)


def at_output(cells: NDArray[_Cell], geometry: ResizeGeometry, output_size: tuple[int, int]) -> NDArray[_Cell]:
    """The value of each output pixel.

    Args:
        cells: `[h, w]`, spanning the network input.
        geometry: where the camera image lies in the network input.
        output_size: height and width of the result; it shows the whole camera image.

    Returns:
        `[height, width]`.
    """
    height, width = output_size
    rows = _cells_of(height, geometry.content_height, geometry.top, geometry.network_height, cells.shape[0])
    columns = _cells_of(width, geometry.content_width, geometry.left, geometry.network_width, cells.shape[1])
    # Columns first, on the few rows of the grid; whole rows are then copied at once.
    return np.take(np.take(cells, columns, axis=1), rows, axis=0)


def content_cells(geometry: ResizeGeometry, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The cells of a grid of `shape` that show any of the camera image: rows and columns."""
    height, width = shape
    return (
        _covered(geometry.top, geometry.content_height, geometry.network_height, height),
        _covered(geometry.left, geometry.content_width, geometry.network_width, width),
    )


def _cells_of(length: int, content: int, padding: int, network: int, size: int) -> NDArray[np.int64]:
    """The cell of each of `length` output pixels that lie over `content` network pixels from `padding` on."""
    centres = (np.arange(length) + 0.5) * (content / length) + padding
    cells = (centres * (size / network)).astype(np.int64)
    return np.minimum(cells, size - 1)


def _covered(padding: int, content: int, network: int, size: int) -> slice:
    return slice(padding * size // network, -(-(padding + content) * size // network))
