"""Commands that start Python, run in a folder of somebody else's bags: nothing that lies there is executed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from integration.harness import Client
from traps import set_traps, sprung

from seg_perception.core.interpreter import python_command, python_environment

# As the installed script starts it: its own folder is on the path, and not the current one.
COMMAND = python_command("from seg_perception.cli.main import main; sys.exit(main())")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=python_environment(), capture_output=True, text=True, timeout=200
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["doctor", "--seconds", "0.1", "--json"], '"group": "cameras"'),
        (["top", "--once", "--timeout", "0.5"], "no diagnostics"),
    ],
)
def test_no_module_of_the_current_folder_is_run(
    client: Client, tmp_path: Path, arguments: list[str], said: str
) -> None:
    folder = set_traps(tmp_path / "bags")
    done = run(folder, *arguments)
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert sprung(folder) == ""
