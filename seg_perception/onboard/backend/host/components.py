"""Instances of models that have a class map only: the connected components of each class of things.

A class map has no scores and does not separate objects of a class that touch. Every component has the score 1, the
largest come first, and objects that touch, diagonally too, are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import FAULTY_CELL, NO_CLASS
from seg_perception.core.geometry import ResizeGeometry
from seg_perception.core.instances import InstanceMap

from ..base import not_finite, unknown_class
from .cells import at_output, content_cells

# A noisy class map has thousands of specks; beyond this the smaller ones are left out.
MOST_COMPONENTS = 100
_LEFT, _TOP, _WIDTH, _HEIGHT, _AREA = range(5)


@dataclass(frozen=True, slots=True)
class Components:
    """The components of one class map, largest first; K is at most `MOST_COMPONENTS`.

    Attributes:
        boxes_network: float32 `[K, 4]`, x1 y1 x2 y2 in network pixels, exactly around the component's cells.
        labels: int32 `[K]`, index into the class names.
        cells: uint16 `[h, w]`, 1 + the row of the component that a cell belongs to, 0 for none.
    """

    boxes_network: NDArray[np.float32]
    labels: NDArray[np.int32]
    cells: NDArray[np.uint16]

    @classmethod
    def of(cls, class_map: NDArray[np.uint8], things: Sequence[bool], geometry: ResizeGeometry) -> Components:
        """Find the components within the camera image; the padding around it is not looked at.

        Args:
            class_map: uint8 `[h, w]`, spanning the network input.
            things: for each class, whether it has instances.
            geometry: where the camera image lies in the network input.
        """
        rows, columns = content_cells(geometry, class_map.shape)
        content = class_map[rows, columns]
        present = [label for label in np.flatnonzero(_counts(content)[: len(things)]).tolist() if things[label]]
        parts = [_ClassComponents.of(content, label) for label in present]
        stats = np.concatenate([np.zeros((0, 5), np.int32), *(part.stats for part in parts)])
        labels = np.repeat(np.array(present, np.int32), [len(part.stats) for part in parts])
        order = np.argsort(-stats[:, _AREA], kind="stable")[:MOST_COMPONENTS]
        number = np.zeros(len(stats), np.uint16)
        number[order] = np.arange(1, len(order) + 1)

        cells = np.zeros(class_map.shape, np.uint16)
        first = 0
        for part in parts:
            part.write(cells[rows, columns], number[first : first + len(part.stats)])
            first += len(part.stats)
        starts = stats[order][:, [_LEFT, _TOP]] + [columns.start, rows.start]
        corners = np.concatenate([starts, starts + stats[order][:, [_WIDTH, _HEIGHT]]], axis=1)
        height, width = class_map.shape
        stride = np.array([geometry.network_width / width, geometry.network_height / height] * 2)
        return cls((corners * stride).astype(np.float32), labels[order], cells)

    def paint(self, numbers: NDArray[np.uint16], geometry: ResizeGeometry, output_size: tuple[int, int]) -> InstanceMap:
        """Paint the components; they do not overlap.

        Args:
            numbers: uint16 `[K]`, pixel value of each row; 0 leaves the row out.
            geometry: where the camera image lies in the network input.
            output_size: height and width of the map.
        """
        rows = at_output(self.cells, geometry, output_size)
        areas = np.bincount(rows.reshape(-1), minlength=len(numbers) + 1)[1:]
        return InstanceMap(np.append(np.uint16(0), numbers)[rows], np.where(numbers > 0, areas, 0))


def check_class_map(class_map: NDArray[np.uint8], classes: int) -> None:
    """See that a class map is usable.

    Args:
        class_map: uint8 `[h, w]`.
        classes: how many there are.

    Raises:
        ModelOutputError: the network produced NaN or infinity, or a cell has a class that there is not.
    """
    counts = _counts(class_map)
    if counts[FAULTY_CELL]:
        raise not_finite("class scores")
    odd = np.flatnonzero(counts[classes:NO_CLASS])
    if odd.size:
        raise unknown_class(classes + odd[0], classes)


@dataclass(frozen=True, slots=True)
class _ClassComponents:
    """The components of one class.

    Attributes:
        top, left: where the smallest rectangle around the class begins.
        marks: uint16 or int32 `[height, width]` of that rectangle, the component of each cell from 1 on, 0 for none.
        stats: int32 `[N, 5]`, left, top, width, height and area of each component, in cells of the class map.
    """

    top: int
    left: int
    marks: NDArray[Any]
    stats: NDArray[np.int32]

    @classmethod
    def of(cls, class_map: NDArray[np.uint8], label: int) -> _ClassComponents:
        mask = cv2.inRange(class_map, label, label)
        left, top, width, height = cv2.boundingRect(mask)
        region = mask[top : top + height, left : left + width]
        # In 16 bits twice as fast. No two components share a block of 2 x 2 cells.
        most = -(-width // 2) * -(-height // 2)
        kind = cv2.CV_16U if most <= np.iinfo(np.uint16).max else cv2.CV_32S
        _, marks, stats, _ = cv2.connectedComponentsWithStats(region, connectivity=8, ltype=kind)
        shifted = stats[1:] + np.array([left, top, 0, 0, 0], np.int32)
        return cls(top, left, marks, shifted.astype(np.int32))

    def write(self, cells: NDArray[np.uint16], numbers: NDArray[np.uint16]) -> None:
        """Write the number of each component, uint16 `[N]`, into `cells`, uint16 `[h, w]`, where others left 0."""
        height, width = self.marks.shape
        table = np.append(np.uint16(0), numbers)
        cells[self.top : self.top + height, self.left : self.left + width] += np.take(table, self.marks)


def _counts(class_map: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how many cells have each value: float32 `[256]`."""
    counts = cv2.calcHist([np.ascontiguousarray(class_map)], [0], None, [256], [0, 256])
    return np.asarray(counts, np.float32).reshape(-1)
