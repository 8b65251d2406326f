"""Storms and floods: the node counts, refuses and goes on; afterwards it works as before."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration.harness import END_SECONDS, Client, NodeProcess, image_message, street, wait_for
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

pytestmark = [pytest.mark.long, pytest.mark.timeout(600), pytest.mark.alone]
SECONDS = 8.0
ODD: list[Any] = [float("nan"), float("inf"), -1.0, 0.25, 2**31, -1, "", "a" * 5000, "\n[INFO] fake", True, ["a"]]
NAMES = [
    "score_threshold", "min_pixels", "output_size", "tracking", "camera_names", "cameras.camera.topic", "classes",
    "cameras.camera.max_age", "cameras.camera.enabled", "overlay_style", "threads", "backend", "nonsense",
]  # fmt: skip


def started(start_node: Callable[..., NodeProcess], model: Path, name: str, **parameters: object) -> NodeProcess:
    given = {"model": str(model), "autostart": True, "cameras.camera.topic": f"/{name}_image", **parameters}
    node = start_node(name, **given)
    node.wait_state("active")
    node.process(image_message(street().image, "rgb8"), node.output(Image, "instance_map"))
    return node


def megabytes(node: NodeProcess) -> float:
    return float(node.usage.memory_info().rss) / 2**20


def test_a_thousand_frames_a_second_of_a_hundred_publishers_are_counted(
    start_node: Callable[..., NodeProcess], model: Path, client: Client
) -> None:
    node = started(start_node, model, "flood")
    publishers = [client.publisher(Image, "/flood_image") for _ in range(100)]
    wait_for(lambda: all(each.get_subscription_count() for each in publishers), "all publishers are connected")
    frame = image_message(np.zeros((48, 64, 3), np.uint8))
    before = megabytes(node)

    def flooded() -> bool:
        for publisher in publishers:
            publisher.publish(frame)
        time.sleep(0.1)
        return node.count("received") + node.count("dropped_lost") > 500

    # A busy machine may take 20 of them a second.
    wait_for(flooded, lambda: f"frames are counted: {node.values()}", timeout=300)
    counted = node.values()
    assert int(counted["received"]) >= int(counted["processed"]) + int(counted["dropped_superseded"])
    assert megabytes(node) < before + 50
    for publisher in publishers:
        client.node.destroy_publisher(publisher)
    node.process(image_message(street().image, "rgb8"), node.output(Image, "instance_map"))


def test_memory_is_flat_without_the_cyclic_collector(
    start_node: Callable[..., NodeProcess], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame is freed by reference count: one in ten that stayed would show."""
    (tmp_path / "sitecustomize.py").write_text("import gc\ngc.disable()\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    node = started(start_node, model, "uncollected", tracking=True)
    publisher, results = node.publisher(), node.output(Image, "instance_map")
    frame = image_message(np.full((360, 640, 3), 114, np.uint8), "rgb8")

    def processed(count: int) -> None:
        goal = node.count("processed") + count
        wait_for(lambda: [publisher.publish(frame), node.count("processed") > goal][1], f"{count} frames", timeout=240)

    processed(200)
    before = megabytes(node)
    processed(500)
    assert results.messages
    assert megabytes(node) < before + 30  # the images of 500 frames are 345 MB


def test_a_subscriber_that_is_stopped_does_not_hold_the_node_up(
    start_node: Callable[..., NodeProcess], model: Path
) -> None:
    node = started(start_node, model, "held")
    code = (
        "import rclpy; from sensor_msgs.msg import Image; rclpy.init(); n = rclpy.create_node('stopped');"
        "n.create_subscription(Image, '/held/instance_map', lambda m: None, 10); print('up', flush=True); rclpy.spin(n)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ) as subscriber:
        assert subscriber.stdout is not None
        assert subscriber.stdout.readline() == b"up\n"
        node.process(image_message(street().image, "rgb8"), node.output(Image, "instance_map"))
        subscriber.send_signal(signal.SIGSTOP)
        before = megabytes(node)
        for _ in range(50):
            node.process(image_message(street().image, "rgb8"), node.output(Image, "instance_map"))
        assert megabytes(node) < before + 60
        subscriber.send_signal(signal.SIGCONT)
        subscriber.kill()


def test_garbage_between_good_frames_costs_none_of_them(start_node: Callable[..., NodeProcess], model: Path) -> None:
    node = started(start_node, model, "garbage")
    results, publisher = node.output(Image, "instance_map"), node.publisher()
    choose, whole = random.Random(7), serialize_message(image_message(street().image, "rgb8"))
    for _ in range(20):
        for _ in range(100):
            data = bytearray(whole[: choose.randrange(4, 400)])
            for _ in range(choose.randrange(1, 12)):
                data[choose.randrange(len(data))] = choose.randrange(256)
            publisher.publish(bytes(data))
        node.process(image_message(street().image, "rgb8"), results)
    assert node.state() == "active"
    assert sum(node.count(f"dropped_{cause}") for cause in ("message", "encoding", "layout", "size")) > 0
    # One line for each kind and period, not one for each frame.
    assert len(node.log.splitlines()) < 400


def test_garbage_in_compressed_frames_costs_no_memory(start_node: Callable[..., NodeProcess], model: Path) -> None:
    node = start_node(
        "squashed", model=str(model), autostart=True,
        **{"cameras.camera.topic": "/squashed_image", "cameras.camera.transport": "compressed"},
    )  # fmt: skip
    node.wait_state("active")
    publisher = node.publisher(CompressedImage, "/squashed_image/compressed")
    png = bytes.fromhex("89504e470d0a1a0a0000000d49484452") + (16384).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    bombs = [png + bytes(4) + b"\x7f\xff\xff\xf0IDAT" + bytes(20), b"\xff\xd8\xff" + bytes(200), b"BM" + bytes(60)]
    before = megabytes(node)
    for number in range(300):
        publisher.publish(CompressedImage(format="png", data=bombs[number % 3]))
        time.sleep(0.01)
    wait_for(lambda: node.count("dropped_compressed") + node.count("dropped_size") > 0, "bombs are counted")
    assert megabytes(node) < before + 100
    assert node.state() == "active"


def test_a_storm_of_parameters_transitions_and_reloads_is_survived(
    start_node: Callable[..., NodeProcess], model: Path, client: Client
) -> None:
    node = started(start_node, model, "storm", open_timeout=30.0)
    parameters = client.node.create_client(SetParameters, "/storm/set_parameters")
    change = client.node.create_client(ChangeState, "/storm/change_state")
    reload = client.node.create_client(Trigger, "/storm/reload")
    for service in (parameters, change, reload):
        assert service.wait_for_service(20)
    choose, end = random.Random(3), time.monotonic() + SECONDS
    while time.monotonic() < end:
        message = Parameter(choose.choice(NAMES), value=choose.choice(ODD)).to_parameter_msg()
        parameters.call_async(SetParameters.Request(parameters=[message]))
        if choose.random() < 0.3:
            wanted = Transition(id=choose.choice([1, 2, 3, 4, 8, 99]))
            change.call_async(ChangeState.Request(transition=wanted))
        if choose.random() < 0.02:
            reload.call_async(Trigger.Request())
        time.sleep(0.02)
    assert node.popen.poll() is None
    for service in (parameters, change, reload):
        client.node.destroy_client(service)
    wait_for(lambda: node.state() in ("unconfigured", "inactive", "active"), "the node answers", timeout=60)
    assert node.count("callback_faults", "model") == 0
    assert node.end(signal.SIGTERM) < END_SECONDS
