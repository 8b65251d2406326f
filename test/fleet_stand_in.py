"""Work for a fleet that does what each bag's text says, so that tests decide which bag fails, and how."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from seg_perception.core.errors import DeviceError, ModelError, SourceError
from seg_perception.offboard.fleet.work import FleetWork, FleetWorker, Result, Task, Tell
from seg_perception.onboard.pipeline.opening import ModelChoice

FRAMES = 10


@dataclass(frozen=True)
class StandIn(FleetWork):
    """A bag's text is `fine`, `slow SECONDS`, or a fault with the number of attempts that meet it: `fault 2`.

    Faults: `unreadable`, `device`, `surprise`, and `death` of the process.

    Attributes:
        log: a file that gets a line for everything that is begun.
        refuses: whether no worker can open it.
    """

    command: ClassVar[str] = "stand-in"
    suffix: ClassVar[str] = ".txt"
    log: Path
    refuses: bool = False
    option: str = ""

    @property
    def choices(self) -> tuple[ModelChoice, ...]:
        return (ModelChoice("model.onnx", threads=1),)

    def settings(self) -> dict[str, Any]:
        return {"option": self.option}

    def open(self) -> FleetWorker:
        self.say("open")
        if self.refuses:
            raise ModelError("no such model")
        return _StandInWorker(self)

    def totals(self, results: Sequence[Result]) -> dict[str, Any]:
        return {"frames": sum(each.outcome["frames"] for each in results)}

    def say(self, line: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{line} {os.getpid()}\n")

    def said(self, line: str) -> int:
        return sum(each.startswith(f"{line} ") for each in self.log.read_text().splitlines())


class _StandInWorker(FleetWorker):
    def __init__(self, work: StandIn) -> None:
        self._work = work

    @property
    def identity(self) -> Mapping[str, str]:
        return {"model": "stand-in"}

    def do(self, task: Task, output: Path, tell: Tell) -> Mapping[str, Any]:
        self._work.say(task.name)
        kind, _, amount = Path(task.source.path).read_text().partition(" ")
        output.write_text("half")
        tell(FRAMES // 2, FRAMES)
        if kind == "slow":
            time.sleep(float(amount))
        elif kind != "fine" and self._work.said(task.name) <= int(amount):
            _fail(kind)
        output.write_text("whole")
        return {"frames": FRAMES, "faults": 0}

    def close(self) -> None:
        self._work.say("close")


def _fail(kind: str) -> None:
    if kind == "death":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {"unreadable": SourceError, "device": DeviceError, "surprise": ZeroDivisionError}[kind](f"{kind} it is")
