"""Other Python processes: they run this package and what is installed, and nothing of the current folder.

Python puts the current folder first where it looks for modules when it is started with `-c` or `-m`. A command that is
run in a folder of somebody's bags must not run a `json.py` that lies there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

# The folder that this package was imported from: another one may be installed, too.
ROOT = str(Path(__file__).resolve().parents[2])
# `-P` does the same from Python 3.11 on. As this is part of the code, an interpreter that starts itself again, as the
# ROS wheels have it, does it again. What is built in needs no path, so nothing is imported before it is cleaned.
_PRELUDE = f"""\
import sys
sys.path[:] = [folder for folder in sys.path if folder]
sys.path.insert(0, {ROOT!r})
import seg_perception
del sys.path[0]
"""


def python_command(code: str) -> list[str]:
    """Return the command that runs code in an interpreter of its own; start it with `python_environment`.

    Args:
        code: statements. They may import this package, the very one that calls, and what is installed.
    """
    return [sys.executable, "-c", _PRELUDE + code]


def python_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment (default: ours) in which PYTHONPATH names no folder relative to the current one."""
    values = dict(os.environ if environment is None else environment)
    if "PYTHONPATH" in values:
        # An empty entry, as in `export PYTHONPATH=$PYTHONPATH:/more`, means the current folder.
        folders = [folder for folder in values["PYTHONPATH"].split(os.pathsep) if Path(folder).is_absolute()]
        values["PYTHONPATH"] = os.pathsep.join(folders)
    return values
