"""Large images between two processes, with and without config/fastdds.xml: what arrives, and how late."""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import time
from typing import Any

from bench.table import show
from demo.session import ROOT, environment

SIZES = {"1080p": (1920, 1080), "4K": (3840, 2160)}
FRAMES, RATE = 60, 20.0
FRAMES_4K, RATE_4K = 40, 10.0


def publish(width: int, height: int, reliable: bool, frames: int, rate: float) -> None:
    """The camera's side."""
    import rclpy
    from rclpy.qos import QoSProfile, QoSReliabilityPolicy
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("transport_camera")
    kind = QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT
    publisher = node.create_publisher(Image, "transport", QoSProfile(depth=1, reliability=kind))
    image = Image(width=width, height=height, step=3 * width, encoding="bgr8")
    image.data.frombytes(bytes(3 * width * height))
    payload = bytearray(serialize_message(image))
    end = time.monotonic() + 20
    while not publisher.get_subscription_count() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(1.0)
    begin = time.monotonic()
    for index in range(frames):
        time.sleep(max(0.0, begin + index / rate - time.monotonic()))
        struct.pack_into("<iI", payload, 4, *divmod(time.time_ns(), 10**9))
        publisher.publish(bytes(payload))
    time.sleep(1.5)
    rclpy.shutdown()


def receive(reliable: bool) -> None:
    """The node's side: prints `ready`, then a JSON list of latencies in ms once standard input closes."""
    import threading

    import rclpy
    from rclpy.qos import QoSProfile, QoSReliabilityPolicy
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("transport_receiver")
    latencies: list[float] = []

    def on_image(message: bytes) -> None:
        seconds, nanoseconds = struct.unpack_from("<iI", message, 4)
        latencies.append(1e3 * (time.time() - seconds) - 1e-6 * nanoseconds)

    kind = QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT
    node.create_subscription(Image, "transport", on_image, QoSProfile(depth=1, reliability=kind), raw=True)
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    print("ready", flush=True)
    while not ended.is_set():
        rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps(latencies), flush=True)
    rclpy.shutdown()


def measure(size: tuple[int, int], reliable: bool, profile: bool, frames: int, rate: float) -> list[float]:
    """Latencies in ms of the images that arrived."""
    values = environment(profile)
    base = [sys.executable, "-m", "bench.transport"]
    kind = ["--reliable"] if reliable else []
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    receiver = subprocess.Popen([*base, "--role", "receive", *kind], env=values, **pipes)
    try:
        if receiver.stdout is None or receiver.stdout.readline().strip() != "ready":
            raise RuntimeError("the receiver did not start")
        role = ["--role", "publish", *kind, "--size", *map(str, size), "--frames", str(frames), "--rate", str(rate)]
        subprocess.run([*base, *role], env=values, cwd=ROOT, check=True, timeout=90)
        output, _ = receiver.communicate("", timeout=20)
    finally:
        if receiver.poll() is None:
            receiver.terminate()
            receiver.wait(5)
    latencies: list[float] = json.loads(output.strip().splitlines()[-1])
    return latencies


def main() -> None:
    """Print the table."""
    rows = []
    for name, size in SIZES.items():
        frames, rate = (FRAMES, RATE) if name == "1080p" else (FRAMES_4K, RATE_4K)
        for reliable in (False, True):
            for profile in (False, True):
                latencies = sorted(measure(size, reliable, profile, frames, rate))
                median = f"{latencies[len(latencies) // 2]:.1f}" if latencies else "-"
                worst = f"{latencies[-1]:.1f}" if latencies else "-"
                quality = "reliable" if reliable else "best effort"
                used = "config/fastdds.xml" if profile else "stock"
                rows.append([f"{name} at {rate:g} Hz", quality, used, f"{len(latencies)} of {frames}", median, worst])
    show("Images between two processes (bgr8)", ["size", "QoS", "profile", "delivered", "median ms", "worst ms"], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=["publish", "receive"])
    parser.add_argument("--reliable", action="store_true")
    parser.add_argument("--size", type=int, nargs=2, default=[1920, 1080])
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--rate", type=float, default=RATE)
    options = parser.parse_args()
    if options.role == "publish":
        width, height = options.size
        publish(width, height, options.reliable, options.frames, options.rate)
    elif options.role == "receive":
        receive(options.reliable)
    else:
        main()
