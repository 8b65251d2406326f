"""A viewer: receives what the node publishes, measures when it came, and keeps overlays or records maps and detections.

It prints `ready` once it is connected to the node and, when told to end, one JSON line with what it received.
"""

from __future__ import annotations

import argparse
import json
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from demo.session import DETECTIONS, INSTANCE_MAP, OVERLAY
from seg_perception.offboard.data.bags.types import message_store

_KINDS = {INSTANCE_MAP: "sensor_msgs/msg/Image", DETECTIONS: "vision_msgs/msg/Detection2DArray"}


class Viewer(Node):
    """Subscribes to the node's topics."""

    def __init__(self, overlays: Path | None, keep_maps: bool) -> None:
        super().__init__("viewer")
        self.latencies_ms: list[float] = []
        self.arrivals: list[float] = []
        self.images = 0
        self.diagnostics: dict[str, dict[str, str]] = {}
        self.recorded: list[tuple[str, int, bytes]] = []
        self._overlays, self._keep_maps = overlays, keep_maps
        qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self._map = self.create_subscription(Image, INSTANCE_MAP, self._on_map, qos, raw=True)
        self.create_subscription(Detection2DArray, DETECTIONS, self._on_detections, qos, raw=True)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        if overlays is not None:
            overlays.mkdir(parents=True, exist_ok=True)
            self.create_subscription(CompressedImage, OVERLAY, self._on_overlay, qos)

    def connected(self) -> bool:
        """Whether the node offers its instance map."""
        return self.count_publishers(self._map.topic_name) > 0

    def _on_map(self, message: bytes) -> None:
        now = time.time()
        seconds, nanoseconds = struct.unpack_from("<iI", message, 4)
        self.latencies_ms.append(1e3 * (now - seconds - 1e-9 * nanoseconds))
        self.arrivals.append(now)
        if self._keep_maps:
            self.recorded.append((INSTANCE_MAP, round(1e9 * now), message))

    def _on_detections(self, message: bytes) -> None:
        self.recorded.append((DETECTIONS, time.time_ns(), message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name] = {pair.key: pair.value for pair in status.values}

    def _on_overlay(self, message: CompressedImage) -> None:
        if self._overlays is not None:
            (self._overlays / f"{self.images:04d}.jpg").write_bytes(bytes(message.data))
            self.images += 1


def detections(viewer: Viewer) -> list[Detection2DArray]:
    """The detections that came."""
    return [deserialize_message(data, Detection2DArray) for topic, _, data in viewer.recorded if topic == DETECTIONS]


def write_bag(folder: Path, recorded: Iterable[tuple[str, int, bytes]]) -> None:
    """Write messages as they came, under the node's topics."""
    store = message_store()
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in _KINDS.items()}
        for topic, when, data in recorded:
            writer.write(connections[topic], when, data)


def main() -> int:
    """View until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--overlays", type=Path, help="folder for the node's overlays")
    parser.add_argument("--record", type=Path, help="folder of a bag for instance maps and detections; must not exist")
    arguments = parser.parse_args()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stop.append(received))
    viewer = Viewer(arguments.overlays, arguments.record is not None)
    executor = SingleThreadedExecutor()
    executor.add_node(viewer)
    said = False
    try:
        while not stop:
            executor.spin_once(timeout_sec=0.2)
            if not said and viewer.connected():
                said = True
                print("ready", flush=True)
    except ExternalShutdownException:
        pass
    arrays = detections(viewer)
    instances = Counter(each.results[0].hypothesis.class_id for array in arrays for each in array.detections)
    report = {
        "latencies_ms": viewer.latencies_ms,
        "arrivals": viewer.arrivals,
        "detections": len(arrays),
        "instances": dict(instances),
        "overlays": viewer.images,
        "diagnostics": viewer.diagnostics,
    }
    if arguments.record:
        write_bag(arguments.record, viewer.recorded)
    print(json.dumps(report), flush=True)
    viewer.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
