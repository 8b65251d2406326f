"""What is asked of an engine: a network on the GPU that reads and writes memory of ours.

`TensorRtEngine` of the folder above is the real one. What queues it together with kernels and copies knows only
this. Everything is called with the device active, by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Execution(Protocol):
    """An engine bound to memory, for one batch size. Work in flight, and graphs that captured it, need it open."""

    def enqueue(self, stream: int) -> None:
        """Queue one inference.

        The first call must not be captured and must have run before one is: TensorRT does there what it put off when
        the shapes were set.

        Args:
            stream: a CUstream, not the default one.

        Raises:
            DeviceError: it could not be queued.
        """

    def capturable(self, stream: int) -> bool:
        """Return whether `enqueue` may be captured into a graph of ours from this stream."""

    def close(self) -> None:
        """Release it; calling it again does nothing. Nothing queued and no graph may still use it."""


class Engine(Protocol):
    """A network.

    Attributes:
        scratch_bytes: device memory that one execution needs in addition to inputs and outputs, for any batch.
        batch: the fixed batch size; 0 where it is open.
        largest_batch: the largest batch size; `batch` where that is fixed.
        mask_type: float32 or float16, the type of the output `masks`.
        memory_bytes: device memory that its weights take; 0 where TensorRT does not tell.
    """

    scratch_bytes: int
    batch: int
    largest_batch: int
    mask_type: np.dtype[np.floating]
    memory_bytes: int

    def bind(self, batch: int, addresses: Mapping[str, int], scratch: int) -> Execution:
        """Make an execution of its own, so that a graph which captured one is not changed by another.

        Args:
            batch: images per inference.
            addresses: where each input and output of the contract lies on the device, a multiple of 256.
            scratch: `scratch_bytes` of device memory, a multiple of 256. Executions that never run at the same time
                may share it.

        Raises:
            ValueError: a batch size or an address that does not fit; a mistake of the caller.
            ModelError: the engine does not do what its manifest promises.
            DeviceError: there is not enough memory.
        """

    def close(self) -> None:
        """Release it with all its executions; calling it again does nothing."""
