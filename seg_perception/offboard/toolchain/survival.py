"""Native code looks at a stranger's graph where a crash costs nothing first: in a copy of this process.

ONNX's inference ends the process at some graphs, such as a Slice of an axis of negative length. The copy is a fork, not
an interpreter of its own as in `onboard.pipeline.trial`: that one would read the model and import onnx again, which
takes as long as all of `prepare`; the fork takes some hundredths of a second.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from signal import Signals

Say = Callable[[str], None]

_FORK = multiprocessing.get_context("fork")
_LIMIT_SECONDS = 300.0


def outcome_in_copy(work: Callable[[Say], object], limit: float = _LIMIT_SECONDS) -> tuple[str, str]:
    """Run work in a copy of this process; whatever it changes or raises is lost.

    Args:
        work: is given a function that takes text to this process.
        limit: most seconds between two texts.

    Returns:
        How the copy ended, empty where it came to its end; and the last text.
    """
    reader, writer = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_quietly, args=(work, writer), daemon=True)
    process.start()
    writer.close()
    last, late = "", False
    with reader, suppress(EOFError):
        while not (late := not reader.poll(limit)):
            last = reader.recv_bytes().decode()
    if late:
        process.kill()
    process.join()
    code = process.exitcode or 0
    process.close()
    if late:
        return f"no answer within {limit:g} s", last
    return (Signals(-code).name if -code in set(Signals) else f"exit code {code}") if code else "", last


def _quietly(work: Callable[[Say], object], writer: Connection) -> None:
    """Be the copy. What native code writes on its way out and a core dump would help nobody."""
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # What Python can raise the caller meets again, where it is dealt with.
    with suppress(Exception):
        work(lambda text: writer.send_bytes(text.encode(errors="replace")))
