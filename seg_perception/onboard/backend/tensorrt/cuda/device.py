"""What is asked of a GPU: the one narrow interface between this package and CUDA.

`pycuda_device.PycudaDevice` is the real one. Everything above it (buffers, launches, captured graphs) knows only this,
so all of it also runs where memory is the host's and the kernels are compiled for the CPU.

Addresses are device addresses as plain integers; sizes are bytes. Everything that takes a stream only queues work there
and returns; `Stream.wait` waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Grid = tuple[int, int, int]


class CaptureFailed(Exception):
    """Work could not be captured into a graph; it can still be queued on the stream. Never reaches a user."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """Page-locked host memory.

    Attributes:
        array: uint8 `[size]`, the memory itself.
        address: its device address where GPU and CPU share their memory and the block is mapped; else 0.
    """

    array: NDArray[np.uint8]
    address: int


class Stream(Protocol):
    """A queue of work."""

    @property
    def handle(self) -> int:
        """The CUstream, for libraries that queue work there themselves."""

    def wait(self) -> None:
        """Wait until everything queued is done.

        Raises:
            DeviceError: some of it failed.
        """


class Event(Protocol):
    """A mark in a stream that has a time."""

    def record(self, stream: Stream) -> None:
        """Set the mark behind everything queued so far."""

    def seconds_since(self, earlier: Event) -> float:
        """Time between two marks that were passed; wait for the stream first."""


class Graph(Protocol):
    """Captured work."""

    def launch(self, stream: Stream) -> None:
        """Queue all of it."""


class Kernel(Protocol):
    """A function of the module."""

    def launch(self, grid: Grid, block: Grid, arguments: Sequence[np.generic], stream: Stream) -> None:
        """Queue it.

        Args:
            grid: blocks in x, y, z.
            block: threads in x, y, z.
            arguments: numpy scalars of exactly the types of the parameters; addresses are `np.uint64`.
            stream: where.
        """


class Device(Protocol):
    """One GPU. Its methods are called within `with device.active():`; every failure of CUDA is a `DeviceError`.

    Attributes:
        name: as the driver calls it.
        architecture: compute capability 8.7 as `sm_87`.
        integrated: whether it shares its memory with the CPU, so that pinned blocks need no copies.
        allocations: how many blocks of memory were taken so far; constant once everything is warm.
    """

    name: str
    architecture: str
    integrated: bool
    allocations: int

    @property
    def lost(self) -> bool:
        """Whether a fault made the context useless; everything must be closed and made again."""

    def active(self) -> AbstractContextManager[object]:
        """Make the GPU current in this thread for as long as the context lasts."""

    def memory(self, size: int) -> int:
        """Take device memory; its address, a multiple of 256."""

    def pinned(self, size: int) -> Pinned:
        """Take host memory that can be copied from and to while the CPU goes on."""

    def free(self, block: int | Pinned) -> None:
        """Give a block back; nothing queued may still use it."""

    def memory_info(self) -> tuple[int, int]:
        """Free and total device memory."""

    def stream(self) -> Stream:
        """A new stream."""

    def event(self) -> Event:
        """A new mark."""

    def kernel(self, name: str) -> Kernel:
        """A kernel of this package; all are compiled when the device is opened."""

    def copy_in(self, address: int, source: NDArray[np.uint8], stream: Stream) -> None:
        """Copy a part of a pinned block to device memory."""

    def copy_out(self, target: NDArray[np.uint8], address: int, stream: Stream) -> None:
        """Copy device memory to a part of a pinned block."""

    def copy(self, target: int, source: int, size: int, stream: Stream) -> None:
        """Copy device memory to device memory."""

    def zero(self, address: int, size: int, stream: Stream) -> None:
        """Fill device memory with zeros."""

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Capture what `work` queues on `stream`, without running it.

        Raises:
            CaptureFailed: with the reason; the stream is as it was.
        """

    def close(self) -> None:
        """Release everything, also after a fault; calling it again does nothing."""


def address(value: int) -> np.uint64:
    """An address as a kernel's argument; 0 for an optional one that is absent."""
    return np.uint64(value)
