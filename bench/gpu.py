"""The kernels on an NVIDIA GPU, and the captured graph around a stand-in for TensorRT: `python -m bench gpu`.

Every kernel is first held against the CPU. Then a graph of many launches, each on buffers of its own that together
exceed every cache, is timed by events, so that neither launches nor the cache flatter or spoil the result; and once
more on the same buffers, as in the pipeline, where the step before has just written them.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu_cases import (
    CLASSES,
    HD,
    LETTERBOX_OPERATIONS,
    UHD,
    Bench,
    Case,
    letterbox_case,
    model_spec,
    noise,
    outputs_of,
    paint_cases,
)
from bench.stand_in import CopyingEngine, Queue, convolutions, copy_by_driver
from seg_perception.cli.bench import measure_gpu, report
from seg_perception.core.errors import SegPerceptionError
from seg_perception.onboard.backend.tensorrt.cuda.backend import CudaBackend
from seg_perception.onboard.backend.tensorrt.cuda.device import Device
from seg_perception.onboard.backend.tensorrt.cuda.profile import Ruler
from seg_perception.onboard.backend.tensorrt.driver import driver_version

COMMAND = "python -m bench gpu"
MIB = 1 << 20
STAND_INS: dict[str, Callable[[], Queue | None]] = {
    "The graph around an engine that only copies prepared outputs (20 instances)": lambda: None,
    "The same with a convolution stack of 8.7 GFLOP (PyTorch, half precision) in the engine's place": convolutions,
}


def kernel_table(bench: Bench, ruler: Ruler, cases: Sequence[Case], multiprocessors: int, hertz: float) -> list[str]:
    """Markdown rows: times next to what memory and arithmetic allow."""
    bandwidth = ruler.bandwidth.on_device
    lines = [
        "| kernel | µs | µs, warm | MB | µs by memory | Mop | µs by arithmetic | bound by | goal on an H200, µs | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in cases:
        cold, warm = (bench.seconds(ruler, each) for each in (case.launches, [case.launches[0]] * len(case.launches)))
        memory = case.moved / bandwidth
        arithmetic = case.operations / (multiprocessors * case.lanes * hertz)
        bound = (
            "neither: latency"
            if cold > 4 * max(memory, arithmetic)
            else "memory"
            if memory > arithmetic
            else "arithmetic"
        )
        goal = ["", ""] if not case.goal else [f"{case.goal * 1e6:.0f}", "met" if cold <= case.goal else "MISSED"]
        cells = [case.name, f"{cold * 1e6:.1f}", f"{warm * 1e6:.1f}", f"{case.moved / 1e6:.2f}", f"{memory * 1e6:.2f}"]
        cells += (
            [f"{case.operations / 1e6:.1f}", f"{arithmetic * 1e6:.2f}", bound]
            if case.operations
            else [
                "",
                "",
                "",
            ]
        )
        lines.append(f"| {' | '.join([*cells, *goal])} |")
    return lines


def whole(device: Device, before: Queue | None, rounds: int) -> list[str]:
    """The backend around a stand-in for the engine, 1080p bgr8; what `seg_perception bench` prints."""
    outputs, _ = outputs_of(20, *HD, np.float16)
    engine = CopyingEngine(device, outputs, copy_by_driver(), before)
    backend = CudaBackend(model_spec(), {"backend": "stand-in", "device": device.name}, device, engine)
    try:
        frame = noise("bgr8", *HD)
        groups = (np.arange(CLASSES) % 4).astype(np.int32)
        result = measure_gpu(backend, groups, [[frame]], rounds)
        result["memory"]["gpu_before"] = None
        shown = {"width": HD[0], "height": HD[1], "encoding": "bgr8", "images": 1, "batch": 1}
        return report({"model": backend.identity, "frames": shown, "rounds": rounds, **result})
    finally:
        backend.close()


def section(rounds: int) -> str:
    """Measure everything; Markdown.

    Raises:
        BackendUnavailable: there is no GPU, or something that it needs is absent.
        DeviceError: the GPU failed.
    """
    from seg_perception.onboard.backend.tensorrt.cuda.pycuda_device import PycudaDevice

    device = PycudaDevice()
    facts = _facts()
    with device.active():
        bench = Bench(device, facts["l2"], rounds)
        with Ruler(device, 256 * MIB) as ruler:
            cases = [letterbox_case(bench, encoding, 25e-6) for encoding in LETTERBOX_OPERATIONS]
            for count, size, goal in ((20, HD, 25e-6), (100, UHD, 300e-6)):
                for dtype in (np.float16, np.float32):
                    cases += paint_cases(bench, count, size, dtype, goal)
            table = kernel_table(bench, ruler, cases, facts["multiprocessors"], facts["hertz"])
        rates = ruler.bandwidth
    device.close()
    lines = [
        f"## {device.name}, {datetime.now(timezone.utc):%Y-%m-%d}",
        "",
        f"    {COMMAND}",
        "",
        f"{device.architecture}, {facts['multiprocessors']} multiprocessors at up to {facts['hertz'] / 1e9:.2f} GHz, "
        f"{facts['l2'] / MIB:.0f} MiB of L2; driver {facts['driver']}. Large copies, median: to the device "
        f"{rates.to_device / 1e9:.1f} GB/s, to the host {rates.to_host / 1e9:.1f} GB/s, on the device "
        f"{rates.on_device / 1e9:.0f} GB/s (read and written bytes count).",
        "",
        *table,
    ]
    for title, before in STAND_INS.items():
        lines += ["", f"### {title}", ""]
        try:
            queue = before()
            lines += ["```", *whole(PycudaDevice(), queue, rounds), "```"]
        except (ImportError, RuntimeError, SegPerceptionError) as reason:
            # What was measured before is worth having.
            lines.append(f"Not measured: {reason}")
    return "\n".join(lines) + "\n"


def _facts() -> dict[str, Any]:
    """What a `Device` does not tell."""
    import pycuda.driver as cuda

    gpu, attributes = cuda.Device(0), cuda.device_attribute
    facts: dict[str, Any] = {"multiprocessors": 1, "hertz": 1e9, "l2": 64 * MIB}
    # A driver that does not tell one of them is no reason to stop.
    with suppress(cuda.Error):
        facts["multiprocessors"] = gpu.get_attribute(attributes.MULTIPROCESSOR_COUNT)
        facts["hertz"] = gpu.get_attribute(attributes.CLOCK_RATE) * 1e3
        facts["l2"] = gpu.get_attribute(attributes.L2_CACHE_SIZE)
    facts["driver"] = f"for CUDA {'.'.join(map(str, driver_version()))}"
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        facts["driver"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    return facts


def written(text: str, new: str) -> str:
    """A page with a section of the same GPU replaced, or one more at its end."""
    old = new.partition(",")[0], "## Nothing measured yet"
    parts = [part for part in re.split(r"(?m)^(?=## )", text) if not part.startswith(old)]
    return "".join(parts).rstrip("\n") + "\n\n" + new


def main() -> int:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the section into this page")
    parser.add_argument("--rounds", type=int, default=50, help="of each measurement (default: %(default)s)")
    arguments, _ = parser.parse_known_args()
    try:
        new = section(arguments.rounds)
    except SegPerceptionError as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 1
    print(new)
    if arguments.write:
        page = arguments.write.read_text(encoding="utf-8") if arguments.write.exists() else "# On a GPU\n\n"
        arguments.write.write_text(written(page, new), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
