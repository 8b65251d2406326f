"""The vision_msgs and tf2_msgs of this environment, real or generated, are those that other nodes speak."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed in this environment")

import rclpy
from rclpy.context import Context
from rclpy.serialization import deserialize_message, serialize_message
from tf2_msgs import msg as tf2_msgs
from vision_msgs import msg as vision_msgs

INTERFACES = Path(__file__).resolve().parents[1] / "interfaces"
DEFINITIONS = {path.stem: path for path in sorted(INTERFACES.glob("*/msg/*.msg"))}

# Field types as rosidl names them in Python, where they differ from those of a definition.
PYTHON_TYPES = {"float32": "float", "float64": "double"}


def expected_fields(name: str) -> dict[str, str]:
    """The fields of a definition, with the types as a Python message class reports them."""
    fields = {}
    for line in DEFINITIONS[name].read_text().splitlines():
        kind, field = line.split()
        element = kind.removesuffix("[]")
        element = PYTHON_TYPES.get(element, element)
        fields[field] = f"sequence<{element}>" if kind.endswith("[]") else element
    return fields


def detections() -> Any:
    hypothesis = vision_msgs.ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = "traffic_light"
    hypothesis.hypothesis.score = 0.625
    detection = vision_msgs.Detection2D(id="65535", results=[hypothesis, hypothesis])
    detection.header.frame_id = "camera"
    detection.bbox.center.position.x = 12.5
    detection.bbox.center.position.y = -0.25
    detection.bbox.center.theta = 0.0
    detection.bbox.size_x, detection.bbox.size_y = 3.0, 4.5
    message = vision_msgs.Detection2DArray(detections=[detection])
    message.header.stamp.sec, message.header.stamp.nanosec = 1_700_000_000, 999_999_999
    message.header.frame_id = "camera"
    return message


def label_info() -> Any:
    classes = [vision_msgs.VisionClass(class_id=i, class_name=n) for i, n in enumerate(["background", "person"])]
    return vision_msgs.LabelInfo(class_map=classes, threshold=0.25)


def test_definitions_are_there() -> None:
    assert {"Detection2DArray", "Detection3DArray", "LabelInfo", "TFMessage"} <= set(DEFINITIONS)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_fields_are_those_of_the_definitions(name: str) -> None:
    # With a ROS distribution this compares the definitions with the real package.
    package = vision_msgs if DEFINITIONS[name].parts[-3] == "vision_msgs" else tf2_msgs
    assert getattr(package, name).get_fields_and_field_types() == expected_fields(name)


@pytest.mark.parametrize("make", [detections, label_info])
def test_serialises_and_deserialises(make: Any) -> None:
    message = make()
    assert deserialize_message(serialize_message(message), type(message)) == message


PUBLISHER = """
import sys, time
import rclpy
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from vision_msgs import msg

rclpy.init()
node = rclpy.create_node("publisher")
qos = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
publishers = []
for argument in sys.argv[1:]:
    name, data = argument.split(":")
    kind = getattr(msg, name)
    publishers.append(node.create_publisher(kind, name, qos))
    publishers[-1].publish(deserialize_message(bytes.fromhex(data), kind))
sys.stdin.read()  # until the other side has seen them
"""


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A DDS domain on this machine that only the test and its child speak in."""
    number = random.SystemRandom().randint(1, 100)
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    return number


@pytest.fixture
def context(domain: int) -> Iterator[Context]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    yield context
    context.try_shutdown()


def test_crosses_fast_dds_between_processes(context: Context) -> None:
    sent = [detections(), label_info()]
    arguments = [f"{type(m).__name__}:{serialize_message(m).hex()}" for m in sent]
    command = [sys.executable, "-c", PUBLISHER, *arguments]
    # An environment of its own, so that the child finds the ROS libraries by itself.
    env = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")}
    if "ROS_DISTRO" in os.environ:
        env = dict(os.environ)

    node = rclpy.create_node("subscriber", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    qos = rclpy.qos.QoSProfile(depth=1, durability=rclpy.qos.QoSDurabilityPolicy.TRANSIENT_LOCAL)
    received: list[Any] = []
    for message in sent:
        node.create_subscription(type(message), type(message).__name__, received.append, qos)
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE) as child:
        deadline = time.monotonic() + 30
        while len(received) < len(sent) and time.monotonic() < deadline:
            assert child.poll() is None, f"the publisher ended with {child.returncode}"
            executor.spin_once(timeout_sec=0.1)
        assert child.stdin is not None
        child.stdin.close()
    executor.shutdown()
    node.destroy_node()
    assert sorted(received, key=lambda m: type(m).__name__) == sent
