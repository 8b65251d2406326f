"""What goes wrong around a node that is left running, and that it goes on, or says why it cannot."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import save_canonical_colour_model
from diagnostic_msgs.msg import DiagnosticStatus
from integration.harness import (
    END_SECONDS,
    HEIGHT,
    WIDTH,
    Client,
    NodeProcess,
    ask,
    assert_same_instances,
    image_message,
    pixels_of,
    street,
    wait_for,
)
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2DArray, LabelInfo

CAMERAS = ("front", "rear")


def image(width: int = WIDTH, height: int = HEIGHT, encoding: str = "rgb8") -> Image:
    pixels = street(width, height).image
    return image_message(pixels if encoding == "rgb8" else pixels[..., ::-1], encoding)


def stamped(seconds: float) -> Image:
    message = image()
    whole, part = divmod(round(seconds * 1e9), 10**9)
    # The nanoseconds that number the frames are kept, for they are few.
    message.header.stamp.sec, message.header.stamp.nanosec = whole, part + message.header.stamp.nanosec % 10**6
    return message


class Stream:
    """A camera that publishes without end."""

    def __init__(self, publisher: Any, period: float, make: Callable[[], Any] = image) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(publisher, period, make))

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self, publisher: Any, period: float, make: Callable[[], Any]) -> None:
        while not self._ended.wait(period):
            publisher.publish(make())


@pytest.fixture(scope="module")
def node(start_node: Callable[..., NodeProcess], model: Path) -> NodeProcess:
    topics = {f"cameras.{name}.topic": f"/days_{name}" for name in CAMERAS}
    node = start_node("days", model=model, autostart=True, camera_names=list(CAMERAS), **topics)
    node.wait_state("active")
    return node


@pytest.fixture
def topic(client: Client) -> Iterator[Callable[..., Any]]:
    """Makes publishers that end with the test."""
    made = []

    def make(kind: type, name: str, **policies: Any) -> Any:
        made.append(client.publisher(kind, name, QoSProfile(depth=1, **policies)))
        return made[-1]

    yield make
    for publisher in made:
        client.node.destroy_publisher(publisher)


def message_of(node: NodeProcess, camera: str = "camera") -> str:
    status = node.status(f"camera {camera}")
    return status.message if status else ""


def labels_found(node: NodeProcess, camera: str = "") -> set[str]:
    detections = node.output(Detection2DArray, f"{camera}/detections" if camera else "detections")
    result = node.process(image(), detections, f"{node.name}_{camera}" if camera else "")
    return {detection.results[1].hypothesis.class_id for detection in result.detections}


# Cameras


def test_a_camera_changes_its_size_and_encoding(node: NodeProcess) -> None:
    maps = node.output(Image, "front/instance_map")
    for width, height, encoding in ((WIDTH, HEIGHT, "rgb8"), (640, 384, "bgr8"), (160, 96, "rgb8"), (640, 384, "rgb8")):
        result = node.process(image(width, height, encoding), maps, "/days_front")
        assert_same_instances(pixels_of(result), street(width, height), iou=0.8)
    assert not node.count("dropped_layout", "camera front")


def level_of(node: NodeProcess, part: str) -> bytes | None:
    """The level in the newest diagnostics; None before the first."""
    status = node.status(part)
    return None if status is None else status.level


def test_all_cameras_are_gone_and_come_back(node: NodeProcess) -> None:
    for name in CAMERAS:
        node.process(image(), node.output(Image, f"{name}/instance_map"), f"/days_{name}")
        node.client.node.destroy_publisher(node._publishers.pop((Image, f"/days_{name}")))
    for name in CAMERAS:
        wait_for(lambda name=name: "no publisher on" in message_of(node, name), f"{name} is gone")
        wait_for(lambda name=name: level_of(node, f"camera {name}") == DiagnosticStatus.STALE, f"{name} is stale")
    wait_for(lambda: level_of(node, "model") == DiagnosticStatus.OK, "the model is well")
    assert node.state() == "active"
    wait_for(lambda: node.usage.cpu_percent(1.0) < 50, "a node with nothing to do")
    for name in CAMERAS:
        node.process(image(), node.output(Image, f"{name}/instance_map"), f"/days_{name}")
        wait_for(lambda name=name: level_of(node, f"camera {name}") == DiagnosticStatus.OK, f"{name} is back")
    node.wait_log("camera rear: no frames: no publisher on /days_rear", "camera rear: frames come")


def test_a_camera_is_disabled_and_enabled(node: NodeProcess) -> None:
    publisher = node.publisher(Image, "/days_rear")
    assert node.set(cameras__rear__enabled=False)[0].successful
    wait_for(lambda: not publisher.get_subscription_count(), "no subscription of a disabled camera")
    wait_for(lambda: "disabled" in message_of(node, "rear"), "diagnostics of a disabled camera")
    assert node.status("camera rear").level == DiagnosticStatus.OK
    node.process(image(), node.output(Image, "front/instance_map"), "/days_front")
    before = node.count("received", "camera rear")
    for _ in range(50):
        publisher.publish(image())
    assert node.set(cameras__rear__enabled=True)[0].successful
    node.process(image(), node.output(Image, "rear/instance_map"), "/days_rear")
    wait_for(lambda: node.count("received", "camera rear") > before, "frames of the enabled camera")
    assert node.count("received", "camera rear") < before + 50, "what came while it was disabled is not counted"


def test_a_camera_has_thresholds_of_its_own(node: NodeProcess) -> None:
    everything = {"person", "car", "stop sign", "traffic light"}
    assert node.set_together(cameras__front__thresholds__vehicle=1.0, thresholds__pedestrian=1.0).successful
    assert labels_found(node, "front") == everything - {"car", "person"}
    assert labels_found(node, "rear") == everything - {"person"}
    assert node.set_together(cameras__front__thresholds__pedestrian=0.3).successful
    assert labels_found(node, "front") == everything - {"car"}
    values = {"cameras__front__thresholds__vehicle": -1.0, "cameras__front__thresholds__pedestrian": -1.0}
    assert node.set_together(**values, thresholds__pedestrian=-1.0).successful
    assert labels_found(node, "front") == labels_found(node, "rear") == everything


# Silence


def test_why_no_frames_come(start_node: Callable[..., NodeProcess], model: Path, topic: Callable[..., Any]) -> None:
    topic(Image, "/why/near/image_rect")
    topic(CompressedImage, "/why/other/image")
    topic(Image, "/why/plain/image")
    topic(Image, "/why/silent/image")
    reasons = {
        "near": (DiagnosticStatus.WARN, "set cameras.near.topic: /why/near/image_rect, or remap"),
        "other": (DiagnosticStatus.ERROR, "set cameras.other.transport: compressed and remap -r"),
        "plain": (
            DiagnosticStatus.WARN,
            "the nearest image topic is /why/plain/image: set cameras.plain.transport: raw",
        ),
        "silent": (DiagnosticStatus.WARN, "/test_client (reliable, volatile) publishes on /why/silent/image"),
    }
    parameters: dict[str, object] = {f"cameras.{name}.topic": f"/why/{name}/image" for name in reasons}
    parameters["cameras.plain.transport"] = "compressed"
    node = start_node("why", model=model, autostart=True, camera_names=list(reasons), **parameters)
    for name, (level, told) in reasons.items():
        node.wait_log(told)
        wait_for(lambda name=name, told=told: told in message_of(node, name), f"{told!r} in the diagnostics of {name}")
        assert node.status(f"camera {name}").level == level
    # Each of them looks after the cameras.
    node.wait_diagnostics(6)
    assert node.log.count("no frames:") == len(reasons), "once per change"


def test_qos_that_the_user_asks_for_is_kept_and_explained(
    start_node: Callable[..., NodeProcess], model: Path, topic: Callable[..., Any]
) -> None:
    topic(Image, "/asked_image", reliability=ReliabilityPolicy.BEST_EFFORT)
    overrides = {
        "qos_overrides./asked_image.subscription.reliability": "reliable",
        "qos_overrides./asked_image.subscription.depth": 9,
    }
    node = start_node("asked", model=model, autostart=True, **{"cameras.camera.topic": "/asked_image"}, **overrides)
    wait_for(lambda: "offers best effort, volatile" in message_of(node), f"QoS told; log:\n{node.log}")
    assert node.status("camera camera").level == DiagnosticStatus.ERROR
    assert node.values()["qos"] == "reliable, volatile"
    node.wait_log("qos_overrides./asked_image.subscription.depth were given")
    reliable = topic(Image, "/asked_image")
    maps = node.output(Image, "instance_map")

    def processed() -> bool:
        reliable.publish(image())
        return bool(maps.messages)

    wait_for(processed, "frames of a reliable publisher")


def test_a_image_that_was_published_once_is_seen(
    start_node: Callable[..., NodeProcess], model: Path, topic: Callable[..., Any]
) -> None:
    """As long as all publishers keep their last message it is asked for; a camera that does not is served again."""
    often = Duration(seconds=2)
    latched = topic(Image, "/static_image", durability=DurabilityPolicy.TRANSIENT_LOCAL, deadline=often)
    message = image()
    latched.publish(message)
    asked = {"qos_overrides./static_image.subscription.deadline": 5 * 10**9}
    node = start_node("static", model=model, autostart=True, **{"cameras.camera.topic": "/static_image"}, **asked)
    node.wait_state("active")

    def deadlines() -> list[int]:
        found = node.client.node.get_subscriptions_info_by_topic("/static_image")
        return [each.qos_profile.deadline.nanoseconds for each in found]

    maps = node.output(Image, "instance_map", latched=False)
    wait_for(lambda: node.count("processed"), f"the image; {message_of(node)}; log:\n{node.log}")
    assert node.values()["qos"] == "reliable, transient local"
    assert deadlines() == [5 * 10**9], "what the user asks for goes with what is adapted"
    assert node.change("deactivate")
    assert node.change("activate")
    wait_for(lambda: maps.of((message.header.stamp.sec, message.header.stamp.nanosec)), "the image once more")
    node.client.node.destroy_publisher(latched)
    camera = topic(Image, "/static_image", reliability=ReliabilityPolicy.BEST_EFFORT, deadline=often)
    count = len(maps.messages)

    def served() -> bool:
        camera.publish(image())
        return len(maps.messages) > count

    wait_for(served, f"frames of another kind of publisher; {message_of(node)}; log:\n{node.log}")
    wait_for(lambda: node.values()["qos"] == "best effort, volatile", "what is asked for now")
    assert deadlines() == [5 * 10**9]
    assert "without effect" not in node.log


# Clocks


def warned_of(node: NodeProcess, told: str) -> bool:
    """Whether some diagnostics up to now warn of stamps."""
    return any(
        status.level == DiagnosticStatus.WARN
        and any(told in pair.value for pair in status.values if pair.key == "stamps")
        for message in node._diagnostics.messages
        for status in message.status
        if status.name == f"{node.name[1:]}: camera camera"
    )


def test_stamps_of_another_clock_are_told_and_age_is_counted_from_arrival(
    start_node: Callable[..., NodeProcess], model: Path
) -> None:
    cameras = {"cameras.camera.topic": "/epoch_image", "cameras.camera.max_age": 10.0}
    node = start_node("epoch", model=model, autostart=True, **cameras)
    node.wait_state("active")
    maps = node.output(Image, "instance_map")
    for offset, told in ((1e6, "in the future"), (-1e6, "of another clock"), (0.0, "fit the ROS clock again")):
        node.process(stamped(time.time() + offset), maps, "/epoch_image")
        if offset:
            # In the diagnostics of the frame; the next ones have nothing new.
            wait_for(lambda told=told: warned_of(node, told), f"a warning of stamps {told} in the diagnostics")
    wait_for(lambda: node.values()["stamps"] == "believed", "stamps that fit")
    node.wait_log("stamps: stamps lie")
    assert node.count("dropped_too_old") == 0


def test_a_bag_that_starts_again(start_node: Callable[..., NodeProcess], model: Path) -> None:
    cameras = {"cameras.camera.topic": "/looped_image", "cameras.camera.max_age": 0.5}
    node = start_node("looped", model=model, autostart=True, use_sim_time=True, **cameras)
    node.wait_state("active")
    maps, clock = node.output(Image, "instance_map"), node.publisher(Clock, "/clock")
    frames = node.publisher(topic="/looped_image")
    for turn in range(3):
        before = len(maps.messages)
        for tick in range(20):
            now = 1000.0 + 0.1 * tick
            clock.publish(Clock(clock=stamped(now).header.stamp))
            time.sleep(0.02)
            frames.publish(stamped(now - 0.05))
            time.sleep(0.03)
        # How many a busy machine drops is its own matter; where all count as too old there would be none.
        text = f"frames of turn {turn}; log:\n{node.log}"
        wait_for(lambda before=before: len(maps.messages) - before > 3, text)
    node.wait_log("the ROS clock went back by")


# Models


@pytest.fixture
def replaced(start_node: Callable[..., NodeProcess], model: Path, tmp_path: Path) -> NodeProcess:
    """A node whose model file is its own."""
    path = Path(shutil.copy(model, tmp_path / "model.onnx"))
    name = f"replaced_{abs(hash(str(tmp_path))) % 10**6}"
    node = start_node(name, model=path, autostart=True, **{"cameras.camera.topic": f"/{name}_image"})
    node.wait_state("active")
    return node


def test_a_model_file_is_replaced_under_the_node(replaced: NodeProcess, tmp_path: Path) -> None:
    node, path = replaced, tmp_path / "model.onnx"
    labels = node.output(LabelInfo, "label_info", latched=True)
    everything = {"person", "car", "stop sign", "traffic light"}
    # Written over in place, as a copy does it, and then by something that is no model at all.
    path.write_bytes(path.read_bytes()[:5000])
    assert labels_found(node) == everything
    answer = node.reload()
    assert not answer.success
    assert "goes on" in answer.message
    wait_for(lambda: node.status("model").level == DiagnosticStatus.WARN, "diagnostics of the failure")
    assert labels_found(node) == everything
    save_canonical_colour_model(path, names=["bus", "truck", "dog", "cat"])
    with Stream(node.publisher(), 0.02):
        answer = node.reload()
    assert answer.success, answer.message
    # The model that is in use is seen in the names of its classes, wherever they are told.
    assert labels_found(node) <= {"bus", "truck", "dog", "cat"}
    wait_for(lambda: labels.messages[-1].class_map[1].class_name == "bus", "labels of the new model")
    wait_for(lambda: node.status("model").level == DiagnosticStatus.OK, "diagnostics of the new model")
    assert node.log.count("activate: done") == 1


def test_another_model_is_named_and_loaded(replaced: NodeProcess, tmp_path: Path) -> None:
    other = save_canonical_colour_model(tmp_path / "other.onnx", names=["bus", "truck", "dog", "cat"])
    assert replaced.set(model=str(tmp_path / "absent.onnx"))[0].successful
    assert replaced.set(threads=1)[0].successful
    message = replaced.reload().message
    assert "absent.onnx" in message
    assert "model, threads" in message
    assert replaced.get("model") == str(tmp_path / "model.onnx"), "the parameters tell what runs"
    assert replaced.get("threads") == 0
    assert replaced.set(model=str(other))[0].successful
    assert "person" in labels_found(replaced), "until it is reloaded"
    assert replaced.reload().success
    assert "person" not in labels_found(replaced)
    assert replaced.change("deactivate")
    assert replaced.reload().success
    assert replaced.change("cleanup")
    assert "configure it instead" in replaced.reload().message


def test_frames_and_parameters_go_on_while_a_model_is_opened(
    start_node: Callable[..., NodeProcess], model: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, time\n"
        "import seg_perception.onboard.pipeline.opening as opening\n"
        "open_backend = opening.open_backend\n"
        "def slow(*arguments):\n"
        f"    time.sleep(1.2 if pathlib.Path({str(tmp_path / 'slow')!r}).exists() else 0)\n"
        "    return open_backend(*arguments)\n"
        "opening.open_backend = slow\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
        node = start_node("slowly", model=model, autostart=True, **{"cameras.camera.topic": "/slowly_image"})
    node.wait_state("active")
    maps = node.output(Image, "instance_map")
    node.process(image(), maps)
    (tmp_path / "slow").touch()
    answers: list[Any] = []
    with Stream(node.publisher(), 0.05):
        thread = threading.Thread(target=lambda: answers.append(node.reload()))
        thread.start()
        node.wait_log("opening model")
        before = len(maps.messages)
        assert node.set(score_threshold=0.3)[0].successful
        # How many come while the other model is opened is a matter of the machine.
        wait_for(lambda: len(maps.messages) > before + 3, "frames while a model is opened")
        assert not answers
        thread.join()
    assert answers[0].success
    assert node.get("score_threshold") == 0.3
    # The node may be cleaned up or ended meanwhile.
    thread = threading.Thread(target=lambda: answers.append(node.reload()))
    thread.start()
    wait_for(lambda: node.log.count("opening model") == 3, "second reload")
    assert node.change("deactivate")
    assert node.change("cleanup")
    thread.join()
    assert "cleaned up meanwhile" in answers[1].message
    (tmp_path / "slow").unlink()
    assert node.change("configure")
    (tmp_path / "slow").touch()
    node.client._clients[f"{node.name}/reload"].call_async(Trigger.Request())
    wait_for(lambda: node.log.count("opening model") == 5, "third reload")
    assert node.end(signal.SIGTERM) < END_SECONDS
    assert node.popen.returncode == 0
    wait_for(lambda: "slowly" not in node.client.node.get_node_names(), "the node gone", timeout=10)


# Others on the graph


def test_viewers_that_come_and_go(node: NodeProcess, client: Client) -> None:
    maps = node.output(Image, "front/instance_map")
    kinds = {
        "overlay": Image,
        "overlay/compressed": CompressedImage,
        "instance_map/color": Image,
        "semantic_map": Image,
    }
    threads = node.usage.num_threads()
    with Stream(node.publisher(Image, "/days_front"), 0.03):
        before = len(maps.messages)
        for turn in range(40):
            viewers = [
                client.subscription(kind, f"{node.name}/front/{name}", lambda _: None, 1 + turn % 3)
                for name, kind in kinds.items()
            ]
            time.sleep(0.02 * (turn % 4))
            for viewer in viewers:
                client.node.destroy_subscription(viewer)
        wait_for(lambda: len(maps.messages) > before + 20, "maps while viewers come and go")
    assert node.usage.num_threads() <= threads + 1
    assert node.state() == "active"
    assert "Traceback" not in node.log


def test_two_clients_set_parameters_at_once(node: NodeProcess, client: Client) -> None:
    """Each of the sets is one: whichever comes last, the values are those of one client."""
    names = ("score_threshold", "group_iou", "cameras.front.thresholds.vehicle")
    results: list[bool] = []

    def work(service: Any, first: float) -> None:
        for turn in range(25):
            values = [Parameter(name, value=first + turn / 100).to_parameter_msg() for name in names]
            future = service.call_async(SetParametersAtomically.Request(parameters=values))
            wait_for(future.done, "answer")
            results.append(future.result().result.successful)

    services = [
        client.node.create_client(SetParametersAtomically, f"{node.name}/set_parameters_atomically") for _ in range(2)
    ]
    for service in services:
        assert service.wait_for_service(5)
    for service in services:  # so that the node knows them, and no answer is lost
        ask(service, SetParametersAtomically.Request())
    with Stream(node.publisher(Image, "/days_front"), 0.03):
        threads = [threading.Thread(target=work, args=each) for each in zip(services, (0.1, 0.5), strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for service in services:
        client.node.destroy_client(service)
    assert results == [True] * 50
    assert len({node.get(name) for name in names}) == 1
    assert node.set_together(score_threshold=0.25, group_iou=0.7, cameras__front__thresholds__vehicle=-1.0).successful
    result = node.process(image(), node.output(Image, "front/instance_map"), "/days_front")
    assert_same_instances(pixels_of(result), street())


# The process


def test_a_node_that_was_killed_comes_back(start_node: Callable[..., NodeProcess], model: Path) -> None:
    """What it leaves in shared memory neither stops its successor nor costs it frames."""
    node = start_node("killed", model=model, autostart=True, **{"cameras.camera.topic": "/killed_image"})
    node.wait_state("active")
    with Stream(node.publisher(), 0.005):
        node.process(image(), node.output(Image, "instance_map"))
        node.end(signal.SIGKILL)
    node.stop()
    node = start_node("killed", model=model, autostart=True, **{"cameras.camera.topic": "/killed_image"})
    node.wait_state("active")
    for _ in range(10):
        node.process(image(), node.output(Image, "instance_map"))
    assert np.unique(pixels_of(node.output(Image, "instance_map").messages[-1])).size > 1
