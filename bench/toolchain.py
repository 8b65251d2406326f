"""Time and peak memory of the toolchain's commands, each in a process of its own.

    python -m bench toolchain --model EXPORT.onnx --input IMAGES

What cannot run on this machine says why instead of a number.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from bench.data import SHARED, DefaultsMissing, default_inputs, default_model
from bench.table import show

FRAMES = 64
SIZE = (1280, 720)
GPU = "sm_86"


class Measured(NamedTuple):
    """One command: how long it took, how long processors worked on it, how much memory it held at most; why it failed.

    With other load on the machine the processors' time changes less than the time on the wall.
    """

    seconds: float
    processors: float
    megabytes: float
    failure: str


def measure(arguments: Sequence[str], log: Path) -> Measured:
    """Run `seg_perception` with these arguments; what it prints goes to `log`."""
    begin = perf_counter()
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "seg_perception.cli", *arguments], stdout=output, stderr=subprocess.STDOUT
        )
        # Unlike RUSAGE_CHILDREN, this is of that process (and what it waited for) alone.
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    reasons = [line for line in lines if "error: " in line] or lines or [f"exit code {child.returncode}"]
    failure = reasons[-1] if child.returncode else ""
    return Measured(perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, failure)


def write_images(inputs: Sequence[Path], folder: Path) -> None:
    """Write `FRAMES` images of one size, evenly spread over the inputs; fewer where there are not as many."""
    import cv2

    from demo.images import spread

    left = FRAMES
    for number, path in enumerate(inputs):
        images = spread(path, left // (len(inputs) - number), SIZE)
        left -= len(images)
        for index, image in enumerate(images):
            cv2.imwrite(str(folder / f"{number}_{index:03d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])


def run(model: Path, inputs: Sequence[Path], folder: Path) -> dict[str, Measured]:
    """Measure every command once.

    Args:
        model: a raw export.
        inputs: images, folders or videos to calibrate on.
        folder: for everything that is written.

    Returns:
        By command.
    """
    images = folder / "images"
    images.mkdir()
    # In a process of its own: a child is charged with the memory of the process it was forked from.
    writer = multiprocessing.get_context("spawn").Process(target=write_images, args=(inputs, images))
    writer.start()
    writer.join()
    if writer.exitcode:
        raise SystemExit("no calibration images could be written")
    count = len(list(images.iterdir()))
    canonical, half, quantized = (str(folder / f"{name}.onnx") for name in ("fp32", "fp16", "int8"))
    build = ["-o", str(folder / "engines"), "--target", "tensorrt-rtx", "--gpu", GPU]
    commands = {
        "prepare": ["prepare", str(model), "-o", canonical],
        "prepare --precision fp16": ["prepare", str(model), "--precision", "fp16", "-o", half],
        f"quantize, {count} frames, with gate": [
            "quantize",
            canonical,
            "--calibration",
            str(images),
            "-o",
            quantized,
        ],
        "build fp32": ["build", canonical, *build, "--precision", "fp32"],
        "build fp16": ["build", canonical, *build, "--precision", "fp16"],
        "build int8 of the quantized model": ["build", quantized, *build, "--precision", "int8"],
        # Here it is about time: whether the model is good enough is another question.
        "verify, quantized model": [
            *("verify", quantized, "--reference", canonical, "--data", str(images)),
            *("--min-iou", "0", "--max-faults", "1"),
        ],
    }
    results = {}
    for number, (name, arguments) in enumerate(commands.items()):
        print(f"  {name} ...", file=sys.stderr, flush=True)
        results[name] = measure(arguments, folder / f"{number}.log")
    return results


def _row(name: str, measured: Measured) -> tuple[str, str, str, str]:
    if measured.failure:
        return name, "cannot run", "-", "-"
    return name, f"{measured.seconds:.1f} s", f"{measured.processors:.1f} s", f"{measured.megabytes:.0f} MB"


def main() -> int:
    """Print the table; exit code 2 when there is nothing to measure with."""
    parser = argparse.ArgumentParser(prog="python -m bench toolchain", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="raw export (ONNX)")
    parser.add_argument("--input", type=Path, nargs="+", help="images, folders or videos to calibrate on")
    arguments = parser.parse_args()
    try:
        model = arguments.model or default_model()
        labelled = SHARED / "coco_dev" / "images"
        inputs = arguments.input or [*default_inputs(), *([labelled] if labelled.is_dir() else [])]
    except DefaultsMissing as error:
        print(error, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        results = run(model, inputs, Path(folder))
    rows = [_row(name, measured) for name, measured in results.items()]
    size = f"{model.stat().st_size / 1e6:.1f} MB"
    show(f"Toolchain, {model.name} ({size}), engines for {GPU}", ["command", "time", "CPU time", "peak memory"], rows)
    for name, measured in results.items():
        if measured.failure:
            print(f"  {name}: {measured.failure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
