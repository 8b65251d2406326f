"""Launches of the kernels between the engine's outputs and the maps: which instances, their pixels, their classes.

A grid is made for the pixels that a map may have at most, whatever its sides: the blocks of a camera walk over the
tiles that its map really has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from seg_perception.core.contract import ModelSpec

from .device import Device, Grid, Stream, address
from .records import CAMERA

if TYPE_CHECKING:
    from .slot import Work

# As the kernels have them: pixels of a tile and threads that work on one; threads that select for one camera.
_TILE_PIXELS = 64 * 32
_TILE_BLOCK: Grid = (128, 1, 1)
_SELECT_BLOCK: Grid = (256, 1, 1)
# Any number does for checking a class map.
_CHECK_BLOCK: Grid = (256, 1, 1)
_CELLS_PER_BLOCK = 4096


class Addresses(Protocol):
    """Named arrays on the device, each with one entry per frame of the batch on its first axis."""

    def address(self, name: str) -> int:
        """Return where an array begins."""


class MapKernels:
    """The kernels for one model.

    The arrays that they are given, by name: of `inner` masks, gate and class_map (for a model that has one); of `found`
    boxes, scores, labels, faults, numbers and areas; of `request` cameras, numbers, thresholds and groups; of `maps`
    maps and semantic. Types and shapes are those of the functions in `buffers` that lay them out.
    """

    def __init__(self, device: Device, spec: ModelSpec, mask_type: np.dtype[np.floating]) -> None:
        """Take what stays the same.

        Args:
            device: has the kernels.
            spec: of the model.
            mask_type: float32 or float16.
        """
        self._spec = spec
        self._mask_bytes = np.dtype(mask_type).itemsize
        self._select = device.kernel("select_rows")
        self._check_classes = device.kernel("check_classes")
        self._paint = device.kernel("paint_f16" if self._mask_bytes == 2 else "paint_f32")
        self._prune = device.kernel("prune")
        self._class_cells = device.kernel("class_cells")

    def select(self, found: Addresses, request: Addresses, count: int, stream: Stream) -> None:
        """Number what is kept of the first `count` frames; their areas and faults become 0."""
        arguments: tuple[np.generic, ...] = (
            *_arrays(found, "boxes", "scores", "labels"),
            *_arrays(request, "cameras", "thresholds", "groups"),
            np.int32(len(self._spec.class_names)),
            np.int32(self._spec.max_instances),
            *_arrays(found, "numbers", "areas", "faults"),
        )
        self._select.launch((1, 1, count), _SELECT_BLOCK, arguments, stream)

    def check_classes(self, inner: Addresses, found: Addresses, count: int, stream: Stream) -> None:
        """Add to the faults of the first `count` frames what is wrong with their class maps; after `select`."""
        cells = self._spec.mask_height * self._spec.mask_width
        arguments: tuple[np.generic, ...] = (
            *_arrays(inner, "class_map"),
            np.int32(cells),
            np.int32(len(self._spec.class_names)),
            *_arrays(found, "faults"),
        )
        self._check_classes.launch((-(-cells // _CELLS_PER_BLOCK), 1, count), _CHECK_BLOCK, arguments, stream)

    def paint(
        self,
        inner: Addresses,
        found: Addresses,
        request: Addresses,
        maps: Addresses,
        work: Work,
        map_pixels: int,
        gated: bool,
        stream: Stream,
    ) -> None:
        """Paint the maps of some frames of a batch; adds to their areas and faults.

        Args:
            inner, found, request, maps: see the class.
            work: which frames, and whether semantic maps are painted, too.
            map_pixels: what a map has at most; from one map to the next.
            gated: pass over the frames whose gate `prune` closed.
            stream: where.
        """
        spec, first = self._spec, work.first
        rows, cells = spec.max_instances, spec.mask_height * spec.mask_width
        arguments: tuple[np.generic, ...] = (
            _entry(inner, "masks", first, rows * cells * self._mask_bytes),
            _entry(found, "boxes", first, rows * 16),
            _entry(found, "numbers", first, rows * 2),
            _entry(found, "labels", first, rows * 4),
            _entry(inner, "class_map", first, cells) if spec.class_map and work.semantic else address(0),
            _entry(request, "cameras", first, CAMERA.itemsize),
            _entry(inner, "gate", first, 4) if gated else address(0),
            np.int32(rows),
            *self._grid_arguments(),
            np.int32(spec.mask_frame == "box"),
            *self._network_arguments(),
            np.uint64(map_pixels),
            _entry(maps, "maps", first, map_pixels * 2),
            _entry(maps, "semantic", first, map_pixels) if work.semantic else address(0),
            _entry(found, "areas", first, rows * 4),
            _entry(found, "faults", first, 4),
        )
        self._paint.launch(_tile_grid(map_pixels, work.count), _TILE_BLOCK, arguments, stream)

    def prune(
        self, request: Addresses, found: Addresses, inner: Addresses, work: Work, renumber: bool, stream: Stream
    ) -> None:
        """Leave small instances of some frames out, and set their gates accordingly.

        Args:
            request, found, inner: see the class.
            work: which frames.
            renumber: number the others 1..N; else they keep their numbers.
            stream: where.
        """
        rows, first = self._spec.max_instances, work.first
        arguments: tuple[np.generic, ...] = (
            _entry(request, "cameras", first, CAMERA.itemsize),
            np.int32(rows),
            np.int32(renumber),
            _entry(found, "numbers", first, rows * 2),
            _entry(found, "areas", first, rows * 4),
            _entry(inner, "gate", first, 4),
        )
        self._prune.launch((1, 1, work.count), _SELECT_BLOCK, arguments, stream)

    def class_cells(
        self, inner: Addresses, request: Addresses, maps: Addresses, index: int, map_pixels: int, stream: Stream
    ) -> None:
        """Spread the class map of frame `index` over the pixels of its map, in place of its semantic map."""
        cells = self._spec.mask_height * self._spec.mask_width
        arguments: tuple[np.generic, ...] = (
            _entry(inner, "class_map", index, cells),
            _entry(request, "cameras", index, CAMERA.itemsize),
            *self._grid_arguments(),
            *self._network_arguments(),
            np.uint64(map_pixels),
            _entry(maps, "semantic", index, map_pixels),
        )
        self._class_cells.launch(_tile_grid(map_pixels, 1), _TILE_BLOCK, arguments, stream)

    def _grid_arguments(self) -> tuple[np.int32, np.int32]:
        return np.int32(self._spec.mask_height), np.int32(self._spec.mask_width)

    def _network_arguments(self) -> tuple[np.int32, np.int32]:
        return np.int32(self._spec.network_width), np.int32(self._spec.network_height)


def _tile_grid(map_pixels: int, count: int) -> Grid:
    """Blocks for `count` maps: a little more than their area asks for, since tiles overhang at the borders."""
    return map_pixels * 9 // 8 // _TILE_PIXELS + 8, 1, count


def _arrays(block: Addresses, *names: str) -> tuple[np.uint64, ...]:
    return tuple(address(block.address(name)) for name in names)


def _entry(block: Addresses, name: str, index: int, size: int) -> np.uint64:
    """Return where an entry of an array begins, each of `size` bytes."""
    return address(block.address(name) + index * size)
