"""Many bags: one process against workers on Ray, what the driver costs for each bag, and how long Ray takes to start.

    python -m bench.fleet [--model MODEL.onnx] [--rounds 3] [--bags 8] [--tasks 2000]

Bags are those of the street world at 640 x 384, 40 frames each; each worker has one thread. The commands take turns, so
that the machine's moods hit all of them alike. Driver's cost is that of tasks that do nothing but write their manifest.
Without Ray (`make test-fleet` makes an environment with it) only what runs in one process is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, ClassVar

from bench.table import show
from seg_perception.offboard.fleet.driver import Executor, LocalExecutor
from seg_perception.offboard.fleet.fleet import plan, run_fleet
from seg_perception.offboard.fleet.ray_executor import RayExecutor
from seg_perception.offboard.fleet.results import SUMMARY
from seg_perception.offboard.fleet.work import FleetWork, FleetWorker, Result, Task, Tell
from seg_perception.onboard.pipeline.opening import ModelChoice

ROOT = Path(__file__).parents[1]
FRAMES = 40
COMMAND = (sys.executable, "-m", "seg_perception.cli")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="street-nano.onnx", help="canonical model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bags", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=2000)
    values, _ = parser.parse_known_args()
    # Ray's workers import this module, too.
    os.environ["PYTHONPATH"] = str(ROOT)
    has_ray = find_spec("ray") is not None
    if not has_ray:
        print("Ray is not installed: only one process is measured")
    with tempfile.TemporaryDirectory() as folder:
        _driver(Path(folder), values.tasks, has_ray)
        _scaling(Path(folder), values, has_ray)


def _scaling(folder: Path, values: argparse.Namespace, has_ray: bool) -> None:
    bags = [folder / f"bag{number}" for number in range(values.bags)]
    for number, bag in enumerate(bags):
        made = ["streetworld", "--frames", str(FRAMES), "--seed", str(number), "--size", "640x384", "--bag", str(bag)]
        subprocess.run([*COMMAND, *made], check=True, capture_output=True)
    out = folder / "out"
    replay = ["replay", *map(str, bags), "--model", values.model, "--threads", "1", "-o"]
    plain = "plain, one bag of all"
    ways = {plain: [*replay, f"{out}.mcap"], "--executor local": [*replay, str(out)]}
    for workers in (1, 2) if has_ray else ():
        ways[f"--executor ray --workers {workers}"] = [*replay, str(out), "--executor", "ray"]
        ways[f"--executor ray --workers {workers}"] += ["--workers", str(workers)]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    at_work: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(values.rounds):
        for way, arguments in ways.items():
            begin = perf_counter()
            subprocess.run([*COMMAND, *arguments], check=True, capture_output=True)
            seconds[way].append(perf_counter() - begin)
            nothing = (float("nan"), float("nan"))
            at_work[way].append(_rate(json.loads((out / SUMMARY).read_text())) if out.is_dir() else nothing)
            # Minutes pass between two tables.
            print(f"{way}: {seconds[way][-1]:.1f} s, {at_work[way][-1]}", file=sys.stderr, flush=True)
            shutil.rmtree(out, ignore_errors=True)
            Path(f"{out}.mcap").unlink(missing_ok=True)
    frames = FRAMES * len(bags)
    base = median(seconds[plain])
    rows = [
        [
            way, f"{median(each):.1f}", f"{min(each):.1f}-{max(each):.1f}", f"{frames / median(each):.2f}",
            f"{base / median(each):.2f}",
            f"{median(rate for rate, _ in at_work[way]):.2f}", f"{median(cpu for _, cpu in at_work[way]):.1f}",
        ]
        for way, each in seconds.items()
    ]  # fmt: skip
    header = ["", "s", "range", "frames/s", "x plain", "frames/s at work", "CPU ms/frame"]
    show(f"{len(bags)} bags of {FRAMES} frames, medians of {values.rounds} runs, start-up included", header, rows)


def _rate(summary: Mapping[str, Any]) -> tuple[float, float]:
    """Frames per second of all workers while they had a bag, and milliseconds of the CPU for each."""
    workers = {(each["host"], each["worker"]) for each in summary["results"]}
    spent = sum(each["seconds"] for each in summary["results"])
    frames = summary["totals"]["frames"]
    return frames * len(workers) / spent, 1e3 * sum(each["cpu_seconds"] for each in summary["results"]) / frames


def _driver(folder: Path, count: int, has_ray: bool) -> None:
    bags = folder / "nothing"
    bags.mkdir()
    for number in range(count):
        (bags / f"{number:06}.bag").write_bytes(b"")
    paths = sorted(bags.iterdir())
    executors: dict[str, Executor] = {"--executor local (driver and worker)": LocalExecutor()}
    if has_ray:
        executors["--executor ray, 2 workers (driver alone)"] = RayExecutor(workers=2)
    rows = []
    for name, executor in executors.items():
        out = folder / "tasks"
        begin, cpu = perf_counter(), process_time()
        planned = plan(paths, out, Nothing())
        planning = perf_counter() - begin
        outcome = run_fleet(planned, out, Nothing(), executor)
        wall, cpu = perf_counter() - begin, process_time() - cpu
        start = min(each.outcome["begun"] for each in outcome.results) - begin - planning
        begin = perf_counter()
        assert len(plan(paths, out, Nothing()).done) == count
        skipping = perf_counter() - begin
        rows.append([name, *(f"{1e3 * each / count:.3f}" for each in (cpu, wall - start, skipping)), f"{start:.1f}"])
        shutil.rmtree(out)
    header = ["ms for each of the tasks", "CPU", "wall", "skip", "s to the first task"]
    show(f"{count} tasks that do nothing but write a manifest", header, rows)


@dataclass(frozen=True, slots=True)
class Nothing(FleetWork):
    """Work that is none."""

    command: ClassVar[str] = "nothing"
    suffix: ClassVar[str] = ".txt"

    @property
    def choices(self) -> tuple[ModelChoice, ...]:
        """See `FleetWork`."""
        return (ModelChoice("model.onnx", threads=1),)

    def settings(self) -> dict[str, Any]:
        """See `FleetWork`."""
        return {}

    def open(self) -> FleetWorker:
        """See `FleetWork`."""
        return _Idle()

    def totals(self, results: Sequence[Result]) -> dict[str, Any]:
        """See `FleetWork`."""
        return {"frames": 0}


class _Idle(FleetWorker):
    @property
    def identity(self) -> Mapping[str, str]:
        return {}

    def do(self, task: Task, output: Path, tell: Tell) -> Mapping[str, Any]:
        begun = perf_counter()
        output.touch()
        # The clock is that of the machine, the same in every process.
        return {"frames": 0, "faults": 0, "begun": begun}

    def close(self) -> None:
        pass


if __name__ == "__main__":
    # Under its own name, by which the workers import it.
    from bench.fleet import main as run

    run()
