"""The engine on Ray: a worker is an actor in a process of its own, with a core or a GPU, here or in a cluster.

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
from time import monotonic
from typing import Any

from seg_perception.core.errors import BackendUnavailable, ConfigurationError, SegPerceptionError
from seg_perception.core.interpreter import ROOT, python_environment

from .driver import Board, Engine
from .perform import perform
from .work import Attempt, Failed, Result, Task, Work, Worker, plain

_OBJECT_STORE = 100_000_000
# Seconds that the driver waits for something to happen before it looks around, and between two looks at a worker.
_WAIT, _STATUS = 0.5, 1.0
# A worker whose process ends so often before it is ready is not started once more.
_MOST_DEATHS = 3
_STATUS_GROUP = "status"


class RayEngine(Engine):
    """Does tasks on Ray."""

    def __init__(self, address: str = "", workers: int = 0, per_gpu: int = 1) -> None:
        """Say where.

        Args:
            address: empty for a Ray of this machine that ends with the run; `auto`, or host and port, of a cluster.
            workers: how many; 0 for as many as there are cores or GPUs for.
            per_gpu: workers that share a GPU, where one cannot decode as quickly as the GPU works.
        """
        self._address, self._workers, self._per_gpu = address, workers, per_gpu

    def run(self, work: Work, terms: Mapping[str, Any], board: Board) -> None:
        """See `Engine`.

        Raises:
            BackendUnavailable: Ray is not installed.
            ConfigurationError: there is no cluster at the address.
        """
        ray = _import_ray(local=not self._address)
        _connect(ray, self._address, self._workers * _cores(work))
        try:
            count = self._workers or room(ray.cluster_resources(), work, self._per_gpu)
            needs = {"num_cpus": _cores(work), "num_gpus": 1 / self._per_gpu if work.on_gpu else 0}
            crew = _Crew(ray, (work, terms), board, needs, min(count, len(board.tasks)))
            try:
                crew.go()
            finally:
                crew.dismiss()
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
            f"--engine ray needs the Python package ray ({error}): pip install ray, or leave --engine out"
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
        raise ConfigurationError(f"--engine ray: no Ray {place or 'could be started here'}: {error}") from error


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


def _cores(work: Work) -> int:
    return max(work.threads, 1)


def room(resources: Mapping[str, float], work: Work, per_gpu: int) -> int:
    """How many workers a cluster has room for now."""
    cores = int(resources.get("CPU", 0))
    return max(1, int(resources.get("GPU", 0)) * per_gpu if work.on_gpu else cores // _cores(work))


class Actor:
    """What runs in a worker's process; its methods raise nothing that the driver should know of."""

    def __init__(self, work: tuple[Work, Mapping[str, Any]], number: int) -> None:
        (self._work, self._terms), self._number = work, number
        self._worker: Worker | None = None
        self._status: tuple[int, int | None] = (0, None)

    def open(self) -> tuple[str, str]:
        """Open the models; returns the host, and why they cannot be used there."""
        import cv2

        cv2.setNumThreads(_cores(self._work))
        try:
            mine = plain(self._work.terms())
            if other := [name for name in mine if mine[name] != self._terms.get(name)]:
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
        self._status = (0, None)
        return perform(self._work, self._terms, self._worker, self._number, attempt, self._tell)

    def status(self) -> tuple[int, int | None]:
        """Frames that are done, and of how many; answered while `do` is at work."""
        return self._status

    def _tell(self, frames: int, of: int | None) -> None:
        self._status = (frames, of)


@dataclass
class _Hand:
    """A worker as the driver sees it.

    Attributes:
        number: of the worker.
        actor: Ray's handle.
        waits: for what the actor does now; None when it is free.
        attempt: what it does; None while it opens the models.
        status: for how far it is, if that was asked.
        asked: when.
        deaths: of its process before it was ready.
        host: where it runs.
        ready: whether its models are open.
    """

    number: int
    actor: Any
    waits: Any
    attempt: Attempt | None = None
    status: Any = None
    asked: float = 0.0
    deaths: int = 0
    host: str = ""
    ready: bool = False


class _Crew:
    """The workers of a run."""

    def __init__(
        self, ray: Any, asked: tuple[Work, Mapping[str, Any]], board: Board, needs: Mapping[str, float], count: int
    ) -> None:
        self._ray, self._board, self._terms = ray, board, asked[1]
        # A thread for the work, always the same one, because CUDA cares; and one that tells how far it is.
        actor = ray.remote(concurrency_groups={_STATUS_GROUP: 1})(Actor)
        self._class = actor.options(**needs, max_restarts=0)
        self._shared = ray.put(asked)
        self._hands: list[_Hand] = []
        self._refusal = ""
        for number in range(count):
            self._hands.append(self._hire(number))

    def go(self) -> None:
        """Hand out tasks until nothing is left."""
        while True:
            self._hand_out()
            if self._board.settled:
                return
            if not self._hands:
                raise ConfigurationError(f"no worker can do the work, the last reason: {self._refusal}")
            waiting = {hand.waits: hand for hand in self._hands if hand.waits is not None}
            ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=_WAIT)
            for reference in ready:
                self._settle(waiting[reference], reference)
            self._look_around()
            self._board.workers = sum(hand.ready for hand in self._hands)
            self._board.changed()

    def _hand_out(self) -> None:
        several = len({hand.host for hand in self._hands if hand.ready}) > 1
        for hand in self._hands:
            if not hand.ready or hand.waits is not None:
                continue
            attempt = self._board.take(hand.host if several else "")
            if attempt is not None:
                hand.attempt, hand.waits, hand.asked = attempt, hand.actor.do.remote(attempt), monotonic()

    def dismiss(self) -> None:
        """End the workers."""
        for hand in self._hands:
            self._ray.kill(hand.actor)
        self._hands = []

    def _hire(self, number: int, deaths: int = 0) -> _Hand:
        actor = self._class.remote(self._shared, number)
        return _Hand(number, actor, actor.open.remote(), deaths=deaths)

    def _settle(self, hand: _Hand, reference: Any) -> None:
        """Take what came of something."""
        try:
            came = self._ray.get(reference)
        # The process ended, its node is gone, it ran out of memory, or the package cannot be imported there.
        except self._ray.exceptions.RayError as error:
            self._lost(hand, error)
            return
        hand.waits = None
        if hand.attempt is None:
            hand.host, refusal = came
            hand.ready = not refusal
            if refusal:
                self._give_up(hand, refusal)
            return
        hand.attempt, hand.status = None, None
        # Terms are the same for all of them: kept once.
        self._board.settle(replace(came, terms=self._terms) if isinstance(came, Result) else came)
        if isinstance(came, Failed) and came.broken:
            self._replace(hand)

    def _lost(self, hand: _Hand, error: Exception) -> None:
        reason = _reason(error)
        if hand.attempt is not None:
            self._board.settle(Failed(hand.attempt, f"the worker's process ended: {reason}", hand.host))
            self._board.notes.append(f"worker {hand.number} on {hand.host} ended while it did {hand.attempt.task.name}")
            self._replace(hand)
        elif hand.deaths + 1 >= _MOST_DEATHS:
            self._give_up(hand, f"its process ended {_MOST_DEATHS} times before it was ready: {reason}")
        else:
            self._replace(hand, hand.deaths + 1)

    def _replace(self, hand: _Hand, deaths: int = 0) -> None:
        self._ray.kill(hand.actor)
        self._hands[self._hands.index(hand)] = self._hire(hand.number, deaths)

    def _give_up(self, hand: _Hand, reason: str) -> None:
        self._refusal = f"worker {hand.number} on {hand.host or 'an unknown host'}: {reason}"
        self._board.notes.append(f"given up: {self._refusal}")
        self._ray.kill(hand.actor)
        self._hands.remove(hand)

    def _look_around(self) -> None:
        """Ask the busy ones how far they are, and take their answers; never wait for one."""
        now = monotonic()
        busy = [hand for hand in self._hands if hand.attempt is not None and hand.waits is not None]
        answers = [hand.status for hand in busy if hand.status is not None]
        answered = set(self._ray.wait(answers, num_returns=len(answers), timeout=0)[0]) if answers else set()
        # So that a thousand workers do not keep the driver busy with telling how far they are.
        pause = max(_STATUS, len(busy) / 50)
        for hand in busy:
            if hand.status in answered:
                self._told(hand, hand.attempt.task if hand.attempt else None)
            elif hand.status is None and now - hand.asked >= pause:
                hand.asked = now
                hand.status = hand.actor.status.options(concurrency_group=_STATUS_GROUP).remote()

    def _told(self, hand: _Hand, task: Task | None) -> None:
        try:
            frames, of = self._ray.get(hand.status)
        except self._ray.exceptions.RayError:
            return  # What became of the work itself is told by its own reference.
        finally:
            hand.status = None
        if task is not None:
            self._board.tell(task, frames, of)


def _reason(error: Exception) -> str:
    """The last line of what Ray says, which has the cause; without what Ray supposes of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^")]
    return f"{lines[-1].partition(' Some common causes')[0]:.300}" if lines else type(error).__name__
