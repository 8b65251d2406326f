"""In place of TensorRT where there is none: an engine whose outputs are prepared, and work of a network's size."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.onboard.backend.tensorrt.cuda.device import Device

# Queues a copy on the device: target, source, bytes, and the handle of a stream.
Copy = Callable[[int, int, int, int], None]
Queue = Callable[[int], None]


def copy_by_driver() -> Copy:
    """The driver's own copy, which takes the handle of a stream."""
    function = ctypes.CDLL("libcuda.so.1")["cuMemcpyDtoDAsync_v2"]

    def copy(target: int, source: int, size: int, stream: int) -> None:
        code = function(
            ctypes.c_uint64(target), ctypes.c_uint64(source), ctypes.c_size_t(size), ctypes.c_void_p(stream)
        )
        if code:
            raise RuntimeError(f"cuMemcpyDtoDAsync: error {code}")

    return copy


class CopyingEngine:
    """An `Engine` that copies prepared outputs to where they belong, on the stream, so that graphs capture it."""

    def __init__(
        self, device: Device, outputs: Mapping[str, NDArray[Any]], copy: Copy, before: Queue | None = None
    ) -> None:
        """Bring the outputs to the device.

        Args:
            device: where.
            outputs: arrays of the contract, each `[B, ...]`; a batch of n gets the first n entries.
            copy: queues a copy.
            before: queues what takes a network's time.
        """
        self.scratch_bytes = self.batch = self.memory_bytes = 0
        self.largest_batch = len(outputs["masks"])
        self.mask_type = outputs["masks"].dtype
        self._device, self._copy, self._before = device, copy, before
        self._prepared: dict[str, tuple[int, int]] = {}
        with device.active():
            stream = device.stream()
            for name, array in outputs.items():
                block, address = device.pinned(array.nbytes), device.memory(array.nbytes)
                block.array[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                device.copy_in(address, block.array[: array.nbytes], stream)
                stream.wait()
                device.free(block)
                self._prepared[name] = (address, array.nbytes // len(array))

    def bind(self, batch: int, addresses: Mapping[str, int], scratch: int) -> CopyingExecution:
        """See `Engine.bind`."""
        copies = [(addresses[name], source, batch * row) for name, (source, row) in self._prepared.items()]
        return CopyingExecution(copies, self._copy, self._before)

    def close(self) -> None:
        """Give the memory back."""
        for address, _ in self._prepared.values():
            self._device.free(address)
        self._prepared.clear()


@dataclass(frozen=True)
class CopyingExecution:
    """See `CopyingEngine`."""

    copies: list[tuple[int, int, int]]
    copy: Copy
    before: Queue | None

    def enqueue(self, stream: int) -> None:
        """Queue the copies."""
        if self.before is not None:
            self.before(stream)
        for target, source, size in self.copies:
            self.copy(target, source, size, stream)

    def capturable(self, stream: int) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Nothing to release."""


def convolutions(batch: int = 1) -> Queue:
    """About the arithmetic of YOLOv8n at 640 x 640 (8.7 GFLOP an image), in half precision, by PyTorch and cuDNN.

    Raises:
        ImportError: PyTorch is not installed.
        RuntimeError: it has no GPU.
    """
    import torch

    def layer(inputs: int, outputs: int, stride: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Conv2d(inputs, outputs, 3, stride, 1), torch.nn.SiLU(inplace=True))

    shapes = ((3, 32, 2), (32, 64, 2), (64, 128, 2), (128, 128, 1), (128, 128, 1), (128, 256, 2), (256, 256, 1))
    network = torch.nn.Sequential(*(layer(*shape) for shape in shapes)).half().cuda().eval()
    network = network.to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, 640, 640, device="cuda", dtype=torch.half).to(memory_format=torch.channels_last)
    torch.cuda.synchronize()

    def queue(stream: int) -> None:
        with torch.no_grad(), torch.cuda.stream(torch.cuda.ExternalStream(stream)):
            network(images)

    return queue
