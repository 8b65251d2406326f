"""Runs camera, node and viewer as three processes and collects what they measured."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
# Fast DDS 2, which Jazzy has, reads only the second one; version 3 warns about it.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
DDS_PROFILE = ROOT / "config" / "fastdds.xml"
# Topics of the node, which has its default name.
NODE = "/segmenter"
INSTANCE_MAP, DETECTIONS, OVERLAY = f"{NODE}/instance_map", f"{NODE}/detections", f"{NODE}/overlay/compressed"


@dataclass
class Report:
    """What a session measured.

    Attributes:
        stamps_ns: of the frames the camera published.
        seconds: how long it published.
        latencies_ms: camera stamp to arrival of the instance map in another process.
        arrivals: when the maps came, seconds since the epoch.
        detections: messages on `~/detections`.
        instances: by road group.
        diagnostics: key-values of the last status of each name.
        memory_mb: resident memory of the node, once a second while the camera published.
        cpu_seconds: CPU time of the node while the camera published.
        overlays: overlay images received.
        log: what the node logged.
    """

    stamps_ns: list[int]
    seconds: float
    latencies_ms: list[float]
    arrivals: list[float]
    detections: int
    instances: dict[str, int]
    diagnostics: dict[str, dict[str, str]]
    overlays: int
    memory_mb: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    log: str = ""

    @property
    def sent(self) -> int:
        """How many frames the camera published."""
        return len(self.stamps_ns)

    def percentiles(self, *ranks: float) -> list[float]:
        """Percentiles of the latency in ms; NaN where no map came."""
        if not self.latencies_ms:
            return [float("nan")] * len(ranks)
        return [float(value) for value in np.percentile(self.latencies_ms, ranks)]


def environment(profile: bool = True) -> dict[str, str]:
    """For child processes: a DDS domain of their own that does not leave this machine."""
    values = dict(os.environ)
    values["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    values["ROS_DOMAIN_ID"] = str(random.randint(1, 100))
    values["PYTHONUNBUFFERED"] = "1"
    values["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), values.get("PYTHONPATH", "")]))
    for name in PROFILE_VARIABLES:
        values.pop(name, None)
    if profile:
        # rclpy 9 is Kilted's.
        old = int(version("rclpy").split(".")[0]) < 9
        values[PROFILE_VARIABLES[old]] = str(DDS_PROFILE)
    return values


def run(
    model: Path,
    inputs: Sequence[Path],
    folder: Path,
    *,
    rate: float = 10.0,
    frames: int = 120,
    size: str = "1280x720",
    bag: Path | None = None,
    overlays: bool = False,
    record: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    profile: bool = True,
) -> Report:
    """Run one session, bounded by `frames / rate` plus start-up; ends what it started, whatever happens.

    Args:
        model: a canonical model.
        inputs: images, folders or videos for the camera.
        folder: where overlays and the node's log go.
        rate, frames, size: what the camera publishes.
        bag: of the street world, to be played in place of `inputs`, at its own size.
        overlays: whether the viewer subscribes to the overlays (which makes the node draw them).
        record: folder of a bag for the instance maps and detections that arrive; must not exist.
        parameters: more parameters of the node.
        profile: whether the processes use `config/fastdds.xml`.

    Raises:
        RuntimeError: a process failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = environment(profile)
    settings = {"model": str(model), "autostart": True, **(parameters or {})}
    arguments = [item for key, value in settings.items() for item in ("-p", f"{key}:={_yaml(value)}")]
    node_command = [sys.executable, "-m", "seg_perception.onboard.ros.main", "--ros-args", *arguments]
    viewer_command = [sys.executable, "-m", "demo.viewer"]
    if overlays:
        viewer_command += ["--overlays", str(folder / "overlays")]
    if record is not None:
        viewer_command += ["--record", str(record)]
    shown = ["--bag", str(bag)] if bag is not None else ["--input", *map(str, inputs), "--size", size]
    camera_command = [sys.executable, "-m", "demo.camera", *shown, "--rate", str(rate), "--frames", str(frames)]
    with (folder / "node.log").open("w+") as log, _Children() as children:
        node = children.start(node_command, values, stdout=log, stderr=subprocess.STDOUT)
        viewer = children.start(viewer_command, values, stdout=subprocess.PIPE, text=True)
        try:
            _wait_for_line(viewer, "ready", node, 60.0)
            camera = children.start(camera_command, values, stdout=subprocess.PIPE, text=True)
            memory, cpu = _watch(node, camera, timeout=frames / rate + 150)
            sent = json.loads(_output(camera, 10.0))
            viewer.send_signal(signal.SIGINT)
            received = json.loads(_output(viewer, 30.0))
        except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"{error}; the node's log: {folder / 'node.log'}") from error
        node.send_signal(signal.SIGINT)
        node.wait(10)
        log.seek(0)
        text = log.read()
    return Report(sent["stamps_ns"], sent["seconds"], **received, memory_mb=memory, cpu_seconds=cpu, log=text)


class _Children:
    """Processes that do not outlive the block."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> _Children:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def start(self, command: list[str], values: dict[str, str], **streams: Any) -> subprocess.Popen[Any]:
        process = subprocess.Popen(command, env=values, cwd=ROOT, **streams)
        self._processes.append(process)
        return process


def _yaml(value: Any) -> str:
    return json.dumps(value)


def _wait_for_line(process: subprocess.Popen[Any], line: str, node: subprocess.Popen[Any], timeout: float) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if node.poll() is not None:
            raise RuntimeError(f"the node ended with code {node.returncode}")
        if process.poll() is not None:
            raise RuntimeError(f"the viewer ended with code {process.returncode}")
        if process.stdout is None:
            raise RuntimeError("the viewer has no output to wait for")
        if select.select([process.stdout], [], [], 0.2)[0] and process.stdout.readline().strip() == line:
            return
    raise RuntimeError(f"the viewer found no publisher of the node within {timeout:.0f} s")


def _watch(node: subprocess.Popen[Any], camera: subprocess.Popen[Any], timeout: float) -> tuple[list[float], float]:
    """Sample the node's memory until the camera ends; returns MB once a second and CPU seconds."""
    process = psutil.Process(node.pid)
    memory: list[float] = []
    begin = sum(process.cpu_times()[:2])
    end = time.monotonic() + timeout
    while camera.poll() is None:
        if node.poll() is not None:
            raise RuntimeError(f"the node ended with code {node.returncode}")
        if time.monotonic() > end:
            raise RuntimeError(f"the camera did not end within {timeout:.0f} s")
        memory.append(process.memory_info().rss / 1e6)
        time.sleep(1.0)
    if camera.returncode:
        raise RuntimeError(f"the camera ended with code {camera.returncode}")
    return memory, sum(process.cpu_times()[:2]) - begin


def _output(process: subprocess.Popen[Any], timeout: float) -> str:
    """The last line that the process printed."""
    text, _ = process.communicate(timeout=timeout)
    lines = str(text).strip().splitlines()
    if not lines:
        raise RuntimeError(f"a process printed nothing: {process.args!r}")
    return lines[-1]
