"""A GPU through pycuda: contexts, memory, streams, events and kernels.

Any thread may use the device within `active()`; the thread that opened it need not be the one that closes it. pycuda's
objects want to be dropped while their context is current, so the device keeps hold of all of them until it is closed.
"""

from __future__ import annotations

import atexit
import struct
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import BackendUnavailable, DeviceError

from ..driver import PrimaryContext, driver_version, first_device
from .compiler import compile_kernels
from .device import Event, Graph, Grid, Kernel, Pinned, Stream
from .faults import Faults, mebibytes
from .pycuda_graph import PycudaGraph, capture

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_P = TypeVar("_P", bound="_Part")


class PycudaDevice:
    """The GPU that CUDA counts first; see `device.Device` for what its methods promise.

    Attributes:
        name: as the driver calls it.
        architecture: compute capability 8.7 as `sm_87`.
        integrated: whether pinned blocks are mapped and need no copies.
        allocations: how many blocks of memory were taken so far.
    """

    def __init__(self) -> None:
        """Open the GPU and load the kernels.

        Raises:
            BackendUnavailable: there is no GPU, no pycuda, or no compiler for the kernels; says what to install.
            DeviceError: CUDA failed.
        """
        gpu = first_device()
        self.name, self.architecture = gpu.name, gpu.architecture
        self._cuda = _import_pycuda()
        cubin = compile_kernels(gpu.architecture, driver_version())
        self._faults = Faults(gpu.name)
        self._guard = _Guard(self._cuda, self._faults)
        self.allocations = 0
        self._blocks: dict[int, Any] = {}
        self._parts: list[_Part] = []
        self._graphs: weakref.WeakSet[PycudaGraph] = weakref.WeakSet()
        self._thread = threading.local()
        self._closing = threading.Lock()
        self._context: Any = None
        # A hold of our own: pycuda lets go of its in the middle of `close`.
        self._primary: PrimaryContext | None = PrimaryContext()
        code = self._primary.retain()
        if code:
            raise self._faults.of_code("cuDevicePrimaryCtxRetain", code)
        try:
            with self._guard:
                self._cuda.init()
                gpu_of_pycuda = self._cuda.Device(0)
                self.integrated = _shares_memory(self._cuda, gpu_of_pycuda)
                self._context = gpu_of_pycuda.retain_primary_context()
            atexit.register(self.close)
            with self.active(), self._guard:
                self._module = self._keep(_Part(self._cuda.module_from_buffer(cubin), self._guard))
        except BaseException:
            self.close()
            raise

    @property
    def lost(self) -> bool:
        """Whether a fault made the context useless; everything must be closed and made again."""
        return self._faults.lost

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the GPU current in this thread for as long as the context lasts; may be nested.

        Raises:
            DeviceError: the device was closed, or CUDA failed.
        """
        if getattr(self._thread, "inside", False):
            yield
            return
        context = self._context
        if context is None:
            raise DeviceError(f"{self.name} was used after it was closed or lost; open the model again")
        with self._guard:
            context.push()
        self._thread.inside = True
        try:
            yield
        finally:
            self._thread.inside = False
            self._pop(context)

    def memory(self, size: int) -> int:
        """Take device memory; its address, a multiple of 256."""
        block = self._take("device memory", size, lambda: self._cuda.mem_alloc(size))
        self._blocks[int(block)] = block
        return int(block)

    def pinned(self, size: int) -> Pinned:
        """Take host memory that can be copied from and to while the CPU goes on."""
        flags = self._cuda.host_alloc_flags.DEVICEMAP if self.integrated else 0
        array = self._take("pinned host memory", size, lambda: self._cuda.pagelocked_empty(size, np.uint8, "C", flags))
        self._blocks[array.ctypes.data] = array.base
        with self._guard:
            return Pinned(array, array.base.get_device_pointer() if self.integrated else 0)

    def free(self, block: int | Pinned) -> None:
        """Give a block back; one that went away with a fault or with the device needs nothing more."""
        if self.lost:
            return
        held = self._blocks.pop(block.array.ctypes.data if isinstance(block, Pinned) else block, None)
        if held is not None:
            with self._guard:
                held.free()

    def memory_info(self) -> tuple[int, int]:
        """Free and total device memory."""
        with self._guard:
            free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def stream(self) -> Stream:
        """A new stream, which does not wait for the legacy default stream."""
        with self._guard:
            return self._keep(_PycudaStream(self._cuda.Stream(_NON_BLOCKING), self._guard))

    def event(self) -> Event:
        """A new mark. One that was recorded into a graph has no time."""
        with self._guard:
            return self._keep(_PycudaEvent(self._cuda.Event(), self._guard))

    def kernel(self, name: str) -> Kernel:
        """A kernel of this package."""
        with self._guard:
            function = self._module.own.get_function(name)
            # Loads its code now: the driver may put that off to the first launch, which a capture would not survive.
            function.get_attribute(self._cuda.function_attribute.NUM_REGS)
            return self._keep(_PycudaKernel(function, self._guard))

    def copy_in(self, address: int, source: NDArray[np.uint8], stream: Stream) -> None:
        """Copy a part of a pinned block to device memory."""
        with self._guard:
            self._cuda.memcpy_htod_async(address, source, _own(stream))

    def copy_out(self, target: NDArray[np.uint8], address: int, stream: Stream) -> None:
        """Copy device memory to a part of a pinned block."""
        with self._guard:
            self._cuda.memcpy_dtoh_async(target, address, _own(stream))

    def copy(self, target: int, source: int, size: int, stream: Stream) -> None:
        """Copy device memory to device memory."""
        with self._guard:
            self._cuda.memcpy_dtod_async(target, source, size, _own(stream))

    def zero(self, address: int, size: int, stream: Stream) -> None:
        """Fill device memory with zeros."""
        with self._guard:
            self._cuda.memset_d8_async(address, 0, size, _own(stream))

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Capture what `work` queues on `stream`, without running it.

        Raises:
            CaptureFailed: with the reason; the stream is as it was.
        """
        graph = capture(stream, work, self._faults)
        self._graphs.add(graph)
        return graph

    def close(self) -> None:
        """Wait for what is queued and release everything, also after a fault; calling it again does nothing."""
        with self._closing:
            primary, self._primary = self._primary, None
            context, self._context = self._context, None
        if primary is None:
            return
        atexit.unregister(self.close)
        if context is not None:
            self._close_context(context, primary)
        self._drop_parts()
        self._blocks.clear()
        primary.release()
        if self.lost:
            # TensorRT's CUDA runtime holds the context, too, so that letting go of it does not end it.
            primary.reset()

    def _close_context(self, context: Any, primary: PrimaryContext) -> None:
        current = getattr(self._thread, "inside", False) or self._pushed(context)
        if current:
            with suppress(DeviceError):
                self._give_back(context)
        if not self.lost:
            self._drop_parts()
        with suppress(self._cuda.Error):
            # Takes it off pycuda's stack of this thread, not off CUDA's. pycuda's objects of a context that is detached
            # vanish without a call of CUDA, which could only fail after a fault.
            context.detach()
        if current:
            primary.leave()

    def _pushed(self, context: Any) -> bool:
        try:
            context.push()
        except self._cuda.Error:
            self._faults.lost = True
            return False
        return True

    def _give_back(self, context: Any) -> None:
        with self._guard:
            context.synchronize()
            for graph in list(self._graphs):
                graph.close()
            for block in self._blocks.values():
                block.free()

    def _drop_parts(self) -> None:
        for part in self._parts:
            part.own = None
        self._parts.clear()

    def _pop(self, context: Any) -> None:
        """Leave the context in this thread, whatever happened meanwhile.

        pycuda aborts the process if a thread ends with something on its stack, so that a failure must not leave it.
        """
        try:
            self._cuda.Context.pop()
        except self._cuda.Error:
            # If `close` came in between, its context was not on the stack any more, or this call took it off.
            if self._context is not None:
                self._faults.lost, self._context = True, None
                with suppress(self._cuda.Error):
                    context.detach()

    def _take(self, kind: str, size: int, allocate: Callable[[], Any]) -> Any:
        try:
            block = allocate()
        except self._cuda.MemoryError as error:
            free, total = 0, 0
            with suppress(DeviceError):
                free, total = self.memory_info()
            raise self._faults.out_of_memory(f"{mebibytes(size)} of {kind} were asked for", free, total) from error
        except self._cuda.Error as error:
            raise self._faults.of_text(str(error)) from error
        self.allocations += 1
        return block

    def _keep(self, part: _P) -> _P:
        self._parts.append(part)
        return part


class _Guard:
    """Makes a `DeviceError` of what pycuda raises in its block."""

    def __init__(self, cuda: Any, faults: Faults) -> None:
        self._error = cuda.Error
        self._faults = faults

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, self._error):
            raise self._faults.of_text(str(error)) from error


class _Part:
    """An object of pycuda's, which must go before its context does: `own` is None from then on."""

    def __init__(self, own: Any, guard: _Guard) -> None:
        self.own = own
        self._guard = guard


class _PycudaStream(_Part):
    """A queue of work."""

    @property
    def handle(self) -> int:
        """The CUstream."""
        return int(self.own.handle)

    def wait(self) -> None:
        """Wait until everything queued is done.

        Raises:
            DeviceError: some of it failed.
        """
        with self._guard:
            self.own.synchronize()


class _PycudaEvent(_Part):
    """A mark in a stream that has a time."""

    def record(self, stream: Stream) -> None:
        """Set the mark behind everything queued so far."""
        with self._guard:
            self.own.record(_own(stream))

    def seconds_since(self, earlier: Event) -> float:
        """Time between two marks that were passed; wait for the stream first."""
        with self._guard:
            return float(self.own.time_since(_own(earlier))) * 1e-3


class _PycudaKernel(_Part):
    """A function of the module."""

    def launch(self, grid: Grid, block: Grid, arguments: Sequence[np.generic], stream: Stream) -> None:
        """Queue it; see `device.Kernel`."""
        # As pycuda's own calls do it, without cuFuncSetBlockShape, which they call and CUDA has deprecated.
        packed = struct.pack("".join([each.dtype.char for each in arguments]), *arguments)
        with self._guard:
            self.own._launch_kernel(grid, block, packed, 0, _own(stream))


def _own(part: Stream | Event) -> Any:
    return cast(_Part, part).own


def _shares_memory(cuda: Any, device: Any) -> bool:
    attributes = cuda.device_attribute
    return all(device.get_attribute(each) for each in (attributes.INTEGRATED, attributes.CAN_MAP_HOST_MEMORY))


def _import_pycuda() -> Any:
    try:
        import pycuda.driver
    except ImportError as error:
        raise BackendUnavailable(
            f"pycuda cannot be imported ({error}); `make setup` tries to build it where there is an NVIDIA GPU, "
            "`pip install pycuda` does where there are a C++ compiler and the CUDA toolkit"
        ) from error
    return pycuda.driver
