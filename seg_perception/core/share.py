"""Where the files that come with the package are: class tables, parameter files, models."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .errors import ConfigurationError
from .text import printable

PACKAGE = "seg_perception"


def share_directory() -> Path:
    """The folder that holds `config/`, `launch/` and `engines/`.

    That is `share/seg_perception` of the first workspace on AMENT_PREFIX_PATH that has it, else the root of the source
    checkout this module runs from, else `share/seg_perception` under `sys.prefix` (installed with pip).

    Raises:
        ConfigurationError: the package is in none of them.
    """
    candidates = list(_candidates())
    for candidate in candidates:
        if (candidate / "package.xml").is_file() and (candidate / "config").is_dir():
            return candidate
    raise ConfigurationError(
        f"share directory of {PACKAGE}: expected a folder with package.xml and config/, found none of "
        f"{', '.join(map(str, candidates))}; source the workspace's install/setup.bash or run from a checkout"
    )


def find_model(model: str) -> Path:
    """Return the file that a model's name stands for: a path, a file of share/engines, or a name of the catalogue.

    Raises:
        ConfigurationError: it begins with `~` and the name of nobody; or it is a name of the catalogue, and the model
            was not fetched.
    """
    path = user_path(model)
    if path.is_absolute():
        return path
    for candidate in (path, share_directory() / "engines" / model):
        # A folder that happens to have a model's name is not that model.
        if is_there(candidate) and not candidate.is_dir():
            return candidate
    from .catalogue import model_by_name

    return model_by_name(model) or path


def user_path(text: str) -> Path:
    """Return a path that a user or a parameter names; `~` is the home of its user.

    Raises:
        ConfigurationError: there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(f"'{printable(text)}': there is no home folder of that user here") from error


def is_there(path: Path) -> bool:
    """Return whether a file or folder is there; nothing is at a path that no system call takes."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _candidates() -> Iterator[Path]:
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix) / "share" / PACKAGE
    yield Path(__file__).resolve().parents[2]
    yield Path(sys.prefix) / "share" / PACKAGE
