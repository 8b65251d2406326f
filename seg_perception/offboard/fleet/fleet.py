"""A whole run: what is left to do is done, and what came of it is written."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from seg_perception import __version__
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.files import writable_folder, write_atomically

from .driver import Executor, Failure, TaskQueue
from .page import write_fleet_page
from .results import LOCK, SUMMARY, Results, tasks_of
from .work import FleetWork, Result, Task, plain

PAGE = "fleet.html"
Show = Callable[[TaskQueue], None]


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What is to be done and what is done already.

    Attributes:
        tasks: to be done, the largest first.
        done: results of an earlier run that still hold.
        again: tasks whose result does not hold any more, and why.
        settings: of the work.
    """

    tasks: Sequence[Task]
    done: Sequence[Result]
    again: Mapping[str, str]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FleetOutcome:
    """What came of a run.

    Attributes:
        command, settings: of the work.
        done: results of earlier runs.
        results: of this one.
        failures: bags that were given up.
        left: bags that nobody came to, because the run was stopped.
        totals: of all results.
        seconds: that the run took.
        notes: what else people should know.
    """

    command: str
    settings: Mapping[str, Any]
    done: Sequence[Result]
    results: Sequence[Result]
    failures: Sequence[Failure]
    left: Sequence[Task]
    totals: Mapping[str, Any]
    seconds: float
    notes: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """The same as plain values; of each result the row that a table needs."""
        mine = {each.name for each in self.results}
        return {
            "version": __version__,
            "command": self.command,
            "settings": plain(self.settings),
            "bags": {
                "done": len(self.results) + len(self.done), "of an earlier run": len(self.done),
                "failed": len(self.failures), "left": len(self.left),
            },
            "seconds": round(self.seconds, 3),
            "totals": plain(self.totals),
            "notes": list(self.notes),
            "failed": [{"name": each.task.name, **asdict(each.task.source), "errors": list(each.errors)}
                       for each in self.failures],
            "left": [task.name for task in self.left],
            "results": [
                {
                    "name": each.name, "path": each.source.path, "frames": each.outcome.get("frames", 0),
                    "faults": each.outcome.get("faults", 0), "seconds": each.seconds, "cpu_seconds": each.cpu_seconds,
                    "worker": each.worker, "host": each.host, "attempt": each.attempt, "in_this_run": each.name in mine,
                }
                for each in sorted((*self.done, *self.results), key=lambda each: each.name)
            ],
        }  # fmt: skip


def plan(paths: Sequence[Path], folder: Path, work: FleetWork) -> FleetPlan:
    """Look what is left to do; the folder is made if it is not there.

    Raises:
        SourceError: a recording is not there.
        ConfigurationError: the folder cannot be used.
    """
    writable_folder(folder)
    results = Results(folder)
    folder, settings = folder.resolve(), plain(work.settings())
    tasks: list[Task] = []
    done: list[Result] = []
    again: dict[str, str] = {}
    for task in tasks_of(paths, results):
        reason = results.to_do(task, work.command, settings)
        finished = results.get(task.name)
        if reason is None and finished is not None:
            # The same for all of them: kept once.
            done.append(replace(finished, settings=settings))
            continue
        tasks.append(task)
        if reason:
            again[task.name] = reason
    return FleetPlan(tasks, done, again, settings)


def run_fleet(
    planned: FleetPlan, folder: Path, work: FleetWork, executor: Executor, retries: int = 2, show: Show | None = None
) -> FleetOutcome:
    """Do what is planned, and write `fleet.json` and `fleet.html`, also when it is stopped.

    Args:
        planned: of the same folder and work.
        folder: of the results.
        work: what is done with every bag.
        executor: where.
        retries: how often a failed bag is tried again.
        show: is called whenever something may have changed.

    Raises:
        SegPerceptionError: nobody can do the work, or the summary cannot be written; finished bags stay finished.
    """
    begin = perf_counter()
    queue = TaskQueue(planned.tasks, retries, show)
    with _alone(folder):
        try:
            if planned.tasks:
                executor.run(work, planned.settings, queue)
            all_results = (*planned.done, *queue.results)
            queue.notes += work.merge(all_results, folder, bool(queue.results)) if all_results else []
        finally:
            outcome = _outcome(planned, work, queue, perf_counter() - begin)
            data = json.dumps(outcome.as_json(), indent=1, allow_nan=False)
            write_atomically(folder / SUMMARY, f"{data}\n".encode())
            write_fleet_page(folder / PAGE, outcome.as_json())
    return outcome


def _outcome(planned: FleetPlan, work: FleetWork, queue: TaskQueue, seconds: float) -> FleetOutcome:
    totals = work.totals([*planned.done, *queue.results])
    return FleetOutcome(
        work.command, planned.settings, planned.done, queue.results, queue.failures, queue.left, totals, seconds,
        queue.notes,
    )  # fmt: skip


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep another driver out of the folder.

    Raises:
        ConfigurationError: there is one.
    """
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"{folder}: another run writes its results there; wait for it, or choose another -o"
            ) from error
        yield
