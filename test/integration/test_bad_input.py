"""Bad frames: the node stays active, counts them by cause, logs each kind once, and goes on with the next good one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from colour_model import FAULT_COLOUR
from diagnostic_msgs.msg import DiagnosticStatus
from integration.harness import (
    HEIGHT,
    WIDTH,
    NodeProcess,
    assert_same_instances,
    image_message,
    pixels_of,
    street,
    wait_for,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image


@pytest.fixture(scope="module")
def node(start_node: Callable[..., NodeProcess], model: object) -> NodeProcess:
    node = start_node("faults", model=model, autostart=True, **{"cameras.camera.topic": "/faults_image"})
    node.wait_state("active")
    return node


@pytest.fixture(autouse=True)
def goes_on(node: NodeProcess) -> Iterator[None]:
    """After whatever a test did, the node works."""
    yield
    scene = street()
    result = node.process(image(), node.output(Image, "instance_map"))
    assert_same_instances(pixels_of(result), scene)
    assert node.state() == "active"


def image() -> Image:
    return image_message(street().image, "rgb8")


def changed(**fields: object) -> Image:
    message = image()
    for name, value in fields.items():
        setattr(message, name, value)
    return message


BAD = {
    "unknown encoding": ("encoding", lambda: changed(encoding="plaid8")),
    "floating-point encoding": ("encoding", lambda: image_message(np.zeros((8, 8), np.float32), "32FC1")),
    "step shorter than a row": ("layout", lambda: changed(step=WIDTH * 3 - 1)),
    "step longer than the data": ("layout", lambda: changed(step=WIDTH * 3 + 50)),
    "data too short": ("layout", lambda: changed(data=image().data[:-1])),
    "no data": ("layout", lambda: changed(data=b"")),
    "16 bit, data too short": ("layout", lambda: changed(encoding="mono16", step=WIDTH * 2, height=HEIGHT * 2)),
    "zero size": ("size", lambda: changed(width=0, height=0)),
    "absurd size": ("size", lambda: changed(width=100_000, height=100_000, step=300_000)),
    "absurd size in 16 bit": ("size", lambda: changed(encoding="mono16", width=100_000, height=100_000, step=200_000)),
    "odd size of a mosaic": ("size", lambda: changed(encoding="bayer_rggb8", width=WIDTH - 1)),
    "absurd text": ("message", lambda: changed(encoding="x" * 5000)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_images_are_counted(node: NodeProcess, case: str) -> None:
    cause, make = BAD[case]
    node.lose(make(), cause)
    status = node.status("camera camera")
    assert status.level in (DiagnosticStatus.WARN, DiagnosticStatus.ERROR)
    assert node.values()["last_fault"]


def test_nan_in_the_model_s_outputs_publishes_nothing(node: NodeProcess) -> None:
    maps = node.output(Image, "instance_map")
    faulty = street().image.copy()
    faulty[0, 0] = FAULT_COLOUR
    frame = image_message(faulty, "rgb8")
    node.lose(frame, "model_output")
    assert maps.of((frame.header.stamp.sec, frame.header.stamp.nanosec)) is None
    assert "NaN or infinity" in node.values()["last_fault"]


def test_a_kind_of_fault_is_logged_once_per_period(node: NodeProcess) -> None:
    before = node.count("dropped_encoding")
    for _ in range(5):
        node.lose(changed(encoding="chequered8"), "encoding")
    assert node.count("dropped_encoding") >= before + 5
    # Ten seconds are the period, and none of this file's tests takes that long by itself.
    assert node.log.count("image encoding:") <= 3


def test_another_type_on_the_topic_is_no_image(node: NodeProcess) -> None:
    """Serialized messages of an unexpected type cannot reach the node, but damaged ones can."""
    publisher = node.publisher()
    before = node.count("dropped_message")

    def damaged() -> bool:
        publisher.publish(b"\x00\x01\x00\x00" + b"\xff" * 40)
        return node.count("dropped_message") > before

    wait_for(damaged, "damaged message counted")


def test_old_frames_are_dropped(node: NodeProcess) -> None:
    assert node.set(cameras__camera__max_age=5.0)[0].successful
    old = image()
    old.header.stamp.sec -= 60
    node.lose(old, "too_old")
    node.wait_log("max_age: expected frames of at most 5 s, got one of 60")
    # What came before is forgotten, so that there is nothing but old frames.
    for enabled in (False, True):
        assert node.set(cameras__camera__enabled=enabled)[0].successful

    def all_too_old() -> bool:
        node.publisher().publish(old)
        return node.status("camera camera").level == DiagnosticStatus.ERROR

    wait_for(all_too_old, "diagnostics of a camera with nothing but old frames")
    assert node.set(cameras__camera__max_age=0.0)[0].successful


def test_a_frame_without_a_stamp_has_no_latency(node: NodeProcess) -> None:
    before = node.count("clock_mismatches")
    publisher, unstamped = node.publisher(), image()
    unstamped.header.stamp.sec = unstamped.header.stamp.nanosec = 0

    def told() -> bool:
        publisher.publish(unstamped)
        return node.count("clock_mismatches") > before and "clock" in node.status("camera camera").message

    wait_for(told, "mismatch of the clocks")
    assert node.status("camera camera").level == DiagnosticStatus.WARN
    assert not float(node.values()["latency_p99_ms"]) > 3600e3


def test_age_is_told_by_the_simulated_clock(start_node: Callable[..., NodeProcess], model: object) -> None:
    cameras = {"cameras.camera.topic": "/simulated_image", "cameras.camera.max_age": 5.0}
    node = start_node("simulated", model=model, autostart=True, use_sim_time=True, **cameras)
    node.wait_state("active")
    clock = node.publisher(Clock, "/clock")
    now = Clock()
    now.clock.sec = 1000
    frame = image()
    frame.header.stamp.sec = 990

    def dropped() -> bool:
        clock.publish(now)
        node.publisher(topic="/simulated_image").publish(frame)
        return node.count("dropped_too_old") > 0

    wait_for(dropped, "old frame counted")
    frame = image()
    frame.header.stamp.sec = 998
    node.process(frame, node.output(Image, "instance_map"), "/simulated_image")


def test_a_camera_that_stops_and_comes_back(node: NodeProcess) -> None:
    node.process(image(), node.output(Image, "instance_map"))
    node.client.node.destroy_publisher(node._publishers.pop((Image, "/faults_image")))
    status = wait_for(
        lambda: (found := node.status("camera camera")).level == DiagnosticStatus.STALE and found, "camera is silent"
    )
    assert "/faults_image" in status.message
    node.process(image(), node.output(Image, "instance_map"))
    wait_for(lambda: node.status("camera camera").level == DiagnosticStatus.OK, "camera is back")
