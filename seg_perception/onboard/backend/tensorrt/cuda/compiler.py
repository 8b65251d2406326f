"""The kernels as machine code for one GPU architecture, compiled on the machine that runs them and cached.

NVRTC comes as a wheel and needs no toolkit, so it is tried first; nvcc, which a Jetson has with its toolkit, serves as
well. Neither needs a GPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_perception.core.errors import BackendUnavailable

from ...cache import cache_file, read_cached, write_cached

Version = tuple[int, int]

_KERNELS = Path(__file__).parent / "kernels"
_ALL = "all.cu"
# Without fusing a multiplication with an addition, results are the same on every GPU and on a CPU.
_OPTIONS = ("-std=c++17", "--fmad=false")
# Where toolkits are installed that need not be on PATH.
_TOOLKITS = ("/usr/local/cuda/bin",)


@dataclass(frozen=True, slots=True)
class _Compiler:
    """One way to compile.

    Attributes:
        name: with its version, for messages and the cache.
        version: of CUDA.
        compile: sources by name and architecture to a cubin; fails with `_CompileError`.
    """

    name: str
    version: Version
    compile: Callable[[dict[str, bytes], str], bytes]


class _CompileError(Exception):
    """The compiler's log."""


class _Absent(Exception):
    """A compiler cannot be used; the message says why."""


def compile_kernels(architecture: str, driver_version: Version | None = None) -> bytes:
    """Compile every kernel of this package for one architecture, or take the result from the cache.

    Args:
        architecture: of the GPU, compute capability 8.7 as `sm_87`.
        driver_version: the latest CUDA version that the driver knows; None where the code will not run here.

    Returns:
        The cubin.

    Raises:
        BackendUnavailable: there is no compiler that fits the driver, or it does not compile; says what to install.
    """
    compiler = _choose(driver_version)
    sources = {path.name: path.read_bytes() for path in sorted(_KERNELS.glob("*.cu*"))}
    entry = cache_file(f"kernels/{_key(sources, compiler, architecture)}.cubin")
    if cubin := read_cached(entry):
        return cubin
    try:
        cubin = compiler.compile(sources, architecture)
    except _CompileError as error:
        raise BackendUnavailable(
            f"CUDA kernels: {compiler.name} cannot compile them for {architecture}; if it is too old or too new for "
            f"this GPU, {_advice(driver_version)}; what it said:\n{error}"
        ) from error
    # Where it cannot be kept, the next start compiles again.
    with contextlib.suppress(OSError):
        write_cached(entry, cubin)
    return cubin


def _choose(driver_version: Version | None) -> _Compiler:
    """The first compiler that is there and not of a later major version than the driver."""
    reasons = []
    for find in (_find_nvrtc, _find_nvcc):
        try:
            compiler = find()
        except _Absent as absent:
            reasons.append(str(absent))
            continue
        # Drivers run what an earlier CUDA compiled, and any minor version of their own.
        if driver_version is None or compiler.version[0] <= driver_version[0]:
            return compiler
        reasons.append(f"{compiler.name} is of a later CUDA than the driver, which may refuse its code")
    driver = "" if driver_version is None else f" (the driver is for CUDA {driver_version[0]}.{driver_version[1]})"
    raise BackendUnavailable(
        f"CUDA kernels: no compiler for them{driver}: {'; '.join(reasons)}; {_advice(driver_version)}"
    )


def _advice(driver_version: Version | None) -> str:
    if driver_version is not None and driver_version[0] == 12:
        return "pip install 'cuda-bindings<13' nvidia-cuda-nvrtc-cu12, or install the CUDA 12 toolkit (nvcc)"
    if driver_version is not None and driver_version[0] < 12:
        return "install a driver for CUDA 12 or later, or put the nvcc of the driver's own CUDA version on PATH"
    return (
        "pip install cuda-bindings nvidia-cuda-nvrtc, or put nvcc on PATH (for a driver of CUDA 12, as in JetPack 6: "
        "'cuda-bindings<13' nvidia-cuda-nvrtc-cu12)"
    )


def _find_nvrtc() -> _Compiler:
    try:
        from cuda.bindings import nvrtc

        version: Version = _checked(nvrtc, nvrtc.nvrtcVersion())
    except (ImportError, OSError, RuntimeError) as error:
        # Without its library the bindings are importable and fail at the first call.
        raise _Absent(f"NVRTC cannot be loaded ({' '.join(str(error).split())})") from error

    def compiled(sources: dict[str, bytes], architecture: str) -> bytes:
        return _compile_by_nvrtc(nvrtc, sources, architecture)

    return _Compiler(f"NVRTC {version[0]}.{version[1]}", version, compiled)


def _checked(nvrtc: Any, answer: tuple[Any, ...]) -> Any:
    """Return what a function of NVRTC returned in addition to its error code, which must be success."""
    error, *values = answer
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"NVRTC: {error.name}")
    return values[0] if len(values) == 1 else tuple(values)


def _compile_by_nvrtc(nvrtc: Any, sources: dict[str, bytes], architecture: str) -> bytes:
    headers = [name for name in sources if name != _ALL]
    program = _checked(
        nvrtc,
        nvrtc.nvrtcCreateProgram(
            sources[_ALL],
            _ALL.encode(),
            len(headers),
            [sources[name] for name in headers],
            [name.encode() for name in headers],
        ),
    )
    try:
        options = [option.encode() for option in (*_OPTIONS, f"--gpu-architecture={architecture}")]
        (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = bytearray(_checked(nvrtc, nvrtc.nvrtcGetProgramLogSize(program)))
            _checked(nvrtc, nvrtc.nvrtcGetProgramLog(program, log))
            raise _CompileError(f"{error.name}\n{log.rstrip(bytes(1)).decode(errors='replace')}")
        cubin = bytearray(_checked(nvrtc, nvrtc.nvrtcGetCUBINSize(program)))
        _checked(nvrtc, nvrtc.nvrtcGetCUBIN(program, cubin))
        return bytes(cubin)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _find_nvcc() -> _Compiler:
    nvcc = shutil.which("nvcc", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_TOOLKITS)))
    if nvcc is None:
        raise _Absent(f"nvcc is neither on PATH nor in {' or '.join(_TOOLKITS)}")
    done = _called([nvcc, "--version"])
    release = re.search(r"release (\d+)\.(\d+)", done.stdout)
    if done.returncode != 0 or release is None:
        raise _Absent(f"{nvcc} does not tell its version ({_said(done)})")
    version = int(release[1]), int(release[2])

    def compiled(sources: dict[str, bytes], architecture: str) -> bytes:
        with tempfile.TemporaryDirectory(prefix="seg_perception_") as scratch:
            folder = Path(scratch)
            for name, text in sources.items():
                (folder / name).write_bytes(text)
            cubin = folder / "kernels.cubin"
            options = (*_OPTIONS, f"--gpu-architecture={architecture}", "--cubin", "--output-file", str(cubin))
            done = _called([nvcc, *options, str(folder / _ALL)])
            if done.returncode != 0:
                raise _CompileError(_said(done))
            return cubin.read_bytes()

    return _Compiler(f"nvcc {version[0]}.{version[1]}", version, compiled)


def _called(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr + done.stdout).strip() or f"exit status {done.returncode}"


def _key(sources: dict[str, bytes], compiler: _Compiler, architecture: str) -> str:
    """Stands for everything that the cubin depends on."""
    digest = hashlib.sha256()
    for part in (compiler.name, architecture, *_OPTIONS):
        digest.update(hashlib.sha256(part.encode()).digest())
    for name, text in sources.items():
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(text).digest())
    return digest.hexdigest()
