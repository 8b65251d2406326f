"""Stands in for `ros2 bag play`, which PyPI does not have: plays the images of a bag with their clock.

It takes the options that the launch files use, as rosbag2 has them from Humble on, waits for the node and its results,
and prints how many came.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs=2)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--read-ahead-queue-size", type=int, default=1000)
    parser.add_argument("-r", "--rate", type=float, default=1.0)
    parser.add_argument("-l", "--loop", action="store_true")
    parser.add_argument("--clock", type=float, nargs="?", const=40, default=0)
    parser.add_argument("-d", "--delay", type=float, default=0.0)
    parser.add_argument("--disable-keyboard-controls", action="store_true")
    parser.add_argument("--start-offset", type=float, default=0.0)
    options = parser.parse_args()
    print("played with", *sys.argv[1:], flush=True)
    assert options.words == ["bag", "play"]
    assert options.clock > 0
    rclpy.init(args=[])
    node = rclpy.create_node("player")
    results: list[Detection2DArray] = []
    node.create_subscription(Detection2DArray, "/segmenter/detections", results.append, 10)
    clock = node.create_publisher(Clock, "/clock", 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with AnyReader([options.bag]) as reader:
        images = [each for each in reader.connections if each.msgtype == "sensor_msgs/msg/Image"]
        publishers = {each.id: node.create_publisher(Image, each.topic, 10) for each in images}
        _wait(lambda: sum(each.get_subscription_count() for each in publishers.values()), executor)
        _wait(lambda: node.count_publishers("/segmenter/detections"), executor)
        time.sleep(options.delay)
        for connection, stamp, data in reader.messages(images):
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(stamp, 10**9)
            clock.publish(message)
            publishers[connection.id].publish(bytes(data))
            executor.spin_once(timeout_sec=0.2)
    _wait(lambda: results, executor)
    print(f"results: {len(results)}", flush=True)
    return 0


def _wait(condition: Callable[[], object], executor: SingleThreadedExecutor) -> None:
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)


sys.exit(main())
