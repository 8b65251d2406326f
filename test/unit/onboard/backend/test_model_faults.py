"""Models that a runtime opens and cannot run, or whose names it cannot even tell: an error of the package each time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seg_perception.core.errors import ModelError
from seg_perception.core.share import find_model
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.onnxruntime_session import SessionRunner
from seg_perception.onboard.backend.registry import open_backend

BACKENDS = ["onnxruntime", "openvino"]


def run_once(error: Exception) -> None:
    def failing(*_: object) -> Any:
        raise error

    session: Any = SimpleNamespace(run=failing)
    spec: Any = SimpleNamespace(batch=1, output_names=("boxes",))
    SessionRunner(session, spec, {}).run(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_model_that_fails_when_it_is_run_is_a_fault_of_the_model() -> None:
    with pytest.raises(ModelError, match=r"fails when it is run.*Non-zero status code") as caught:
        run_once(RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned"))
    assert caught.value.__cause__ is not None


def test_too_little_memory_is_not_a_fault_of_the_model() -> None:
    with pytest.raises(RuntimeError, match="bad_alloc"):
        run_once(RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_names_that_are_no_text_are_told_as_a_fault_of_the_model(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    damaged = tmp_path / "damaged.onnx"
    # An operator that neither runtime has, with a name that is no UTF-8.
    damaged.write_bytes(find_model(Path("street-nano.onnx")).read_bytes().replace(b"Sigmoid", b"Sig\x80oid"))
    assert b"Sig\x80oid" in damaged.read_bytes()
    with pytest.raises(ModelError):
        open_backend(damaged, backend, RunOptions(threads=1))
