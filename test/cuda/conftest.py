"""Tests on the emulated driver of CUDA, in an environment and a process of their own (`make test-cuda`).

It takes the place of the real driver in the process, so that no test of a real GPU may run next to these.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cuda_driver import EmulatedDriver

EMULATED = os.environ.get("EMULATED_CUDA") == "1"


class _LeftOut(pytest.Module):
    """A module that is not even imported, because pycuda may be absent or run on a real driver."""

    def collect(self) -> Iterator[pytest.Item]:
        """Skip the module as a whole."""
        pytest.skip("runs on an emulated CUDA driver, in an environment of its own: make test-cuda")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Leave the tests out of every other environment."""
    return None if EMULATED else _LeftOut.from_parent(parent, path=module_path)


@pytest.fixture
def driver() -> Iterator[EmulatedDriver]:
    """The driver with its usual settings; afterwards nothing of a test may be left in it."""
    from cuda_driver import DEFAULTS, EmulatedDriver

    emulated = EmulatedDriver.load()
    emulated.set(**DEFAULTS)
    yield emulated
    left = {kind: count for kind, count in emulated.counts().items() if count}
    assert not left
