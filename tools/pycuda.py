"""Builds pycuda, which PyPI has as source only: without a CUDA toolkit, and without a driver."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tools.environment import SetupError
from tools.interfaces import ROOT

REQUIREMENTS = ROOT / "requirements" / "pycuda.txt"
# Has one function that pycuda calls: a linker that leaves out libraries nobody needs keeps it.
_STUB = "int cuInit(unsigned flags) { return 999; }\n"


def cuda_version() -> int | None:
    """The major version of CUDA that the NVIDIA driver of this machine knows; None if there is none that works."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return version.value // 1000


def recipe() -> list[Path]:
    """What a build depends on."""
    return [REQUIREMENTS, Path(__file__)]


def beside(version: int) -> list[Path]:
    """The requirement files of what belongs to pycuda where the driver is for this major version of CUDA."""
    return [REQUIREMENTS.with_name(name) for name in ("pycuda-run.txt", f"cuda-{12 if version < 13 else 13}.txt")]


def build(pip: Callable[..., None]) -> None:
    """Builds pycuda against the NumPy of an environment, and installs it there.

    The driver's own library is not linked: pycuda asks for it by name, and the machine that runs it has one.

    Args:
        pip: runs a command of pip in the environment, which has setuptools: `pip("install", ...)`.

    Raises:
        SetupError: there is no C compiler, or pip failed.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise SetupError("pycuda: expected a C++ compiler to build it, found none; apt install g++ python3-dev")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        options = ("--no-deps", "--no-build-isolation", "--no-binary", "pycuda", "--dest", scratch)
        pip("download", *options, "-r", str(REQUIREMENTS))
        for wheel in folder.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder / "headers")
        includes = [str(path) for path in sorted(folder.glob("headers/nvidia/*/include"))]
        _compile_stub(compiler, folder)
        source = _unpack(folder)
        # What pycuda's own configure.py would write. Random numbers on the GPU would need one more library.
        settings = {"CUDA_INC_DIR": includes, "CUDADRV_LIB_DIR": [scratch], "CUDA_ENABLE_CURAND": False}
        # Faster to compile than Python's own options, and no slower to call.
        settings["CXXFLAGS"] = ["-O1"]
        (source / "siteconf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
        pip("install", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--force-reinstall", str(source))


def _compile_stub(compiler: str, folder: Path) -> None:
    (folder / "stub.c").write_text(_STUB)
    command = [compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so")]
    done = subprocess.run([*command, str(folder / "stub.c")], capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"pycuda: {compiler} cannot make a library ({done.stderr.strip()}); apt install g++")


def _unpack(folder: Path) -> Path:
    archive = next(folder.glob("pycuda-*.tar.gz"))
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")
