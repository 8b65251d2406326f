"""Names in files of strangers never lead out of the folder they lie in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.files import inside, read_regular


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


def test_a_file_is_read_and_a_longer_one_as_far_as_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    assert read_regular(path, 1 << 60) == b"12345"
    assert read_regular(path, 3) == b"1234"
    path.write_bytes(b"")
    assert read_regular(path, 3) == b""
    # Its size is told as 0.
    assert b"PATH=" in read_regular(Path("/proc/self/environ"), 1 << 20)


def test_what_is_no_file_makes_nobody_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(path, 10)
