"""A driver of CUDA without a GPU: the real pycuda and the real cuda.bindings run on it, and it runs our kernels.

It has the part of the driver's interface that the package uses, on host memory, with the rules that CUDA enforces:
nothing works without a current context, copies stay within blocks and pinned memory, what a stream was given runs only
when somebody waits, what is forbidden ends a capture, and after a fault nothing works until the context is reset.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from cuda_host import HostKernels

HERE = Path(__file__).parent
# With the name of the real one, whoever loads that by name afterwards gets this one.
FLAGS = ["-O1", "-g", "-std=c++17", "-Wall", "-fPIC", "-shared", "-fvisibility=hidden", "-Wl,-soname,libcuda.so.1"]
DEFAULTS = {"memory": 1 << 30, "integrated": 0, "fault": 0, "faulty_contexts": 0, "capability": 86, "version": 13050}
_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class EmulatedDriver:
    """The driver, loaded into this process for good."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._kept: list[object] = []  # a captured graph may call them as long as it lives
        library.emulated_count.restype = ctypes.c_int64

    @classmethod
    def load(cls) -> EmulatedDriver:
        """The driver as it is in the checkout, with kernels that run on the CPU, compiled once for each state of it.

        Skips the test where there is no g++. To be called before anything imports pycuda.
        """
        return _load()

    def set(self, **settings: int) -> None:
        """Change how it behaves: `memory` in bytes, `integrated`, `fault` of the next kernel, ... (driver.h)."""
        for name, value in settings.items():
            self._library.emulated_set(name.encode(), ctypes.c_int64(value))

    def count(self, kind: str) -> int:
        """How many there are now: blocks, streams, events, modules, graphs, executables; holds of the context; or
        contexts current in this thread."""
        return int(self._library.emulated_count(kind.encode()))

    def counts(self) -> dict[str, int]:
        """All of them."""
        kinds = ("blocks", "streams", "events", "modules", "graphs", "executables", "holds", "current")
        return {kind: self.count(kind) for kind in kinds}

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        """Let Python work in a stream, as TensorRT does: `stream` is its handle. Errors of `work` are only printed."""
        callback = _HOST_FUNCTION(lambda _: work())
        self._kept.append(callback)
        code = self._library.cuLaunchHostFunc(ctypes.c_void_p(stream), callback, None)
        if code:
            raise RuntimeError(f"cuLaunchHostFunc: error {code}")

    def clear_stack(self) -> None:
        """Make no context current in this thread."""
        self._library.emulated_clear_stack()

    def retain(self) -> None:
        """Hold the primary context as TensorRT's CUDA runtime does."""
        self._library.cuDevicePrimaryCtxRetain(ctypes.byref(ctypes.c_void_p()), 0)

    def release(self) -> None:
        """Let go of it."""
        self._library.cuDevicePrimaryCtxRelease_v2(0)


@cache
def _load() -> EmulatedDriver:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is absent: the emulated CUDA driver cannot be compiled; install g++")
    wanted = _functions_of_pycuda()
    sources = [*sorted(HERE.glob("*.cpp")), *sorted(HERE.glob("*.h")), Path(__file__)]
    digest = hashlib.sha256("\n".join(wanted).encode())
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"seg_perception_cuda_driver_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{digest.hexdigest()[:24]}.so"
    if not library.exists():
        _compile(compiler, wanted, library)
    driver = ctypes.CDLL(str(library))
    driver.emulated_launcher(ctypes.cast(HostKernels.load()._launch, ctypes.c_void_p))
    return EmulatedDriver(driver)


def _functions_of_pycuda() -> list[str]:
    """The functions of the driver that pycuda's extension cannot be loaded without."""
    pycuda = find_spec("pycuda")
    if pycuda is None or pycuda.origin is None:
        return []
    extension = next(Path(pycuda.origin).parent.glob("_driver*.so"))
    command = ["nm", "-D", "--undefined-only", str(extension)]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return sorted(symbol for symbol in symbols if symbol.startswith("cu"))


def _compile(compiler: str, wanted: list[str], library: Path) -> None:
    """Compile into `library`, which appears at once and whole."""
    sources = sorted(HERE.glob("*.cpp"))
    text = "".join(source.read_text() for source in sources)
    absent = [name for name in wanted if f" {name}(" not in text]
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        build = Path(scratch)
        (build / "absent_functions.inc").write_text("".join(f"ABSENT({name})\n" for name in absent))
        command = [compiler, *FLAGS, *(str(source) for source in sources)]
        command += [f"-I{HERE}", f"-I{build}", "-ldl", "-o", str(build / "driver.so")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the emulated driver does not compile:\n{done.stderr}")
        (build / "driver.so").replace(library)
