"""The node across processes: latency from camera stamp to instance map, alone and under more frames than it can take.

The unit is the canonical model alone under OpenVINO, measured on the same images right before and after.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from bench.data import THREADS, arguments, street_images
from bench.table import show
from demo.session import Report, run
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.openvino import OpenVinoRunner

QUIET_RATE, QUIET_FRAMES = 2.0, 60
LOAD_RATE, LOAD_SECONDS = 15.0, 60.0
# The first frames find cold caches and growing buffers.
WARM_UP_SECONDS = 10


def model_alone(model: Path, inputs: list[Path]) -> float:
    """Median seconds of the model alone, no other process of ours running."""
    opened = OpenVinoRunner(model, RunOptions(threads=THREADS))
    spec = opened.spec
    images = street_images(inputs, spec.network_width, spec.network_height)
    seconds = []
    for index in range(45):
        image = images[index % len(images)][None]
        begin = perf_counter()
        opened.run(np.ascontiguousarray(image))
        seconds.append(perf_counter() - begin)
    opened.close()
    return float(np.median(seconds[5:]))


def session(values: argparse.Namespace, rate: float, frames: int) -> Report:
    """One session at 720p without overlays."""
    with tempfile.TemporaryDirectory() as folder:
        parameters = {"threads": THREADS, "diagnostics_period": 1.0}
        return run(values.model, values.input, Path(folder), rate=rate, frames=frames, parameters=parameters)


def stage(report: Report, name: str) -> float:
    """Median milliseconds of one stage in the node, NaN where it was not reported."""
    model = next((each for key, each in report.diagnostics.items() if key.endswith(": model")), {})
    return float(model.get(f"{name}_ms", "nan"))


def quiet(values: argparse.Namespace) -> None:
    """Stamp to map at 2 Hz."""
    before = model_alone(values.model, values.input)
    report = session(values, QUIET_RATE, QUIET_FRAMES)
    unit = 1e3 * (before + model_alone(values.model, values.input)) / 2
    p50, p95, p99 = report.percentiles(50, 95, 99)
    rows = [
        ["model alone", f"{unit:.1f}", "1.00"],
        ["model, in the node", f"{stage(report, 'model'):.1f}", f"{stage(report, 'model') / unit:.2f}"],
        ["stamp to map p50", f"{p50:.1f}", f"{p50 / unit:.2f}"],
        ["stamp to map p95", f"{p95:.1f}", f"{p95 / unit:.2f}"],
        ["stamp to map p99", f"{p99:.1f}", f"{p99 / unit:.2f}"],
    ]
    maps = len(report.latencies_ms)
    show(f"Node, 1280x720 at {QUIET_RATE:g} Hz, {maps} of {report.sent} frames", ["", "ms", "of the model"], rows)


def load(values: argparse.Namespace) -> None:
    """15 Hz for a minute, more than the model can take."""
    report = session(values, LOAD_RATE, round(LOAD_RATE * LOAD_SECONDS))
    p50, p99 = report.percentiles(50, 99)
    model, interval = stage(report, "model"), 1e3 / LOAD_RATE
    memory = report.memory_mb[WARM_UP_SECONDS:]
    rows = [
        ["frames sent / processed", f"{report.sent} / {len(report.latencies_ms)}"],
        ["results per second", f"{len(report.latencies_ms) / report.seconds:.1f}"],
        ["model under this load, median ms", f"{model:.1f}"],
        ["age of results p50 / p99, ms", f"{p50:.1f} / {p99:.1f}"],
        ["two model times + one input interval, ms", f"{2 * model + interval:.1f}"],
        [f"memory after {WARM_UP_SECONDS} s: first / last / largest, MB", _memory(memory)],
        ["CPU time of the node per second, s", f"{report.cpu_seconds / report.seconds:.2f}"],
    ]
    show(f"Node under load, 1280x720 at {LOAD_RATE:g} Hz for {report.seconds:.0f} s", ["", "value"], rows)


def _memory(samples: list[float]) -> str:
    if not samples:
        return "-"
    return f"{samples[0]:.1f} / {samples[-1]:.1f} / {max(samples):.1f}"


def main(values: argparse.Namespace | None = None) -> None:
    """Print both tables."""
    values = values or arguments(__doc__)
    quiet(values)
    load(values)


if __name__ == "__main__":
    main()
