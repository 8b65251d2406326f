"""The model itself under each of the CPU's runtimes, without the backend around it."""

from __future__ import annotations

from pathlib import Path

from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.onnxruntime import OrtRunner
from seg_perception.onboard.backend.host.openvino import OpenVinoRunner

RUNNERS = {"openvino": OpenVinoRunner, "onnxruntime": OrtRunner}


def open_runner(path: Path, backend: str = "onnxruntime", threads: int = 1) -> OpenVinoRunner | OrtRunner:
    return RUNNERS[backend](path, RunOptions(threads=threads))
