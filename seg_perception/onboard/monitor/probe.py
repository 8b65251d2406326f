"""The command line's side of `seg_perception.onboard.ros.probe`, which looks at a running ROS system for it."""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import IO, Any

from seg_perception.core.errors import BackendUnavailable
from seg_perception.core.interpreter import python_command, python_environment
from seg_perception.core.text import MESSAGE_LIMIT, printable

_CODE = "from seg_perception.onboard.ros.probe import main; sys.exit(main())"
# For starting, discovery and the end.
_START_SECONDS = 30.0
_END_SECONDS = 3.0
# Beyond, the probe waits, and the middleware drops what is too much.
_MOST_WAITING = 100


class Probe:
    """A probe that runs; ends with the `with` block.

    Ctrl-C in a terminal does not reach it, as it has a session of its own; and it ends by itself when this process
    does, as its standard input ends then.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [*python_command(_CODE), *arguments],
            env=python_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        # None stands for the end.
        self._said: Queue[Mapping[str, Any] | None] = Queue(_MOST_WAITING)
        Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def first(self, seconds: float = 0.0) -> Mapping[str, Any]:
        """The first object that it tells, once it has started and worked for `seconds`.

        Raises:
            BackendUnavailable: it ended without one, or tells nothing.
        """
        patience = _START_SECONDS + seconds
        said = self.next(patience)
        if said is None:
            raise BackendUnavailable(
                f"what looks at the running system did not answer within {patience:g} s; is the middleware waiting for "
                "something (RMW_IMPLEMENTATION, its daemon, its configuration)?"
            )
        return said

    def next(self, timeout: float) -> Mapping[str, Any] | None:
        """The next object that it tells; None if none comes within `timeout` seconds.

        Raises:
            BackendUnavailable: it has ended.
        """
        try:
            said = self._said.get(timeout=max(timeout, 0.0))
        except Empty:
            return None
        if said is None:
            self._said.put(None)
            raise BackendUnavailable(self._reason())
        return said

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # A library may print to the same output.
            with suppress(ValueError, RecursionError):
                if isinstance(said := json.loads(line), dict):
                    self._said.put(said)
        self._said.put(None)

    def _reason(self) -> str:
        """Return why it has ended."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        said = printable(lines[-1].strip(), MESSAGE_LIMIT) if lines else "it said nothing"
        how = f"crashed with signal {-code}" if code < 0 else f"ended with code {code}"
        return (
            f"looking at the running system needs rclpy and the common message packages of ROS 2; what looks there "
            f"{how}: {said}; source /opt/ros/DISTRO/setup.bash and the workspace"
        )


def ask(arguments: Sequence[str], seconds: float) -> Mapping[str, Any]:
    """The one object that a probe tells after `seconds` of work; errors as `Probe.first`."""
    with Probe(arguments) as probe:
        return probe.first(seconds)


def seconds_between(lowest: float, highest: float) -> Callable[[str], float]:
    """The type of an argument that is a time."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"expected seconds from {lowest:g} to {highest:g}, got {text!r}")
        return value

    return parse
