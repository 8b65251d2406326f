"""What a fleet does: the tasks, the kind of work, and the worker that does it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from seg_perception import __version__
from seg_perception.onboard.pipeline.opening import ModelChoice

from .models import runs_on_gpu

# Is told of the frames that are done, and of how many if that is known.
Tell = Callable[[int, "int | None"], None]


@dataclass(frozen=True, slots=True)
class RecordingFile:
    """A recording as it lies there; one that differs in any of this is another.

    Attributes:
        path: absolute.
        bytes: of the file, or of all files of the folder.
        modified_ns: when the file, or the newest of the folder, was written.
    """

    path: str
    bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Task:
    """One bag.

    Attributes:
        name: of its results; no two tasks have the same.
        source: the bag.
        folder: where the results go.
    """

    name: str
    source: RecordingFile
    folder: Path


@dataclass(frozen=True, slots=True)
class Attempt:
    """A task that is handed to a worker; `number` counts from 1."""

    task: Task
    number: int


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a task; its manifest.

    Attributes:
        name: of the task.
        command: that made it.
        settings: what the result depends on in addition to the bag: model and options.
        source: the bag.
        output: name of the result in the folder.
        output_bytes: of it.
        outcome: what the work says of it, plain values.
        identity: of the model that ran.
        seconds: that it took.
        cpu_seconds: of the worker's process, all threads.
        worker: its number.
        host: on which it ran.
        attempt: which one it was, from 1.
        finished: when, UTC.
        version: of this package.
    """

    name: str
    command: str
    settings: Mapping[str, Any]
    source: RecordingFile
    output: str
    output_bytes: int
    outcome: Mapping[str, Any]
    identity: Mapping[str, str]
    seconds: float
    cpu_seconds: float
    worker: int
    host: str
    attempt: int
    finished: str
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that came to nothing.

    Attributes:
        attempt: which.
        error: why, human-readable.
        host: where; empty if that is not known.
        broken: whether the worker cannot go on as it is.
    """

    attempt: Attempt
    error: str
    host: str = ""
    broken: bool = False


class FleetWorker(ABC):
    """Does tasks one after the other with models that are opened once."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, str]:
        """Human-readable facts about what runs here."""

    @abstractmethod
    def do(self, task: Task, output: Path, tell: Tell) -> Mapping[str, Any]:
        """Do a task.

        Args:
            task: which.
            output: the file or folder to be made; it gets its name afterwards.
            tell: is told how far it is.

        Returns:
            What came of it as plain values, among them `frames` (count of processed ones) and `faults`.

        Raises:
            SegPerceptionError: the task cannot be done.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the models."""


class FleetWork(ABC):
    """A kind of work; it travels to each worker once, so it holds no more than options.

    Attributes:
        command: its name.
        suffix: of an output; empty for a folder.
        precious: whether people work on outputs, so that one that is done again is kept under another name.
    """

    command: ClassVar[str]
    suffix: ClassVar[str]
    precious: ClassVar[bool] = False

    @property
    @abstractmethod
    def choices(self) -> Sequence[ModelChoice]:
        """The models, at least one, and how they run."""

    @property
    def threads(self) -> int:
        """Threads of the CPU for each worker; 0 lets the backend choose."""
        return self.choices[0].threads

    @property
    def on_gpu(self) -> bool:
        """Whether each worker needs a GPU."""
        return any(map(runs_on_gpu, self.choices))

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what a result depends on in addition to the bag, as plain values."""

    @abstractmethod
    def open(self) -> FleetWorker:
        """Open the models, where they are to run.

        Raises:
            SegPerceptionError: they cannot be used there.
        """

    @abstractmethod
    def totals(self, results: Sequence[Result]) -> dict[str, Any]:
        """Results of several bags as one, plain values."""

    def merge(self, results: Sequence[Result], folder: Path, new: bool) -> list[str]:
        """Make of the results what can only be made of all.

        Args:
            results: of this run and of earlier ones, at least one.
            folder: where they are.
            new: whether this run made any of them.

        Returns:
            Human-readable lines.
        """
        return []


def plain(value: object) -> Any:
    """The same as JSON gives it back: paths as text, tuples as lists; what is NaN or infinite is null."""
    return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
