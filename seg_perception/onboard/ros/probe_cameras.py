"""Measures the image topics of a running system."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.utilities import get_rmw_implementation_identifier
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from seg_perception.core.encodings.video import video_codec
from seg_perception.core.errors import FrameError
from seg_perception.core.frame import Frame
from seg_perception.core.messages.images import read_compressed_image, read_image
from seg_perception.core.messages.serialized import frame_from_compressed_image, frame_from_image
from seg_perception.core.messages.topics import camera_info_topic
from seg_perception.onboard.doctor.cameras import IMAGE_KINDS
from seg_perception.onboard.doctor.graph import ImageStream, Publisher, RosGraph

from .camera import GapCounter
from .convert import through_cv_bridge
from .graph import count_publishers, known_or, publishers

# Processes announce themselves when they start, and every three seconds; when nothing new was heard for longer, all
# are known. Where they never cease to come, this is enough.
_SETTLED_SECONDS, _DISCOVERY_SECONDS = 3.5, 10.0
# For the first frame, as its publisher has to find us, too.
_FIRST_FRAME_SECONDS = 2.0
# More topics than this are not cameras, and all at once they would measure this process.
_MOST_TOPICS = 16
_LABELS = "vision_msgs/msg/LabelInfo"
# Best effort, as the node has it, but with room for what comes while another topic is looked at.
_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=10,
    reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE,
)


def look(topics: Sequence[str], seconds: float) -> RosGraph:
    """Measure topics.

    Args:
        topics: full names; without any, all that carry images and are not made by a node of ours.
        seconds: for how long.
    """
    node = rclpy.create_node("seg_perception_doctor", start_parameter_services=False)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    known, refused = _discovered(node, executor, topics)
    images = _image_topics(known)
    wanted = list(topics) or images[:_MOST_TOPICS]
    meters = _meters(node, known, wanted)
    clock = _SimulatedTime(node)
    begin = time.monotonic()
    # A topic whose first frame comes late, as its publisher has to find us first, gets its full time all the same.
    while meters and not all(meter.measured(seconds) for meter in meters.values()):
        if time.monotonic() - begin > seconds + _FIRST_FRAME_SECONDS:
            break
        known_or(None, lambda: executor.spin_once(timeout_sec=0.1))
    streams = [_stream(node, topic, known, meters.get(topic), clock) for topic in wanted]
    clocks = count_publishers(node, "/clock") or 0
    unmeasured = () if topics else tuple(images[_MOST_TOPICS:])
    return RosGraph(
        get_rmw_implementation_identifier(), known, clocks, tuple(streams), seconds, tuple(sorted(refused)), unmeasured
    )


def _meters(node: Node, known: Mapping[str, Sequence[str]], topics: Sequence[str]) -> dict[str, _Meter]:
    """Subscribe to the topics that carry images; one that rclpy refuses has no meter."""
    asked = {
        topic: known_or(None, partial(_Meter, node, topic, kind))
        for topic in topics
        if (kind := _image_kind(known, topic))
    }
    return {topic: meter for topic, meter in asked.items() if meter is not None}


class _Meter:
    """Counts the frames of one topic."""

    def __init__(self, node: Node, topic: str, kind: str) -> None:
        self.compressed = kind == IMAGE_KINDS[1]
        self.missed = 0
        self.arrivals: list[float] = []
        self.ages: list[float] = []
        self.latest = b""
        self._gaps = GapCounter(lambda: count_publishers(node, topic))
        receive: Any = self._receive_with_info if hasattr(Subscription, "CallbackType") else self._receive
        node.create_subscription(CompressedImage if self.compressed else Image, topic, receive, _QOS, raw=True)

    def measured(self, seconds: float) -> bool:
        return bool(self.arrivals) and time.monotonic() - self.arrivals[0] >= seconds

    @property
    def hz(self) -> float:
        count, span = len(self.arrivals), self.arrivals[-1] - self.arrivals[0] if self.arrivals else 0.0
        return (count - 1) / span if span > 0 else 0.0

    def _receive(self, message: bytes) -> None:
        self._receive_with_info(message, {})

    def _receive_with_info(self, message: bytes, info: Mapping[str, Any]) -> None:
        self.arrivals.append(time.monotonic())
        self.missed += self._gaps.missed(info)
        self.latest = bytes(message)
        try:
            read = read_compressed_image if self.compressed else read_image
            self.ages.append(time.time() - read(self.latest).stamp_ns / 1e9)
        except FrameError:
            pass  # told of the last frame


class _SimulatedTime:
    """The last time that came on /clock, in seconds."""

    def __init__(self, node: Node) -> None:
        self.now: float | None = None
        node.create_subscription(Clock, "/clock", self._receive, _QOS)

    def _receive(self, message: Clock) -> None:
        self.now = message.clock.sec + message.clock.nanosec / 1e9


def _discovered(
    node: Node, executor: SingleThreadedExecutor, topics: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], set[str]]:
    """Return types by topic and the names that rclpy refuses, once those wanted are there or discovery had its time."""
    begin = changed = time.monotonic()
    before: dict[str, tuple[str, ...]] = {}
    while True:
        executor.spin_once(timeout_sec=0.1)
        known, refused = topic_types(node)
        now = time.monotonic()
        if known != before:
            before, changed = known, now
        if topics and set(topics) <= set(known):
            return known, refused
        if now - changed > _SETTLED_SECONDS or now - begin > _DISCOVERY_SECONDS:
            return known, refused


def topic_types(node: Node) -> tuple[dict[str, tuple[str, ...]], set[str]]:
    """Return the types of every topic that has a publisher, and the names that rclpy refuses to count publishers of."""
    names_and_types = known_or([], node.get_topic_names_and_types)
    counts = {name: count_publishers(node, name) for name, _ in names_and_types}
    known = {name: tuple(kinds) for name, kinds in names_and_types if counts[name]}
    return known, {name for name, count in counts.items() if count is None}


def _image_topics(known: Mapping[str, Sequence[str]]) -> list[str]:
    """Topics that carry images; those of our own nodes are left out, as they are made for whoever subscribes."""
    ours = tuple(
        name.removesuffix("label_info")
        for name, kinds in known.items()
        if name.endswith("/label_info") and _LABELS in kinds
    )
    names = [name for name in sorted(known) if _image_kind(known, name) and not name.startswith(ours)]
    # Where a camera publishes both, the raw images are what a node subscribes to by default.
    return [name for name in names if not (name.endswith("/compressed") and name.removesuffix("/compressed") in names)]


def _image_kind(known: Mapping[str, Sequence[str]], topic: str) -> str:
    return next((kind for kind in IMAGE_KINDS if kind in known.get(topic, ())), "")


def _stream(
    node: Node, topic: str, known: Mapping[str, Sequence[str]], meter: _Meter | None, clock: _SimulatedTime
) -> ImageStream:
    kind = _image_kind(known, topic) or next(iter(known.get(topic, ())), "")
    infos = publishers(node, topic)
    info_publishers = count_publishers(node, camera_info_topic(topic)) or 0
    stream = ImageStream(topic, kind, tuple(map(_publisher, infos or ())), info_publishers, unknown=infos is None)
    if meter is None or not meter.arrivals:
        return stream
    stream = replace(stream, frames=len(meter.arrivals), missed=meter.missed, hz=meter.hz, size=len(meter.latest))
    try:
        stream = _with_image(stream, meter, topic)
    except FrameError as error:
        return replace(stream, fault=str(error))
    return replace(
        stream,
        ages=(min(meter.ages), median(meter.ages), max(meter.ages)),
        simulated_age=None if clock.now is None else clock.now - stream.stamp,
    )


def _with_image(stream: ImageStream, meter: _Meter, topic: str) -> ImageStream:
    """Return the stream with what its latest image says; of a packet of video only what the message says.

    Raises:
        FrameError: the image cannot be used.
    """
    message = read_compressed_image(meter.latest) if meter.compressed else None
    if message is not None and video_codec(message.format, message.data):
        stamp = message.stamp_ns / 1e9
        return replace(stream, encoding=message.format, frame_id=message.frame_id, stamp=stamp)
    frame = _frame(meter, topic)
    return replace(
        stream,
        width=frame.width,
        height=frame.height,
        step=frame.step,
        encoding=message.format if message else frame.encoding,
        frame_id=frame.frame_id,
        stamp=frame.stamp_ns / 1e9,
    )


def _frame(meter: _Meter, topic: str) -> Frame:
    """The latest frame of a topic."""
    if meter.compressed:
        return frame_from_compressed_image(meter.latest, topic)
    return frame_from_image(meter.latest, topic, through_cv_bridge)


def _publisher(info: Any) -> Publisher:
    qos = info.qos_profile
    name = f"{info.node_namespace.rstrip('/')}/{info.node_name}"
    reliability, durability = (str(getattr(policy, "name", policy)) for policy in (qos.reliability, qos.durability))
    return Publisher(name, reliability, durability, int(qos.depth))
