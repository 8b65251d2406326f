"""What the canonical model costs over the raw export, under both CPU runtimes.

    python -m bench.head --model EXPORT.onnx

Both run in turn in one process, so that other load on the machine meets both alike. The raw export gets finished
float input and leaves decoding, suppression and masks undone; the canonical model does all of it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import default_model
from bench.table import show
from seg_perception.core.errors import SegPerceptionError
from seg_perception.offboard.toolchain.export import load_export
from seg_perception.offboard.toolchain.prepare import prepare

Run = Callable[[], object]


def run(model: Path, rounds: int = 30, threads: int = 2) -> list[tuple[str, str]]:
    """Measure.

    Args:
        model: a raw export with a fixed input size.
        rounds: runs of each model; medians are reported.
        threads: CPU threads of the runtimes.

    Returns:
        Label and value of each line of the report.
    """
    with tempfile.TemporaryDirectory() as folder:
        canonical = Path(folder) / "canonical.onnx"
        spec = prepare(model, canonical)
        batch = spec.batch or 1
        images = np.random.default_rng(0).integers(
            0, 256, (batch, spec.network_height, spec.network_width, 3), np.uint8
        )
        image = load_export(model).inputs[0]
        dtype = np.float16 if image.element == 10 else np.float32
        pixels = (np.ascontiguousarray(images.transpose(0, 3, 1, 2)) / 255.0).astype(dtype)
        rows = [("model", f"{model.name}, {spec.network_width} x {spec.network_height}, {threads} threads")]
        for name, opener in (("OpenVINO f32", _openvino), ("ONNX Runtime", _onnxruntime)):
            raw, whole = _in_turn(opener(model, pixels, threads), opener(canonical, images, threads), rounds)
            extra = float(np.median(whole - raw))
            rows += [
                (f"{name}: raw export", f"{np.median(raw):.1f} ms"),
                (f"{name}: canonical model", f"{np.median(whole):.1f} ms"),
                (f"{name}: head and input stage", f"{extra:.1f} ms (median of {rounds} differences)"),
            ]
    return rows


def _in_turn(first: Run, second: Run, rounds: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Milliseconds `[rounds]` of each, after three rounds to warm up."""
    times = np.array([(_milliseconds(first), _milliseconds(second)) for _ in range(rounds + 3)])[3:]
    return times[:, 0], times[:, 1]


def _milliseconds(action: Run) -> float:
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1e3


def _openvino(path: Path, values: NDArray[Any], threads: int) -> Run:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(values))
    return lambda: request.infer()


def _onnxruntime(path: Path, values: NDArray[Any], threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: values}
    return lambda: session.run(None, feed)


def main() -> int:
    """Print the report; exit code 2 when there is no model to measure."""
    parser = argparse.ArgumentParser(description="What the canonical model costs over the raw export.")
    parser.add_argument("--model", type=Path, help="raw export (ONNX)")
    parser.add_argument("--rounds", type=int, default=30, help="runs of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    arguments, _ = parser.parse_known_args()
    try:
        rows = run(arguments.model or default_model(), arguments.rounds, arguments.threads)
    except SegPerceptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show("Canonical model against the raw export", ["", "value"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
