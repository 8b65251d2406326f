"""Set-up decides rightly what to install where, and says what to do when it cannot."""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

import seg_perception
from tools import environment, interfaces, pycuda, set_up, stubs
from tools.environment import Interpreter, SetupError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def interpreter() -> Interpreter:
    return Interpreter(sys.executable, (3, 11), True, Path("/usr/include/python3.11"))


def sourced(name: str, path: Path | None = None) -> dict[str, str]:
    """The environment of a shell that has sourced a distribution whose modules are in `path`."""
    env = {"ROS_DISTRO": name, "AMENT_PREFIX_PATH": f"/opt/ros/{name}", "PATH": os.environ["PATH"]}
    return env if path is None else {**env, "PYTHONPATH": str(path)}


def test_no_distribution_sourced(interpreter: Interpreter) -> None:
    assert environment.sourced_distribution(interpreter, "kilted", {}) is None
    # A leftover variable alone is no distribution.
    assert environment.sourced_distribution(interpreter, "kilted", {"ROS_DISTRO": "kilted"}) is None


def test_sourced_distribution_is_used(interpreter: Interpreter, tmp_path: Path) -> None:
    (tmp_path / "rclpy.py").touch()
    assert environment.sourced_distribution(interpreter, "jazzy", sourced("jazzy", tmp_path)) == "jazzy"


def test_other_distribution_sourced(interpreter: Interpreter) -> None:
    with pytest.raises(SetupError, match=r"expected kilted .* sourced jazzy; use ROS=jazzy"):
        environment.sourced_distribution(interpreter, "kilted", sourced("jazzy"))


def test_sourced_distribution_of_another_python(interpreter: Interpreter, tmp_path: Path) -> None:
    (tmp_path / "rclpy.py").write_text("raise ImportError('built for another Python')")
    with pytest.raises(SetupError, match=r"cannot import rclpy; use the distribution's own Python"):
        environment.sourced_distribution(interpreter, "jazzy", sourced("jazzy", tmp_path))


def test_interpreter_is_missing() -> None:
    with pytest.raises(SetupError, match=r"found none; name one with PYTHON="):
        Interpreter.probe("python-that-is-not-there")


def test_interpreter_describes_itself() -> None:
    probed = Interpreter.probe(sys.executable)
    assert probed.version == sys.version_info[:2]


@pytest.mark.parametrize(
    ("system", "machine", "version", "message"),
    [
        ("Linux", "aarch64", (3, 11), "Linux on x86_64, this is Linux on aarch64; install and source"),
        ("Darwin", "x86_64", (3, 11), "this is Darwin on x86_64"),
        ("Linux", "x86_64", (3, 14), r"3\.10, 3\.11, 3\.12, 3\.13, .* is 3\.14; name one"),
    ],
)
def test_machine_without_wheels(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, version: tuple[int, int], message: str
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(SetupError, match=message):
        environment.check_wheels(Interpreter("python3", version, True, Path()))


def test_python_without_ensurepip(tmp_path: Path) -> None:
    base = Interpreter("/usr/bin/python3", (3, 11), False, Path())
    with pytest.raises(SetupError, match=r"apt install python3\.11-venv"):
        set_up.create(tmp_path / "venv", base, None)
    assert not (tmp_path / "venv").exists()


def test_environment_of_somebody_else_is_left_alone(tmp_path: Path, interpreter: Interpreter) -> None:
    kept = tmp_path / "pyvenv.cfg"
    kept.touch()
    with pytest.raises(SetupError, match=r"remove it, or name another place with VENV="):
        set_up.create(tmp_path, interpreter, None)
    assert kept.is_file()


def test_environment_is_made_anew(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    venv.mkdir()
    set_up.State(venv).set("environment", set_up.STARTED)
    (venv / "leftover").touch()
    # This interpreter is itself in an environment, whose base may lack what makes one.
    base = Interpreter.probe(sys.executable)
    if not base.has_venv:
        pytest.skip("this Python has no ensurepip")
    set_up.create(venv, base, None)
    assert (venv / "bin" / "python").exists()
    assert not (venv / "leftover").exists()


def test_compiler_is_missing(monkeypatch: pytest.MonkeyPatch, interpreter: Interpreter) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match=r"apt install g\+\+"):
        interfaces.check_compiler(interpreter)


def test_headers_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/c++")
    with pytest.raises(SetupError, match=r"headers of Python 3\.11 .* apt install python3\.11-dev"):
        interfaces.check_compiler(Interpreter("python3", (3, 11), True, tmp_path))


def test_distribution_keeps_its_own_packages() -> None:
    beside = {path.name for path in set_up.requirement_files("jazzy", "jazzy")}
    assert beside == {"backends.txt", "dev.txt"}


@pytest.mark.parametrize("ros", set_up.DISTRIBUTIONS)
def test_requirement_files_exist_and_pin(ros: str) -> None:
    for_cuda = [pycuda.REQUIREMENTS, *pycuda.beside(12), *pycuda.beside(13)]
    for path in (*set_up.requirement_files(ros, None), stubs.REQUIREMENTS, *for_cuda):
        for line in path.read_text().splitlines():
            assert not line or line.startswith("#") or "==" in line, f"{path.name}: {line!r} is not pinned"


def test_step_runs_again_only_when_its_fingerprint_changes(tmp_path: Path) -> None:
    runs: list[str] = []
    for mark in ("a", "a", "b", "b", "a"):
        set_up.State(tmp_path).run("step", mark, lambda mark=mark: runs.append(mark))
    assert runs == ["a", "b", "a"]


def test_interrupted_step_runs_again(tmp_path: Path) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        set_up.State(tmp_path).run("step", "a", interrupted)
    runs: list[str] = []
    assert "step" in set_up.State(tmp_path)
    set_up.State(tmp_path).run("step", "a", lambda: runs.append("a"))
    assert runs == ["a"]


def test_fingerprint_tells_parts_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    assert set_up.fingerprint(tmp_path / "file") == set_up.fingerprint("text")
    assert set_up.fingerprint("ab", "c") != set_up.fingerprint("a", "bc")


# As the generator of the stubs wrote it.
UNREADABLE_STUBS = """
class Layer:
    def get_size(self: Layer, in: list[int], out: list[int]) -> int:
        ...
    def add(self, shift: Weights = None, power: Weights = None, channel_axis: int) -> bool:
        ...
bool: DataType  # value = <DataType.BOOL: 4>
"""


def test_stubs_are_for_type_checkers_only(tmp_path: Path) -> None:
    def pip(*arguments: str) -> None:
        assert "--no-deps" in arguments  # They demand packages that PyPI does not have.
        target = Path(arguments[arguments.index("--target") + 1])
        for name in (*stubs.PACKAGES, "else"):
            (target / name).mkdir(parents=True)
            (target / name / "__init__.pyi").write_text(UNREADABLE_STUBS)

    for _ in range(2):
        stubs.install_stubs(tmp_path, pip)
        assert {path.name for path in tmp_path.iterdir()} == {"tensorrt-stubs", "tensorrt_bindings-stubs"}
    text = (tmp_path / "tensorrt-stubs" / "__init__.pyi").read_text()
    ast.parse(text)
    assert "in_: list[int], out: list[int]" in text
    assert "DataType" not in text


def test_stubs_without_the_packages(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"stubs\.txt has no package tensorrt; pin another version"):
        stubs.install_stubs(tmp_path, lambda *arguments: None)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Tries pycuda in an environment on a machine with a driver for this version of CUDA; returns what pip was told."""
    told: list[str] = []
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)

    def fails(pip: Callable[..., None]) -> None:
        raise SetupError("no compiler")

    def attempt(cuda: int | None, works: bool = True, there: bool = False) -> list[str]:
        del told[:]
        monkeypatch.setattr(pycuda, "cuda_version", lambda: cuda)
        monkeypatch.setattr(pycuda, "build", (lambda pip: pip("install", "pycuda")) if works else fails)
        monkeypatch.setattr(set_up, "run_pip", lambda python, *arguments: told.extend(arguments))
        monkeypatch.setattr(Interpreter, "imports", lambda self, module: there)
        set_up.try_pycuda(tmp_path, set_up.State(tmp_path))
        return told

    return attempt


def test_machine_without_cuda_never_tries_pycuda(machine: Callable[..., list[str]]) -> None:
    assert machine(cuda=None) == []


def test_pycuda_that_is_there_is_kept(machine: Callable[..., list[str]]) -> None:
    assert machine(cuda=12, there=True) == []


@pytest.mark.parametrize(("cuda", "name"), [(12, "cuda-12.txt"), (13, "cuda-13.txt"), (14, "cuda-13.txt")])
def test_pycuda_comes_with_what_fits_the_driver(machine: Callable[..., list[str]], cuda: int, name: str) -> None:
    told = machine(cuda=cuda)
    assert str(ROOT / "requirements" / name) in told
    assert told[-1] == "pycuda"
    assert machine(cuda=cuda) == []  # It is there now.


def test_pycuda_that_cannot_be_built_stops_nothing(
    machine: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    machine(cuda=12, works=False)
    said = capsys.readouterr().err
    assert re.search(r"pycuda could not be built \(no compiler\)\. .* Set-up goes on; .*, remove 'pycuda' from", said)
    assert machine(cuda=12, works=False) == []
    assert capsys.readouterr().err == ""
    # As the message says.
    state = tmp_path / set_up.STATE
    state.write_text(state.read_text().replace('"pycuda"', '"else"'))
    assert "pycuda" in machine(cuda=12)


def test_package_xml_agrees_with_the_package() -> None:
    package = ET.parse(ROOT / "package.xml").getroot()
    assert package.findtext("name") == "seg_perception"
    assert package.findtext("version") == seg_perception.__version__
    assert package.findtext("export/build_type") == "ament_python"
    license_text = (ROOT / "LICENSE").read_text()
    assert package.findtext("license") == "Apache-2.0"
    assert re.search(r"Apache License\s+Version 2\.0", license_text)
