"""What `seg_perception top` makes of diagnostics and of the machine; the rest is tested against a real node."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from seg_perception.core.errors import BackendUnavailable
from seg_perception.core.text import is_printable
from seg_perception.onboard.monitor.load import GpuLoad, HostLoad, ProcessLoad, from_nvidia_smi, from_tegrastats
from seg_perception.onboard.monitor.nodes import MOST_CAMERAS, MOST_NODES, Nodes
from seg_perception.onboard.monitor.probe import ask
from seg_perception.onboard.monitor.table import Screen, table

MODEL = {
    "state": "active",
    "model": "/models/road.onnx",
    "sha256": "0123456789abcdef",
    "backend": "openvino 2026.4.1-22982-e213a147257",
    "model_ms": "12.30",
    "paint_ms": "nan",
}
CAMERA = {
    "topic": "/front/image_raw",
    "received": "100",
    "processed": "90",
    "received_hz": "10.00",
    "processed_hz": "nan",
    "dropped_superseded": "8",
    "dropped_lost": "0",
    "dropped_encoding": "2",
    "latency_p50_ms": "41.0",
    "latency_p95_ms": "50.0",
    "latency_p99_ms": "nan",
}


def status(name: str, values: dict[str, str], level: int = 0, message: str = "receiving") -> dict[str, Any]:
    return {"name": name, "level": level, "message": message, "values": values}


def heard(*cameras: dict[str, Any], name: str = "segmenter", wanted: tuple[str, ...] = ()) -> Nodes:
    nodes = Nodes(wanted)
    nodes.hear([status(f"{name}: model", MODEL, message="active"), *cameras], 100.0)
    return nodes


def lines(
    nodes: Nodes, columns: int = 120, now: float = 100.5, load: ProcessLoad | None = None, **screen: Any
) -> list[str]:
    loads = {"segmenter": load} if load else {}
    machine = {"cpu_percent": 43.2, "cpus": 8, "gpu_percent": 61.0}
    return table(nodes, machine, loads, Screen(columns, **screen), now, "12:00:00")


def test_a_table() -> None:
    nodes = heard(
        status("segmenter: camera front", CAMERA),
        status("segmenter: camera rear", {}, level=1, message="no frame yet; waiting for /rear/image_raw"),
        status("another driver: status", {}),
    )
    text = "\n".join(lines(nodes, load=ProcessLoad(143.0, 412.0)))
    assert text.splitlines()[0] == "seg_perception top  12:00:00  this machine: CPU 43 % of 8, GPU 61 %"
    for expected in (
        "/segmenter OK active",
        "road.onnx, openvino 2026.4.1, sha256 0123456789ab",
        "p50 ms: model 12.3",
        "CPU 143 % of one core, 412 MiB",
        "front OK 10.0 - 41.0 50.0 - 100 90 superseded 8, encoding 2",
        "no frame yet; waiting for /rear/image_raw",
    ):
        assert expected in " ".join(text.split())
    assert "another" not in text


def test_a_silent_node_is_stale_by_its_own_period() -> None:
    nodes = heard(status("segmenter: camera front", CAMERA))
    (node,) = nodes
    assert [node.silence(100 + seconds) > 0 for seconds in (1.0, 4.0, 6.0)] == [False, False, True]
    for message in (110.0, 120.0):
        nodes.hear([status("segmenter: model", MODEL)], message)
    assert [node.silence(120 + seconds) > 0 for seconds in (20.0, 26.0)] == [False, True]
    stale = lines(heard(status("segmenter: camera front", CAMERA)), now=140.0)
    assert "/segmenter  STALE  nothing came for 40.0 s; its last words:" in stale
    assert any(line.split()[:2] == ["front", "STALE"] for line in stale)
    assert node.as_json(160.0)["level"] == "STALE"


def test_several_nodes_and_the_choice_among_them() -> None:
    nodes = Nodes()
    for name in ("right/segmenter", "left/segmenter"):
        nodes.hear([status(f"{name}: model", MODEL), status(f"{name}: camera camera", CAMERA)], 100.0)
    assert [node.name for node in nodes] == ["left/segmenter", "right/segmenter"]
    assert [len(node.cameras) for node in nodes] == [1, 1]
    chosen = {wanted: len(heard(name="left/segmenter", wanted=(wanted,))) for wanted in
              ("segmenter", "/left/segmenter", "right/segmenter", "menter")}  # fmt: skip
    assert chosen == {"segmenter": 1, "/left/segmenter": 1, "right/segmenter": 0, "menter": 0}


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_table_fits_the_terminal(columns: int) -> None:
    many = {**CAMERA, **{f"dropped_cause_{number}": str(10**number) for number in range(8)}}
    nodes = heard(
        status("segmenter: camera front", many),
        status("segmenter: camera rear", CAMERA, level=2, message="every frame is older than max_age " * 9),
    )
    plain = lines(nodes, columns)
    assert max(map(len, plain)) <= columns
    assert "cause_7 10000000" in " ".join(" ".join(plain).split())
    coloured = lines(nodes, columns, colour=True)
    assert any("\x1b[31;1mERROR\x1b[0m" in line for line in coloured)
    short = lines(nodes, columns, rows=5)
    assert len(short) == 5
    assert "more lines" in short[-1]


def test_json_has_numbers_and_null() -> None:
    (node,) = heard(status("segmenter: camera front", CAMERA))
    told = node.as_json(100.5)
    assert told["stages_ms"] == {"model": 12.3}
    assert told["model"] == {key: value for key, value in MODEL.items() if not key.endswith("_ms")}
    (camera,) = told["cameras"]
    assert camera["latency_ms"] == {"p50": 41.0, "p95": 50.0, "p99": None}
    assert (camera["received"], camera["publishers"], camera["processed_hz"]) == (100, None, None)
    assert camera["dropped"] == {"superseded": 8, "encoding": 2}


def test_the_load_of_processes_of_this_machine_alone() -> None:
    host = HostLoad()
    with subprocess.Popen([sys.executable, "-c", "while True: pass", "segmenter"]) as busy:
        here = {"pid": str(busy.pid), "host": socket.gethostname()}
        first = wait_for(lambda: host.process(here), "a command line")
        assert first.cpu is None
        wait_for(lambda: (load := host.process(here)) and load.cpu and load.memory > 1, "load of a busy process")
        busy.kill()
    others = [{**here, "pid": pid} for pid in ("x", "1", "9" * 30)]
    for elsewhere in ({}, {**here, "host": "another"}, *others, here):
        assert host.process(elsewhere) is None


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within 20 s: {what}")


def test_the_load_of_the_machine() -> None:
    host = HostLoad()
    assert host.cpu() is None
    load = host.cpu()
    assert load is not None
    assert 0 <= load <= 100


def test_a_number_that_comes_again_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    host, here = HostLoad(), {"pid": str(os.getpid()), "host": socket.gethostname()}
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _: ["/opt/seg_perception/segmenter"])
    assert host.process(here) == ProcessLoad(None, pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.5))
    again = host.process(here)
    assert again is not None
    assert again.cpu is not None
    monkeypatch.setattr(psutil.Process, "is_running", lambda _: False)
    other = host.process(here)
    assert other is not None
    assert other.cpu is None


def test_the_gpu_s_load(tmp_path: Path) -> None:
    assert from_nvidia_smi("37, 2048, 16384\n11, 1, 2\n") == {
        "gpu_percent": 37.0, "gpu_memory_mib": 2048.0, "gpu_memory_total_mib": 16384.0
    }  # fmt: skip
    assert from_nvidia_smi("[N/A], [N/A], [N/A]\n") == from_nvidia_smi("no devices were found") == {}
    # A Jetson, whose nvidia-smi knows nothing, and whose tegrastats never ends.
    for name, text in (
        ("nvidia-smi", "echo '[N/A], [N/A], [N/A]'"),
        ("tegrastats", "echo 'GR3D_FREQ 45%'; exec sleep 60"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    jetson = GpuLoad(str(tmp_path))
    assert jetson.ask() == {"gpu_percent": 45.0}
    jetson.close()
    nothing = GpuLoad(str(tmp_path / "empty"))
    assert nothing.ask() == nothing.latest == {}
    assert from_tegrastats("RAM 1/2MB") == {}


# What strangers publish

ESCAPES = "\x1b]0;OWNED\x07\x1b[2J\x9b31m all OK \ud800\nforged"


def test_nothing_of_a_stranger_reaches_the_terminal_as_it_is() -> None:
    values = {**CAMERA, f"dropped_{ESCAPES}": "3", f"{ESCAPES}_ms": "1.0"}
    model = {**MODEL, "model": ESCAPES, "family": ESCAPES, "device": ESCAPES, "sha256": ESCAPES, f"{ESCAPES}_ms": "2"}
    nodes = Nodes()
    statuses = [
        status("segmenter: model", model, message=ESCAPES),
        status(f"segmenter: camera {ESCAPES}", values, level=7, message=ESCAPES),
    ]
    nodes.hear(statuses, 100.0)
    for columns in (40, 120):
        for now in (100.5, 500.0):
            shown = lines(nodes, columns, now=now)
            assert all(is_printable(line) and len(line) <= columns for line in shown)
    assert "\\x1b]0;OWNED\\x07" in " ".join(lines(nodes))


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 4000, "\u0663" * 30, "1e308", "-1e308", "inf", "0x10", "1 0", ""])
def test_numbers_without_end_are_no_numbers(digits: str) -> None:
    values = dict.fromkeys(CAMERA, digits)
    nodes = Nodes()
    model = {**MODEL, "model_ms": digits, "pid": digits, "host": socket.gethostname()}
    nodes.hear([status("segmenter: model", model), status("segmenter: camera front", values)], 100.0)
    assert all(len(line) <= 120 for line in lines(nodes))
    (node,) = nodes
    (camera,) = node.as_json(100.5)["cameras"]
    assert (camera["received"], camera["dropped"]) == (None, {})
    assert HostLoad().process(node.values) is None


@pytest.mark.parametrize("name", ["", " " * 300, "n" * 256, "evil\x1b[2J", "a\nb", "a b", "\u043d\u043e\u0434\u0430"])
def test_a_name_that_no_node_can_have_is_counted_and_not_shown(name: str) -> None:
    nodes = heard()
    nodes.hear([status(f"{name}: model", MODEL)], 100.0)
    assert [node.name for node in nodes] == ["segmenter"]
    assert nodes.passed_over == 1
    assert "1 statuses, cameras and values on /diagnostics were passed over" in " ".join(lines(nodes))


def test_names_without_end_take_no_memory_without_end() -> None:
    nodes = heard()
    for number in range(2000):
        nodes.hear([status(f"flood{number}: model", MODEL)], 101.0)
    assert len(nodes) == MOST_NODES
    assert nodes.passed_over == 2001 - MOST_NODES
    assert any("/segmenter  OK" in line for line in lines(nodes))
    # Once they are silent, others get their places.
    nodes.hear([status("segmenter: model", MODEL)], 200.0)
    nodes.hear([status("another: model", MODEL)], 201.0)
    assert {"segmenter", "another"} < {node.name for node in nodes}
    assert len(nodes) == MOST_NODES


def test_cameras_without_end_are_cut_and_counted() -> None:
    cameras = [status(f"segmenter: camera c{number}", CAMERA) for number in range(MOST_CAMERAS + 7)]
    nodes = heard(*cameras)
    (node,) = nodes
    assert (len(node.cameras), nodes.passed_over) == (MOST_CAMERAS, 7)


def test_what_a_library_prints_between_is_no_word_of_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "print('{not json'); print('[1]'); print('[' * 100000); print('{' * 9); print('{\"a\": 1}')\n"
    monkeypatch.setattr("seg_perception.onboard.monitor.probe._CODE", code)
    assert ask([], 0.0) == {"a": 1}


def test_the_last_words_of_a_probe_are_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seg_perception.onboard.monitor.probe._CODE", r"sys.exit('\x1b[2J brakes ' + 'x' * 9000)")
    with pytest.raises(BackendUnavailable, match=r"\\x1b\[2J brakes") as caught:
        ask([], 0.0)
    assert is_printable(str(caught.value))
    assert len(str(caught.value)) < 3000
