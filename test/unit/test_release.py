"""The check of a release: what it compares, and what it says when something is missing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from seg_perception import __version__
from tools import release

FILES = ("seg_perception/__init__.py", "package.xml", "CHANGELOG.md", "CITATION.cff")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The files that name the version, copied."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(release.ROOT / name, tmp_path / name)
    return tmp_path


def test_the_version_of_this_checkout_is_the_same_everywhere() -> None:
    found = release.versions()
    assert set(found) == set(FILES)
    assert release.check_versions(found) == __version__


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_another_version_is_named(tree: Path, name: str) -> None:
    path = tree / name
    path.write_text(path.read_text().replace(__version__, "9.8.7", 1))
    with pytest.raises(release.ReleaseError) as caught:
        release.check_versions(release.versions(tree))
    assert f"{name} has 9.8.7" in str(caught.value)


@pytest.mark.parametrize("name", ["seg_perception/__init__.py", "CHANGELOG.md", "CITATION.cff"])
def test_a_file_without_version_is_named(tree: Path, name: str) -> None:
    (tree / name).write_text("nothing\n")
    with pytest.raises(release.ReleaseError, match=rf"{name}: expected a line that matches .*, found none"):
        release.versions(tree)


def test_the_newest_section_of_the_changelog_counts(tree: Path) -> None:
    path = tree / "CHANGELOG.md"
    path.write_text(path.read_text().replace(f"## {__version__}", f"## 0.2.0 (unreleased)\n\n## {__version__}"))
    assert release.versions(tree)["CHANGELOG.md"] == "0.2.0"


def test_missing_content_is_named() -> None:
    names = ["a-0.1/setup.py", "a-0.1/engines/m.onnx"]
    release.check_content(Path("a.tar.gz"), names, ["setup.py", "engines/m.onnx"])
    with pytest.raises(release.ReleaseError, match=r"a\.tar\.gz: expected p\.py, onnx in it, found none"):
        release.check_content(Path("a.tar.gz"), names, ["setup.py", "p.py", "onnx"])


def test_a_failed_command_is_shown_with_its_output() -> None:
    assert release.run([sys.executable, "-c", "print(1)"]) == "1\n"
    with pytest.raises(release.ReleaseError, match=r"(?s)exit code 3:\nwhy"):
        release.run([sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"])


def test_commands_do_not_see_the_checkout_or_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(release.ROOT))
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    code = "import os; print([name for name in ('PYTHONPATH', 'ROS_DISTRO') if name in os.environ])"
    assert release.run([sys.executable, "-c", code]) == "[]\n"


def test_a_failed_installation_says_that_it_needs_an_index(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no route to host' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(release.ReleaseError, match=r"(?s)no route to host.*needs a package index for numpy"):
        release.install(python, "numpy")


def test_an_environment_with_ros_is_refused(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ModuleSpec(name=rclpy)'\n")
    python.chmod(0o755)
    with pytest.raises(release.ReleaseError, match="expected an environment without ROS, found rclpy"):
        release.try_image(python, tmp_path)
