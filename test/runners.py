"""The model itself under each of the CPU's runtimes, without the backend around it."""

from __future__ import annotations

from pathlib import Path

from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.onnxruntime import OrtRunner
from seg_perception.onboard.backend.host.openvino import OpenVinoRunner


def open_runner(path: Path, backend: str = "onnxruntime", threads: int = 1) -> OpenVinoRunner | OrtRunner:
    options = RunOptions(threads=threads)
    return OpenVinoRunner(path, options) if backend == "openvino" else OrtRunner(path, options)
