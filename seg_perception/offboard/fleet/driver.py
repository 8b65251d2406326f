"""The driver: handles the next task to whoever is free, tries again what failed, and keeps count."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from .perform import perform
from .work import Attempt, Failed, FleetWork, Result, Task


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that was given up; `errors` has one line for each attempt."""

    task: Task
    errors: Sequence[str]


class TaskQueue:
    """What is to be done, what is in flight and what came of it; executors take from it and tell it.

    Attributes:
        tasks: all of them.
        results: of finished tasks, in the order in which they finished.
        failures: tasks that were given up.
        workers: how many are at work or ready.
        notes: what else people should know, such as workers that were lost.
        frames: processed ones of finished tasks.
    """

    def __init__(self, tasks: Sequence[Task], retries: int, show: Callable[[TaskQueue], None] | None = None) -> None:
        """Begin.

        Args:
            tasks: what is to be done.
            retries: how often a task is tried again.
            show: is called whenever something may have changed.
        """
        self.tasks = tuple(tasks)
        self.results: list[Result] = []
        self.failures: list[Failure] = []
        self.workers = 0
        self.notes: list[str] = []
        self.frames = 0
        self.begin = monotonic()
        self._retries, self._show = retries, show
        self._errors: dict[str, list[str]] = {}
        self._failed_on: dict[str, str] = {}
        # First attempts before second ones, large bags before small ones: what is done last is small.
        self._queue = [(1, -task.source.bytes, place) for place, task in enumerate(self.tasks)]
        heapq.heapify(self._queue)
        self._places = {task.name: place for place, task in enumerate(self.tasks)}
        self._running: dict[str, _Running] = {}
        self._done_bytes = 0

    def take(self, avoided_by: str = "") -> Attempt | None:
        """The next task; None if there is none at the moment.

        Args:
            avoided_by: a host that gets no task that has failed there, because others could do it: on a host with a
                fault of its own tasks fail sooner than others are done.
        """
        aside = []
        found = None
        while self._queue and found is None:
            entry = heapq.heappop(self._queue)
            if avoided_by and self._failed_on.get(self.tasks[entry[2]].name) == avoided_by:
                aside.append(entry)
                continue
            task = self.tasks[entry[2]]
            self._running[task.name] = _Running(task)
            found = Attempt(task, entry[0])
        for entry in aside:
            heapq.heappush(self._queue, entry)
        return found

    def tell(self, task: Task, frames: int, of: int | None) -> None:
        """Say how far a task is."""
        if running := self._running.get(task.name):
            running.frames, running.of = frames, of
        self.changed()

    def settle(self, ended: Result | Failed) -> None:
        """Say what came of an attempt."""
        if isinstance(ended, Result):
            self._running.pop(ended.name, None)
            self.results.append(ended)
            self.frames += int(ended.outcome.get("frames", 0))
            self._done_bytes += ended.source.bytes
        else:
            self._fail(ended)
        self.changed()

    def changed(self) -> None:
        """Have it shown."""
        if self._show is not None:
            self._show(self)

    @property
    def settled(self) -> bool:
        """Whether every task has a result or was given up."""
        return len(self.results) + len(self.failures) == len(self.tasks)

    @property
    def left(self) -> list[Task]:
        """Tasks of which nothing came yet."""
        settled = {each.name for each in self.results} | {each.task.name for each in self.failures}
        return [task for task in self.tasks if task.name not in settled]

    @property
    def running(self) -> int:
        """The number of tasks in flight."""
        return len(self._running)

    def frames_so_far(self) -> int:
        """Processed frames, also of tasks in flight."""
        return self.frames + sum(each.frames for each in self._running.values())

    def share(self) -> float:
        """Return how much of the bytes is done, 0 to 1."""
        total = sum(each.source.bytes for each in self.tasks)
        running = sum(each.task.source.bytes * each.share for each in self._running.values())
        return (self._done_bytes + running) / total if total else 1.0

    def _fail(self, failed: Failed) -> None:
        task = failed.attempt.task
        self._running.pop(task.name, None)
        errors = self._errors.setdefault(task.name, [])
        errors.append(failed.error)
        self._failed_on[task.name] = failed.host
        if failed.attempt.number <= self._retries:
            place = self._places[task.name]
            heapq.heappush(self._queue, (failed.attempt.number + 1, -task.source.bytes, place))
        else:
            self._done_bytes += task.source.bytes
            self.failures.append(Failure(task, tuple(errors)))


class Executor(ABC):
    """Runs the tasks of a queue, here or elsewhere."""

    @abstractmethod
    def run(self, work: FleetWork, settings: Mapping[str, Any], queue: TaskQueue) -> None:
        """Do what is on the queue until nothing is left; everything that was started is ended, also after an error.

        Args:
            work: of which kind.
            settings: of the work, found here.
            queue: what is to be done.

        Raises:
            SegPerceptionError: nobody can do the work.
        """


class LocalExecutor(Executor):
    """Does tasks one after the other in this process; needs nothing else."""

    def run(self, work: FleetWork, settings: Mapping[str, Any], queue: TaskQueue) -> None:
        """See `Executor`."""
        worker = work.open()
        queue.workers = 1
        try:
            while (attempt := queue.take()) is not None:
                ended = perform(work, settings, worker, 0, attempt, partial(queue.tell, attempt.task))
                queue.settle(ended)
                if isinstance(ended, Failed) and ended.broken:
                    worker.close()
                    worker = work.open()
        finally:
            worker.close()


@dataclass
class _Running:
    task: Task
    frames: int = 0
    of: int | None = None

    @property
    def share(self) -> float:
        return min(1.0, self.frames / self.of) if self.of else 0.0
