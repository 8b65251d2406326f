"""What a frame costs that arrives while the worker is busy, for four ways to receive images under rclpy.

A camera process publishes; the receiving process hands frames to a worker that is busy 100 ms with each (it sleeps, so
that all CPU time measured belongs to receiving). The CPU time of a dropped frame is the slope between two camera
rates: at the low rate nothing is dropped, at the high one the worker takes the same number of frames and the rest is
dropped.

    typed    subscription with messages, callback puts the newest into a slot
    raw      the same with raw=True: bytes instead of messages
    gated    raw without event handlers; while the worker is busy the callback group keeps the subscription out of the
             executor's wait set
    node     the node's own `ros.camera.Camera`: gated, and a worker that becomes free takes the newest frame itself;
             the executor only ends its waiting

Run: python -m bench.subscription [--seconds 12] [--sizes 1280x720 1920x1080]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from typing import Any

from demo.session import ROOT, environment

WORK_SECONDS = 0.1
LOW_HZ, HIGH_HZ = 8, 30
DESIGNS = ("typed", "raw", "gated", "node")


def camera(width: int, height: int, rate_hz: float) -> None:
    """Publish black bgr8 images until the parent closes our standard input."""
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("bench_camera")
    publisher = node.create_publisher(Image, "bench_image", qos_profile_sensor_data)
    image = Image(width=width, height=height, step=3 * width, encoding="bgr8")
    image.data.frombytes(bytes(3 * width * height))
    payload = bytearray(serialize_message(image))
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    due = time.monotonic()
    while not ended.is_set():
        now_ns = time.time_ns()
        payload[4:8] = (now_ns // 10**9).to_bytes(4, "little")
        payload[8:12] = (now_ns % 10**9).to_bytes(4, "little")
        publisher.publish(bytes(payload))
        due += 1.0 / rate_hz
        time.sleep(max(0.0, due - time.monotonic()))
    rclpy.shutdown()


def _stamp_ns(message: Any) -> int:
    if isinstance(message, bytes):
        return int.from_bytes(message[4:8], "little") * 10**9 + int.from_bytes(message[8:12], "little")
    return int(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)


class Receiver:
    """A worker that sleeps over each frame; designs differ in how frames come to it."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.ages: list[float] = []
        self.ended = False
        self.thread = threading.Thread(target=self.work)

    def next_frame(self) -> Any:
        """Wait for the newest message; None when there is none yet, or at the end."""
        raise NotImplementedError

    def notify(self) -> None:
        """End the waiting in `next_frame`."""
        raise NotImplementedError

    def work(self) -> None:
        """Be busy with one message after the other."""
        while self.node.executor is None:
            time.sleep(0.01)
        while not self.ended:
            message = self.next_frame()
            if message is not None:
                self.ages.append((time.time_ns() - _stamp_ns(message)) / 1e6)
                time.sleep(WORK_SECONDS)

    def close(self) -> None:
        """End the worker."""
        self.ended = True
        self.notify()
        self.thread.join()


class SlotReceiver(Receiver):
    """Designs typed, raw and gated: the executor puts the newest message into a slot."""

    def __init__(self, node: Any, design: str) -> None:
        super().__init__(node)
        from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
        from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import Image

        try:
            from rclpy.event_handler import SubscriptionEventCallbacks
        except ImportError:  # up to Humble
            from rclpy.qos_event import SubscriptionEventCallbacks

        receiver = self

        class Gate(MutuallyExclusiveCallbackGroup):
            def can_execute(self, entity: Any) -> bool:
                return receiver.waiting and super().can_execute(entity)

        self.waiting = False
        self.slot: Any = None
        self.condition = threading.Condition()
        self.group = Gate() if design == "gated" else None
        self.subscription = node.create_subscription(
            Image,
            "bench_image",
            self.receive,
            QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            callback_group=self.group,
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=design != "gated"),
            raw=design != "typed",
        )

    def receive(self, message: Any) -> None:
        """Put a message into the slot."""
        with self.condition:
            self.slot = message
            self.waiting = False
            self.condition.notify()

    def next_frame(self) -> Any:
        """Wait for the newest message; None at the end."""
        with self.condition:
            if self.group is not None:
                self.waiting = True
                self.node.executor.wake()
            while self.slot is None and not self.ended:
                self.condition.wait()
            message, self.slot = self.slot, None
            return message

    def notify(self) -> None:
        """End the waiting in `next_frame`."""
        with self.condition:
            self.condition.notify()


class NodeReceiver(Receiver):
    """Design node: the node's own camera, and the loop of its worker."""

    def __init__(self, node: Any) -> None:
        super().__init__(node)
        from seg_perception.onboard.ros.camera import Camera, WakeEvent
        from seg_perception.onboard.ros.parameters import CameraSettings
        from seg_perception.onboard.ros.statistics import CameraStatistics

        self.wake_event = WakeEvent()
        settings = CameraSettings("bench", "bench_image", "raw", max_age=0.0, ignore_mask="")
        self.camera = Camera(node, settings, CameraStatistics(), self.wake_event)

    def next_frame(self) -> Any:
        """Take the newest message, or wait until the executor has handed one over."""
        message = self.camera.take()
        if message is None:
            with self.wake_event.condition:
                self.wake_event.open = not self.ended
                self.node.executor.wake()
                self.wake_event.condition.wait_for(lambda: self.ended or self.camera.waiting(), 0.5)
                self.wake_event.open = False
        return message

    def notify(self) -> None:
        """End the waiting in `next_frame`."""
        with self.wake_event.condition:
            self.wake_event.condition.notify_all()

    def close(self) -> None:
        """End the worker and unsubscribe."""
        super().close()
        self.camera.destroy()


def receive(design: str, seconds: float) -> None:
    """Run one design and print: frames processed, CPU seconds, median and p95 age in ms, wall seconds."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    rclpy.init()
    node = rclpy.create_node("bench_receiver")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    receiver: Receiver = NodeReceiver(node) if design == "node" else SlotReceiver(node, design)
    receiver.thread.start()
    ended = time.monotonic() + 3.0
    while time.monotonic() < ended:
        executor.spin_once(timeout_sec=0.5)
    receiver.ages.clear()
    start, cpu = time.monotonic(), time.process_time()
    # A callback of the executor's own, because nothing else runs in it while the worker takes every frame itself.
    node.create_timer(seconds, lambda: None)
    while time.monotonic() - start < seconds:
        executor.spin_once()
    cpu, wall = time.process_time() - cpu, time.monotonic() - start
    ages = sorted(receiver.ages)
    receiver.close()
    rclpy.shutdown()
    at = [ages[int(len(ages) * part)] if ages else float("nan") for part in (0.5, 0.95)]
    print("RESULT", len(ages), cpu, *at, wall)


def _measure(design: str, size: str, rate_hz: int, seconds: float) -> tuple[int, float, float, float, float]:
    values = environment()
    me = [sys.executable, "-m", "bench.subscription"]
    source = subprocess.Popen([*me, "--camera", size, str(rate_hz)], stdin=subprocess.PIPE, env=values, cwd=ROOT)
    try:
        run = subprocess.run(
            [*me, "--receive", design, str(seconds)], env=values, cwd=ROOT, check=True, capture_output=True, text=True
        )
    finally:
        source.communicate()
    result = next(line for line in run.stdout.splitlines() if line.startswith("RESULT")).split()[1:]
    return int(result[0]), float(result[1]), float(result[2]), float(result[3]), float(result[4])


def main() -> None:
    """Print the table, or play one of the two parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--sizes", nargs="+", default=["1280x720", "1920x1080"])
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=DESIGNS)
    parser.add_argument("--camera", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--receive", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.camera:
        width, height = map(int, arguments.camera[0].split("x"))
        camera(width, height, float(arguments.camera[1]))
        return
    if arguments.receive:
        receive(arguments.receive[0], float(arguments.receive[1]))
        return
    print(
        f"worker busy {WORK_SECONDS * 1e3:.0f} ms a frame; camera {LOW_HZ} and {HIGH_HZ} Hz, "
        f"{arguments.seconds:.0f} s each; with config/fastdds.xml"
    )
    print(
        f"{'size':>10} {'design':>7} {'CPU ms/dropped':>15} {'CPU % low':>10} {'CPU % high':>11} "
        f"{'age p50 ms':>11} {'p95':>6} {'processed':>10}"
    )
    for size in arguments.sizes:
        for design in arguments.designs:
            low = _measure(design, size, LOW_HZ, arguments.seconds)
            high = _measure(design, size, HIGH_HZ, arguments.seconds)
            dropped = HIGH_HZ * high[4] - high[0]
            # What the extra processed frames cost is taken from the low rate.
            surplus = high[1] - low[1] * (high[0] / max(1, low[0]))
            print(
                f"{size:>10} {design:>7} {1e3 * surplus / dropped:15.2f} {100 * low[1] / low[4]:10.1f} "
                f"{100 * high[1] / high[4]:11.1f} {high[2]:11.1f} {high[3]:6.1f} {high[0]:10d}",
                flush=True,
            )


if __name__ == "__main__":
    main()
