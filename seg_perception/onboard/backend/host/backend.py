"""The backend of every CPU: letterbox, run, select, paint. Runners differ only in `run`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from threading import Condition, Thread
from time import perf_counter
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import ModelSpec
from seg_perception.core.encodings.raw import view
from seg_perception.core.errors import ModelOutputError
from seg_perception.core.frame import Frame
from seg_perception.core.geometry import ResizeGeometry

from ..base import RunOptions, SelectionParams
from .job import Found, HostJob
from .letterbox import letterbox
from .runner import Runner

# With more runners than this, memory grows and the frames per second do not.
_MOST_RUNNERS = 2


@dataclass(frozen=True, slots=True)
class _Task:
    """Frames for a runner.

    Attributes:
        images: the decoded image of each frame and the order of its channels.
        geometries: where each lies in the network input.
        decode: seconds that decoding took for each.
        found: takes the result.
    """

    images: Sequence[tuple[NDArray[np.uint8], str]]
    geometries: Sequence[ResizeGeometry]
    decode: float
    found: Future[list[Found | ModelOutputError]] = field(default_factory=Future)

    def do(self, runner: Runner, memory: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Run the model, and set the result or the error.

        Args:
            runner: this thread alone uses it.
            memory: uint8 `[B, H, W, 3]` of any size, overwritten.

        Returns:
            The memory for the next task.
        """
        try:
            spec = runner.spec
            shape = (len(self.images), spec.network_height, spec.network_width, 3)
            if memory.shape != shape:
                memory = np.empty(shape, np.uint8)
            begin = perf_counter()
            for (image, order), geometry, out in zip(self.images, self.geometries, memory, strict=True):
                letterbox(image, order, geometry, spec.resize.pad_value, out)
            boxed = perf_counter()
            outputs = runner.run(memory)
            done = perf_counter()
            count = len(self.images)
            share = {"decode": self.decode, "letterbox": (boxed - begin) / count, "model": (done - boxed) / count}
            found = [Found.of(spec, outputs, index, each, share) for index, each in enumerate(self.geometries)]
            self.found.set_result(found)
        except ModelOutputError as error:
            self.found.set_result([error] * len(self.images))
        except BaseException as error:
            self.found.set_exception(error)
        return memory


class _Tasks:
    """The queue between the backend and its runners' threads."""

    def __init__(self) -> None:
        self._queue = SimpleQueue[_Task | None]()
        self._unfinished = 0
        self._finished = Condition()

    def put(self, task: _Task) -> None:
        """Have the next idle runner do a task."""
        with self._finished:
            self._unfinished += 1
        self._queue.put(task)

    def wait(self, fewer_than: int) -> None:
        """Wait until fewer tasks than this are unfinished."""
        with self._finished:
            self._finished.wait_for(lambda: self._unfinished < fewer_than)

    def stop(self, threads: int) -> None:
        """End the threads after the tasks that were put before."""
        for _ in range(threads):
            self._queue.put(None)

    def serve(self, runner: Runner) -> None:
        """Do tasks until there are to be no more; this is a runner's thread."""
        memory: NDArray[np.uint8] = np.empty((0, 0, 0, 3), np.uint8)
        while (task := self._queue.get()) is not None:
            memory = task.do(runner, memory)
            # What it holds must not wait for the next one.
            del task
            with self._finished:
                self._unfinished -= 1
                self._finished.notify_all()


class HostBackend:
    """A `Backend` made of one or several runners of the same model, each on a thread of its own."""

    def __init__(self, *runners: Runner) -> None:
        """Take at least one runner; `close` closes them."""
        self._runners = runners
        self._tasks = _Tasks()
        # Daemons, because a model that hangs must not keep the process from ending.
        self._threads = [
            Thread(target=self._tasks.serve, args=(runner,), name="runner", daemon=True) for runner in runners
        ]
        for thread in self._threads:
            thread.start()
        self._stop = finalize(self, self._tasks.stop, len(runners))

    @property
    def spec(self) -> ModelSpec:
        """The model's description of itself."""
        return self._runners[0].spec

    @property
    def identity(self) -> dict[str, str]:
        """Human-readable facts; see `Backend.identity`."""
        several = {"runners": f"{len(self._runners)}"} if len(self._runners) > 1 else {}
        return {**self._runners[0].identity, **several}

    @property
    def depth(self) -> int:
        """One job for each of several runners, and one whose results are used meanwhile.

        With one runner 1: a node that publishes while the model has all cores publishes older results (p50 of the age
        by a quarter, bench of 2026-12-01 on two busy cores).
        """
        return len(self._runners) + 1 if len(self._runners) > 1 else 1

    @property
    def largest_batch(self) -> int:
        """A CPU gains nothing from several frames at once; `start` takes any number."""
        return 1

    def wait(self) -> None:
        """Wait until a runner is idle."""
        self._tasks.wait(len(self._runners))

    def start(
        self, frames: Sequence[Frame], selection: Sequence[SelectionParams] | None = None, semantic: bool = False
    ) -> HostJob:
        """Have the next idle runner work on frames; see `Backend.start`."""
        if not self._stop.alive:
            raise RuntimeError("the model was closed")
        begin = perf_counter()
        images = [view(frame) for frame in frames]
        decode = (perf_counter() - begin) / len(frames)
        geometries = [self.spec.geometry(frame.width, frame.height) for frame in frames]
        task = _Task(images, geometries, decode)
        self._tasks.put(task)
        return HostJob(task.found, selection, semantic)

    def close(self) -> None:
        """Wait for the work in hand and release the model."""
        self._stop()
        for thread in self._threads:
            thread.join()
        for runner in self._runners:
            runner.close()


def open_on_host(make: Callable[[RunOptions], Runner], options: RunOptions) -> HostBackend:
    """Open as many runners of a model as `options` ask for, which share the cores.

    Raises:
        SegPerceptionError: the model cannot be opened.
    """
    count = options.runners
    if not count:
        # What is no CPU has its own way of doing things at once.
        plain = not options.threads and options.device.lower() in ("", "cpu")
        count = min(_MOST_RUNNERS, _cores()) if plain else 1
    if count > 1 and not options.threads:
        options = replace(options, threads=max(1, _cores() // count))
    runners: list[Runner] = []
    try:
        while len(runners) < count:
            runners.append(make(options))
    except BaseException:
        for runner in runners:
            runner.close()
        raise
    return HostBackend(*runners)


def _cores() -> int:
    return len(os.sched_getaffinity(0))
