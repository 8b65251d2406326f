"""Runs on the GPU what test/unit/onboard/backend/cuda checks on the CPU."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from weakref import WeakSet

import numpy as np
from host_maps import GUARD, GuardedArrays
from numpy.typing import NDArray

from seg_perception.onboard.backend.tensorrt.cuda.device import Device, Grid, Kernel
from seg_perception.onboard.backend.tensorrt.cuda.records import CAMERA

ROOT = Path(__file__).resolve().parents[2]
ARENA_BYTES = 64 << 20


def unit(name: str) -> ModuleType:
    """Load a module of test/unit/onboard/backend/cuda again, to be changed so that it checks the GPU."""
    path = ROOT / "test" / "unit" / "onboard" / "backend" / "cuda" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def checks_of(modules: Sequence[ModuleType], leave_out: Sequence[str] = ()) -> dict[str, Callable[..., None]]:
    """The tests of these modules by name; no two may have the same."""
    found: dict[str, Callable[..., None]] = {}
    for module in modules:
        tests = {name: each for name, each in vars(module).items() if name.startswith("test_")}
        assert not set(found) & set(tests)
        found |= tests
    return {name: each for name, each in found.items() if name not in leave_out}


def child(program: str) -> subprocess.Popen[str]:
    """Another process that uses the GPU."""
    if os.environ.get("EMULATED_CUDA") == "1":
        program = f"from cuda_driver import EmulatedDriver; EmulatedDriver.load()\n{program}"
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "test")))}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=env, text=True, **pipes)


class GuardedOnGpu(GuardedArrays):
    """Remembers the arrays that exist, so that what a kernel is to work on is found by its address."""

    alive: ClassVar[WeakSet[GuardedArrays]] = WeakSet()

    def __init__(self, **arrays: NDArray[Any]) -> None:
        super().__init__(**arrays)
        self.alive.add(self)


class GpuKernels:
    """Takes the place of `HostKernels`: copies the arrays that a launch names to the GPU and what it wrote back."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stream = device.stream()
        self._host, self._arena = device.pinned(ARENA_BYTES), device.memory(ARENA_BYTES)
        self._kernels: dict[str, Kernel] = {}

    def load(self) -> GpuKernels:
        """As the class that it takes the place of."""
        return self

    def launch(self, name: str, grid: Grid, block: Grid, arguments: Sequence[np.generic]) -> None:
        """Run a kernel to its end."""
        places: dict[int, int] = {}
        used = 0
        for guarded in list(GuardedOnGpu.alive):
            for array_name, whole in guarded._blocks.items():
                start = whole.ctypes.data
                if any(start < int(each) < start + whole.size for each in arguments if each.dtype == np.uint64):
                    places[start] = used
                    used = self._put(whole, used)
                    if array_name == "cameras":
                        used = self._put_ignored(places[start], whole.size, used)
        self._device.copy_in(self._arena, self._host.array[:used], self._stream)
        moved = [self._moved(each, places) for each in arguments]
        if name not in self._kernels:
            self._kernels[name] = self._device.kernel(name)
        self._kernels[name].launch(grid, block, moved, self._stream)
        self._device.copy_out(self._host.array[:used], self._arena, self._stream)
        self._stream.wait()
        for guarded in list(GuardedOnGpu.alive):
            for array_name, whole in guarded._blocks.items():
                place = places.get(whole.ctypes.data)
                # Kernels only read the records, which have other addresses there.
                if place is not None and array_name != "cameras":
                    whole[...] = self._host.array[place : place + whole.size]

    def _put(self, array: NDArray[np.uint8], used: int) -> int:
        assert used + array.size <= ARENA_BYTES
        self._host.array[used : used + array.size] = array
        return -(-(used + array.size) // GUARD) * GUARD

    def _put_ignored(self, place: int, size: int, used: int) -> int:
        """Bring the ignore masks along that records point to, too."""
        for camera in self._host.array[place + GUARD : place + size - GUARD].view(CAMERA):
            if camera["ignore"]:
                count = 8 * (int(camera["ignore_height"]) + 1) * (int(camera["ignore_width"]) + 1)
                sums = np.frombuffer(ctypes.string_at(int(camera["ignore"]), count), np.uint8)
                camera["ignore"], used = self._arena + used, self._put(sums, used)
        return used

    def _moved(self, argument: np.generic, places: Mapping[int, int]) -> np.generic:
        """An address on the host as that on the device; numbers are what they are."""
        if argument.dtype == np.uint64:
            for guarded in GuardedOnGpu.alive:
                for whole in guarded._blocks.values():
                    offset = int(argument) - whole.ctypes.data
                    if whole.ctypes.data in places and 0 <= offset < whole.size:
                        return np.uint64(self._arena + places[whole.ctypes.data] + offset)
        return argument


def patched(device: Device, modules: Sequence[ModuleType]) -> Iterator[None]:
    """While this is suspended, the checks of these modules run on the device."""
    import host_maps
    import pytest

    kernels = GpuKernels(device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_maps, "HostKernels", kernels)
        for module in modules:
            for name, value in (("HostKernels", kernels), ("GuardedArrays", GuardedOnGpu)):
                if hasattr(module, name):
                    patch.setattr(module, name, value)
        yield
