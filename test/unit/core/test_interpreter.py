"""Processes that commands start: what they import, in a folder of somebody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from traps import NAMES, set_traps, sprung

import seg_perception
from seg_perception.core.interpreter import python_command, python_environment
from seg_perception.onboard.doctor.surroundings import Surroundings

IMPORTS = f"""
for name in {NAMES}:
    try:
        __import__(name)
    except ImportError:
        pass
import seg_perception
print(seg_perception.__file__)
"""


def start(command: list[str], folder: Path, paths: str) -> str:
    environment = python_environment({**os.environ, "PYTHONPATH": paths})
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_traps_work(tmp_path: Path) -> None:
    folder = set_traps(tmp_path / "bags")
    start([sys.executable, "-c", "import json, seg_perception"], folder, "")
    assert "json.py" in sprung(folder)
    assert "__init__.py" in sprung(folder)


@pytest.mark.parametrize("paths", ["", os.pathsep, ".", f"{os.pathsep}/nowhere", f"..{os.pathsep}bags"])
def test_nothing_of_the_current_folder_is_imported(tmp_path: Path, paths: str) -> None:
    folder = set_traps(tmp_path / "bags")
    assert start(python_command(IMPORTS), folder, paths) == seg_perception.__file__
    assert sprung(folder) == ""


def test_a_process_that_starts_itself_again_imports_nothing_of_it_either(tmp_path: Path) -> None:
    folder = set_traps(tmp_path / "bags")
    again = "import os\nif os.environ.setdefault('AGAIN', '0') == '0':\n"
    again += "    os.environ['AGAIN'] = '1'; os.execv(sys.executable, sys.orig_argv)\n"
    assert start(python_command(again + IMPORTS), folder, "") == seg_perception.__file__
    assert sprung(folder) == ""


def test_the_package_of_the_parent_is_run_and_not_one_that_is_installed(tmp_path: Path) -> None:
    other = tmp_path / "site" / "seg_perception"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    assert start(python_command(IMPORTS), tmp_path, str(other.parent)) == seg_perception.__file__


def test_folders_that_are_named_absolutely_stay() -> None:
    given = os.pathsep.join(["", "/opt/ros/python", "here", "/other", "."])
    assert python_environment({"PYTHONPATH": given, "A": "b"}) == {"PYTHONPATH": "/opt/ros/python:/other", "A": "b"}
    assert python_environment({"A": "b"}) == {"A": "b"}


def test_the_questions_of_the_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = set_traps(tmp_path / "bags")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    answer = Surroundings().python("import json, numpy; print(numpy.__version__)")
    assert answer.code == 0, answer.err
    assert answer.out.strip()
    assert sprung(folder) == ""


def test_openvino_tells_its_maker_nothing_and_forks_nothing(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    code = "import seg_perception.onboard.backend.host.openvino, sys; print(*sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "openvino_telemetry.main" not in done.stdout.split()
    assert not list(tmp_path.iterdir())
