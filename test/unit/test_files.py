"""Names in files of strangers never lead out of the folder they lie in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seg_perception.errors import ConfigurationError
from seg_perception.files import inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.jpg").write_bytes(b"a")
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "out").symlink_to("..")
    (folder / "leak").symlink_to("../secret")
    (folder / "loop").symlink_to("loop")
    (folder / "kin").symlink_to("images/a.jpg")
    os.mkfifo(folder / "fifo")
    return folder


@pytest.mark.parametrize("name", ["images/a.jpg", "kin", "new/b.json", "./images/a.jpg", "a..b"])
def test_names_inside_are_paths(folder: Path, name: str) -> None:
    assert inside(folder, name, what="file_name") == folder / name


@pytest.mark.parametrize(
    "name",
    ["../secret", "images/../../secret", "/etc/passwd", "C:\\x", "out/secret", "leak", "loop", "fifo", "images", ".",
     "", " ", "a\x00b", "a\nb", "\ud800", "x" * 5000, None, 7, ["a"]],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused_by_name(folder: Path, name: object) -> None:
    with pytest.raises(ConfigurationError, match="file_name: "):
        inside(folder, name, what="file_name")


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert inside(tmp_path / "link", "images/a.jpg", what="x") == tmp_path / "link" / "images" / "a.jpg"
