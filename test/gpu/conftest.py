"""For the tests that need an NVIDIA GPU; without one none is even imported, and the reason is given.

They also run on the emulated driver of `make test-cuda`: EMULATED_CUDA=1 .venv-cuda/bin/python -m pytest test/gpu
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from seg_perception.onboard.backend.tensorrt.cuda.pycuda_device import PycudaDevice

# What not every machine with a GPU has.
NEEDS = {"test_kernels": ["hypothesis"], "test_backend": ["hypothesis", "onnx", "onnxruntime"]}

if importlib.util.find_spec("hypothesis"):
    from hypothesis import settings

    # As in test/conftest.py, which is not read when this folder is tested by itself.
    settings.register_profile("no_deadline", deadline=None)
    settings.load_profile("no_deadline")


@cache
def obstacle() -> str:
    """Why nothing can run on a GPU here; empty where it can."""
    from seg_perception.core.errors import BackendUnavailable
    from seg_perception.onboard.backend.tensorrt.driver import first_device

    if os.environ.get("EMULATED_CUDA") == "1":
        from cuda_driver import EmulatedDriver

        EmulatedDriver.load()
    try:
        first_device()
    except BackendUnavailable as error:
        return str(error)
    if importlib.util.find_spec("pycuda") is None:
        return "pycuda is not installed: `make gpu-check` tries to build it"
    return ""


class _LeftOut(pytest.Module):
    """A module that is not even imported."""

    def collect(self) -> Iterator[pytest.Item]:
        """Skip the module as a whole."""
        pytest.skip(obstacle() or f"{self.path.name} needs the Python packages {', '.join(_absent(self.path))}")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Leave out what cannot run here."""
    return _LeftOut.from_parent(parent, path=module_path) if obstacle() or _absent(module_path) else None


def _absent(module: Path) -> list[str]:
    return [name for name in NEEDS.get(module.stem, ()) if importlib.util.find_spec(name) is None]


@pytest.fixture
def device() -> Iterator[PycudaDevice]:
    """A GPU that is current in this thread."""
    from seg_perception.onboard.backend.tensorrt.cuda.pycuda_device import PycudaDevice

    opened = PycudaDevice()
    with opened.active():
        yield opened
    opened.close()
