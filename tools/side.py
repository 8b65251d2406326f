"""Makes an environment next to the product's own: `python3 -m tools.side training --venv .venv-training`.

`training` has what `make train` needs, `families` the packages that models of other families are exported with, `cuda`
pycuda for `make test-cuda`, `fleet` Ray for `make test-fleet`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools import pycuda
from tools.environment import Interpreter, SetupError, dotted
from tools.interfaces import ROOT
from tools.set_up import State, create, exclusive, fingerprint, pip, run_pip

REQUIREMENTS = ROOT / "requirements"
NAMES = ("cuda", "families", "fleet", "training")
# Versions for which the pinned packages of all of them exist.
PYTHONS = [(3, 11), (3, 12), (3, 13)]
# What the package itself needs to be imported from the checkout.
SHARED = ("system", "backends")


def install(name: str, python: str) -> None:
    """Installs the pinned packages of an environment."""
    if name != "families":
        pip(python, *(argument for file in files_of(name) for argument in ("-r", str(file))))
        return
    # As they are, and what torch needs: its CUDA build has libraries of its own.
    requirements = REQUIREMENTS / f"{name}.txt"
    pip(python, "--no-deps", "-r", str(requirements))
    torch = next(line for line in requirements.read_text().splitlines() if line.startswith("torch=="))
    pip(python, torch)


def files_of(name: str) -> list[Path]:
    """The requirement files of an environment."""
    files = [REQUIREMENTS / f"{each}.txt" for each in (*SHARED, name)]
    return [*files, *pycuda.beside(13)] if name == "cuda" else files


def set_up(name: str, venv: Path, python: str) -> None:
    """Brings the environment at `venv` up to date.

    Raises:
        SetupError: a step cannot be done on this machine as it is.
    """
    base = Interpreter.probe(python)
    if base.version not in PYTHONS:
        raise SetupError(
            f"Python: the packages for {name} exist for {', '.join(dotted(v) for v in PYTHONS)}, {base.path} is "
            f"{dotted(base.version)}; name another with PYTHON="
        )
    kind = fingerprint(str(venv), dotted(base.version))
    if State(venv).get("environment") != kind or not (venv / "bin" / "python").exists():
        create(venv, base, None)
    state = State(venv)
    state.set("environment", kind)
    inside = str(venv / "bin" / "python")
    state.run(name, fingerprint(*files_of(name)), lambda: install(name, inside))
    if name == "cuda":
        mark = fingerprint(*pycuda.recipe())
        state.run("pycuda", mark, lambda: pycuda.build(lambda *arguments: run_pip(inside, *arguments)))


def main(arguments: list[str] | None = None) -> int:
    """Runs set-up from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="side", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=NAMES, help="what the environment is for")
    parser.add_argument("--venv", type=Path, required=True, help="folder of the environment")
    parser.add_argument("--python", default="python3", help="interpreter that makes the environment")
    options = parser.parse_args(arguments)
    try:
        with exclusive(options.venv.absolute()):
            set_up(options.name, options.venv.absolute(), options.python)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
