"""Generates interface packages into an environment made of the PyPI wheels of ROS."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tools.environment import Interpreter, SetupError, dotted

ROOT = Path(__file__).resolve().parents[1]
INTERFACES = ROOT / "test" / "interfaces"
PACKAGES = ("vision_msgs", "tf2_msgs")
_THESE = " and ".join(PACKAGES)


def check_compiler(interpreter: Interpreter) -> None:
    """Checks for what the generated code is compiled with.

    Raises:
        SetupError: a compiler or the headers of Python are missing.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise SetupError(f"{_THESE}: expected a C++ compiler to generate them, found none; apt install g++, or set CXX")
    if not (interpreter.headers / "Python.h").is_file():
        raise SetupError(
            f"{_THESE}: expected the headers of Python {dotted(interpreter.version)} in {interpreter.headers}, "
            f"found none; apt install python{dotted(interpreter.version)}-dev"
        )


def generate(name: str, venv: Path, interpreter: Interpreter) -> None:
    """Builds a package of interfaces from its field lists and installs it into `venv` only.

    Raises:
        SetupError: a tool is missing or the build failed; the message has the end of its output.
    """
    check_compiler(interpreter)
    build = venv / "build" / name
    shutil.rmtree(build, ignore_errors=True)  # a build folder of other wheels or another place cannot be reused
    cmake = str(venv / "bin" / "cmake")
    # The installation goes where this Python looks, whatever scheme a distribution's own Python prefers.
    packages = f"lib/python{dotted(interpreter.version)}/site-packages"
    commands = [
        [
            *(cmake, "-S", str(INTERFACES / name), "-B", str(build), "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={venv / 'bin' / 'ninja'}",
            f"-DCMAKE_PREFIX_PATH={venv}",
            f"-DCMAKE_INSTALL_PREFIX={venv}",
            f"-DPython3_EXECUTABLE={venv / 'bin' / 'python'}",
            f"-DPYTHON_INSTALL_DIR={packages}",
            "-DBUILD_TESTING=OFF",
        ],
        [cmake, "--build", str(build), "-j2"],
        [cmake, "--install", str(build)],
    ]
    # The rosidl generators are scripts of the environment, found through PATH.
    env = {**os.environ, "AMENT_PREFIX_PATH": str(venv), "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}
    for command in commands:
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            tail = "\n".join(done.stdout.splitlines()[-30:])
            raise SetupError(f"{name}: `{' '.join(command)}` failed, its output ends with\n{tail}")
    shutil.rmtree(build)
