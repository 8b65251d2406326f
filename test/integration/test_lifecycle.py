"""The states of the node, through its services, and the ways in which it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from integration.harness import END_SECONDS, Client, NodeProcess, image_message, street, wait_for
from sensor_msgs.msg import Image

from seg_perception.onboard.ros.autostart import BackOff
from seg_perception.onboard.ros.node import SegmenterNode

# 500 take four minutes: LIFECYCLE_CYCLES=500.
CYCLES = int(os.environ.get("LIFECYCLE_CYCLES", "36"))


def topics_of(node: NodeProcess) -> set[str]:
    # Known by its services a moment earlier than by its name.
    wait_for(lambda: node.name[1:] in node.client.node.get_node_names(), f"node {node.name}")
    names = node.client.node.get_publisher_names_and_types_by_node(node.name[1:], "/")
    names += node.client.node.get_subscriber_names_and_types_by_node(node.name[1:], "/")
    return {name for name, _ in names}


def test_the_whole_life(start_node: Callable[..., NodeProcess], model: Path) -> None:
    node = start_node("life", model=model, **{"cameras.camera.topic": "/life_image"})
    assert node.state() == "unconfigured"
    wait_for(lambda: node.status("model"), "diagnostics while unconfigured")
    assert node.status("model").level == DiagnosticStatus.STALE
    unconfigured = {"/diagnostics", "/rosout", "/parameter_events", "/life/transition_event"}
    wait_for(lambda: topics_of(node) == unconfigured, "the topics of a new node")

    assert node.change("configure")
    assert node.state() == "inactive"
    wait_for(lambda: "/life/instance_map" in topics_of(node), "output topics")
    assert "/life_image" not in topics_of(node)
    wait_for(lambda: node.values("model").get("family"), "identity of the model")

    assert node.change("activate")
    assert node.state() == "active"
    status = wait_for(
        lambda: (found := node.status("camera camera")) and "waiting for" in found.message and found, "camera status"
    )
    assert status.level == DiagnosticStatus.WARN
    assert "/life_image" in status.message
    node.process(image_message(street().image, "rgb8"), node.output(Image, "instance_map"))

    assert node.change("deactivate")
    wait_for(lambda: "/life_image" not in topics_of(node), "no subscription")
    assert node.change("activate")
    node.process(image_message(street().image, "rgb8"), node.output(Image, "instance_map"))
    assert node.change("deactivate")
    assert node.change("cleanup")
    assert node.state() == "unconfigured"
    wait_for(lambda: topics_of(node) == unconfigured, "the topics of an unconfigured node")
    assert not node.change("activate")
    assert node.state() == "unconfigured"

    assert node.change("configure")
    assert node.change("activate")
    assert node.change("shutdown_active")
    assert node.state() == "finalized"
    assert_ends(node, signal.SIGINT)


@pytest.mark.parametrize("count", [12, pytest.param(CYCLES, marks=[pytest.mark.long, pytest.mark.alone])])
def test_cycles_leave_nothing_behind(start_node: Callable[..., NodeProcess], model: Path, count: int) -> None:
    # Each worker is a thread, and glibc has some arenas more for threads, which fill in the course of 200 cycles.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MALLOC_ARENA_MAX", "1")
        node = start_node("cycles", model=model, **{"cameras.camera.topic": "/cycles_image"})
    frame = image_message(street().image, "rgb8")
    # Endpoints are discovered one by one.
    first = {"/diagnostics", "/rosout", "/parameter_events", "/cycles/transition_event"}
    wait_for(lambda: first <= topics_of(node), "the topics of a new node")
    used = []
    for cycle in range(count):
        assert node.change("configure")
        assert node.change("activate")
        if cycle % 10 == 0:
            node.process(frame := image_message(street().image, "rgb8"), node.output(Image, "instance_map"))
            node.forget("instance_map")
        assert node.change("deactivate")
        assert node.change("cleanup")
        used.append((node.usage.num_threads(), node.usage.memory_info().rss, node.usage.num_fds()))
    assert frame is not None
    wait_for(lambda: topics_of(node) == first, "the topics of an unconfigured node")
    # The allocator's ups and downs are some megabytes; what is left behind shows in the lowest values.
    middle, last = (
        [min(values) for values in zip(*part, strict=True)]
        for part in (used[count // 3 : 2 * count // 3], used[2 * count // 3 :])
    )
    threads, resident, files = (after - earlier for after, earlier in zip(last, middle, strict=True))
    assert threads <= 0
    # Memory settles in the course of many cycles.
    assert count < CYCLES or resident < 4 * 2**20
    assert files <= 0


def bad_models(folder: Path, model: Path) -> dict[str, tuple[Path, str]]:
    from colour_model import save_colour_model

    (folder / "text.onnx").write_text("this is no model")
    (folder / "short.onnx").write_bytes(model.read_bytes()[:5000])
    save_colour_model(folder / "raw.onnx")
    return {
        "missing": (folder / "absent.onnx", "absent.onnx"),
        "truncated": (folder / "short.onnx", "short.onnx"),
        "not ONNX": (folder / "text.onnx", "text.onnx"),
        "not canonical": (folder / "raw.onnx", "seg_perception prepare"),
        "unknown suffix": (folder / "model.tar", "model.tar"),
    }


def test_without_a_model_it_takes_the_one_to_start_with(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node("default", **{"cameras.camera.topic": "/default_image"})
    assert node.change("configure")
    node.wait_log("street-nano.onnx comes with the package")
    wait_for(lambda: node.values("model").get("family") == "street-nano", "diagnostics of the model")


def test_a_model_by_name_is_the_fetched_one_and_the_node_never_fetches(
    start_node: Callable[..., NodeProcess], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEG_PERCEPTION_HOME", str(tmp_path))
    node = start_node("named", model="rfdetr-seg-nano", **{"cameras.camera.topic": "/named_image"})
    assert not node.change("configure")
    node.wait_log("seg_perception fetch rfdetr-seg-nano")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "models").mkdir()
    shutil.copy(model, tmp_path / "models" / "rfdetr-seg-nano.onnx")
    assert node.change("configure")
    assert node.change("activate")
    node.process(image_message(street().image, "rgb8"), node.output(Image, "instance_map"))


def test_a_model_that_cannot_be_used_is_refused_and_another_one_works(
    start_node: Callable[..., NodeProcess], model: Path, tmp_path: Path
) -> None:
    node = start_node("refuses", **{"cameras.camera.topic": "/refuses_image", "model": "''"})
    assert not node.change("configure")
    node.wait_log("model: expected the path of a canonical model, got nothing")
    for case, (path, text) in bad_models(tmp_path, model).items():
        assert node.set(model=str(path))[0].successful, case
        already = len(node.log)
        assert not node.change("configure"), case
        assert node.state() == "unconfigured"
        wait_for(lambda start=already, text=text: text in node.log[start:], f"{case}: {text}")
        wait_for(
            lambda: (found := node.status("model")) and found.level == DiagnosticStatus.ERROR,
            "diagnostics of the failure",
        )
    good = shutil.copy(model, tmp_path / "good.onnx")
    assert node.set(model=str(good))[0].successful
    assert node.set(classes="no_such_table")[0].successful
    assert not node.change("configure")
    assert node.set(classes="auto")[0].successful
    assert node.set(cameras__camera__ignore_mask=str(tmp_path / "absent.png"))[0].successful
    assert not node.change("configure")
    node.wait_log("ignore mask:")
    assert node.set(cameras__camera__ignore_mask="")[0].successful
    assert node.change("configure")
    assert node.change("activate")
    node.process(image_message(street().image, "rgb8"), node.output(Image, "instance_map"))


def start_broken(
    start_node: Callable[..., NodeProcess], folder: Path, name: str, error: str, **parameters: object
) -> NodeProcess:
    """A node whose overlay drawing is broken on purpose."""
    (folder / "sitecustomize.py").write_text(
        "import seg_perception.onboard.pipeline.overlay as overlay\n"
        "from seg_perception.core.errors import FrameError\n"
        f"def broken(*arguments):\n    raise {error}\n"
        "overlay.draw_overlay = broken\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{folder}:{Path(__file__).parents[2]}")
        return start_node(name, **{"cameras.camera.topic": f"/{name}_image"}, **parameters)


def publish_until(node: NodeProcess, text: str) -> None:
    publisher = node.publisher()

    def logged() -> bool:
        publisher.publish(image_message(street().image, "rgb8"))
        return text in node.log

    wait_for(logged, f"{text!r} in the log; log:\n{node.log}")


@pytest.mark.parametrize("autostart", [False, True])
def test_an_unexpected_error_leads_through_error_processing(
    start_node: Callable[..., NodeProcess], model: Path, tmp_path: Path, autostart: bool
) -> None:
    """The worker hits something that is nobody's frame; with autostart the node starts again by itself."""
    name = f"breaks_{'again' if autostart else 'once'}"
    node = start_broken(
        start_node, tmp_path, name, "RuntimeError('broken on purpose')", model=model, autostart=autostart
    )
    if not autostart:
        assert node.change("configure")
        assert node.change("activate")
    node.wait_state("active")
    node.process(image_message(street().image, "rgb8"), node.output(Image, "instance_map"))
    node.output(Image, "overlay")
    publish_until(node, "RuntimeError: broken on purpose")
    wait_for(
        lambda: (found := node.status("model")) and "broken on purpose" in found.message, "diagnostics of the failure"
    )
    assert "Traceback" in node.log
    if autostart:
        node.wait_log("autostart: configures and activates again in 1 s")
        node.wait_state("active")
        publish_until(node, "autostart: configures and activates again in 2 s")
        node.forget("overlay")
    else:
        node.wait_state("unconfigured")
        node.forget("overlay")
        assert node.change("configure")
        assert node.change("activate")
    node.wait_state("active")
    assert node.popen.poll() is None
    node.process(image_message(street().image, "rgb8"), node.output(Image, "instance_map"))


def test_a_image_that_cannot_be_made_costs_nothing_else(
    start_node: Callable[..., NodeProcess], model: Path, tmp_path: Path
) -> None:
    error = "FrameError('compressed', 'no such image')"
    node = start_broken(start_node, tmp_path, "imageless", error, model=model, autostart=True)
    node.wait_state("active")
    node.output(Image, "overlay")
    publish_until(node, "no such image")
    node.process(image_message(street().image, "rgb8"), node.output(Image, "instance_map"))
    assert node.state() == "active"
    wait_for(lambda: node.count("processed"), "processed frames")
    assert node.count("dropped_compressed") == 0


def test_the_delay_of_autostart_doubles_and_begins_anew_after_a_good_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5.0
    monkeypatch.setattr("seg_perception.onboard.ros.autostart.monotonic", lambda: now)
    back_off = BackOff()
    assert [back_off.next() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    now += 45
    assert back_off.next() == 30
    now += 600
    assert [back_off.next() for _ in range(2)] == [1, 2]


def test_transitions_that_the_state_does_not_have_end_nothing(client: Client) -> None:
    node = SegmenterNode()
    try:
        node.trigger_shutdown()
        node._bring_up()
        # As if a lifecycle manager were quicker: the state machine has moved on and says no.
        node._phase = "unconfigured"
        node._bring_up()
        node._phase, node._failure = "active", "broken"
        node._process_failure()
    finally:
        node.destroy_node()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("slow", [0, 8])
def test_a_signal_ends_the_process_while_it_works(
    start_node: Callable[..., NodeProcess], model: Path, tmp_path: Path, number: signal.Signals, slow: float
) -> None:
    """Six cameras, a viewer, and a model that takes as long as it likes for a frame."""
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, time\n"
        "from seg_perception.onboard.backend.host.openvino import OpenVinoRunner\n"
        "run = OpenVinoRunner.run\n"
        "def slow(*arguments):\n"
        f"    time.sleep({slow} if pathlib.Path({str(tmp_path / 'slow')!r}).exists() else 0)\n"
        "    return run(*arguments)\n"
        "OpenVinoRunner.run = slow\n"
    )
    name, cameras = f"ends_{number.name.lower()}_{slow}", list("abcdef")
    topics = {f"cameras.{camera}.topic": f"/{name}_{camera}" for camera in cameras}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
        node = start_node(name, model=model, autostart=True, camera_names=cameras, **topics)
    node.wait_state("active")
    node.output(Image, "a/overlay")
    publishers = [node.publisher(topic=topic) for topic in topics.values()]
    frame = image_message(np.zeros((480, 640, 3), np.uint8))
    (tmp_path / "slow").touch()
    for _ in range(20):
        for publisher in publishers:
            publisher.publish(frame)
        time.sleep(0.02)
    assert_ends(node, number)


def assert_ends(node: NodeProcess, number: int) -> None:
    """In time, in order, and so that others see it at once, and not when they have not heard of it for long."""
    assert node.end(number) < END_SECONDS
    assert node.popen.returncode == 0, node.log
    assert "Traceback" not in node.log
    wait_for(lambda: node.name[1:] not in node.client.node.get_node_names(), "the node gone", timeout=10)


def test_errors_of_a_callback_under_a_shutdown_are_no_news(
    start_node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    """A callback fails because a signal has just shut the context down under it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import rclpy\n"
        "from seg_perception.onboard.ros.diagnostics import Diagnostics\n"
        "def broken(self):\n    rclpy.shutdown()\n    raise RuntimeError('no context')\n"
        "Diagnostics.publish = broken\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
        node = start_node("shut_down")
    assert node.popen.wait(20) == 0
    assert "no context" not in node.log


def test_a_signal_ends_the_process_while_it_starts(start_node: Callable[..., NodeProcess], model: Path) -> None:
    node = start_node("early", model=model, autostart=True)
    node.wait_log("opening model")
    assert_ends(node, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_while_a_model_takes_long_to_open(
    start_node: Callable[..., NodeProcess], model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "import seg_perception.onboard.pipeline.opening as opening\n"
        "def slow(*arguments):\n"
        "    time.sleep(8)\n"
        "opening.open_backend = slow\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
        node = start_node("long", model=model, autostart=True)
    node.wait_log("opening model")
    assert_ends(node, number)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-p", "score_threshold:=7.0"], "score_threshold"),
        (["-p", "diagnostics_period:=often"], "diagnostics_period"),
        (["-p", "cameras.camera.max_age:=1"], "cameras.camera.max_age"),
        (["-p", "model:="], "model:="),
        (["--params-file", "/nonexistent.yaml"], "/nonexistent.yaml"),
        (["--no-such-argument"], "--no-such-argument"),
    ],
)
def test_start_values_that_cannot_be_are_told(arguments: list[str], told: str) -> None:
    command = [sys.executable, "-m", "seg_perception.onboard.ros.main", "--ros-args", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert any(line.startswith("segmenter: ") and told in line for line in ended.stderr.splitlines())
    assert "Traceback" not in ended.stderr


def test_help_needs_no_ros() -> None:
    script = (
        "import sys\n"
        "sys.modules['rclpy'] = sys.modules['vision_msgs'] = None\n"
        "from seg_perception.onboard.ros.main import main\n"
        "assert main(['--help']) == 0\n"
        "assert main(['--ros-args']) == 2\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0, ended.stderr
    assert "score_threshold" in ended.stdout
    assert "source the ROS installation" in ended.stderr
