"""The package's CUDA kernels compiled for the CPU, so that they are tested on machines without a GPU."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
import pytest

import seg_perception

HERE = Path(__file__).parent
KERNELS = Path(seg_perception.__file__).parent / "onboard" / "backend" / "tensorrt" / "cuda" / "kernels"
# Arithmetic as on the GPU: no multiplication is fused with an addition.
FLAGS = ["-O2", "-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE"]
FLAGS += ["-Wall", "-Wno-unknown-pragmas", "-fPIC", "-shared", "-fvisibility=hidden"]
_DEFINITION = re.compile(r"\b__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")


class HostKernels:
    """Kernels by name, launched with the same arguments as on a GPU; addresses are the host's."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._launch = library.cuda_host_launch
        self._launch.restype = ctypes.c_char_p
        # The library holds one block at a time, and ctypes lets other threads run meanwhile.
        self._lock = Lock()

    @classmethod
    def load(cls, folder: Path = KERNELS) -> HostKernels:
        """The kernels that `all.cu` of a folder includes, compiled once for each state of the sources.

        Skips the test where there is no g++.
        """
        return _load(folder)

    def launch(
        self, name: str, grid: tuple[int, int, int], block: tuple[int, int, int], arguments: Sequence[np.generic]
    ) -> None:
        """Run a kernel to its end.

        Args:
            name: of the kernel.
            grid: blocks in x, y, z.
            block: threads in x, y, z.
            arguments: numpy scalars of exactly the types of the parameters; addresses are `np.uint64`.

        Raises:
            RuntimeError: no such kernel, other types, a size that no GPU takes, or threads that wait for each other.
        """
        values = [np.array(argument) for argument in arguments]
        addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        types = "".join(value.dtype.str[1:] for value in values)
        sizes = [(ctypes.c_uint * 3)(*size) for size in (grid, block)]
        with self._lock:
            problem = self._launch(name.encode(), *sizes, addresses, types.encode())
        if problem is not None:
            raise RuntimeError(problem.decode())


@cache
def _load(kernels: Path) -> HostKernels:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is absent: the CUDA kernels cannot be compiled for the CPU; install g++")
    sources = sorted([*kernels.glob("*.cu*"), *HERE.glob("*.h"), *HERE.glob("*.cpp"), Path(__file__)])
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"seg_perception_cuda_host_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{digest.hexdigest()[:24]}.so"
    if not library.exists():
        _compile(compiler, kernels, library)
    return HostKernels(ctypes.CDLL(str(library)))


def _compile(compiler: str, kernels: Path, library: Path) -> None:
    """Compile into `library`, which appears at once and whole."""
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        build = Path(scratch)
        names = [name for source in sorted(kernels.glob("*.cu")) for name in _DEFINITION.findall(source.read_text())]
        lines = [f"CUDA_HOST_KERNEL({name}),\n" for name in names]
        (build / "registered_kernels.inc").write_text("".join(lines))
        command = [compiler, *FLAGS, *(str(path) for path in sorted(HERE.glob("*.cpp")))]
        command += [f"-I{folder}" for folder in (kernels, HERE, build)] + ["-o", str(build / library.name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the kernels do not compile for the CPU:\n{done.stderr}")
        (build / library.name).replace(library)
