"""Checks that a release is whole: `make release-check`, or `python -m tools.release` in an environment of `make setup`.

The version has to be the same everywhere. A source distribution is built from the checkout, and a wheel from that. The
wheel is installed in an empty environment without ROS, and `seg_perception image` has to find something.
A package index has to be in reach.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "seg_perception"
MODEL = "street-nano.onnx"
# What the wheel has to bring next to its modules.
SHARED = ("package.xml", f"engines/{MODEL}", "config/seg_perception.yaml", "launch/perception.launch.py")
# What a source distribution needs for a wheel to be built from it.
SOURCES = ("setup.py", "setup.cfg", "package.xml", "README.md", "LICENSE", f"resource/{PACKAGE}", f"engines/{MODEL}")
_BUILD = ("build", "setuptools==79.0.1", "wheel")
_EXTRAS = "openvino,opencv"


class ReleaseError(Exception):
    """The release is not whole; the message says what was expected, what came and what to do."""


def versions(root: Path = ROOT) -> dict[str, str]:
    """Return the version that each file names, by file.

    Raises:
        ReleaseError: one of them names none.
    """
    patterns = {
        f"{PACKAGE}/__init__.py": r'^__version__ = "(.+)"$',
        "CHANGELOG.md": r"^## (\S+)",
        "CITATION.cff": r"^version: (\S+)$",
    }
    found = {"package.xml": str(ElementTree.parse(root / "package.xml").findtext("version"))}
    for name, pattern in patterns.items():
        match = re.search(pattern, (root / name).read_text(encoding="utf-8"), re.MULTILINE)
        if match is None:
            raise ReleaseError(f"{name}: expected a line that matches {pattern}, found none")
        found[name] = match[1]
    return found


def check_versions(found: dict[str, str]) -> str:
    """Return the version if all files name the same.

    Raises:
        ReleaseError: they differ.
    """
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} has {version}" for name, version in found.items())
        raise ReleaseError(f"version: expected one, but {listed}; {PACKAGE}/__init__.py is the one to follow")
    return next(iter(found.values()))


def check_content(archive: Path, names: Iterable[str], wanted: Iterable[str]) -> None:
    """Check that each wanted path is the end of a path in an archive.

    Raises:
        ReleaseError: some are missing.
    """
    present = list(names)
    missing = [path for path in wanted if not any(f"/{name}".endswith(f"/{path}") for name in present)]
    if missing:
        raise ReleaseError(
            f"{archive.name}: expected {', '.join(missing)} in it, found none; setup.py names what goes in"
        )


def run(command: Sequence[str | Path], cwd: Path = Path("/")) -> str:
    """Run a command without the checkout and ROS in its paths; return what it printed.

    Raises:
        ReleaseError: it failed.
    """
    hidden = ("PYTHONPATH", "AMENT_PREFIX_PATH", "ROS_DISTRO")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd)
    if done.returncode:
        output = (done.stdout + done.stderr).strip()[-2000:]
        raise ReleaseError(f"`{' '.join(map(str, command))}` failed with exit code {done.returncode}:\n{output}")
    return done.stdout


def environment(folder: Path) -> Path:
    """Make an empty environment; return its interpreter."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def install(python: Path, *packages: str) -> None:
    """Install packages with pip.

    Raises:
        ReleaseError: pip failed, for example because it reaches no package index.
    """
    try:
        run([python, "-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check", *packages])
    except ReleaseError as error:
        raise ReleaseError(f"{error}\nA check of a release needs a package index for {', '.join(packages)}") from error


def build(python: Path, target: Path) -> tuple[Path, Path]:
    """Build a source distribution, and a wheel from it.

    Returns:
        Paths of the two.

    Raises:
        ReleaseError: a build failed, or a file is missing in its result.
    """
    run([python, "-m", "build", "--no-isolation", "--outdir", target, ROOT])
    (sdist,), (wheel,) = target.glob("*.tar.gz"), target.glob("*.whl")
    with tarfile.open(sdist) as archive:
        check_content(sdist, archive.getnames(), SOURCES)
    with zipfile.ZipFile(wheel) as archive:
        check_content(wheel, archive.namelist(), [f"share/{PACKAGE}/{name}" for name in SHARED])
    return sdist, wheel


def try_image(python: Path, folder: Path) -> str:
    """Run `seg_perception image` on an image of the street world, which the default model knows; return what it said.

    Raises:
        ReleaseError: a command fails, ROS is there, or nothing is found on the image.
    """
    if run([python, "-c", "import importlib.util as u; print(u.find_spec('rclpy'))"]).strip() != "None":
        raise ReleaseError(f"{python}: expected an environment without ROS, found rclpy")
    program, images, results = python.with_name(PACKAGE), folder / "street", folder / "out"
    run([program, "streetworld", "--frames", "1", "--weather", "day", "--coco", images], folder)
    said = run([program, "image", images / "images", "--model", MODEL, "-o", results], folder)
    found = json.loads(next(results.rglob("*.json")).read_text(encoding="utf-8"))
    if not found["instances"]:
        raise ReleaseError(f"{MODEL}: expected instances on an image of the street world, found none:\n{said}")
    return said


def check(work: Path, report: Callable[[str], None]) -> None:
    """Check everything.

    Args:
        work: empty folder for builds and environments.
        report: told of each step that is done.

    Raises:
        ReleaseError: the release is not whole.
    """
    version = check_versions(versions())
    report(f"version {version} everywhere")
    builder = environment(work / "builder")
    install(builder, *_BUILD)
    sdist, wheel = build(builder, work / "dist")
    report(f"built {sdist.name} and {wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB)")
    python = environment(work / "empty")
    install(python, f"{wheel}[{_EXTRAS}]")
    report("installed the wheel in an empty environment without ROS")
    report(try_image(python, work))


def main(arguments: list[str] | None = None) -> int:
    """Check the release; return the exit code."""
    parser = argparse.ArgumentParser(prog="release", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="seg_perception-release-") as work:
            check(Path(work), lambda text: print(f"release: {text}", flush=True))
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
