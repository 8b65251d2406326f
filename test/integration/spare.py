"""Processes that have done a node's imports before it is started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

_SPARE = """
import json, sys
import cv2, openvino, rclpy.executors, vision_msgs.msg
import seg_perception.onboard.ros.node
from seg_perception.onboard.ros.main import main
told = sys.stdin.readline()
sys.argv[1:] = json.loads(told or "[]")
sys.exit(main() if told else 0)
"""


class Spare:
    """A process that becomes a node when it is told its arguments.

    Most of a node's start are imports; those of the next node are done while tests wait for something else.
    """

    _next: ClassVar[Spare | None] = None
    _usual: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        handle, name = tempfile.mkstemp(suffix=".log")
        self._log = Path(name)
        command = [sys.executable, "-c", _SPARE]
        self._popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=handle, stderr=subprocess.STDOUT)
        os.close(handle)

    @classmethod
    def prepare(cls) -> None:
        """Begin, in the environment that most tests have."""
        cls._usual, cls._next = _environment(), Spare()

    @classmethod
    def start(cls, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """A node with arguments, which writes into a file."""
        if _environment() != cls._usual:  # a test's own, such as one with a patch on PYTHONPATH
            return Spare()._become(arguments, log)
        spare, cls._next = cls._next or Spare(), None
        popen = spare._become(arguments, log)
        cls._next = Spare()
        return popen

    @classmethod
    def end_last(cls) -> None:
        spare, cls._next = cls._next, None
        if spare is not None:
            spare._end()

    def _become(self, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        shutil.move(self._log, log)
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(arguments).encode() + b"\n")
        self._popen.stdin.close()
        return self._popen

    def _end(self) -> None:
        self._popen.kill()
        self._popen.communicate()
        self._log.unlink()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
