"""One attempt at one bag, where it is done: the output gets its name when it is whole, and the manifest comes last."""

from __future__ import annotations

import glob
import secrets
import shutil
import socket
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from seg_perception.core.errors import DeviceError, SegPerceptionError

from .results import MANIFEST, bytes_of, set_aside, write_manifest
from .work import Attempt, Failed, FleetWork, FleetWorker, Result, Task, Tell, plain


def perform(
    work: FleetWork, settings: Mapping[str, Any], worker: FleetWorker, number: int, attempt: Attempt, tell: Tell
) -> Result | Failed:
    """Do a task, and write its manifest.

    Args:
        work: of which kind.
        settings: of the work, as the driver has them.
        worker: does it.
        number: of the worker.
        attempt: at which task.
        tell: is told how far it is.
    """
    task, begin, cpu = attempt.task, perf_counter(), process_time()
    try:
        for left in _partials(task):
            _remove(left)
        # A name of its own: a worker that was given up may still be writing somewhere in a cluster.
        partial = task.folder / f".{task.name}.{secrets.token_hex(4)}.partial{work.suffix}"
        outcome = worker.do(task, partial, tell)
        output = task.folder / f"{task.name}{work.suffix}"
        # In this order: no manifest ever stands next to an output that it does not describe.
        (task.folder / f"{task.name}{MANIFEST}").unlink(missing_ok=True)
        if work.precious:
            set_aside(output)
        elif output.is_dir():
            shutil.rmtree(output)
        partial.replace(output)
        result = Result(
            task.name, work.command, settings, task.source, output.name, bytes_of(output)[0], plain(outcome),
            worker.identity, round(perf_counter() - begin, 3), round(process_time() - cpu, 3), number,
            socket.gethostname(), attempt.number, datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )  # fmt: skip
        write_manifest(task.folder, result)
    except SegPerceptionError as error:
        return Failed(attempt, str(error), socket.gethostname(), isinstance(error, DeviceError))
    # Whatever else a bag may cause: the others go on.
    except Exception as error:
        return Failed(attempt, f"{type(error).__name__}: {error}", socket.gethostname())
    return result


def _partials(task: Task) -> list[Path]:
    """Return what attempts at the task have left."""
    pattern = f".{glob.escape(task.name)}.{'[0-9a-f]' * 8}.partial*"
    return list(task.folder.glob(pattern))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
