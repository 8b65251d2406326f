"""A node under test in its own process, and the ROS side of the tests that talks to it."""

from __future__ import annotations

import array
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
from colour_model import Scene, paint_scene
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from integration.spare import Spare
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters, SetParametersAtomically
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

WIDTH, HEIGHT = 320, 192
# Only what fails waits so long: a node opens its model in a process that gives way to all others.
TIMEOUT = 60.0
# A reload opens the model twice, the first time in a process that gives way to all others.
RELOAD_SECONDS = 90.0
# The node ends within 2 s after a signal; more for a machine that does other things, and still less than the 8 s of the
# work that tests give it.
END_SECONDS = 5.0
# After which a question is put once more, and after which the answer to a transition is looked for in the state.
ANSWER_SECONDS = 2.0
# A transition that has no answer and has left the state as it was by then was refused.
REFUSED_SECONDS = 12.0
PRIMARY_STATES = ("unconfigured", "inactive", "active", "finalized")
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "shutdown_active": Transition.TRANSITION_ACTIVE_SHUTDOWN,
    "shutdown_unconfigured": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
}


def wait_for(condition: Callable[[], Any], what: str | Callable[[], str], timeout: float = TIMEOUT) -> Any:
    """Return the first true result of `condition`; `what`, if it is a function, is asked when there was none."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout} s: {what if isinstance(what, str) else what()}")


def ask(service: Any, request: Any, timeout: float = TIMEOUT, patience: float = ANSWER_SECONDS) -> Any:
    """Ask a service, and once more whenever no answer has come for `patience` seconds."""
    asked: list[Any] = []
    begin = time.monotonic()

    def answer() -> Any:
        if len(asked) * patience <= time.monotonic() - begin:
            asked.append(service.call_async(request))
        return next((future for future in asked if future.done()), None)

    return wait_for(answer, f"answer of {service.srv_name}", timeout).result()


class Recorder:
    """Keeps the messages of a topic."""

    def __init__(self, client: Client, kind: type, topic: str, latched: bool = False) -> None:
        self.messages: list[Any] = []
        self._client = client
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
        self.topic = topic
        self.subscription = client.subscription(kind, topic, self.messages.append, qos)

    def of(self, stamp: tuple[int, int]) -> Any:
        """The message with a stamp, or None."""
        for message in reversed(self.messages):
            if (message.header.stamp.sec, message.header.stamp.nanosec) == stamp:
                return message
        return None

    def close(self) -> None:
        self._client.node.destroy_subscription(self.subscription)


class Client:
    """A node of the test process, spinning in a thread."""

    def __init__(self) -> None:
        rclpy.init(args=[])
        self.node = rclpy.create_node("test_client")
        self._clients: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def record(self, kind: type, topic: str, latched: bool = False) -> Recorder:
        return Recorder(self, kind, topic, latched)

    def publisher(self, kind: type, topic: str, qos: QoSProfile | None = None) -> Any:
        # Without event handlers: rclpy's executor ends when they go while it looks at them.
        quiet = PublisherEventCallbacks(use_default_callbacks=False)
        return self.node.create_publisher(kind, topic, qos or qos_profile_sensor_data, event_callbacks=quiet)

    def subscription(self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile | int) -> Any:
        quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
        return self.node.create_subscription(kind, topic, callback, qos, event_callbacks=quiet)

    def call(self, kind: type, name: str, request: Any, timeout: float = TIMEOUT) -> Any:
        """Ask a service for what may be asked twice: its answer is lost if it does not know a new client yet."""
        # A reload that is asked for again comes to the same, but takes its time.
        patience = RELOAD_SECONDS / 3 if kind is Trigger else ANSWER_SECONDS
        return ask(self.service(kind, name, timeout), request, timeout, patience)

    def service(self, kind: type, name: str, timeout: float = TIMEOUT) -> Any:
        """The client of a service, which is kept, once the service is there."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        assert self._clients[name].wait_for_service(timeout), f"no service {name}"
        return self._clients[name]

    def change_state(self, node: str, transition: int) -> bool:
        """Ask a node once for a transition: a second request would be another one, and refused.

        Where the answer is lost, the state tells it.
        """
        before = self.state(node)
        asked = self.service(ChangeState, f"{node}/change_state").call_async(
            ChangeState.Request(transition=Transition(id=transition))
        )
        begin = time.monotonic()

        def outcome() -> list[bool]:
            if asked.done():
                return [bool(asked.result().success)]
            waited = time.monotonic() - begin
            state = self.state(node) if waited > ANSWER_SECONDS else before
            settled = state in PRIMARY_STATES and (state != before or waited > REFUSED_SECONDS)
            # The answer may have come with that of the state.
            return [state != before] if settled and not asked.done() else []

        return bool(wait_for(outcome, f"the end of transition {transition} of {node}", RELOAD_SECONDS)[0])

    def state(self, node: str) -> str:
        return str(self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label)

    def forget(self, node: str) -> None:
        """Remove the clients of a node that has ended."""
        for name in [name for name in self._clients if name.startswith(f"{node}/")]:
            self.node.destroy_client(self._clients.pop(name))

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(5)
        self.node.destroy_node()
        rclpy.try_shutdown()


class NodeProcess:
    """A node in a process of its own, the executable `segmenter` if nothing else is said."""

    def __init__(
        self,
        client: Client,
        name: str,
        log: Path,
        arguments: Sequence[str] = (),
        parameters: Mapping[str, Any] = {},
        start: Callable[[list[str], Path], Any] = Spare.start,
    ) -> None:
        self.client = client
        self.name = f"/{name}"
        self._log = log
        given = {"diagnostics_period": 0.2, **parameters}
        options = [part for key, value in given.items() for part in ("-p", f"{key}:={_text(value)}")]
        self.popen = start(["--ros-args", "-r", f"__node:={name}", *arguments, *options], log)
        self._publishers: dict[tuple[type, str], Any] = {}
        self._recorders: dict[str, Recorder] = {}
        self._diagnostics = client.record(DiagnosticArray, "/diagnostics")

    # What it says

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_log(self, *texts: str, timeout: float = TIMEOUT) -> str:
        wait_for(lambda: all(text in self.log for text in texts), f"{texts} in the log of {self.name}", timeout)
        return self.log

    def status(self, part: str) -> DiagnosticStatus | None:
        """The latest diagnostics of `model` or `camera NAME`."""
        wanted = f"{self.name[1:]}: {part}"
        for message in reversed(self._diagnostics.messages):
            for status in message.status:
                if status.name == wanted:
                    return status
        return None

    def values(self, part: str = "camera camera") -> dict[str, str]:
        status = self.status(part)
        return {pair.key: pair.value for pair in status.values} if status else {}

    def wait_diagnostics(self, count: int = 2) -> None:
        """Wait for so many messages more: the second one was certainly begun after this call."""
        prefix, before = f"{self.name[1:]}: ", len(self._diagnostics.messages)

        def new() -> int:
            messages = self._diagnostics.messages[before:]
            return sum(any(status.name.startswith(prefix) for status in message.status) for message in messages)

        wait_for(lambda: new() >= count, f"{count} more diagnostics of {self.name}")

    def count(self, key: str, part: str = "camera camera") -> int:
        return int(self.values(part).get(key, 0))

    # What it does

    def change(self, transition: str) -> bool:
        return self.client.change_state(self.name, TRANSITIONS[transition])

    def state(self) -> str:
        return self.client.state(self.name)

    def wait_state(self, state: str) -> None:
        wait_for(lambda: self.state() == state, f"state {state} of {self.name}; log:\n{self.log}")

    def set(self, **parameters: Any) -> list[Any]:
        """Set parameters one by one; `__` in a name stands for a dot."""
        request = SetParameters.Request(parameters=_parameters(parameters))
        return list(self.client.call(SetParameters, f"{self.name}/set_parameters", request).results)

    def set_together(self, **parameters: Any) -> Any:
        request = SetParametersAtomically.Request(parameters=_parameters(parameters))
        return self.client.call(SetParametersAtomically, f"{self.name}/set_parameters_atomically", request).result

    def get(self, name: str) -> Any:
        request = GetParameters.Request(names=[name])
        answer = self.client.call(GetParameters, f"{self.name}/get_parameters", request)
        return rclpy.parameter.parameter_value_to_python(answer.values[0])

    def describe(self, *names: str) -> list[Any]:
        request = DescribeParameters.Request(names=names)
        return list(self.client.call(DescribeParameters, f"{self.name}/describe_parameters", request).descriptors)

    def reload(self) -> Any:
        return self.client.call(Trigger, f"{self.name}/reload", Trigger.Request(), timeout=RELOAD_SECONDS)

    # Frames

    def output(self, kind: type, name: str, latched: bool = False) -> Recorder:
        """The recorder of an output topic, once it is connected."""
        topic = f"{self.name}/{name}"
        if topic not in self._recorders:
            self._recorders[topic] = self.client.record(kind, topic, latched)
            wait_for(lambda: self.client.node.count_publishers(topic), f"publisher of {topic}; log:\n{self.log}")
        return self._recorders[topic]

    def forget(self, name: str) -> None:
        self._recorders.pop(f"{self.name}/{name}").close()

    def publisher(self, kind: type = Image, topic: str = "") -> Any:
        """A camera's publisher, once the node listens to it."""
        topic = topic or f"{self.name}_image"
        if (kind, topic) not in self._publishers:
            self._publishers[kind, topic] = self.client.publisher(kind, topic)
        publisher = self._publishers[kind, topic]
        wait_for(lambda: publisher.get_subscription_count(), f"subscription of {topic}; log:\n{self.log}")
        return publisher

    def process(self, message: Any, recorder: Recorder, topic: str = "", timeout: float = TIMEOUT) -> Any:
        """Publish a frame, again and again as best effort loses some, until its result comes."""
        publisher = self.publisher(type(message), topic)
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            publisher.publish(message)
            for _ in range(40):
                result = recorder.of(stamp)
                if result is not None:
                    return result
                time.sleep(0.01)
        raise AssertionError(f"no result on {recorder.topic} for the frame of {stamp}; log:\n{self.log}")

    def lose(self, message: Any, cause: str, topic: str = "", part: str = "camera camera") -> None:
        """Publish a frame until the diagnostics count it as dropped for `cause`."""
        publisher, before = self.publisher(type(message), topic), self.count(f"dropped_{cause}", part)
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            publisher.publish(message)
            for _ in range(50):
                if self.count(f"dropped_{cause}", part) > before:
                    return
                time.sleep(0.01)
        raise AssertionError(f"not counted: dropped_{cause}; {self.values(part)}; log:\n{self.log}")

    # The process

    @property
    def usage(self) -> psutil.Process:
        return psutil.Process(self.popen.pid)

    def end(self, signal_number: int) -> float:
        """Send a signal; seconds until the process has ended."""
        begin = time.monotonic()
        self.popen.send_signal(signal_number)
        self.popen.wait(10)
        return time.monotonic() - begin

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(5)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self.client.forget(self.name)
        for recorder in (*self._recorders.values(), self._diagnostics):
            recorder.close()
        for publisher in self._publishers.values():
            self.client.node.destroy_publisher(publisher)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _parameters(values: Mapping[str, Any]) -> list[Any]:
    return [Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()]


_stamps = iter(range(1, 10**9))


def image_message(
    pixels: NDArray[Any], encoding: str = "bgr8", *, step: int = 0, width: int = 0, height: int = 0, big: bool = False
) -> Image:
    """An image message with a stamp of its own; rows are padded to `step`."""
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
    if step:
        rows = np.pad(rows, ((0, 0), (0, step - rows.shape[1])), constant_values=173)
    message = Image(encoding=encoding, step=rows.shape[1], is_bigendian=int(big))
    message.height, message.width = height or pixels.shape[0], width or pixels.shape[1]
    message.header.frame_id = "camera_optical"
    now = time.time_ns()
    # Nanoseconds number the frames, so that no two share a stamp.
    message.header.stamp.sec, message.header.stamp.nanosec = now // 10**9, next(_stamps)
    message.data = array.array("B", rows.tobytes())
    return message


def street(width: int = WIDTH, height: int = HEIGHT) -> Scene:
    """A pedestrian, two cars, a stop sign and a traffic light, of a size the model sees exactly."""
    scale_x, scale_y = width / WIDTH, height / HEIGHT
    rectangles = [(16, 40, 56, 136, 0), (80, 64, 176, 128, 1), (192, 96, 240, 144, 1), (256, 16, 288, 48, 2)]
    rectangles.append((264, 80, 288, 152, 3))
    scaled = [
        (round(x1 * scale_x), round(y1 * scale_y), round(x2 * scale_x), round(y2 * scale_y), label)
        for x1, y1, x2, y2, label in rectangles
    ]
    return paint_scene(width, height, scaled)


def pixels_of(message: Image) -> NDArray[Any]:
    """The pixels of a mono8, mono16 or bgr8 message."""
    kind, channels = {"mono8": ("u1", 1), "mono16": ("<u2", 1), "bgr8": ("u1", 3)}[message.encoding]
    data = np.frombuffer(bytes(message.data), kind)
    assert message.step == message.width * channels * data.itemsize
    shape = (message.height, message.width) + ((3,) if channels == 3 else ())
    return data.reshape(shape)


def assert_same_instances(found: NDArray[Any], scene: Scene, iou: float = 0.9) -> dict[int, int]:
    """Each rectangle of the scene is one instance of the map and nothing else is; rectangle index by number."""
    numbers = {int(number) for number in np.unique(found)} - {0}
    assert len(numbers) == len(scene.boxes)
    matched = {}
    for index in range(len(scene.boxes)):
        truth = scene.instance_map == index + 1
        best = max(numbers, key=lambda number: int(((found == number) & truth).sum()))
        mask = found == best
        assert (mask & truth).sum() / (mask | truth).sum() >= iou
        matched[best] = index
    assert len(matched) == len(scene.boxes)
    return matched
