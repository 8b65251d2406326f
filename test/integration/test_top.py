"""`seg_perception top` next to the real node."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import psutil
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from integration.harness import Client, NodeProcess, image_message, street, wait_for
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from seg_perception.core.text import is_printable
from seg_perception.onboard.monitor.nodes import MOST_NODES

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\nforged  OK  active"
TOP = [sys.executable, "-m", "seg_perception.cli", "top"]


@pytest.fixture(scope="module")
def node(start_node: Callable[..., NodeProcess], model: Path) -> NodeProcess:
    topics = {"cameras.front.topic": "/top/front", "cameras.rear.topic": "/top/rear"}
    node = start_node("watched", model=model, autostart=True, camera_names=["front", "rear"], **topics)
    node.wait_state("active")
    frame = image_message(np.ascontiguousarray(street().image[..., ::-1]))
    node.process(frame, node.output(Image, "front/instance_map"), "/top/front")
    node.lose(image_message(np.zeros((8, 8), np.uint8), "plaid"), "encoding", "/top/front", "camera front")
    return node


class Terminal:
    """A terminal of 100 columns with `top` on it."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
        self.popen = subprocess.Popen(
            [*TOP, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, preexec_fn=_own_terminal
        )
        os.close(theirs)
        self._text = b""
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        return self._text.decode(errors="replace")

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._reader.join()
        os.close(self._ours)

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 65536):
                self._text += data
        except OSError:
            return  # the other side was closed


def _own_terminal() -> None:
    """Let Ctrl-C of the terminal reach the process."""
    os.setsid()
    os.close(os.open(os.ttyname(0), os.O_RDWR))


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def once(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TOP, "--once", *arguments], capture_output=True, text=True, timeout=60)


def probe_of(popen: Any) -> psutil.Process:
    return wait_for(lambda: psutil.Process(popen.pid).children(), "a probe")[0]


def test_once_in_json(node: NodeProcess) -> None:
    done = once("--json", "watched")
    assert (done.returncode, done.stderr) == (0, "")
    (told,) = json.loads(done.stdout)["nodes"]
    assert (told["name"], told["state"], told["level"]) == ("watched", "active", "OK")
    assert told["model"]["model"] == node.values("model")["model"]
    assert told["stages_ms"]["model"] > 0
    front, rear = told["cameras"]
    assert (front["name"], front["topic"], rear["name"]) == ("front", "/top/front", "rear")
    assert front["processed"] >= 1
    assert front["latency_ms"]["p50"] > 0
    assert front["dropped"]["encoding"] == node.count("dropped_encoding", "camera front")
    assert (rear["received"], rear["level"]) == (0, "WARN")


def test_once_as_a_table(node: NodeProcess) -> None:
    done = once()
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "/watched  OK  active" in done.stdout
    assert "no frame yet" in " ".join(done.stdout.split())
    if "pid" in node.values("model"):
        assert "% of one core" in done.stdout


@pytest.fixture
def stranger(client: Client) -> Iterator[None]:
    """Somebody whose diagnostics are meant to do harm: as `evil`, and under names that no node can have."""
    publisher = client.publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
    texts = [KeyValue(key=key, value=EVIL) for key in ("model", "family", "device", EVIL, f"{EVIL}_ms")]
    numbers = [KeyValue(key=key, value="9" * 5000) for key in ("dropped_x", "received", "pid", "received_hz")]
    values = [KeyValue(key="state", value="active"), KeyValue(key="host", value=socket.gethostname()), *texts, *numbers]
    many = [KeyValue(key=f"key{number}", value="x" * 5000) for number in range(600)]
    statuses = [
        DiagnosticStatus(name="evil: model", message=EVIL, values=values),
        DiagnosticStatus(name=f"evil: camera {EVIL}", message=EVIL, values=numbers),
        DiagnosticStatus(name=f"{EVIL}: model", message=EVIL, values=values),
        DiagnosticStatus(name="large: model", values=[*values, *many]),
        *(DiagnosticStatus(name=f"flood{number}: model", values=values) for number in range(100)),
    ]
    ended = Event()

    def publish() -> None:
        while not ended.wait(0.1):
            publisher.publish(DiagnosticArray(status=statuses))

    thread = Thread(target=publish)
    thread.start()
    yield
    ended.set()
    thread.join()
    client.node.destroy_publisher(publisher)


def test_a_stranger_forges_nothing(stranger: None) -> None:
    done = once("evil", "large", "flood7", "--timeout", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(is_printable(line) for line in done.stdout.splitlines())
    assert not any(line.startswith("forged") for line in done.stdout.splitlines())
    assert {"/evil", "/large", "/flood7"} <= set(done.stdout.split())
    assert "were passed over" in done.stdout
    assert len(done.stdout) < 20_000

    def told_of_the_flood() -> bool:
        told = json.loads(once("--json", "--timeout", "20").stdout)
        assert len(told["nodes"]) <= MOST_NODES
        return bool(told["passed_over"] > 0)

    # A table that is made before more nodes than it shows have spoken passes nobody over.
    wait_for(told_of_the_flood, "a table that says what it passed over")


def test_nobody_speaks(node: NodeProcess) -> None:
    done = once("nobody", "--timeout", "2")
    assert (done.returncode, done.stdout) == (1, "")
    for hint in ("of nobody within 2 s", "publish", "ROS_DOMAIN_ID", "LOCALHOST", "ros2 node list"):
        assert hint in done.stderr


def test_a_terminal_is_redrawn_and_ctrl_c_ends_it(
    start_node: Callable[..., NodeProcess], terminal: Callable[..., Terminal]
) -> None:
    node = start_node("leaving")
    top = terminal("leaving", "--interval", "0.2")
    wait_for(lambda: "unconfigured" in top.text, "a table of a node that is not configured")
    probe = probe_of(top.popen)
    node.end(signal.SIGKILL)
    wait_for(lambda: "nothing came for" in top.text, f"a stale node; {top.text}")
    assert top.text.count("\x1b[2J") == 1
    assert top.text.count("\x1b[H") > 5
    top.press(b"\x03")
    assert top.popen.wait(10) == 130
    assert "Traceback" not in top.text
    wait_for(lambda: not probe.is_running(), "the end of the probe")


def test_a_pipe_gets_one_table_after_the_other(node: NodeProcess) -> None:
    with subprocess.Popen([*TOP, "--interval", "0.2"], stdout=subprocess.PIPE, text=True) as top:
        lines = iter(top.stdout or ())
        tables = 0
        for line in lines:
            assert "\x1b" not in line
            tables += line.startswith("seg_perception top")
            if tables == 3:
                break
        probe = probe_of(top)
        # Killed, it cannot tidy up; what it started ends all the same.
        top.kill()
        wait_for(lambda: not probe.is_running(), "the end of the probe")
