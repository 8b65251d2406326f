"""Where the checks look: files of the system, the environment, other programs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from seg_perception.core.interpreter import python_command, python_environment

# A program that hangs, such as an import that waits for a dead file server, ends here.
PATIENCE_SECONDS = 60.0
_SHOWN_CHARACTERS = 300


class Ran(NamedTuple):
    """The end of a program: exit code (negative: the signal that killed it), and what it said."""

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """The reason of a failure, on one line."""
        if self.code < 0:
            try:
                name = signal.Signals(-self.code).name
            except ValueError:
                name = f"signal {-self.code}"
            said = f": {_last_line(self.err)}" if self.err.strip() else ""
            return f"it crashed ({name}){said}"
        return _last_line(self.err) or _last_line(self.out) or f"exit code {self.code}"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip()[:_SHOWN_CHARACTERS] if lines else ""


def run_program(command: Sequence[str], patience: float = PATIENCE_SECONDS) -> Ran:
    """Run a program to its end, at most for `patience` seconds; see `python_environment` for its environment."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience,
            stdin=subprocess.DEVNULL,
            env=python_environment(),
        )
    except OSError as error:
        return Ran(127, "", f"{command[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Ran(124, "", f"{command[0]} did not end within {patience:g} s")
    return Ran(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The machine as the checks see it; tests make up their own.

    Attributes:
        root: folder that holds `proc`, `sys` and `dev`.
        environment: variables.
        run: runs a program.
    """

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Callable[[Sequence[str]], Ran] = run_program

    def read(self, path: str) -> str:
        """A file's text without white space around it; empty where it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def number(self, path: str) -> int | None:
        """A file that is one number; None where there is none."""
        text = self.read(path)
        return int(text) if text.lstrip("-").isdecimal() else None

    def has_program(self, name: str) -> bool:
        """Return whether a program is on PATH."""
        return shutil.which(name, path=self.environment.get("PATH", os.defpath)) is not None

    def python(self, code: str) -> Ran:
        """Run code in an interpreter of its own: a package that crashes on import must not take the doctor along."""
        return self.run(python_command(code))

    def answers(self, questions: Mapping[str, str]) -> dict[str, Ran]:
        """Run several pieces of code, each in an interpreter of its own; the answers by the names of the questions."""
        # A few at once: most of an import is waiting for the disk.
        with ThreadPoolExecutor(4) as pool:
            return dict(zip(questions, pool.map(self.python, questions.values()), strict=True))
