"""Compressed video in the running node: every packet is decoded, and what is lost ends at the next key frame."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from integration.harness import (
    HEIGHT,
    WIDTH,
    Client,
    NodeProcess,
    assert_same_instances,
    image_message,
    pixels_of,
    street,
    wait_for,
)
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from video_packets import GROUP, encode

from seg_perception.core.errors import ConfigurationError
from seg_perception.onboard.ros.parameters import CameraSettings
from seg_perception.onboard.ros.topics import message_type

pytest.importorskip("av")
RELIABLE = QoSProfile(depth=60, reliability=ReliabilityPolicy.RELIABLE)
PERIOD = 0.05


class Encoder:
    """A camera that sends the same street for ever, as video."""

    def __init__(self, client: Client, topic: str, codec: str = "libx264", described: str = "h264") -> None:
        self.use(codec, described)
        self.messages: list[CompressedImage] = []
        self._publisher = client.publisher(CompressedImage, topic, RELIABLE)
        self._sent = 0

    def use(self, codec: str, described: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
        self.described = described
        images = [np.ascontiguousarray(street(*size).image[..., ::-1])] * 2 * GROUP
        self._packets = [data for _, data in encode(codec, images, size)]

    def send(self, begin: int, end: int, change: Callable[[bytes], bytes] = bytes) -> list[tuple[int, int]]:
        """Send packets, the first of which follows a key frame by `begin`; return their stamps."""
        stamps = []
        for number in range(begin, end):
            header = image_message(np.zeros((1, 1, 3), np.uint8)).header
            data = change(self._packets[number % len(self._packets)])
            self._publisher.publish(CompressedImage(header=header, format=self.described, data=data))
            stamps.append((header.stamp.sec, header.stamp.nanosec))
            time.sleep(PERIOD)
        return stamps

    def matched(self) -> int:
        return int(self._publisher.get_subscription_count())


@pytest.fixture(scope="module")
def video(start_node: Callable[..., NodeProcess], model: Path, client: Client) -> tuple[NodeProcess, Encoder]:
    parameters = {"cameras.camera.topic": "/node_video", "cameras.camera.transport": "video"}
    node = start_node("video", model=str(model), autostart=True, **parameters)
    node.wait_state("active")
    encoder = Encoder(client, "/node_video")
    wait_for(encoder.matched, "the node subscribes")
    wait_for(lambda: "reliable" in node.values().get("qos", ""), "the node follows the publisher's QoS")
    return node, encoder


def test_late_packets_wait_for_a_key_frame_and_the_diagnostics_say_so(video: tuple[NodeProcess, Encoder]) -> None:
    node, encoder = video
    maps = node.output(Image, "instance_map")
    encoder.send(1, GROUP)
    status = wait_for(
        lambda: "key frame" in node.values().get("video_waits_for", "") and node.status("camera camera"), ""
    )
    assert status.level == DiagnosticStatus.WARN
    assert "before a key frame; set the encoder's key-frame interval (gop_size)" in status.message
    wait_for(lambda: node.count("dropped_no_key_frame") == GROUP - 1, "all packets before the key frame counted")
    last = encoder.send(GROUP, 2 * GROUP)[-1]
    assert_same_instances(pixels_of(wait_for(lambda: maps.of(last), "the map of the newest image")), street(), 0.75)
    wait_for(lambda: node.values()["video"] == f"h264 {WIDTH} x {HEIGHT}", "what comes")
    assert node.values()["video_waits_for"] == ""


@pytest.mark.parametrize(("codec", "described"), [("libx265", "hevc"), ("libvpx-vp9", "vp9"), ("libx264", "H.264")])
def test_a_stream_may_change_its_codec(video: tuple[NodeProcess, Encoder], codec: str, described: str) -> None:
    node, encoder = video
    maps = node.output(Image, "instance_map")
    encoder.use(codec, described)
    last = encoder.send(0, GROUP)[-1]
    assert_same_instances(pixels_of(wait_for(lambda: maps.of(last), "its map")), street(), 0.75)


def test_a_stream_may_change_its_size_and_may_become_too_large(video: tuple[NodeProcess, Encoder]) -> None:
    node, encoder = video
    maps = node.output(Image, "instance_map")
    encoder.use("libx264", "h264", (640, 384))
    last = encoder.send(0, GROUP)[-1]
    assert wait_for(lambda: maps.of(last), "its map").width == 640
    node.set(cameras__camera__max_image_size="639x384")
    encoder.send(0, GROUP)
    wait_for(lambda: node.count("dropped_size"), "the refusal is counted")
    assert "max_image_size" in node.values()["last_fault"]
    node.set(cameras__camera__max_image_size="4096x4096")
    encoder.use("libx264", "h264")
    last = encoder.send(0, GROUP)[-1]
    wait_for(lambda: maps.of(last), "it goes on")


def test_lost_and_damaged_packets_end_at_the_next_key_frame(video: tuple[NodeProcess, Encoder]) -> None:
    node, encoder = video
    maps = node.output(Image, "instance_map")
    wait_for(lambda: maps.of(encoder.send(0, 1)[-1]), "it runs")
    before = node.count("dropped_compressed")
    damaged = encoder.send(1, 2, lambda data: data[:5] + bytes(40))
    after = encoder.send(2, GROUP)
    last = encoder.send(GROUP, GROUP + 2)[-1]
    wait_for(lambda: maps.of(last), "the next key frame")
    wait_for(lambda: node.count("dropped_compressed") > before, "the damage is counted")
    assert not any(maps.of(stamp) for stamp in (*damaged, *after))


def test_garbage_and_still_images_are_counted_and_the_node_goes_on(video: tuple[NodeProcess, Encoder]) -> None:
    node, encoder = video
    maps = node.output(Image, "instance_map")
    choose = random.Random(5)

    def mutated(data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(choose.randint(1, 30)):
            changed[choose.randrange(len(changed))] = choose.randrange(256)
        return bytes(changed)

    for _ in range(6):
        encoder.send(0, GROUP, mutated)
    encoder.described = "jpeg"
    encoder.send(0, 1, lambda _: b"\xff\xd8\xff\xe0" + bytes(40))
    wait_for(lambda: "transport: compressed" in node.values()["last_fault"], "still images are named")
    encoder.described = "h264"
    last = encoder.send(0, GROUP)[-1]
    assert_same_instances(pixels_of(wait_for(lambda: maps.of(last), "its map")), street(), 0.75)
    counts = node.values()
    assert node.state() == "active"
    assert int(counts["dropped_lost"]) == 0


def test_a_camera_that_is_switched_off_and_on_joins_again(video: tuple[NodeProcess, Encoder]) -> None:
    node, encoder = video
    maps = node.output(Image, "instance_map")
    node.set(cameras__camera__enabled=False)
    wait_for(lambda: not encoder.matched(), "unsubscribed")
    node.set(cameras__camera__enabled=True)
    wait_for(encoder.matched, "subscribed")
    last = encoder.send(0, 2 * GROUP)[-1]
    wait_for(lambda: maps.of(last), "its map")


@pytest.mark.parametrize(("transport", "kind", "topic"), [
    ("foxglove", "foxglove_msgs CompressedVideo", "/front/video"),
    ("ffmpeg", "ffmpeg_image_transport_msgs FFMPEGPacket", "/front/image_raw/ffmpeg"),
])  # fmt: skip
def test_message_types_of_others(
    start_node: Callable[..., NodeProcess], model: Path, client: Client, transport: str, kind: str, topic: str
) -> None:
    package, name = kind.split()
    module = pytest.importorskip(f"{package}.msg", reason=f"{package} is not installed")
    parameters = {"cameras.camera.topic": topic, "cameras.camera.transport": transport}
    node = start_node(transport, model=str(model), autostart=True, **parameters)
    node.wait_state("active")
    maps = node.output(Image, "instance_map")
    publisher = client.publisher(getattr(module, name), topic, RELIABLE)
    wait_for(publisher.get_subscription_count, "the node subscribes")
    images = [np.ascontiguousarray(street().image[..., ::-1])] * 2 * GROUP
    for _, data in encode("libx264", images, (WIDTH, HEIGHT)):
        header = image_message(images[0]).header
        if transport == "foxglove":
            message = module.CompressedVideo(timestamp=header.stamp, frame_id="front", data=data, format="h264")
        else:
            message = module.FFMPEGPacket(
                header=header, width=WIDTH, height=HEIGHT, encoding="h264;yuv420p;bgr8;bgr8", data=data
            )
        publisher.publish(message)
        time.sleep(PERIOD)
    last = (header.stamp.sec, header.stamp.nanosec)
    assert_same_instances(pixels_of(wait_for(lambda: maps.of(last), "its map")), street(), 0.75)


def test_video_on_a_camera_of_still_images_is_named(
    start_node: Callable[..., NodeProcess], model: Path, client: Client
) -> None:
    parameters = {"cameras.camera.topic": "/stills", "cameras.camera.transport": "compressed"}
    node = start_node("stills", model=str(model), autostart=True, **parameters)
    node.wait_state("active")
    encoder = Encoder(client, "/stills/compressed")
    wait_for(encoder.matched, "the node subscribes")
    encoder.send(0, GROUP)
    wait_for(lambda: "transport: video" in node.values().get("last_fault", ""), "the remedy")


@pytest.mark.parametrize(("transport", "package"), [
    ("foxglove", "foxglove-msgs"), ("ffmpeg", "ffmpeg-image-transport-msgs"),
])  # fmt: skip
def test_message_types_that_are_missing_are_named_with_their_package(
    monkeypatch: pytest.MonkeyPatch, transport: str, package: str
) -> None:
    for module in ("foxglove_msgs", "ffmpeg_image_transport_msgs"):
        monkeypatch.setitem(sys.modules, f"{module}.msg", None)
    with pytest.raises(ConfigurationError, match=rf"cameras\.front\.transport: {transport} .*{package}"):
        message_type(CameraSettings("front", "image_raw", transport, 0.0, ""))


def test_a_decoder_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert message_type(CameraSettings("front", "image_raw", "video", 0.0, "")) is CompressedImage
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigurationError, match=r"cameras\.front\.transport: video: .*pip install av"):
        message_type(CameraSettings("front", "image_raw", "video", 0.0, ""))


def test_the_node_says_at_configure_what_to_install(start_node: Callable[..., NodeProcess], model: Path) -> None:
    if find_spec("foxglove_msgs") is not None:
        pytest.skip("foxglove_msgs is installed")
    node = start_node("missing", model=str(model), **{"cameras.camera.transport": "foxglove"})
    assert not node.change("configure")
    node.wait_log("apt install ros-$ROS_DISTRO-foxglove-msgs")
