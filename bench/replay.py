"""Replay against the bare backend on the same frames, and its memory over a long bag.

    python -m bench.replay [--model MODEL.onnx] [--rounds 7]

Frames are those of the street world at 1280 x 720, recorded raw and as JPEG. "Bare" is the model alone on images that
are letterboxed already; the two take turns in one process. Memory is that of the command in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter, sleep

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from bench.data import THREADS
from bench.table import show
from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.frame import Frame
from seg_perception.core.messages.images import COMPRESSED_IMAGE, IMAGE, write_compressed_image, write_image
from seg_perception.core.share import find_model
from seg_perception.offboard.data.bags.types import message_store
from seg_perception.offboard.replay.job import ReplayJob, run_job
from seg_perception.offboard.streetworld.world import StreetWorld, WorldOptions
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.openvino import OpenVinoRunner
from seg_perception.onboard.pipeline.opening import ModelChoice, open_segmenter
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.segmenter import Segmenter
from seg_perception.onboard.pipeline.track import TrackerOptions

FRAMES = 40
# Long enough that beginning and end weigh little.
REPLAYED = 160
LONG = 1200
STEP_NS = 100_000_000


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="street-nano.onnx", help="canonical model")
    parser.add_argument("--rounds", type=int, default=7)
    values, _ = parser.parse_known_args()
    world = StreetWorld(WorldOptions(FRAMES, seed=17, width=1280, height=720))
    frames = [frame for _, frame in world]
    with tempfile.TemporaryDirectory() as folder:
        _throughput(values.model, frames, values.rounds, Path(folder))
        _memory(values.model, frames, Path(folder))


def _throughput(model: str, frames: list[Frame], rounds: int, folder: Path) -> None:
    opened = OpenVinoRunner(find_model(model), RunOptions(threads=THREADS))
    spec = opened.spec
    image = np.full((1, spec.network_height, spec.network_width, 3), 114, np.uint8)
    bags = {"raw": _bag(folder / "raw", frames, False, REPLAYED), "JPEG": _bag(folder / "jpeg", frames, True, REPLAYED)}
    seconds: dict[str, list[float]] = {name: [] for name in ("bare", *bags)}
    options = SegmenterOptions(tracking=TrackerOptions())
    with closing(open_segmenter(ModelChoice(model, runners=0), options)) as own:
        own.warm_up()
        for number in range(rounds):
            begin = perf_counter()
            for _ in range(REPLAYED):
                opened.run(image)
            seconds["bare"].append(perf_counter() - begin)
            for name, bag in bags.items():
                seconds[name].append(_replayed(own, bag, folder / f"{name}{number}.mcap"))
    opened.close()
    middle = {name: float(np.median(each)) for name, each in seconds.items()}
    ratios = {name: np.divide(seconds["bare"], seconds[name]) for name in bags}
    rows = [["bare", f"{REPLAYED / middle['bare']:.1f}", "", ""]]
    for name, each in ratios.items():
        rows.append([f"replay, {name}", f"{REPLAYED / middle[name]:.1f}", f"{np.median(each):.3f}",
                     f"{each.min():.3f} to {each.max():.3f}"])  # fmt: skip
    header = ["", "frames/s", "of bare, median", "range"]
    show(
        f"Replay of {REPLAYED} frames of 1280x720 with {model}, tracking, {THREADS} threads, {rounds} rounds",
        header,
        rows,
    )


def _replayed(segmenter: Segmenter, bag: Path, output: Path) -> float:
    job = ReplayJob((bag,), output)
    outcome = run_job(job, segmenter, job.recordings())
    output.unlink()
    return outcome.seconds


def _memory(model: str, frames: list[Frame], folder: Path) -> None:
    rows = []
    for count in (LONG // 10, LONG):
        bag = _bag(folder / f"long{count}", frames, True, count)
        output = folder / f"long{count}.mcap"
        command = [sys.executable, "-m", "seg_perception.cli", "replay", str(bag), "--model", model, "-o", str(output)]
        most = _most_memory(subprocess.Popen([*command, "--tracking"], stdout=subprocess.DEVNULL))
        rows.append([f"{count} frames", f"{most:.0f}", f"{output.stat().st_size / 1e6:.1f}"])
    show(f"Memory of replay with {model}", ["", "most memory, MB", "output, MB"], rows)


def _most_memory(process: subprocess.Popen[bytes]) -> float:
    """Megabytes that a process needs at most until it ends; resource usage would count its parent's before exec."""
    most = 0.0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            continue
        peak = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
        most = max(most, int(peak.split()[1]) / 1000)
        sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"{process.args!r}: exit code {process.returncode}")
    return most


def _bag(folder: Path, frames: list[Frame], compressed: bool, count: int = FRAMES) -> Path:
    kind = COMPRESSED_IMAGE if compressed else IMAGE
    serialized = list(_serialized(frames, compressed))
    with Writer(folder, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = "/front/image_raw/compressed" if compressed else "/front/image_raw"
        connection = writer.add_connection(topic, kind, typestore=message_store())
        for index in range(count):
            writer.write(connection, index * STEP_NS, serialized[index % len(serialized)])
    return folder


def _serialized(frames: list[Frame], compressed: bool) -> Iterator[bytes]:
    for index, frame in enumerate(frames):
        image = to_bgr(frame)
        if compressed:
            _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
            yield write_compressed_image(index * STEP_NS, "front", "bgr8; jpeg compressed bgr8", jpeg.tobytes())
        else:
            yield write_image(index * STEP_NS, "front", "bgr8", image)


if __name__ == "__main__":
    main()
