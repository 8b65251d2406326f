"""Comparisons with the families' own code; their packages are in an environment of their own (`make test-families`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# Exporters look for updates, fonts and weights; nothing here needs the network.
os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
INSTALLED = find_spec("torch") is not None
if INSTALLED:
    # Before any test module imports torchvision.
    from families import torchvision_cpu  # noqa: F401


class _LeftOut(pytest.Module):
    """A module that is not even imported, because what it compares with is not installed."""

    def collect(self) -> Iterator[pytest.Item]:
        """Skip the module as a whole."""
        pytest.skip("needs the exporters of the model families: make test-families", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Leave the tests here out of an environment without torch."""
    return None if INSTALLED else _LeftOut.from_parent(parent, path=module_path)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, for the table in docs/families.md."""
    if not INSTALLED:
        return
    from families.harness import MEASURED

    terminalreporter.section("agreement with the families' own code")
    for line in MEASURED:
        terminalreporter.write_line(line)
