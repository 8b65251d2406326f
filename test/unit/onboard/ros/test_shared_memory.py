"""Segments in /dev/shm that killed processes left are removed, those of the living are not, and shortage is said."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: `make setup`, or source a ROS distribution")

from seg_perception.onboard.doctor.dds import Transport
from seg_perception.onboard.ros.shared_memory import collect_stale, make_private, own_segments, shortage

SEGMENT = "fastdds_151916b5f7f0fd50"
OLD = 1_000_000_000
HOLD = """
import fcntl, sys
file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print("held", flush=True); sys.stdin.read()
"""


def make(folder: Path, name: str = SEGMENT, size: int = 8192) -> Path:
    (folder / name).write_bytes(bytes(size))
    lock = folder / f"{name}_el"
    lock.touch()
    os.utime(lock, (OLD, OLD))
    return lock


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """The lock file of a segment whose process lives."""
    lock = make(tmp_path, "fastdds_aaaaaaaaaaaaaaaa")
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield lock
        process.kill()


@pytest.mark.parametrize("name", [SEGMENT, "fastrtps_0000000000000001"])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, name: str) -> None:
    lock = make(tmp_path, name)
    assert collect_stale(tmp_path) == (1, 8192)
    assert not lock.exists()
    assert not (tmp_path / name).exists()


def test_what_belongs_to_a_living_process_stays(tmp_path: Path, held: Path) -> None:
    assert collect_stale(tmp_path) == (0, 0)
    assert held.exists()
    assert (tmp_path / "fastdds_aaaaaaaaaaaaaaaa").exists()


def test_a_process_that_is_just_starting_keeps_its_segment(tmp_path: Path) -> None:
    lock = make(tmp_path)
    os.utime(lock)
    assert collect_stale(tmp_path) == (0, 0)
    assert lock.exists()


@pytest.mark.parametrize("name", ["fastdds_port7400_el", "sem.fastdds_port7400_mutex", "other_el", f"{SEGMENT}_el.bak"])
def test_other_files_stay(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    os.utime(path, (OLD, OLD))
    assert collect_stale(tmp_path) == (0, 0)
    assert path.exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    os.utime(tmp_path / "precious", (OLD, OLD))
    (tmp_path / f"{SEGMENT}_el").symlink_to("precious")
    assert collect_stale(tmp_path) == (0, 0)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_folder_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert collect_stale(tmp_path / "none") == (0, 0)


def test_segments_of_this_process_are_found_and_made_private(tmp_path: Path, held: Path) -> None:
    make(tmp_path, size=4096)
    with make(tmp_path, "fastdds_bbbbbbbbbbbbbbbb").open() as own:
        fcntl.flock(own, fcntl.LOCK_EX)
        make(tmp_path)
        segments = own_segments(tmp_path)
    assert segments == {tmp_path / "fastdds_bbbbbbbbbbbbbbbb": 8192}
    make_private([*segments, tmp_path / "gone"])
    assert (tmp_path / "fastdds_bbbbbbbbbbbbbbbb").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "fastdds_aaaaaaaaaaaaaaaa").stat().st_mode & 0o777 != 0o600


def test_a_shortage_names_the_remedy(tmp_path: Path) -> None:
    transport = Transport(segment=1 << 20, message=1 << 16)
    assert shortage(None, {}, tmp_path) == ""
    assert shortage(transport, {tmp_path / SEGMENT: 1 << 20}, tmp_path) == ""
    assert "--shm-size" in shortage(transport, {tmp_path / SEGMENT: 4096}, tmp_path)
    assert "--shm-size" in shortage(transport, {}, tmp_path)
    assert "mount a tmpfs" in shortage(transport, {}, tmp_path / "none")
