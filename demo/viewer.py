"""A viewer: receives what the node publishes, measures when it came, and keeps the overlays.

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
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray


class Viewer(Node):
    """Subscribes to the node's topics."""

    def __init__(self, node: str, overlays: Path | None) -> None:
        super().__init__("viewer")
        self.latencies_ms: list[float] = []
        self.arrivals: list[float] = []
        self.instances: Counter[str] = Counter()
        self.detections = 0
        self.pictures = 0
        self.diagnostics: dict[str, dict[str, str]] = {}
        self._overlays = overlays
        qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self._map = self.create_subscription(Image, f"{node}/instance_map", self._on_map, qos, raw=True)
        self.create_subscription(Detection2DArray, f"{node}/detections", self._on_detections, qos)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        if overlays is not None:
            overlays.mkdir(parents=True, exist_ok=True)
            self.create_subscription(CompressedImage, f"{node}/overlay/compressed", self._on_overlay, qos)

    def connected(self) -> bool:
        """Whether the node offers its instance map."""
        return self.count_publishers(self._map.topic_name) > 0

    def _on_map(self, message: bytes) -> None:
        now = time.time()
        seconds, nanoseconds = struct.unpack_from("<iI", message, 4)
        self.latencies_ms.append(1e3 * (now - seconds - 1e-9 * nanoseconds))
        self.arrivals.append(now)

    def _on_detections(self, message: Detection2DArray) -> None:
        self.detections += 1
        self.instances.update(detection.results[0].hypothesis.class_id for detection in message.detections)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name] = {pair.key: pair.value for pair in status.values}

    def _on_overlay(self, message: CompressedImage) -> None:
        if self._overlays is not None:
            (self._overlays / f"{self.pictures:04d}.jpg").write_bytes(bytes(message.data))
            self.pictures += 1


def main() -> int:
    """View until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", default="/segmenter")
    parser.add_argument("--overlays", type=Path)
    arguments = parser.parse_args()
    rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stop.append(received))
    viewer = Viewer(arguments.node, arguments.overlays)
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
    report = {
        "latencies_ms": viewer.latencies_ms,
        "arrivals": viewer.arrivals,
        "detections": viewer.detections,
        "instances": dict(viewer.instances),
        "overlays": viewer.pictures,
        "diagnostics": viewer.diagnostics,
    }
    print(json.dumps(report), flush=True)
    viewer.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
