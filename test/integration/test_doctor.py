"""`seg_perception doctor` next to real publishers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from integration.harness import Client, NodeProcess, image_message
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

DOCTOR = [sys.executable, "-m", "seg_perception.cli", "doctor"]
HZ = 20.0


@pytest.fixture(scope="module")
def cameras(client: Client) -> Iterator[list[float]]:
    """A good camera, one with old stamps, one of an encoding that nobody knows, and one that says nothing.

    Yields when the good one's frames were published.
    """
    good = client.node.create_publisher(
        Image, "/good/image_raw", QoSProfile(depth=3, reliability=ReliabilityPolicy.RELIABLE)
    )
    silent = client.node.create_publisher(
        Image, "/silent/image_raw", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    )
    old, odd = (client.publisher(Image, f"/{name}/image_raw") for name in ("old", "odd"))
    small = client.publisher(CompressedImage, "/small/image_raw/compressed")
    pixels, ended = np.zeros((48, 64, 3), np.uint8), Event()
    times: list[float] = []

    def publish() -> None:
        while not ended.wait(1 / HZ):
            good.publish(image_message(pixels))
            times.append(time.monotonic())
            late = image_message(pixels)
            late.header.stamp.sec -= 90
            old.publish(late)
            odd.publish(image_message(pixels, "plaid"))
            small.publish(CompressedImage(format="jpeg", data=b"no image"))

    thread = Thread(target=publish)
    thread.start()
    yield times
    ended.set()
    thread.join()
    for publisher in (good, silent, old, odd, small):
        client.node.destroy_publisher(publisher)


def examine(*arguments: str, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and the findings by their checks."""
    done = subprocess.run(
        [*DOCTOR, "--json", "--seconds", "1.5", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    assert sum(told["counts"].values()) == len(told["findings"])
    return done.returncode, {finding["check"]: finding for finding in told["findings"]}


@pytest.fixture(scope="module")
def examined(
    cameras: list[float], model: Path, start_node: Callable[..., NodeProcess], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Any]]]:
    """All examinations, at once, because each listens for seconds."""
    node = start_node("patient", "-r", "image_raw:=/good/image_raw", model=model, autostart=True)
    node.wait_state("active")
    file = tmp_path_factory.mktemp("doctor") / "node.yaml"
    file.write_text(
        f"/**:\n  ros__parameters:\n    use_sim_time: true\n    model: {model}\n    camera_names: [lost]\n"
        "    cameras.lost.topic: nowhere/image\n"
    )
    names = ["good/image_raw", "/old/image_raw", "/odd/image_raw", "/silent/image_raw", "/god/image_raw"]
    given = ["--model", str(model)]
    # As people see it.
    command = [*DOCTOR, "--seconds", "0.1", "--params", str(file)]
    with ThreadPoolExecutor() as pool:
        yield {
            "named": pool.submit(examine, *given, "--camera", *names, "/small/image_raw/compressed"),
            "found": pool.submit(examine, *given),
            "file": pool.submit(subprocess.run, command, capture_output=True, text=True, timeout=120),
            "middleware": pool.submit(examine, *given, RMW_IMPLEMENTATION="rmw_made_up_cpp"),
        }
    # Nobody's overlay was made for the doctor.
    assert node.state() == "active"


def test_topics_that_are_named(cameras: list[float], examined: dict[str, Future[Any]]) -> None:
    code, found = examined["named"].result()
    assert code == 1
    good = found["/good/image_raw"]
    assert good["level"] == "OK", good
    # A busy machine publishes more slowly, too.
    assert good["facts"]["hz"] == pytest.approx((len(cameras) - 1) / (cameras[-1] - cameras[0]), rel=0.3)
    assert (good["facts"]["width"], good["facts"]["height"], good["facts"]["encoding"]) == (64, 48, "bgr8")
    assert "reliable, volatile" in good["found"]
    assert found["/good/image_raw stamps"]["level"] == "OK"
    assert found["/old/image_raw stamps"]["level"] == "WARN"
    assert found["/old/image_raw stamps"]["facts"]["age_median"] == pytest.approx(90, abs=2)
    assert found["/odd/image_raw"]["level"] == found["/small/image_raw/compressed"]["level"] == "FAIL"
    assert "plaid" in found["/odd/image_raw"]["found"]
    assert found["/silent/image_raw"]["level"] == "FAIL"
    assert "transient local" in found["/silent/image_raw"]["found"]
    assert found["/god/image_raw"]["level"] == "FAIL"
    assert "/good/image_raw" in found["/god/image_raw"]["advice"]
    for check in ("middleware", "discovery", "messages", "profile", "model", "classes", "/clock"):
        assert found[check]["level"] == "OK", found[check]


def test_topics_that_are_found_without_those_of_our_own_nodes(examined: dict[str, Future[Any]]) -> None:
    code, found = examined["found"].result()
    assert code == 0
    assert [found[f"/{name}/image_raw"]["level"] for name in ("good", "odd", "silent")] == ["OK", "WARN", "WARN"]
    assert not any(check.startswith("/patient") for check in found)


def test_a_parameter_file_with_simulated_time_and_no_clock(model: Path, examined: dict[str, Future[Any]]) -> None:
    done = examined["file"].result()
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "python"
    assert any(line.startswith("  FAIL     /clock: use_sim_time is true") for line in lines)
    assert any(line.startswith("  FAIL     /nowhere/image: ") for line in lines)
    assert any(line.startswith(f"  OK       model: {model}") for line in lines)
    assert lines[-1].startswith("not fit")
    assert "\x1b" not in done.stdout


def test_a_middleware_that_is_not_there_is_a_finding(examined: dict[str, Future[Any]]) -> None:
    code, found = examined["middleware"].result()
    assert code == 1
    # Which rcl answers by ending the process that imports it.
    assert found["rclpy"]["level"] == "FAIL"
    assert "rmw_made_up_cpp" in found["rclpy"]["found"]
    assert "RMW_IMPLEMENTATION" in found["rclpy"]["advice"]
    assert found["model"]["level"] == "OK"
