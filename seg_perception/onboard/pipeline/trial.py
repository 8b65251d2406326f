"""A model is opened and run for the first time where a crash costs nothing: in a process of its own.

A damaged or hostile model can end the process that opens it, inside of a runtime's native code. A node that is active
must not go with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from signal import SIGKILL, Signals
from threading import Thread
from time import monotonic

from seg_perception.core.errors import ConfigurationError, ModelError, SegPerceptionError
from seg_perception.core.interpreter import python_command, python_environment
from seg_perception.core.text import message_text
from seg_perception.onboard.backend.base import RunOptions

_CODE = "from seg_perception.onboard.pipeline.trial import serve; serve()"
_LOOK_SECONDS = 0.1
# The trial gives way to the node that works.
_NICENESS = 5
# PR_SET_PDEATHSIG of prctl(2): the signal that a process gets when the thread that started it ends.
_DEATH_SIGNAL = 1


def try_model(
    path: Path, backend: str, run: RunOptions, *, limit: float, running: Callable[[], bool] = lambda: True
) -> None:
    """Open a model and run it once in a process of its own.

    Args:
        path: the model.
        backend: name of the backend; empty to choose by suffix.
        run: how to run it.
        limit: most seconds that this may take.
        running: whether the result is still wanted.

    Raises:
        ModelError: the model cannot be used, or it ended the process.
        ConfigurationError: it took longer than `limit`.
    """
    asked = json.dumps({"path": str(path), "backend": backend, "run": asdict(run)})
    # The pipe stays open: when this process ends, however it does, the other one sees that and ends, too.
    with subprocess.Popen(
        python_command(_CODE),
        env=python_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            line = _answer(process, asked, limit, running)
        finally:
            process.kill()
    if line is None:
        raise ConfigurationError(f"model: a trial of {path.name} took longer than {limit:g} s and was given up")
    if line and (problem := json.loads(line)["problem"]):
        raise ModelError(problem)
    if not line and running():
        code = process.returncode
        ended = Signals(-code).name if -code in set(Signals) else f"exit code {code}"
        raise ModelError(
            f"model file: {path.name} ended the process that opened it for a trial ({ended}); it is damaged, or made "
            "for another version of the runtime: prepare it again, and see that `seg_perception inspect` reads it"
        )


def _answer(process: subprocess.Popen[str], asked: str, limit: float, running: Callable[[], bool]) -> str | None:
    """The line that the process writes; empty when it ended without one, None when that takes too long."""
    said: list[str] = []
    reader = Thread(target=lambda: said.append(process.stdout.readline() if process.stdout else ""), daemon=True)
    reader.start()
    try:
        if process.stdin is not None:
            process.stdin.write(asked + "\n")
            process.stdin.flush()
    except OSError:  # it has ended already
        pass
    end = monotonic() + limit
    while reader.is_alive() and running():
        if monotonic() > end:
            return None
        reader.join(_LOOK_SECONDS)
    if said and not said[0]:
        process.wait()
    return said[0] if said else ""


def serve() -> None:
    """Be that process: read what to open, open and run it, write the outcome as a line of JSON."""
    os.nice(_NICENESS)
    with suppress(AttributeError):  # Linux only; what hangs in native code may keep the thread below from running
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, SIGKILL)
    asked = json.loads(sys.stdin.readline())
    Thread(target=_end_with_parent, daemon=True).start()
    problem = _problem(Path(asked["path"]), asked["backend"], RunOptions(**asked["run"]))
    print(json.dumps({"problem": problem}), flush=True)
    # Nothing is gained by releasing the model in an orderly way, and a damaged one may crash here, too.
    os._exit(0)


def _problem(path: Path, backend: str, run: RunOptions) -> str:
    from .opening import ModelChoice, open_segmenter

    try:
        choice = ModelChoice(str(path), backend, run.device, run.threads)
        open_segmenter(choice, any_classes=True).warm_up(1)
    except SegPerceptionError as error:
        return message_text(error)
    except Exception as error:
        return message_text(f"model file: {path.name} cannot be run ({type(error).__name__}: {error})")
    return ""


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def is_tried(path: Path) -> bool:
    """Return whether a model is to be tried: engines are not, whose hash is checked and which take the GPU's memory."""
    return path.suffix == ".onnx"
