"""The GPU's interfaces on the CPU: memory of the host, the kernels compiled for it, ONNX Runtime as engine.

Work is queued as on a GPU and done when somebody waits, so that a missing wait shows. What CUDA forbids is an error
here: copies beyond a block, work or waits at the wrong moment, use without the device being active.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import cast
from weakref import WeakValueDictionary

import numpy as np
from cuda_host import HostKernels
from numpy.typing import NDArray

from seg_perception.core.errors import DeviceError
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.onnxruntime import OrtRunner
from seg_perception.onboard.backend.tensorrt.cuda.backend import CudaBackend
from seg_perception.onboard.backend.tensorrt.cuda.device import CaptureFailed, Device, Grid, Pinned

_STREAMS: WeakValueDictionary[int, HostStream] = WeakValueDictionary()
POISON = 0xA5


class HostStream:
    """A queue that is worked off by `wait`."""

    def __init__(self, device: HostDevice) -> None:
        self._device = device
        self._queued: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        self.handle = id(self)
        _STREAMS[self.handle] = self

    def add(self, work: Callable[[], None]) -> None:
        self._device.check()
        (self._queued if self.recording is None else self.recording).append(work)

    def wait(self) -> None:
        self._device.check()
        assert self.recording is None, "CUDA: waiting ends a capture"
        while self._queued:
            self._queued.pop(0)()
            if self._device.fault:
                self._device.lost = True
                raise DeviceError(f"GPU: {self._device.fault}")


class HostEvent:
    def __init__(self) -> None:
        self.time = 0.0

    def record(self, stream: HostStream) -> None:
        stream.add(lambda: setattr(self, "time", perf_counter()))

    def seconds_since(self, earlier: HostEvent) -> float:
        return self.time - earlier.time


class HostGraph:
    def __init__(self, work: list[Callable[[], None]]) -> None:
        self._work = work

    def launch(self, stream: HostStream) -> None:
        for each in self._work:
            stream.add(each)


class HostKernel:
    def __init__(self, name: str, device: HostDevice) -> None:
        self._name, self._device = name, device

    def launch(self, grid: Grid, block: Grid, arguments: Sequence[np.generic], stream: HostStream) -> None:
        baked = tuple(arguments)
        self._device.launches.append(self._name)
        stream.add(lambda: self._device.kernels.launch(self._name, grid, block, baked))


class HostDevice:
    """A `Device`.

    Attributes:
        memory_limit: bytes that may be taken.
        capture_obstacle: why captures fail; empty where they work.
        fault: when set, the next wait fails with it.
        launches: names of the kernels that were queued one by one or captured.
    """

    def __init__(self, *, integrated: bool = False, memory_limit: int = 1 << 30) -> None:
        self.name, self.architecture, self.integrated = "host", "sm_00", integrated
        self.allocations, self.lost = 0, False
        self.memory_limit, self.capture_obstacle, self.fault = memory_limit, "", ""
        self.launches: list[str] = []
        self.kernels = HostKernels.load()
        self._blocks: dict[int, NDArray[np.uint8]] = {}
        self._active = 0
        self._capturing = False
        self.closed = False

    @contextmanager
    def active(self) -> Iterator[None]:
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1

    def check(self) -> None:
        assert self._active, "CUDA: no context is current"
        assert not self.closed, "the device was closed"

    @property
    def taken(self) -> int:
        return sum(block.size for block in self._blocks.values())

    def memory(self, size: int) -> int:
        block = self._take(size)
        return block.ctypes.data

    def pinned(self, size: int) -> Pinned:
        block = self._take(size)
        return Pinned(block, block.ctypes.data if self.integrated else 0)

    def free(self, block: int | Pinned) -> None:
        self.check()
        freed = self._blocks.pop(block if isinstance(block, int) else block.array.ctypes.data)
        # Who still looks at it sees that.
        freed.fill(POISON)

    def memory_info(self) -> tuple[int, int]:
        return self.memory_limit - self.taken, self.memory_limit

    def stream(self) -> HostStream:
        return HostStream(self)

    def event(self) -> HostEvent:
        return HostEvent()

    def kernel(self, name: str) -> HostKernel:
        return HostKernel(name, self)

    def copy_in(self, address: int, source: NDArray[np.uint8], stream: HostStream) -> None:
        target = self.view(address, source.size)
        self.view(source.ctypes.data, source.size)
        stream.add(lambda: np.copyto(target, source))

    def copy_out(self, target: NDArray[np.uint8], address: int, stream: HostStream) -> None:
        source = self.view(address, target.size)
        self.view(target.ctypes.data, target.size)
        stream.add(lambda: np.copyto(target, source))

    def copy(self, target: int, source: int, size: int, stream: HostStream) -> None:
        into, out_of = self.view(target, size), self.view(source, size)
        stream.add(lambda: np.copyto(into, out_of))

    def zero(self, address: int, size: int, stream: HostStream) -> None:
        target = self.view(address, size)
        stream.add(lambda: target.fill(0))

    def capture(self, stream: HostStream, work: Callable[[], None]) -> HostGraph:
        self.check()
        if self.capture_obstacle:
            raise CaptureFailed(self.capture_obstacle)
        recorded: list[Callable[[], None]] = []
        stream.recording = recorded
        self._capturing = True
        try:
            work()
        finally:
            stream.recording, self._capturing = None, False
        return HostGraph(recorded)

    def close(self) -> None:
        self.closed = True

    def view(self, address: int, size: int) -> NDArray[np.uint8]:
        """Memory by its address; it must lie within one block."""
        for start, block in self._blocks.items():
            if start <= address and address + size <= start + block.size:
                return block[address - start : address - start + size]
        raise AssertionError(f"CUDA: {size} bytes at {address:#x} are not within a block")

    def _take(self, size: int) -> NDArray[np.uint8]:
        self.check()
        assert not self._capturing, "CUDA: an allocation ends a capture"
        if self.taken + size > self.memory_limit:
            raise DeviceError(f"GPU: out of memory: expected {size} bytes")
        whole = np.full(size + 256, POISON, np.uint8)
        block = whole[-whole.ctypes.data % 256 :][:size]
        self._blocks[block.ctypes.data] = block
        self.allocations += 1
        return block


class OrtEngine:
    """An `Engine`: the canonical model itself under ONNX Runtime."""

    def __init__(self, path: Path, device: HostDevice, largest_batch: int = 1) -> None:
        self._runner = OrtRunner(path, RunOptions(threads=1))
        self.spec = self._runner.spec
        self._device = device
        self.batch = self.spec.batch
        self.largest_batch = self.batch or largest_batch
        self.scratch_bytes = 1000
        self.memory_bytes = 0
        empty = np.zeros((self.batch or 1, self.spec.network_height, self.spec.network_width, 3), np.uint8)
        self.mask_type = self._runner.run(empty).masks.dtype
        self.bound: list[int] = []
        self.captured = 0
        self.closed = False

    def bind(self, batch: int, addresses: Mapping[str, int], scratch: int) -> OrtExecution:
        self.bound.append(batch)
        self._device.view(scratch, self.scratch_bytes)
        return OrtExecution(self, batch, dict(addresses))

    def close(self) -> None:
        self.closed = True
        self._runner.close()

    def infer(self, batch: int, addresses: Mapping[str, int]) -> None:
        shape = (batch, self.spec.network_height, self.spec.network_width, 3)
        images = self._device.view(addresses["images"], int(np.prod(shape))).reshape(shape)
        outputs = self._runner.run(images)
        for name in self.spec.output_names:
            array = np.ascontiguousarray(getattr(outputs, name))
            self._device.view(addresses[name], array.nbytes)
            ctypes.memmove(addresses[name], array.ctypes.data, array.nbytes)


class OrtExecution:
    def __init__(self, engine: OrtEngine, batch: int, addresses: dict[str, int]) -> None:
        self._engine, self._batch, self._addresses = engine, batch, addresses
        self._ran = False

    def enqueue(self, stream: int) -> None:
        queue = _STREAMS[stream]
        if queue.recording is not None:
            assert self._ran, "TensorRT: the first inference must not be captured"
            self._engine.captured += 1

        def run() -> None:
            self._ran = True
            self._engine.infer(self._batch, self._addresses)

        queue.add(run)

    def capturable(self, stream: int) -> bool:
        return True

    def close(self) -> None:
        """Nothing to release."""


def host_backend(path: Path, *, largest_batch: int = 1, device: HostDevice | None = None) -> CudaBackend:
    """The GPU's backend on the CPU."""
    device = device or HostDevice()
    engine = OrtEngine(path, device, largest_batch)
    return CudaBackend(engine.spec, {"backend": "host"}, cast(Device, device), engine)
