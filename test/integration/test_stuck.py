"""A model that hangs or crashes: it is said, it can be ended, and it does not take the node along."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from integration.harness import END_SECONDS, NodeProcess, image_message, street, wait_for
from sensor_msgs.msg import Image

from seg_perception.onboard.ros import opening
from seg_perception.onboard.ros.session import Session
from seg_perception.onboard.ros.statistics import StageTimes

# What a file of that name makes the node do, in this process and in those that it starts.
PATCH = """
import os, pathlib, re, signal, threading, time
folder = pathlib.Path({folder!r})
def hang(name):
    while (folder / name).exists():
        time.sleep(0.05)
from seg_perception.onboard.backend.host import openvino
from seg_perception.onboard.pipeline import opening
run, close, open_backend = openvino.OpenVinoRunner.run, openvino.OpenVinoRunner.close, opening.open_backend
from seg_perception.onboard.backend.host.backend import HostBackend
start, busy, ours = HostBackend.start, set(), set()
def started(backend, *arguments):
    if threading.current_thread().name == "segmenter_worker":
        ours.update(map(id, backend._runners))
    return start(backend, *arguments)
def slow(runner, *arguments):
    hang("detect")
    if id(runner) in ours:
        busy.add(id(runner))
        hang("worker")
        busy.discard(id(runner))
    return run(runner, *arguments)
def closed(runner):
    if id(runner) in busy:
        (folder / "closed_at_work").touch()
    close(runner)
def opened(path, *arguments):
    if path.stem == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.stem == "native":
        (folder / "native_began").touch()
        re.match("(a+)+$", "a" * 60 + "b")  # for ever, and no other thread runs meanwhile
    hang("open")
    return open_backend(path, *arguments)
openvino.OpenVinoRunner.run, openvino.OpenVinoRunner.close = slow, closed
HostBackend.start, opening.open_backend = started, opened
from seg_perception.onboard.ros import outputs
publish_labels = outputs.Outputs.publish_labels
def labelled(*arguments):
    if (folder / "labels").exists():
        raise ValueError("no labels")
    publish_labels(*arguments)
outputs.Outputs.publish_labels = labelled
"""


@pytest.fixture
def patched(start_node: Callable[..., NodeProcess], tmp_path: Path, model: Path) -> Callable[..., NodeProcess]:
    """Starts a node in which a file in `tmp_path` makes something hang or fail."""
    (tmp_path / "sitecustomize.py").write_text(PATCH.format(folder=str(tmp_path)))

    def start(name: str, **parameters: object) -> NodeProcess:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
            given = {"model": str(model), "cameras.camera.topic": f"/{name}_image", **parameters}
            return start_node(name, **given)

    return start


def level(node: NodeProcess, part: str = "model") -> bytes:
    status = node.status(part)
    return bytes(status.level) if status else b""


def text(node: NodeProcess, part: str = "model") -> str:
    status = node.status(part)
    return str(status.message) if status else ""


def test_a_worker_that_is_stuck_is_said_and_waited_for_by_nobody(
    patched: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    node = patched("stuck", autostart=True)
    node.wait_state("active")
    results = node.output(Image, "instance_map")
    node.process(image_message(street().image, "rgb8"), results)
    (tmp_path / "detect").touch()
    publisher = node.publisher()
    publisher.publish(image_message(street().image, "rgb8"))

    def said() -> bool:
        publisher.publish(image_message(street().image, "rgb8"))
        time.sleep(0.05)
        return "stuck: running the model on frames of camera" in text(node)

    wait_for(said, "the model's status says that the worker is stuck")
    assert level(node) == DiagnosticStatus.ERROR
    assert "not served" in text(node, "camera camera")
    # It sends, and is not looked at.
    assert node.values()["no_frames_because"] == ""
    begin = time.monotonic()
    assert node.change("deactivate")
    assert time.monotonic() - begin < 10
    assert "does not end" in node.log
    # Two threads must not use one model.
    assert not node.change("activate")
    wait_for(lambda: "clean up and configure" in text(node), "why it cannot be activated")
    # A way out: the model is opened again. What hung before may then end at any time, without a trace.
    assert node.change("cleanup")
    before = len(results.messages)
    (tmp_path / "detect").unlink()
    assert node.change("configure")
    assert node.change("activate")
    assert len(results.messages) == before
    node.process(image_message(street().image, "rgb8"), results)
    assert node.end(signal.SIGTERM) < END_SECONDS


def test_a_reload_frees_a_node_whose_model_is_stuck(patched: Callable[..., NodeProcess], tmp_path: Path) -> None:
    node = patched("freed", autostart=True)
    node.wait_state("active")
    results = node.output(Image, "instance_map")
    node.process(image_message(street().image, "rgb8"), results)
    (tmp_path / "detect").touch()
    node.publisher().publish(image_message(street().image, "rgb8"))
    wait_for(lambda: "stuck" in text(node), "stuck")
    # The new model, opened for a trial too, would hang as well.
    (tmp_path / "detect").unlink()
    answer = node.reload()
    assert answer.success, answer.message
    node.process(image_message(street().image, "rgb8"), results)
    wait_for(lambda: level(node) == DiagnosticStatus.OK, f"the model is well again: {text(node)}")


def stick(node: NodeProcess, tmp_path: Path) -> None:
    """Have the worker hang in the model; others may run it."""
    (tmp_path / "worker").touch()
    node.publisher().publish(image_message(street().image, "rgb8"))
    wait_for(lambda: "stuck" in text(node), "stuck")


def test_a_model_that_is_stuck_is_not_closed_under_its_worker(
    patched: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    node = patched("at_work", autostart=True)
    node.wait_state("active")
    results = node.output(Image, "instance_map")
    node.process(image_message(street().image, "rgb8"), results)
    stick(node, tmp_path)
    assert node.change("deactivate")
    answer = node.reload()
    assert answer.success, answer.message
    assert not (tmp_path / "closed_at_work").exists()
    (tmp_path / "worker").unlink()
    assert node.change("activate")
    node.process(image_message(street().image, "rgb8"), results)
    assert node.end(signal.SIGTERM) < END_SECONDS


def test_a_stuck_model_that_ends_after_a_failed_reload_goes_on(
    patched: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    node = patched("resumes", autostart=True)
    node.wait_state("active")
    results = node.output(Image, "instance_map")
    node.process(image_message(street().image, "rgb8"), results)
    stick(node, tmp_path)
    (tmp_path / "labels").touch()
    assert not node.reload().success
    (tmp_path / "labels").unlink()
    assert "stuck" in text(node)
    (tmp_path / "worker").unlink()
    node.process(image_message(street().image, "rgb8"), results)
    wait_for(lambda: node.values().get("dropped_failure") == "1", "the frame that was given up is told")
    node.set(model="missing.onnx")
    assert not node.reload().success
    wait_for(lambda: "missing.onnx" in text(node) and "stuck" not in text(node), "nothing is stuck any more")


def test_a_model_that_is_stuck_no_more_is_told_so(patched: Callable[..., NodeProcess], tmp_path: Path) -> None:
    node = patched("recovers", autostart=True)
    node.wait_state("active")
    stick(node, tmp_path)
    assert node.change("deactivate")
    assert "stuck" in text(node)
    (tmp_path / "worker").unlink()
    wait_for(lambda: level(node) == DiagnosticStatus.OK, f"inactive, and no longer stuck: {text(node)}")
    assert node.change("activate")


def test_what_was_given_up_while_it_was_tried_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def hung(*_: object, running: Callable[[], bool], **__: object) -> None:
        while running():
            time.sleep(0.01)

    opened: list[object] = []
    monkeypatch.setattr(opening, "model_path", Path)
    monkeypatch.setattr(opening, "try_model", hung)
    monkeypatch.setattr(opening, "open_by_settings", lambda *arguments: opened.append(arguments))
    settings: Any = SimpleNamespace(open_timeout=60.0, model="hangs.onnx", backend="", run=None)
    attempt = opening.Opening(None, settings, trial=True)
    attempt.give_up()
    assert attempt.ended(10.0)
    assert not opened


TRIAL = """
import sys
from pathlib import Path
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.pipeline.trial import try_model
try_model(Path(sys.argv[1]), "", RunOptions(), limit=600)
"""


def test_a_trial_ends_with_its_node_whatever_it_is_at(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(PATCH.format(folder=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    node = psutil.Popen([sys.executable, "-c", TRIAL, str(tmp_path / "native.onnx")], env=environment)
    wait_for((tmp_path / "native_began").exists, "the trial hangs in native code", timeout=60.0)
    (trial,) = node.children()
    node.kill()
    node.wait()
    gone, _ = psutil.wait_procs([trial], timeout=20.0)
    assert gone


def is_of(process: psutil.Process, folder: Path) -> bool:
    """Whether a process was started, or forked, by the node of a test."""
    try:
        return str(folder) in process.environ().get("PYTHONPATH", "")
    except psutil.Error:
        return False


def test_a_reload_leaves_no_process_behind(patched: Callable[..., NodeProcess], tmp_path: Path) -> None:
    node = patched("alone", autostart=True)
    node.wait_state("active")
    answer = node.reload()
    assert answer.success, answer.message
    others = [each for each in psutil.process_iter() if is_of(each, tmp_path) and each.pid != node.popen.pid]
    _, left = psutil.wait_procs(others, timeout=5.0)
    assert not left


@pytest.mark.parametrize(("cameras", "seconds"), [(1, 2.0), (6, 9.0)])
def test_the_watchdog_allows_for_batches_of_several_cameras(cameras: int, seconds: float) -> None:
    stages = StageTimes()
    stages.add({"model": 0.2, "paint": 0.1})
    segmenter = SimpleNamespace(backend=SimpleNamespace(largest_batch=cameras), warm_up_seconds=0.1)
    session: Any = SimpleNamespace(stages=stages, _segmenter=segmenter)
    assert Session._stuck_seconds(session) == pytest.approx(seconds)


def test_a_configure_that_hangs_is_said_and_has_a_limit(patched: Callable[..., NodeProcess], tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    node = patched("hangs", open_timeout=8.0, autostart=True)
    wait_for(lambda: "configuring: the model is being opened" in text(node), "what the node is at")
    wait_for(lambda: "open_timeout" in text(node) and level(node) == DiagnosticStatus.ERROR, "that it is given up")
    wait_for(lambda: node.state() == "unconfigured", "the node answers again")
    (tmp_path / "open").unlink()
    node.set(open_timeout=60.0)
    assert node.change("configure") or node.state() == "inactive", node.log
    assert node.end(signal.SIGTERM) < END_SECONDS
    assert node.popen.returncode == 0


def test_a_signal_ends_a_configure_that_hangs(patched: Callable[..., NodeProcess], tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    node = patched("hanging", autostart=True)
    wait_for(lambda: "configuring" in text(node), "what the node is at")
    assert node.end(signal.SIGINT) < END_SECONDS
    assert node.popen.returncode == 0


def test_a_model_that_crashes_at_configure_is_survived_where_that_is_asked_for(
    patched: Callable[..., NodeProcess], tmp_path: Path, model: Path
) -> None:
    crash = tmp_path / "crash.onnx"
    crash.write_bytes(model.read_bytes())
    node = patched("tried", model=str(crash), trial="always")
    assert not node.change("configure")
    wait_for(lambda: "ended the process that opened it for a trial (SIGSEGV)" in text(node), "why")
    assert not node.set(trial="sometimes")[0].successful
    node.set(model=str(model))
    assert node.change("configure")


def test_a_model_that_crashes_or_hangs_does_not_take_an_active_node_along(
    patched: Callable[..., NodeProcess], tmp_path: Path, model: Path
) -> None:
    node = patched("crashes", autostart=True)
    node.wait_state("active")
    results = node.output(Image, "instance_map")
    node.process(image_message(street().image, "rgb8"), results)
    crash = tmp_path / "crash.onnx"
    crash.write_bytes(model.read_bytes())
    node.set(model=str(crash))
    answer = node.reload()
    assert not answer.success
    assert "SIGSEGV" in answer.message
    assert "goes on" in answer.message
    assert node.get("model") == str(model)
    (tmp_path / "open").touch()
    node.set(open_timeout=3.0)
    answer = node.reload()
    assert not answer.success
    assert "given up" in answer.message
    (tmp_path / "open").unlink()
    node.set(open_timeout=600.0)
    node.process(image_message(street().image, "rgb8"), results)
    assert node.reload().success
    node.process(image_message(street().image, "rgb8"), results)


def test_a_reload_that_fails_at_the_last_moment_changes_nothing(
    patched: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    node = patched("undone", autostart=True)
    node.wait_state("active")
    results = node.output(Image, "instance_map")
    node.process(image_message(street().image, "rgb8"), results)
    (tmp_path / "labels").touch()
    answer = node.reload()
    assert not answer.success
    assert "no labels" in answer.message
    (tmp_path / "labels").unlink()
    assert node.state() == "active"
    node.process(image_message(street().image, "rgb8"), results)
