"""The memory of one batch: blocks that exist on the host and on the device, cut into named arrays.

Everything is made once, for declared maxima. Where GPU and CPU share their memory (Jetson) both sides of a block are
the same mapped memory, and copies are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from seg_perception.core.contract import ModelSpec

from .device import Device, Pinned, Stream
from .records import CAMERA

ALIGNMENT = 256
Layout = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Capacity:
    """The declared maxima.

    Attributes:
        batch: frames.
        frame_bytes: of one camera image, a multiple of `ALIGNMENT`.
        map_pixels: of one instance map, a multiple of `ALIGNMENT`.
    """

    batch: int
    frame_bytes: int = 0
    map_pixels: int = 0

    def holds(self, frame_bytes: int, map_pixels: int) -> bool:
        """Return whether frames and maps of these sizes have room."""
        return frame_bytes <= self.frame_bytes and map_pixels <= self.map_pixels

    def grown(self, frame_bytes: int, map_pixels: int) -> Capacity:
        """The least capacity that holds these, too."""
        return Capacity(
            self.batch, max(self.frame_bytes, aligned(frame_bytes)), max(self.map_pixels, aligned(map_pixels))
        )


class Block:
    """Arrays that lie one behind the other, on the device and, unless `device_only`, in pinned host memory too."""

    def __init__(self, device: Device, layout: Layout, *, device_only: bool = False) -> None:
        """Take the memory.

        Args:
            device: where.
            layout: type and shape of each array, in their order in memory.
            device_only: whether the host needs none of it.

        Raises:
            DeviceError: there is not enough memory.
        """
        self._device = device
        self._offsets: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self.size = 0
        for name, (dtype, shape) in layout.items():
            self._offsets[name] = self.size
            self._ends[name] = self.size + np.dtype(dtype).itemsize * prod(shape)
            self.size = aligned(self._ends[name])
        self._pinned = None if device_only else device.pinned(max(self.size, ALIGNMENT))
        self._shared = self._pinned is not None and self._pinned.address != 0
        try:
            self._base = self._pinned.address if self._pinned and self._shared else device.memory(max(self.size, 1))
        except BaseException:
            if self._pinned is not None:
                device.free(self._pinned)
            raise
        self.host = {} if self._pinned is None else _views(self._pinned, layout, self._offsets, self._ends)

    def address(self, name: str) -> int:
        """Return where an array begins on the device."""
        return self._base + self._offsets[name]

    def size_of(self, name: str) -> int:
        """Bytes of an array."""
        return self._ends[name] - self._offsets[name]

    def upload(self, stream: Stream, first: str, last: str = "", end: int | None = None) -> int:
        """Queue one copy to the device of the arrays from `first` to `last`.

        Args:
            stream: where to queue it.
            first: name of the first array.
            last: name of the last one; empty for `first` alone.
            end: bytes of the last array to copy; None for all.

        Returns:
            The bytes that are copied.
        """
        start, stop = self._part(first, last or first, end)
        if self._pinned is not None and not self._shared:
            self._device.copy_in(self._base + start, self._pinned.array[start:stop], stream)
        return stop - start

    def download(self, stream: Stream, first: str, last: str = "") -> int:
        """Queue one copy to the host of the arrays from `first` to `last`; returns its bytes."""
        return self._copy_out(stream, *self._part(first, last or first, None))

    def download_rows(self, stream: Stream, name: str, first: int, count: int) -> int:
        """Queue one copy to the host of `count` entries of an array's first axis; returns its bytes."""
        start, stop = self._part(name, name, None)
        row = (stop - start) // len(self.host[name])
        return self._copy_out(stream, start + first * row, start + (first + count) * row)

    def zero(self, stream: Stream, name: str) -> None:
        """Queue filling an array on the device with zeros."""
        self._device.zero(self.address(name), self.size_of(name), stream)

    def free(self) -> None:
        """Give the memory back; nothing queued may still use it."""
        self.host = {}
        if not self._shared:
            self._device.free(self._base)
        if self._pinned is not None:
            self._device.free(self._pinned)

    def _copy_out(self, stream: Stream, start: int, stop: int) -> int:
        if self._pinned is not None and not self._shared:
            self._device.copy_out(self._pinned.array[start:stop], self._base + start, stream)
        return stop - start

    def _part(self, first: str, last: str, end: int | None) -> tuple[int, int]:
        return self._offsets[first], self._ends[last] if end is None else self._offsets[last] + end


def request_layout(spec: ModelSpec, capacity: Capacity) -> Layout:
    """Return what goes to the device: the records, then the frames, so that one copy brings both."""
    classes, rows = len(spec.class_names), spec.max_instances
    return {
        "cameras": (CAMERA, (capacity.batch,)),
        "numbers": (np.uint16, (capacity.batch, rows)),
        "thresholds": (np.float32, (capacity.batch, classes)),
        "groups": (np.int32, (classes,)),
        "frames": (np.uint8, (capacity.batch, capacity.frame_bytes)),
    }


def found_layout(spec: ModelSpec, batch: int) -> Layout:
    """The small results: of the engine, then of select and paint."""
    rows = spec.max_instances
    return {
        "boxes": (np.float32, (batch, rows, 4)),
        "scores": (np.float32, (batch, rows)),
        "labels": (np.int32, (batch, rows)),
        "faults": (np.uint32, (batch,)),
        "numbers": (np.uint16, (batch, rows)),
        "areas": (np.int32, (batch, rows)),
    }


def inner_layout(spec: ModelSpec, batch: int, mask_type: DTypeLike) -> Layout:
    """Return what never leaves the device."""
    grid = (spec.mask_height, spec.mask_width)
    layout: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {
        "images": (np.uint8, (batch, spec.network_height, spec.network_width, 3)),
        "masks": (mask_type, (batch, spec.max_instances, *grid)),
        "gate": (np.uint32, (batch,)),
    }
    if spec.class_map:
        layout["class_map"] = (np.uint8, (batch, *grid))
    return layout


def maps_layout(capacity: Capacity) -> Layout:
    """The large results."""
    shape = (capacity.batch, capacity.map_pixels)
    return {"maps": (np.uint16, shape), "semantic": (np.uint8, shape)}


def aligned(size: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _views(
    pinned: Pinned, layout: Layout, offsets: Mapping[str, int], ends: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    return {
        name: pinned.array[offsets[name] : ends[name]].view(dtype).reshape(shape)
        for name, (dtype, shape) in layout.items()
    }
