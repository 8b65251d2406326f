"""Many bags in this process: names, what is skipped and done again, failures, and what an interruption leaves."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from colour_model import paint_scene, save_canonical_colour_model
from fleet_stand_in import FRAMES, StandIn
from rosbags.rosbag2 import StoragePlugin, Writer

from seg_perception.cli import label
from seg_perception.cli.label import options_of
from seg_perception.cli.main import main
from seg_perception.core.errors import ConfigurationError, ModelError, SourceError
from seg_perception.offboard.data.bags.reader import Bag
from seg_perception.offboard.data.bags.types import message_store
from seg_perception.offboard.fleet.driver import LocalExecutor, TaskQueue
from seg_perception.offboard.fleet.fleet import FleetOutcome, plan, run_fleet
from seg_perception.offboard.fleet.label_work import LabelWork
from seg_perception.offboard.fleet.progress import FleetProgress
from seg_perception.offboard.fleet.ray_executor import room
from seg_perception.offboard.fleet.replay_work import ReplayWork
from seg_perception.offboard.fleet.results import Results, tasks_of
from seg_perception.offboard.fleet.work import Attempt, Failed, RecordingFile, Result, Task
from seg_perception.offboard.metrics.coco_summary import summarize
from seg_perception.offboard.replay.job import ReplayJob
from seg_perception.onboard.pipeline.opening import ModelChoice
from seg_perception.onboard.pipeline.options import SegmenterOptions

ROOT = Path(__file__).parents[4]
STORE = message_store()
STEP_NS = 100_000_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_canonical_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx", fault="predictions")


def write_bag(path: Path, frames: int, shift: int = 0) -> Path:
    """A car that drives, as compressed images; one frame in 100 ms."""
    types = STORE.types
    path.parent.mkdir(parents=True, exist_ok=True)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kind = "sensor_msgs/msg/CompressedImage"
        connection = writer.add_connection("/front/image_raw/compressed", kind, typestore=STORE)
        for index in range(frames):
            scene = paint_scene(320, 192, [(60 + shift + 4 * index, 40, 140 + shift + 4 * index, 100, 1)])
            data = cv2.imencode(".png", scene.image[..., ::-1])[1].reshape(-1)
            stamp = types["builtin_interfaces/msg/Time"](7 + index // 10, index % 10 * STEP_NS)
            message = types[kind](types["std_msgs/msg/Header"](stamp, "front"), "png", data)
            writer.write(connection, 1_000_000_000 + index * STEP_NS, STORE.serialize_cdr(message, kind))
    return path


def messages(path: Path) -> list[tuple[str, int, bytes]]:
    with Bag(path) as bag:
        return [(message.topic, message.time_ns, bytes(message.data)) for message in bag.messages([])]


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if not path.name.startswith(("fleet", "."))}


def test_each_bag_gets_a_bag_of_its_own_and_is_done_once(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
):
    bags = [write_bag(tmp_path / name, 3 + place, 10 * place) for place, name in enumerate(("a/drive", "b/drive", "c"))]
    out = tmp_path / "out"
    command = ["replay", *map(str, bags), "--model", str(model), "-o", str(out)]
    assert main(command) == 0
    assert set(written(out)) == {f"{name}.{kind}" for name in ("a-drive", "b-drive", "c") for kind in ("json", "mcap")}
    for bag, name in zip(bags, ("a-drive", "b-drive", "c"), strict=True):
        alone = tmp_path / f"{name}.mcap"
        assert main(["replay", str(bag), "--model", str(model), "-o", str(alone)]) == 0
        assert messages(out / f"{name}.mcap") == messages(alone)
    summary = json.loads((out / "fleet.json").read_text())
    assert summary["bags"] == {"done": 3, "of an earlier run": 0, "failed": 0, "left": 0}
    assert summary["totals"]["frames"] == 12
    assert summary["totals"]["instances"]["vehicle"] == 12
    assert "All 3 bags are done" in (out / "fleet.html").read_text()

    before = written(out)
    capsys.readouterr()
    assert main(command) == 0
    assert "0 bags to do" in capsys.readouterr().out
    assert written(out) == before

    # Another bag of a name that is taken, and one that has changed.
    late = write_bag(tmp_path / "d" / "c", 2)
    os.utime(bags[0] / "drive.mcap", ns=(2**62, 2**62))
    assert main(["replay", str(late), *command[1:]]) == 0
    told = capsys.readouterr().out
    assert "2 bags to do" in told
    assert "again: a-drive: the bag has changed since" in told
    now = written(out)
    assert {name for name in now if now[name] != before.get(name)} == {
        "a-drive.json", "a-drive.mcap", "d-c.json", "d-c.mcap",
    }  # fmt: skip

    assert main([*command, "--score", "0.5"]) == 0
    told = capsys.readouterr().out
    assert "3 bags to do" in told
    assert "again: c: done with other options" in told
    earlier = tmp_path / "list.txt"
    earlier.write_text("\n".join(map(str, bags)))
    second = ["replay", "--list", str(earlier), "--model", str(model), "-o", str(tmp_path / "second")]
    assert main([*second, "--against", str(out), "--report", str(tmp_path / "pages")]) == 0
    changes = json.loads((tmp_path / "second" / "fleet.json").read_text())["totals"]["changes"]
    assert (changes["frames"], changes["differing"], changes["mean_iou"]) == (12, 0, 1)
    assert {path.name for path in (tmp_path / "pages").iterdir()} == {"a-drive.html", "b-drive.html", "c.html"}


def test_average_precision_of_bags_is_that_of_all_their_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bags = [tmp_path / name for name in ("one", "two")]
    for seed, bag in enumerate(bags, 5):
        assert main(["streetworld", "--frames", "3", "--seed", str(seed), "--size", "320x192", "--bag", str(bag)]) == 0
    out = tmp_path / "out"
    model = str(ROOT / "engines" / "street-nano.onnx")
    command = ["--model", model, "--threads", "1", "-o", str(out)]
    assert main(["evaluate", "--bag", *map(str, bags), *command, "--report-frames", "1"]) == 0
    assert "over 2 bags" in capsys.readouterr().out
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for place, bag in enumerate(bags):
        truth = json.loads((out / bag.name / "truth.json").read_text())
        results = json.loads((out / bag.name / "street-nano.results.json").read_text())
        images += [{**each, "id": each["id"] + 100 * place} for each in truth["images"]]
        for lists, entries in ((objects, truth["annotations"]), (found, results)):
            lists += [{**each, "image_id": each["image_id"] + 100 * place} for each in entries]
    numbered = [{**each, "id": number} for number, each in enumerate(objects, 1)]
    whole = {"images": images, "annotations": numbered, "categories": truth["categories"]}
    merged = json.loads((out / "evaluation.json").read_text())["models"]["street-nano"]
    for kind in ("mask", "box"):
        stats = summarize(whole, [(sorted(each["id"] for each in images), found)], kind)[1]
        assert merged[kind]["AP"] == pytest.approx(stats[0], abs=1e-9)
        assert merged[kind]["AP50"] == pytest.approx(stats[1], abs=1e-9)
    assert merged["box"]["AP"] > 0.05
    assert (out / "one" / "report.html").is_file()


def test_labels_of_bags_become_one_data_set(tmp_path: Path, model: Path):
    """As the plain command makes it of the same recordings."""
    bags = [write_bag(tmp_path / name, frames, 10 * frames) for name, frames in (("one", 7), ("two", 5))]
    command = ["label", *map(str, bags), "--model", str(model), "--every", "3", "-o"]
    assert main([*command, str(tmp_path / "plain")]) == 0
    options = options_of(label_arguments([*command, ""]))
    work, out = LabelWork.of(options), tmp_path / "out"
    for _ in range(2):
        outcome = run_fleet(plan(bags, out, work), out, work, LocalExecutor())
        assert not outcome.failures
        assert outcome.totals["frames"] == 12
        name = "instances.json"
        assert (out / "dataset" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert not outcome.results
    # What people may have worked on is never thrown away.
    (out / "one" / "reviewed.json").touch()
    (out / "dataset" / "reviewed.json").touch()
    work = LabelWork.of(options_of(label_arguments([*command, "", "--score", "0.5"])))
    assert len(run_fleet(plan(bags, out, work), out, work, LocalExecutor()).results) == 2
    assert (out / "one.1" / "reviewed.json").exists()
    assert (out / "dataset.1" / "reviewed.json").exists()
    assert not (out / "dataset" / "reviewed.json").exists()
    for path in out.glob("*.1"):
        path.rename(tmp_path / path.name)
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"dataset", "one", "two"}


def label_arguments(command: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    label.add_arguments(parser)
    return parser.parse_args(list(command[1:]))


def test_wrong_use_is_told_before_the_work(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]):
    bag = write_bag(tmp_path / "bag", 1)

    def told(*arguments: str) -> str:
        assert main(["replay", "--model", str(model), "-o", str(tmp_path / "out"), *arguments]) == 1
        return capsys.readouterr().err

    assert "expected bags, or --list" in told()
    assert "--workers: expected only with --executor ray" in told(str(bag), "--workers", "2")
    assert "expected the folder of an earlier run" in told(str(bag), "--against", str(bag))
    assert "missing: cannot be read" in told(str(bag), str(tmp_path / "missing"))
    assert "--retries" in told(str(bag), "--retries", "-1")
    # Bags are never written over.
    assert main(["replay", str(bag / "bag.mcap"), "--model", str(model), "-o", str(bag)]) == 1
    assert "it has other files" in capsys.readouterr().err
    (bag / ".fleet.lock").touch()
    assert main(["replay", str(bag / "bag.mcap"), "--model", str(model), "-o", str(bag)]) == 1
    assert "outside of the folder of the results" in capsys.readouterr().err


def test_without_ray_the_error_names_it(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    bag = write_bag(tmp_path / "bag", 1)
    assert main(["replay", str(bag), "--model", str(model), "-o", str(tmp_path / "out"), "--executor", "ray"]) == 1
    assert "pip install ray" in capsys.readouterr().err


class Fleet:
    """Bags of stand-in work and a folder for their results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.work = StandIn(folder / "log")
        self.work.log.touch()

    def bag(self, name: str, text: str) -> Path:
        path = self.folder / f"{name}.bag"
        path.write_text(text)
        return path

    def run(self, bags: Sequence[Path], retries: int = 2, work: StandIn | None = None) -> FleetOutcome:
        work = work or self.work
        return run_fleet(plan(bags, self.out, work), self.out, work, LocalExecutor(), retries)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_failed_bags_are_tried_again_and_then_reported(fleet: Fleet):
    texts = {"fine": "fine", "twice": "unreadable 2", "never": "surprise 9", "late": "fine"}
    outcome = fleet.run([fleet.bag(name, text) for name, text in texts.items()])
    assert {each.name: each.attempt for each in outcome.results} == {"fine": 1, "late": 1, "twice": 3}
    (failure,) = outcome.failures
    assert failure.task.name == "never"
    assert failure.errors == ("ZeroDivisionError: surprise it is",) * 3
    # What failed waits until the others had their turn.
    begun = [line.split()[0] for line in fleet.work.log.read_text().splitlines()][1:-1]
    assert set(begun[:4]) == set(texts)
    summary = json.loads((fleet.out / "fleet.json").read_text())
    assert summary["bags"]["failed"] == 1
    assert summary["failed"][0]["errors"] == ["ZeroDivisionError: surprise it is"] * 3
    assert not (fleet.out / "never.txt").exists()
    # The next run does what is missing, and nothing else.
    fleet.bag("never", "fine")
    outcome = fleet.run([fleet.folder / f"{name}.bag" for name in texts])
    assert [each.name for each in outcome.results] == ["never"]
    assert len(outcome.done) == 3
    assert not list(fleet.out.glob(".never*"))
    assert outcome.totals == {"frames": 4 * FRAMES}


def test_after_an_error_of_the_device_models_are_opened_anew(fleet: Fleet):
    outcome = fleet.run([fleet.bag("hot", "device 1"), fleet.bag("next", "fine")])
    assert not outcome.failures
    assert fleet.work.said("open") == fleet.work.said("close") == 2


def test_models_that_cannot_be_opened_end_the_run_and_leave_a_summary(fleet: Fleet):
    with pytest.raises(ModelError, match="no such model"):
        fleet.run([fleet.bag("bag", "fine")], work=StandIn(fleet.work.log, refuses=True))
    assert json.loads((fleet.out / "fleet.json").read_text())["left"] == ["bag"]


@pytest.mark.parametrize(("damage", "reason"), [
    ("manifest", "its manifest cannot be read"),
    ("output", "bag.txt is not there, or not as it was written"),
    ("option", "done with other option"),
    ("size", "the bag has changed since"),
])  # fmt: skip
def test_a_result_that_does_not_hold_is_made_again(fleet: Fleet, damage: str, reason: str):
    bag = fleet.bag("bag", "fine")
    fleet.run([bag])
    work = StandIn(fleet.work.log, option="other") if damage == "option" else fleet.work
    if damage == "manifest":
        (fleet.out / "bag.json").write_text("{")
    elif damage == "output":
        (fleet.out / "bag.txt").write_text("cut")
    elif damage == "size":
        bag.write_text("fine ")
    planned = plan([bag], fleet.out, work)
    assert planned.again == {"bag": reason}
    bag.write_text("fine")
    fleet.run([bag], work=work)
    assert not plan([bag], fleet.out, work).tasks


def test_two_runs_do_not_share_a_folder(fleet: Fleet):
    bag = fleet.bag("bag", "slow 5")
    code = (
        "import sys\nfrom pathlib import Path\nfrom fleet_stand_in import StandIn\n"
        "from seg_perception.offboard.fleet.fleet import plan, run_fleet\n"
        "from seg_perception.offboard.fleet.driver import LocalExecutor\n"
        "bag, out, log = map(Path, sys.argv[1:])\nwork = StandIn(log)\n"
        "run_fleet(plan([bag], out, work), out, work, LocalExecutor())\n"
    )
    with process(code, bag, fleet.out, fleet.work.log) as other:
        wait_for(lambda: fleet.work.said("bag"))
        with pytest.raises(ConfigurationError, match="another run"):
            fleet.run([fleet.bag("more", "fine")])
        # Killed, it leaves a half output under another name; the lock goes with it.
        other.kill()
        other.wait()
    assert {path.name for path in fleet.out.glob("[!.]*")} <= {"fleet.json", "fleet.html"}
    assert list(fleet.out.glob(".bag.*.partial.txt"))
    bag.write_text("fine")
    assert len(fleet.run([bag]).results) == 1
    assert not list(fleet.out.glob(".bag.*"))
    assert (fleet.out / "bag.txt").read_text() == "whole"


def test_an_interrupted_replay_goes_on_where_it_was(tmp_path: Path, model: Path):
    bags = [write_bag(tmp_path / name, frames) for name, frames in (("long", 15), ("longer", 16), ("longest", 17))]
    out = tmp_path / "out"
    # As they were recorded, so that the signal comes in the middle.
    command = ["replay", *map(str, bags), "--model", str(model), "-o", str(out), "--speed", "realtime"]
    code = f"import sys; from seg_perception.cli.main import main; sys.exit(main({command!r}))"
    with process(code) as running:
        wait_for(lambda: (out / "longest.json").exists())
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
    summary = json.loads((out / "fleet.json").read_text())
    assert summary["bags"]["done"] == len(list(out.glob("long*.json"))) < 3
    assert summary["bags"]["left"] == 3 - summary["bags"]["done"]
    first = (out / "longest.mcap").stat().st_mtime_ns
    assert main(command) == 0
    assert (out / "longest.mcap").stat().st_mtime_ns == first
    assert json.loads((out / "fleet.json").read_text())["totals"]["frames"] == 48
    assert not list(out.glob(".long*"))


def process(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "test")))}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=env)


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def test_names_are_unique_and_stay(fleet: Fleet):
    def names(paths: Sequence[Path]) -> dict[str, str]:
        return {task.source.path: task.name for task in tasks_of(paths, Results(fleet.out))}

    paths = []
    for name in ("x/day/drive.bag", "y/day/drive.bag", "z/drive.bag", "z/drive.mcap", "fleet.mp4", "only.bag"):
        path = fleet.folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("fine")
        paths.append(path)
    fleet.out.mkdir()
    found = names([*paths, paths[0]])
    assert len(set(found.values())) == len(found) == 6
    assert found[str(paths[0])] == "x-day-drive"
    assert found[str(paths[5])] == "only"
    assert found[str(paths[4])] == "in-fleet"
    # One by one: the first keeps the short name.
    fleet.run(paths[:1])
    assert names(paths)[str(paths[0])] == "drive"
    assert names(paths)[str(paths[1])] == "day-drive"
    with pytest.raises(SourceError, match="missing"):
        names([fleet.folder / "missing"])


def tasks(*sizes: int) -> list[Task]:
    return [Task(f"bag{place}", RecordingFile(f"/{place}", size, 0), Path("/out")) for place, size in enumerate(sizes)]


def done(attempt: Attempt, frames: int = 10) -> Result:
    task = attempt.task
    return Result(
        task.name, "x", {}, task.source, task.name, 0, {"frames": frames}, {}, 1.0, 1.0, 0, "", attempt.number, ""
    )


def drain(queue: TaskQueue, host: str = "") -> Iterator[Attempt]:
    while (attempt := queue.take(host)) is not None:
        yield attempt


def test_large_bags_come_first_and_failed_ones_go_to_another_host():
    queue = TaskQueue(tasks(1, 3, 2), retries=1)
    first, second, third = drain(queue)
    assert [each.task.name for each in (first, second, third)] == ["bag1", "bag2", "bag0"]
    queue.settle(Failed(first, "broken", "here"))
    queue.settle(done(second))
    assert queue.take("here") is None
    again = queue.take("there")
    assert again is not None
    assert (again.task.name, again.number) == ("bag1", 2)
    queue.settle(Failed(again, "still", "there"))
    assert [list(each.errors) for each in queue.failures] == [["broken", "still"]]
    assert not queue.settled
    assert [task.name for task in queue.left] == ["bag0"]
    queue.settle(done(third))
    assert queue.settled


def test_workers_are_as_many_as_there_is_room_for():
    resources = {"CPU": 9.0, "GPU": 2.0}
    choice = ModelChoice("model.onnx", threads=4)
    job = ReplayJob((), Path("out"))

    def workers(choice: ModelChoice, per_gpu: int = 1) -> int:
        return room(resources, ReplayWork(choice, SegmenterOptions(), job), per_gpu)

    assert workers(choice) == 2
    assert workers(replace(choice, threads=1)) == 9
    assert workers(replace(choice, threads=16)) == 1
    assert workers(replace(choice, device="cuda"), 3) == 6
    assert workers(replace(choice, model="model.engine")) == 2


def test_the_line_of_progress_tells_what_is_left():
    queue = TaskQueue(tasks(600, 200, 200), retries=0)
    large, small, _ = drain(queue)
    queue.workers = 3
    queue.tell(large.task, 30, 60)
    queue.settle(done(small, frames=20))
    queue.begin = 100.0
    progress = FleetProgress(sys.stderr)
    then, _ = progress._frames[0]
    queue.begin = then
    line = progress.line(queue, then + 10)
    # Half of the 600 and one of the 200: as much is left as is done.
    assert line == (
        "bags: 1 done, 0 failed, 2 in flight, 0 to come; workers: 3; 50 frames, 5.0 a second; left: 0:00:10"
    )


def test_results_hold_no_number_that_json_does_not_have(fleet: Fleet):
    from seg_perception.offboard.fleet.results import read_manifest, write_manifest

    result = done(Attempt(tasks(1)[0], 1), frames=0)
    outcome: dict[str, Any] = {"iou": float("nan"), "path": Path("a"), "pair": (1, np.float64(2.0))}
    write_manifest(fleet.folder, Result(**{**{f: getattr(result, f) for f in result.__slots__}, "outcome": outcome}))
    again = read_manifest(fleet.folder / "bag0.json")
    assert again is not None
    assert again.outcome == {"iou": None, "path": "a", "pair": [1, 2.0]}
