"""The executor on Ray: a worker is an actor in a process of its own, with a core or a GPU, here or in a cluster.

Through Ray travel options once, then tasks and what came of them: names and counts. Models, frames and bags never do:
workers read and write files.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from seg_perception.core.errors import BackendUnavailable, ConfigurationError, SegPerceptionError
from seg_perception.core.interpreter import ROOT, python_environment

from .driver import Executor, TaskQueue
from .perform import perform
from .work import Attempt, Failed, FleetWork, FleetWorker, Result, plain

_OBJECT_STORE = 100_000_000
# Seconds that the driver waits for something to happen before it shows the progress again.
_WAIT_SECONDS = 0.5
# A worker whose process ends so often before it is ready is not started once more.
_MOST_DEATHS = 3


class RayExecutor(Executor):
    """Does tasks on Ray."""

    def __init__(self, address: str = "", workers: int = 0, per_gpu: int = 1) -> None:
        """Say where.

        Args:
            address: empty for a Ray of this machine that ends with the run; `auto`, or host and port, of a cluster.
            workers: how many; 0 for as many as there are cores or GPUs for.
            per_gpu: workers that share a GPU, where one cannot decode as quickly as the GPU works.
        """
        self._address, self._workers, self._per_gpu = address, workers, per_gpu

    def run(self, work: FleetWork, settings: Mapping[str, Any], queue: TaskQueue) -> None:
        """See `Executor`.

        Raises:
            BackendUnavailable: Ray is not installed.
            ConfigurationError: there is no cluster at the address.
        """
        ray = _import_ray(local=not self._address)
        _connect(ray, self._address, self._workers * _cores(work))
        try:
            count = self._workers or room(ray.cluster_resources(), work, self._per_gpu)
            needs = {"num_cpus": _cores(work), "num_gpus": 1 / self._per_gpu if work.on_gpu else 0}
            pool = _WorkerPool(ray, (work, settings), queue, needs, min(count, len(queue.tasks)))
            try:
                pool.run()
            finally:
                pool.stop()
        finally:
            ray.shutdown()


def _import_ray(local: bool) -> Any:
    # Before the import: nothing is told to anybody, and a Ray of this machine alone listens on its loopback only.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if local:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailable(
            f"--executor ray needs the Python package ray ({error}): pip install ray, or leave --executor out"
        ) from error
    return ray


def _connect(ray: Any, address: str, cores: int) -> None:
    options: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    if address:
        options |= {"address": address}
    else:
        options |= {
            "address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE,
            "num_cpus": max(len(os.sched_getaffinity(0)), cores),
        }  # fmt: skip
    try:
        with _working_folder(ROOT):
            ray.init(**options)
    # Ray raises whatever comes: ConnectionError, RuntimeError, ValueError, ...
    except Exception as error:
        place = f"at {address!r}; expected `auto` or HOST:PORT of a running one (`ray start --head`)" if address else ""
        raise ConfigurationError(f"--executor ray: no Ray {place or 'could be started here'}: {error}") from error


@contextmanager
def _working_folder(folder: str) -> Iterator[None]:
    """Work in another folder: Ray's workers look for modules in the one that is current when they are asked for.

    Tasks name their files by absolute paths.
    """
    before = os.open(".", os.O_RDONLY)
    os.environ.update(python_environment())
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _cores(work: FleetWork) -> int:
    return max(work.threads, 1)


def room(resources: Mapping[str, float], work: FleetWork, per_gpu: int) -> int:
    """Return how many workers a cluster has room for now."""
    cores = int(resources.get("CPU", 0))
    return max(1, int(resources.get("GPU", 0)) * per_gpu if work.on_gpu else cores // _cores(work))


class RayActor:
    """What runs in a worker's process; its methods raise nothing that the driver should know of."""

    def __init__(self, work: tuple[FleetWork, Mapping[str, Any]], number: int) -> None:
        (self._work, self._settings), self._number = work, number
        self._worker: FleetWorker | None = None

    def open(self) -> tuple[str, str]:
        """Open the models; returns the host, and why they cannot be used there."""
        import cv2

        cv2.setNumThreads(_cores(self._work))
        try:
            mine = plain(self._work.settings())
            if other := [name for name in mine if mine[name] != self._settings.get(name)]:
                return socket.gethostname(), f"{', '.join(other)}: what is here is not what the driver has"
            self._worker = self._work.open()
        except SegPerceptionError as error:
            return socket.gethostname(), str(error)
        except Exception as error:
            return socket.gethostname(), f"{type(error).__name__}: {error}"
        return socket.gethostname(), ""

    def do(self, attempt: Attempt) -> Result | Failed:
        """Do a task."""
        if self._worker is None:
            return Failed(attempt, "the worker has no model", broken=True)
        return perform(self._work, self._settings, self._worker, self._number, attempt, lambda *_: None)


@dataclass
class _WorkerHandle:
    """A worker as the driver sees it.

    Attributes:
        number: of the worker.
        actor: Ray's handle.
        waits: for what the actor does now; None when it is free.
        attempt: what it does; None while it opens the models.
        deaths: of its process before it was ready.
        host: where it runs.
        ready: whether its models are open.
    """

    number: int
    actor: Any
    waits: Any
    attempt: Attempt | None = None
    deaths: int = 0
    host: str = ""
    ready: bool = False


class _WorkerPool:
    """The workers of a run."""

    def __init__(
        self,
        ray: Any,
        asked: tuple[FleetWork, Mapping[str, Any]],
        queue: TaskQueue,
        needs: Mapping[str, Any],
        count: int,
    ) -> None:
        self._ray, self._queue, self._settings = ray, queue, asked[1]
        # An actor has one thread, always the same one, because CUDA cares.
        self._class = ray.remote(RayActor).options(**needs, max_restarts=0)
        self._shared = ray.put(asked)
        self._handles: list[_WorkerHandle] = []
        self._refusal = ""
        for number in range(count):
            self._handles.append(self._start_worker(number))

    def run(self) -> None:
        """Hand out tasks until nothing is left."""
        while True:
            self._hand_out()
            if self._queue.settled:
                return
            if not self._handles:
                raise ConfigurationError(f"no worker can do the work, the last reason: {self._refusal}")
            waiting = {handle.waits: handle for handle in self._handles if handle.waits is not None}
            ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=_WAIT_SECONDS)
            for reference in ready:
                self._settle(waiting[reference], reference)
            self._queue.workers = sum(handle.ready for handle in self._handles)
            self._queue.changed()

    def _hand_out(self) -> None:
        several = len({handle.host for handle in self._handles if handle.ready}) > 1
        for handle in self._handles:
            if not handle.ready or handle.waits is not None:
                continue
            attempt = self._queue.take(handle.host if several else "")
            if attempt is not None:
                handle.attempt, handle.waits = attempt, handle.actor.do.remote(attempt)

    def stop(self) -> None:
        """End the workers."""
        for handle in self._handles:
            self._ray.kill(handle.actor)
        self._handles = []

    def _start_worker(self, number: int, deaths: int = 0) -> _WorkerHandle:
        actor = self._class.remote(self._shared, number)
        return _WorkerHandle(number, actor, actor.open.remote(), deaths=deaths)

    def _settle(self, handle: _WorkerHandle, reference: Any) -> None:
        """Take what came of something."""
        try:
            came = self._ray.get(reference)
        # The process ended, its node is gone, it ran out of memory, or the package cannot be imported there.
        except self._ray.exceptions.RayError as error:
            self._lost(handle, error)
            return
        handle.waits = None
        if handle.attempt is None:
            handle.host, refusal = came
            handle.ready = not refusal
            if refusal:
                self._give_up(handle, refusal)
            return
        handle.attempt = None
        # Terms are the same for all of them: kept once.
        self._queue.settle(replace(came, settings=self._settings) if isinstance(came, Result) else came)
        if isinstance(came, Failed) and came.broken:
            self._replace(handle)

    def _lost(self, handle: _WorkerHandle, error: Exception) -> None:
        reason = _reason(error)
        if handle.attempt is not None:
            self._queue.settle(Failed(handle.attempt, f"the worker's process ended: {reason}", handle.host))
            task = handle.attempt.task.name
            self._queue.notes.append(f"worker {handle.number} on {handle.host} ended while it did {task}")
            self._replace(handle)
        elif handle.deaths + 1 >= _MOST_DEATHS:
            self._give_up(handle, f"its process ended {_MOST_DEATHS} times before it was ready: {reason}")
        else:
            self._replace(handle, handle.deaths + 1)

    def _replace(self, handle: _WorkerHandle, deaths: int = 0) -> None:
        self._ray.kill(handle.actor)
        self._handles[self._handles.index(handle)] = self._start_worker(handle.number, deaths)

    def _give_up(self, handle: _WorkerHandle, reason: str) -> None:
        self._refusal = f"worker {handle.number} on {handle.host or 'an unknown host'}: {reason}"
        self._queue.notes.append(f"given up: {self._refusal}")
        self._ray.kill(handle.actor)
        self._handles.remove(handle)


def _reason(error: Exception) -> str:
    """The last line of what Ray says, which has the cause; without what Ray supposes of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^")]
    return f"{lines[-1].partition(' Some common causes')[0]:.300}" if lines else type(error).__name__
