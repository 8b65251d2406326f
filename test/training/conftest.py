"""Tests of the training; those that need PyTorch run in an environment of its own (`make test-training`)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("torch") is not None:
    import torch

    # Next to other work, threads that wait for one another are many times slower than one.
    torch.set_num_threads(1)
WITHOUT_TORCH = ("test_augment.py", "test_mix.py", "test_photographs.py", "test_worlds.py")


class _LeftOut(pytest.Module):
    """A module that is not even imported, because PyTorch is not installed."""

    def collect(self) -> Iterator[pytest.Item]:
        """Skip the module as a whole."""
        pytest.skip("needs PyTorch: make test-training", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Leave the tests that need it out of an environment without PyTorch."""
    if find_spec("torch") is not None or module_path.name in WITHOUT_TORCH:
        return None
    return _LeftOut.from_parent(parent, path=module_path)
