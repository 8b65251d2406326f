"""Runs small models under both CPU runtimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Session = Callable[[Arrays], dict[str, NDArray[Any]]]


def _onnxruntime(model: onnx.ModelProto) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(None, dict(feed)), strict=True))


def _openvino(model: onnx.ModelProto) -> Session:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)

    def run(feed: Arrays) -> dict[str, NDArray[Any]]:
        results = compiled(dict(feed))
        return {output.any_name: np.array(results[output]) for output in compiled.outputs}

    return run


@pytest.fixture(params=["onnxruntime", "openvino"])
def open_session(request: pytest.FixtureRequest) -> Callable[[onnx.ModelProto], Session]:
    """Opens a model under one runtime after the other; a session takes and returns arrays by name."""
    return {"onnxruntime": _onnxruntime, "openvino": _openvino}[request.param]
