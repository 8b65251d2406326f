"""A replay and the live node, fed every frame, make the same messages byte by byte."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from integration.harness import NodeProcess, image_message, wait_for
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from seg_perception.cli.main import main
from seg_perception.core.share import find_model
from seg_perception.offboard.data.bags.reader import Bag
from seg_perception.offboard.data.bags.types import message_store
from seg_perception.offboard.data.published import read_published
from seg_perception.offboard.streetworld.world import StreetWorld, WorldOptions

KINDS = {"instance_map": Image, "detections": Detection2DArray, "camera_info": CameraInfo}


def mosaic(image: np.ndarray) -> np.ndarray:
    """A Bayer mosaic, rggb, of a bgr image."""
    pixels = image[..., 1].copy()
    pixels[::2, ::2], pixels[1::2, 1::2] = image[::2, ::2, 2], image[1::2, 1::2, 0]
    return pixels


def yuyv(image: np.ndarray) -> np.ndarray:
    yuv = cv2.cvtColor(image, cv2.COLOR_BGR2YUV)
    packed = np.empty((*image.shape[:2], 2), np.uint8)
    packed[..., 0] = yuv[..., 0]
    packed[:, ::2, 1], packed[:, 1::2, 1] = yuv[:, ::2, 1], yuv[:, ::2, 2]
    return packed


def recorded(images: list[np.ndarray]) -> list[tuple[str, Any]]:
    """What two cameras send: the front one in many encodings, the rear one as JPEG."""
    front = [
        image_message(images[0]),
        image_message(mosaic(images[1]), "bayer_rggb8"),
        image_message(mosaic(images[2]).astype(np.uint16) * 257, "bayer_rggb16"),
        image_message(yuyv(images[3]), "yuv422_yuy2"),
        image_message(images[4][..., ::-1], "rgb8", step=images[4].shape[1] * 3 + 13),
        image_message(images[5][..., 1], "mono8"),
    ]
    messages: list[tuple[str, Any]] = [("/front/image_raw", message) for message in front]
    for image in images[:3]:
        data = cv2.imencode(".jpg", image)[1].tobytes()
        message = CompressedImage(header=image_message(image).header, format="bgr8; jpeg compressed bgr8", data=data)
        messages.append(("/rear/image_raw/compressed", message))
    return messages


def test_the_same_frames_make_the_same_bytes(start_node: Callable[..., NodeProcess], tmp_path: Path) -> None:
    model = find_model("street-nano.onnx")
    world = StreetWorld(WorldOptions(frames=6, seed=3, width=640, height=384))
    images = [frame.data.reshape(384, 640, 3) for _, frame in world]
    messages = recorded(images)
    parameters = {
        "camera_names": ["front", "rear"],
        "cameras.front.topic": "/front/image_raw",
        "cameras.rear.topic": "/rear/image_raw",
        "cameras.rear.transport": "compressed",
    }
    node = start_node("live", model=model, autostart=True, tracking=True, threads=1, **parameters)
    node.wait_state("active")
    received: dict[str, list[bytes]] = {}
    for camera in ("front", "rear"):
        for name, kind in KINDS.items():
            topic = f"{camera}/{name}"
            got = received[topic] = []
            node.client.node.create_subscription(kind, f"{node.name}/{topic}", got.append, 10, raw=True)
            wait_for(lambda t=topic: node.client.node.count_publishers(f"{node.name}/{t}"), f"publisher of {topic}")
    info = CameraInfo(width=640, height=384, k=np.arange(9.0), p=np.arange(12.0), d=[0.1] * 5)
    infos = node.publisher(CameraInfo, "/front/camera_info")
    publishers = {topic: node.publisher(type(message), topic) for topic, message in messages}
    infos.publish(info)
    time.sleep(0.5)
    begin = time.time_ns()
    sent: list[tuple[str, int, str, bytes]] = [
        ("/front/camera_info", begin, "sensor_msgs/msg/CameraInfo", bytes(serialize_message(info)))
    ]
    for topic, message in messages:
        # Stamps are believed and tracks age by them, so they are those of real time.
        now = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 10**9)
        serialized = bytes(serialize_message(message))
        sent.append((topic, now, f"sensor_msgs/msg/{type(message).__name__}", serialized))
        results = received[f"{topic.split('/')[1]}/detections"]
        before = len(results)
        # Best effort may lose a frame; what comes within five seconds was not lost.
        while len(results) == before:
            publishers[topic].publish(serialized)
            end = time.monotonic() + 5
            while len(results) == before and time.monotonic() < end:
                time.sleep(0.005)
            assert node.popen.poll() is None, node.log
    counts = {"front": 6, "rear": 3}
    for camera, count in counts.items():
        wait_for(lambda c=camera, n=count: len(received[f"{c}/instance_map"]) == n, f"instance maps of {camera}")

    bag, out = tmp_path / "drive", tmp_path / "out.mcap"
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kinds = {topic: kind for topic, _, kind, _ in sent}
        connections = {
            topic: writer.add_connection(topic, kind, typestore=message_store()) for topic, kind in kinds.items()
        }
        for topic, time_ns, _, data in sent:
            writer.write(connections[topic], time_ns, data)
    arguments = ["replay", bag, "--model", model, "-o", out, "--tracking", "--threads", "1", "--namespace", node.name]
    assert main([*map(str, arguments)]) == 0
    with Bag(out) as replayed:
        for camera, count in counts.items():
            for name in KINDS:
                topic = f"{camera}/{name}"
                made = [message.data for message in replayed.messages([f"{node.name}/{topic}"])]
                assert len(made) == (count if topic != "rear/camera_info" else 0)
                # The middleware pads the end of a message to four bytes.
                live = [bytes(message)[: len(own)] for message, own in zip(received[topic], made, strict=True)]
                assert live == made, topic
    maps = read_published(out, f"{node.name}/front/instance_map", f"{node.name}/front/detections")
    assert sum(len(frame.numbers) for frame in maps) > 10
