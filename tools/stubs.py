"""Installs the types of TensorRT's Python API, so that mypy sees them and `import tensorrt` does not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tools.environment import SetupError
from tools.interfaces import ROOT

REQUIREMENTS = ROOT / "requirements" / "stubs.txt"
PACKAGES = ("tensorrt", "tensorrt_bindings")

# They were generated from the bindings, and came out with a keyword as the name of a parameter, ...
_KEYWORD = re.compile(r"\bin: ")
# ... a parameter without a default behind some that have one, ...
_NO_DEFAULT = re.compile(r"(= None, )(\w+: int)\)")
# ... and TensorRT's constant `bool` for the type of everything that is called bool.
_CONSTANT = re.compile(r"^bool: DataType.*$", re.MULTILINE)


def install_stubs(packages: Path, pip: Callable[..., None]) -> None:
    """Installs the stubs into a folder of site-packages.

    As `tensorrt` they would be found by `import tensorrt`, which then seems to be there and is empty. Packages called
    `...-stubs` are seen by type checkers only.

    Args:
        packages: the folder.
        pip: runs `pip install` with these arguments.

    Raises:
        SetupError: the wheel has other packages than expected, or pip failed.
    """
    unpacked = packages / "tensorrt_stubs_unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        pip("--no-deps", "--target", str(unpacked), "-r", str(REQUIREMENTS))
        for name in PACKAGES:
            source, target = unpacked / name, packages / f"{name}-stubs"
            if not (source / "__init__.pyi").is_file():
                raise SetupError(f"stubs: {REQUIREMENTS.name} has no package {name}; pin another version")
            shutil.rmtree(target, ignore_errors=True)
            source.rename(target)
            for path in target.rglob("*.pyi"):
                path.write_text(repaired(path.read_text()))
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def repaired(text: str) -> str:
    """Returns the stubs without what Python or mypy cannot read."""
    return _CONSTANT.sub("", _NO_DEFAULT.sub(r"\1\2 = ...)", _KEYWORD.sub("in_: ", text)))
