"""Native code looks at a stranger's graph where a crash costs nothing first: in a copy of this process.

ONNX's inference ends the process at some graphs, such as a Slice of an axis of negative length. The copy is a fork, not
an interpreter of its own as in `onboard.pipeline.trial`: that one would read the model and import onnx again, which
takes as long as all of `prepare`; the fork takes some hundredths of a second.
"""

from __future__ import annotations

import faulthandler
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from select import select
from signal import SIGKILL, Signals
from typing import NoReturn

Say = Callable[[str], None]

_LIMIT_SECONDS = 300.0
_PIPE_BYTES = 1 << 16


def outcome_in_copy(work: Callable[[Say], object], limit: float = _LIMIT_SECONDS) -> tuple[str, str]:
    """Run work in a copy of this process; whatever it changes or raises is lost.

    Not a `multiprocessing.Process`: workers of a pool, in which somebody may prepare many models, may not have one.

    Args:
        work: is given a function that takes lines of text to this process.
        limit: most seconds between two lines.

    Returns:
        How the copy ended, empty where it came to its end; and the last line.
    """
    reader, writer = os.pipe()
    copy = os.fork()
    if not copy:
        _be_the_copy(work, writer)
    os.close(writer)
    told, late = b"", False
    while not (late := not select([reader], [], [], limit)[0]) and (data := os.read(reader, _PIPE_BYTES)):
        told += data
    os.close(reader)
    if late:
        os.kill(copy, SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    last = told.decode(errors="replace").rstrip("\n").rpartition("\n")[2]
    if late:
        return f"no answer within {limit:g} s", last
    return (Signals(-code).name if -code in set(Signals) else f"exit code {code}") if code else "", last


def _be_the_copy(work: Callable[[Say], object], writer: int) -> NoReturn:
    """Work and end. What native code writes on its way out and a core dump would help nobody."""
    try:
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        # What Python can raise the caller meets again, where it is dealt with.
        with suppress(Exception):
            work(lambda text: _write(writer, text))
    finally:
        os._exit(0)


def _write(writer: int, text: str) -> None:
    os.write(writer, text.encode(errors="replace") + b"\n")
