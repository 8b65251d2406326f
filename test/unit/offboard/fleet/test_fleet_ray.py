"""Many bags on Ray: `make test-fleet`. Workers that die, refuse and differ in speed, and what is left of a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from fleet_stand_in import FRAMES, StandIn
from traps import set_traps, sprung

pytest.importorskip("ray", reason="Ray is not installed here: `make test-fleet` has an environment with it")

from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.fleet.fleet import FleetOutcome, plan, run_fleet
from seg_perception.offboard.fleet.ray_executor import RayExecutor

ROOT = Path(__file__).parents[4]
PATHS = os.pathsep.join(map(str, (ROOT, ROOT / "test")))


@pytest.fixture(autouse=True)
def _workers_find_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PATHS)


def run(folder: Path, texts: Mapping[str, str], work: StandIn, workers: int = 2, retries: int = 2) -> FleetOutcome:
    for name, text in texts.items():
        (folder / f"{name}.bag").write_text(text)
    work.log.touch()
    planned = plan(sorted(folder.glob("*.bag")), folder / "out", work)
    return run_fleet(planned, folder / "out", work, RayExecutor(workers=workers), retries)


def test_bags_survive_workers_and_one_slow_bag_holds_nobody(tmp_path: Path):
    quick = {f"quick{number}": "fine" for number in range(12)}
    faults = {"once": "death 1", "always": "death 9", "device": "device 1", "surprise": "surprise 9"}
    outcome = run(tmp_path, {**quick, **faults, "slow": "slow 8"}, StandIn(tmp_path / "log"))
    by_name = {each.name: each for each in outcome.results}
    assert set(by_name) == {*quick, "once", "device", "slow"}
    assert by_name["once"].attempt == by_name["device"].attempt == 2
    errors = {each.task.name: each.errors for each in outcome.failures}
    assert errors["surprise"] == ("ZeroDivisionError: surprise it is",) * 3
    assert len(errors["always"]) == 3
    assert all("process ended" in error for error in errors["always"])
    # Whoever had the slow bag did nothing else meanwhile; the other one did nearly everything.
    others = [each for each in outcome.results if each.worker != by_name["slow"].worker]
    assert len(others) >= len(quick)
    assert outcome.totals == {"frames": FRAMES * len(by_name)}
    assert {each.name for each in outcome.results} == {
        each["name"] for each in json.loads((tmp_path / "out" / "fleet.json").read_text())["results"]
    }
    assert sum("ended while it did" in note for note in outcome.notes) == 4


def test_a_model_that_nobody_can_open_ends_the_run(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"no worker can do the work.*no such model"):
        run(tmp_path, {"bag": "fine", "more": "fine"}, StandIn(tmp_path / "log", refuses=True))
    assert json.loads((tmp_path / "out" / "fleet.json").read_text())["bags"]["left"] == 2


def test_workers_import_nothing_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = set_traps(tmp_path / "bags")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", f"{PATHS}{os.pathsep}")
    outcome = run(tmp_path, {"bag": "fine"}, StandIn(tmp_path / "log"))
    assert len(outcome.results) == 1
    assert Path.cwd() == folder
    assert sprung(folder) == ""


@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, True), (signal.SIGKILL, False)])
def test_a_stopped_replay_leaves_no_worker_and_goes_on(tmp_path: Path, number: signal.Signals, to_all: bool):
    from colour_model import save_canonical_colour_model

    model = save_canonical_colour_model(tmp_path / "colours.onnx")
    bags = [images(tmp_path / f"bag{each}", 24 + each) for each in range(3)]
    out = tmp_path / "out"
    command = ["replay", *map(str, bags), "--model", str(model), "-o", str(out), "--executor", "ray", "--workers", "2"]
    program = [sys.executable, "-m", "seg_perception.cli", *command, "--speed", "realtime"]
    running = subprocess.Popen(program, start_new_session=True, cwd=ROOT)
    wait_for(lambda: len(list(out.glob("bag*.json"))) == 2)
    begin = {path.name: path.stat().st_mtime_ns for path in out.glob("bag*.mcap")}
    workers = [pid for pid in descendants(running.pid) if title_of(pid).startswith("ray::Actor")]
    assert len(workers) == 2
    (os.killpg if to_all else os.kill)(running.pid, number)
    assert running.wait(30) == (130 if to_all else -signal.SIGKILL)
    # Ray's own processes take their time to notice a killed driver; nobody writes any more.
    wait_for(lambda: not any(map(title_of, workers)), 30)
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # A worker whose driver was killed may finish its bag before it notices.
    assert "2 done before" in done.stdout or not to_all
    assert {name: (out / name).stat().st_mtime_ns for name in begin} == begin
    summary = json.loads((out / "fleet.json").read_text())
    assert (summary["bags"]["done"], summary["bags"]["failed"], summary["bags"]["left"]) == (3, 0, 0)
    assert summary["totals"]["frames"] == 24 + 25 + 26
    assert not list(out.glob(".bag*"))


def images(folder: Path, count: int) -> Path:
    import cv2
    from colour_model import paint_scene

    folder.mkdir()
    for index in range(count):
        scene = paint_scene(160, 96, [(20 + 2 * index, 20, 60 + 2 * index, 60, 1)])
        cv2.imwrite(str(folder / f"{index:03}.png"), scene.image[..., ::-1])
    return folder


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """Processes that come of one, Ray's own among them."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if status := stat_of(int(entry.name)):
            parents[int(entry.name)] = int(status[1])
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


def title_of(pid: int) -> str:
    """What a process calls itself; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().strip("\0")
    except OSError:
        return ""


def stat_of(pid: int) -> list[str]:
    """State, parent and so on of a process; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
