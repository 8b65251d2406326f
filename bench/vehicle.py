"""Six cameras through the node for minutes, and the same images through a node as it is usually written.

The cameras are one process, which publishes serialised messages at evenly spaced moments; whoever receives the results
is another. The first seconds are left out. The age of a result is from the camera's stamp to the arrival of the
detections, the last thing that both nodes publish of a frame. The batch time is the sum of the node's own stages, as
its /diagnostics have them: with a model on the CPU a batch is one frame.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from bench.data import THREADS
from bench.table import show
from demo.model import MODEL, canonical
from demo.session import ROOT, environment

CAMERAS = ("front", "front_left", "front_right", "rear", "rear_left", "rear_right")
SIZE = (1280, 720)
SEED, IMAGES, SCENE = 8102, 24, 4
WARM_UP_SECONDS = 10.0
START_SECONDS = 60.0
# What goes into and out of messages; all else is the image's own work.
MESSAGE_STAGES = ("take", "read", "decode", "publish")
NODE, USUAL = "segmenter", "usual_segmenter"


@dataclass(frozen=True, slots=True)
class Design:
    """One of the nodes that are compared: its title, module, name, topic of masks under `~/CAMERA/`, and parameters."""

    title: str
    module: str
    name: str
    masks: str
    parameters: tuple[str, ...] = ()


DESIGNS = (
    Design("node", "seg_perception.onboard.ros.main", NODE, "instance_map", ("autostart:=true",)),
    Design("usual", "bench.usual_node", USUAL, "masks"),
    Design("usual, queue of 1", "bench.usual_node", USUAL, "masks", ("queue:=1",)),
)


@dataclass
class Measured:
    """What one design did after the warm-up.

    Attributes:
        title: of the design.
        seconds: how long.
        sent: frames, by camera.
        ages_ms: of results, by camera.
        instances, megabytes: all that was published of a frame and arrived, per result.
        cpu_ms, viewer_cpu_ms: CPU time of the node, and of the process that received, per result.
        others: cores that programs which are no part of this took.
        memory: rows of seconds, megabytes of its own, and resident ones with what it shares: libraries, and the
            images in shared memory.
        diagnostics: key-values of the last status of each name.
    """

    title: str
    seconds: float
    sent: dict[str, int]
    ages_ms: dict[str, list[float]]
    instances: float
    megabytes: float
    cpu_ms: float
    viewer_cpu_ms: float
    others: float
    memory: NDArray[np.float64]
    diagnostics: dict[str, dict[str, str]]

    @property
    def results(self) -> int:
        """Of all cameras."""
        return sum(map(len, self.ages_ms.values()))

    def percentiles(self, *ranks: float) -> list[float]:
        """Of the age, over all cameras; NaN where no result came."""
        ages = [age for each in self.ages_ms.values() for age in each]
        return [float(value) for value in np.percentile(ages, ranks)] if ages else [float("nan")] * len(ranks)


# The processes


def cameras(bag: Path, names: Sequence[str], rate_hz: float, seconds: float, report: Path) -> None:
    """Publish, then write which camera sent when: stamps in ns by name."""
    import rclpy
    from rclpy.qos import QoSProfile, QoSReliabilityPolicy
    from sensor_msgs.msg import CameraInfo, Image

    from demo.camera import from_bag

    shots = from_bag(bag, IMAGES)
    rclpy.init()
    node = rclpy.create_node("cameras")
    qos = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    images = {name: node.create_publisher(Image, f"{name}/image_raw", qos) for name in names}
    infos = {name: node.create_publisher(CameraInfo, f"{name}/camera_info", qos) for name in names}
    while not all(publisher.get_subscription_count() for publisher in images.values()):
        time.sleep(0.05)
    stamps: dict[str, list[int]] = {name: [] for name in names}
    begin = time.monotonic()
    for index in range(round(seconds * rate_hz) * len(names)):
        turn, camera = divmod(index, len(names))
        name = names[camera]
        # Each camera is at another place of the drive.
        shot = shots[(turn + camera * len(shots) // len(names)) % len(shots)]
        time.sleep(max(0.0, begin + index / (rate_hz * len(names)) - time.monotonic()))
        stamps[name].append(time.time_ns())
        for publisher, message in ((infos[name], shot.info), (images[name], shot.image)):
            struct.pack_into("<iI", message, 4, *divmod(stamps[name][-1], 10**9))
            publisher.publish(bytes(message))
    report.write_text(json.dumps(stamps))
    time.sleep(1.0)
    rclpy.shutdown()


def viewer(node_name: str, masks: str, names: Sequence[str], report: Path) -> None:
    """Receive until SIGINT; print `ready` when connected, write at the end what came and when."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import QoSProfile, QoSReliabilityPolicy
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import Image
    from vision_msgs.msg import Detection2DArray

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    ended: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: ended.append(number))
    node = rclpy.create_node("vehicle")
    results: dict[str, list[tuple[float, float, int]]] = {name: [] for name in names}
    arrived: list[tuple[float, int]] = []
    diagnostics: dict[str, dict[str, str]] = {}

    def on_detections(name: str, message: bytes) -> None:
        now = time.time()
        seconds, nanoseconds, frame_id = struct.unpack_from("<iII", message, 4)
        count = struct.unpack_from("<I", message, 16 + frame_id + -frame_id % 4)[0]
        results[name].append((now, 1e3 * (now - seconds - 1e-9 * nanoseconds), count))
        arrived.append((now, len(message)))

    def on_map(data: Any) -> None:
        arrived.append((time.time(), len(data)))

    def on_diagnostics(message: DiagnosticArray) -> None:
        for status in message.status:
            diagnostics[status.name] = {pair.key: pair.value for pair in status.values}

    qos = QoSProfile(depth=100, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    topics = [f"/{node_name}/{name}/{masks}" for name in names]
    for name, topic in zip(names, topics, strict=True):
        node.create_subscription(Image, topic, on_map, qos, raw=True)
        detections = f"/{node_name}/{name}/detections"
        node.create_subscription(Detection2DArray, detections, partial(on_detections, name), qos, raw=True)
    node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    said, last_moment = False, time.monotonic() + START_SECONDS
    while not ended and (said or time.monotonic() < last_moment):
        executor.spin_once(timeout_sec=0.2)
        if not said and all(map(node.count_publishers, topics)):
            said = True
            print("ready", flush=True)
    report.write_text(json.dumps({"results": results, "arrived": arrived, "diagnostics": diagnostics}))
    rclpy.shutdown()


# Measuring


def measure(design: Design, model: Path, bag: Path, rate_hz: float, seconds: float, folder: Path) -> Measured:
    """Run one design with its cameras and viewer; `folder` takes their reports.

    Raises:
        RuntimeError: a process failed.
    """
    values = environment()
    parameters = [f"model:={model}", f"threads:={THREADS}", f"camera_names:={json.dumps(CAMERAS)}", *design.parameters]
    options = [part for parameter in parameters for part in ("-p", parameter)]
    me = [sys.executable, "-m", "bench.vehicle"]
    seen, shown = folder / "viewer.json", folder / "cameras.json"
    with ExitStack() as stack:
        log = stack.enter_context((folder / "node.log").open("wb"))
        node_command = [sys.executable, "-m", design.module, "--ros-args", *options]
        node = stack.enter_context(_process(node_command, values, stdout=log, stderr=subprocess.STDOUT))
        view = [*me, "--view", design.name, design.masks, str(seen)]
        receiver = stack.enter_context(_process(view, values, stdout=subprocess.PIPE))
        if receiver.stdout is None or receiver.stdout.readline().strip() != b"ready":
            raise RuntimeError(f"expected topics {design.masks} of /{design.name}, none came in {START_SECONDS:.0f} s")
        play = [*me, "--play", str(bag), str(rate_hz), str(WARM_UP_SECONDS + seconds), str(shown)]
        source = stack.enter_context(_process(play, values))
        samples = _watch(node, receiver, source)
        receiver.send_signal(signal.SIGINT)
        receiver.wait(60)
    return _evaluate(design.title, json.loads(shown.read_text()), json.loads(seen.read_text()), np.array(samples))


@contextmanager
def _process(command: list[str], values: dict[str, str], **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block."""
    process = subprocess.Popen(command, env=values, cwd=ROOT, **streams)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _watch(
    node: subprocess.Popen[bytes], receiver: subprocess.Popen[bytes], source: subprocess.Popen[bytes]
) -> list[list[float]]:
    """Until the cameras end, once a second: time, CPU seconds of node, viewer and strangers, the node's MB."""
    ours = [psutil.Process(process.pid) for process in (node, receiver, source)]
    samples: list[list[float]] = []
    while source.poll() is None:
        for process, name in ((node, "the node"), (receiver, "the viewer")):
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with code {process.returncode}")
        taken = [sum(process.cpu_times()[:2]) for process in ours]
        everybody = psutil.cpu_times()
        strangers = sum(everybody) - everybody.idle - everybody.iowait - sum(taken)
        memory = ours[0].memory_info()
        own = (memory.rss - memory.shared) / 1e6
        samples.append([time.time(), taken[0], taken[1], strangers, own, memory.rss / 1e6])
        time.sleep(1.0)
    if source.returncode:
        raise RuntimeError(f"the cameras ended with code {source.returncode}")
    return samples


def _evaluate(
    title: str, sent: dict[str, list[int]], received: dict[str, Any], samples: NDArray[np.float64]
) -> Measured:
    """What happened between the first sample after the warm-up and the last one."""
    first = min(stamps[0] for stamps in sent.values()) / 1e9 + WARM_UP_SECONDS
    samples = samples[samples[:, 0] >= first]
    begin, end = samples[0, 0], samples[-1, 0]
    results = {
        name: [(age, count) for when, age, count in rows if begin <= when <= end]
        for name, rows in received["results"].items()
    }
    number = max(1, sum(map(len, results.values())))
    cpu = 1e3 * (samples[-1, 1:3] - samples[0, 1:3]) / number
    return Measured(
        title,
        end - begin,
        {name: sum(begin <= stamp / 1e9 <= end for stamp in stamps) for name, stamps in sent.items()},
        {name: [age for age, _ in rows] for name, rows in results.items()},
        sum(count for rows in results.values() for _, count in rows) / number,
        1e-6 * sum(size for when, size in received["arrived"] if begin <= when <= end) / number,
        float(cpu[0]),
        float(cpu[1]),
        float(samples[-1, 3] - samples[0, 3]) / (end - begin),
        samples[:, [0, 4, 5]],
        received["diagnostics"],
    )


# Tables


def show_cameras(measured: Measured) -> None:
    """Whether every camera is served."""
    rows: list[list[object]] = []
    for name, ages in measured.ages_ms.items():
        p50, p99 = np.percentile(ages, (50, 99)) if ages else (float("nan"),) * 2
        rows.append([name, measured.sent[name], len(ages), f"{p50:.0f}", f"{p99:.0f}"])
    counts = [len(ages) for ages in measured.ages_ms.values()]
    rows.append(["least served / most served", "", f"{min(counts) / max(1, *counts):.2f}", "", ""])
    title = f"Node, {len(CAMERAS)} cameras, {measured.seconds:.0f} s"
    show(title, ["camera", "sent", "processed", "age p50 ms", "p99"], rows)


def show_stages(measured: Measured, rate_hz: float) -> None:
    """Where the time of a frame goes, and the bound on the age."""
    status = next((each for key, each in measured.diagnostics.items() if key.endswith(": model")), {})
    stages = {key[:-3]: float(value) for key, value in status.items() if key.endswith("_ms")}
    batch = sum(stages.values())
    rows = [[stage, f"{value:.2f}", f"{100 * value / batch:.1f} %"] for stage, value in stages.items()]
    messages = sum(stages.get(stage, 0.0) for stage in MESSAGE_STAGES)
    rows.append(["batch time", f"{batch:.2f}", "100.0 %"])
    rows.append(["of it messages (take, read, decode, publish)", f"{messages:.2f}", f"{100 * messages / batch:.1f} %"])
    rows.append([f"CPU time of the process, model on {THREADS} threads", f"{measured.cpu_ms:.2f}", ""])
    show("Node, a published frame: medians of its stages", ["", "ms", "of the batch"], rows)
    p50, p95, p99 = measured.percentiles(50, 95, 99)
    turn = len(measured.ages_ms) * batch
    # The newest frame of a camera is up to one interval old when its turn comes.
    oldest = 1e3 / rate_hz + batch
    marks = {"p50": p50, "p95": p95, "p99": p99, "three batches": 3 * batch}
    marks |= {"camera interval + a batch": oldest, "all cameras in turn": turn}
    rows = [[name, f"{ms:.0f}", f"{ms / batch:.2f}"] for name, ms in marks.items()]
    show("Node, age of results", ["", "ms", "batches"], rows)


def show_comparison(all_measured: Sequence[Measured]) -> None:
    """The designs side by side."""
    rows: dict[str, list[str]] = {}
    for each in all_measured:
        p50, p95, p99 = each.percentiles(50, 95, 99)
        counts = [len(ages) for ages in each.ages_ms.values()]
        slope = np.polyfit((each.memory[:, 0] - each.memory[0, 0]) / 60, each.memory[:, 1], 1)[0]
        for name, text in (
            ("frames sent / results", f"{sum(each.sent.values())} / {each.results}"),
            ("results per second", f"{each.results / each.seconds:.1f}"),
            ("least served / most served camera", f"{min(counts) / max(1, *counts):.2f}"),
            ("age p50 / p95 / p99, ms", f"{p50:.0f} / {p95:.0f} / {p99:.0f}"),
            ("CPU time per result, ms", f"{each.cpu_ms:.1f}"),
            ("CPU time of the receiver per result, ms", f"{each.viewer_cpu_ms:.1f}"),
            ("instances per result", f"{each.instances:.1f}"),
            ("published per result, MB", f"{each.megabytes:.2f}"),
            ("own memory first / last / largest, MB", _extremes(each.memory[:, 1])),
            ("own memory, growth per minute, MB", f"{slope:+.2f}"),
            ("resident first / last / largest, MB", _extremes(each.memory[:, 2])),
            ("cores that other programs took", f"{each.others:.2f}"),
        ):
            rows.setdefault(name, []).append(text)
    title = f"{len(CAMERAS)} cameras of {SIZE[0]}x{SIZE[1]}, {all_measured[0].seconds:.0f} s; the others after it"
    show(title, ["", *(each.title for each in all_measured)], [[name, *texts] for name, texts in rows.items()])


def _extremes(values: NDArray[np.float64]) -> str:
    return f"{values[0]:.0f} / {values[-1]:.0f} / {values.max():.0f}"


def main() -> int:
    """Print the tables, or play one of the two parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL, help="canonical model or raw export (%(default)s)")
    parser.add_argument("--input", type=Path, nargs="+", help="a bag of the street world with frames of 1280x720")
    parser.add_argument("--minutes", type=float, default=1.0, help="for the node (%(default)s); the others at most 2")
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second and camera (%(default)s)")
    parser.add_argument("--play", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--view", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.play:
        bag, rate, seconds, report = arguments.play
        cameras(Path(bag), CAMERAS, float(rate), float(seconds), Path(report))
        return 0
    if arguments.view:
        name, masks, report = arguments.view
        viewer(name, masks, CAMERAS, Path(report))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        model = canonical(arguments.model, Path(folder))
        bag = arguments.input[0] if arguments.input else _drive(Path(folder) / "drive")
        print(f"model {model.name}, {arguments.rate:g} Hz, load before {os.getloadavg()[0]:.1f}", flush=True)
        done = []
        for design in DESIGNS:
            seconds = 60 * (arguments.minutes if design is DESIGNS[0] else min(2.0, arguments.minutes))
            try:
                done.append(measure(design, model.resolve(), bag, arguments.rate, seconds, Path(folder)))
            except RuntimeError as error:
                log = (Path(folder) / "node.log").read_text(errors="replace")
                print(f"{design.title}: {error}; the end of its log:\n{log[-4000:]}", file=sys.stderr)
                return 1
    show_cameras(done[0])
    show_stages(done[0], arguments.rate)
    show_comparison(done)
    return 0


def _drive(folder: Path) -> Path:
    """Images that the default model was made for, of scenes it was not trained on."""
    from demo.street import DESIGNS as ACTORS
    from demo.street import make_bag
    from seg_perception.offboard.streetworld.world import WorldOptions

    return make_bag(folder, WorldOptions(IMAGES, SEED, *SIZE, scene_frames=SCENE, designs=ACTORS))


if __name__ == "__main__":
    sys.exit(main())
