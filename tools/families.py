"""Makes the environment of `make test-families`: `python3 -m tools.families --venv .venv-families`.

It has the packages that models are exported with, apart from the product's own environment.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.environment import Interpreter, SetupError, dotted
from tools.interfaces import ROOT
from tools.set_up import State, create, exclusive, fingerprint, pip

REQUIREMENTS = ROOT / "requirements" / "families.txt"
# Versions for which the pinned packages exist.
PYTHONS = [(3, 11), (3, 12), (3, 13)]


def install(python: str) -> None:
    """Installs the pinned packages as they are, and what torch needs: its CUDA build has libraries of its own."""
    pip(python, "--no-deps", "-r", str(REQUIREMENTS))
    torch = next(line for line in REQUIREMENTS.read_text().splitlines() if line.startswith("torch=="))
    pip(python, torch)


def set_up(venv: Path, python: str) -> None:
    """Brings the environment at `venv` up to date.

    Raises:
        SetupError: a step cannot be done on this machine as it is.
    """
    base = Interpreter.probe(python)
    if base.version not in PYTHONS:
        raise SetupError(
            f"Python: the exporters exist for {', '.join(dotted(v) for v in PYTHONS)}, {base.path} is "
            f"{dotted(base.version)}; name another with PYTHON="
        )
    kind = fingerprint(str(venv), dotted(base.version))
    if State(venv).get("environment") != kind or not (venv / "bin" / "python").exists():
        create(venv, base, None)
    state = State(venv)
    state.set("environment", kind)
    files = [REQUIREMENTS, *(ROOT / "requirements" / name for name in ("system.txt", "backends.txt"))]
    state.run("families", fingerprint(*files), lambda: install(str(venv / "bin" / "python")))


def main(arguments: list[str] | None = None) -> int:
    """Runs set-up from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="families", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--venv", type=Path, required=True, help="folder of the environment")
    parser.add_argument("--python", default="python3", help="interpreter that makes the environment")
    options = parser.parse_args(arguments)
    try:
        with exclusive(options.venv.absolute()):
            set_up(options.venv.absolute(), options.python)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
