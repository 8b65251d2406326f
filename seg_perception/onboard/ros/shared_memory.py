"""Fast DDS segments in /dev/shm: those that killed processes left, the rights of ours, and whether there is room.

A process that is killed leaves its segment behind (134 MB with config/fastdds.xml), and nothing collects it. Each
segment has a lock file that its process holds with flock(2) as long as it lives; the kernel releases it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import time
from xml.etree import ElementTree

from seg_perception.onboard.doctor.dds import FAST_DDS, NEW_VARIABLE, OLD_VARIABLE, Transport, shared_memory

FOLDER = Path("/dev/shm")
# fastdds_ from Kilted on, fastrtps_ before. Ports (fastdds_port7400) are shared by processes and collected by Fast DDS.
_LOCK_FILE = re.compile(r"(?:fastdds|fastrtps)_[0-9a-f]{16}_el")
# A process that starts makes the file before it locks it.
_YOUNG_SECONDS = 10.0
_MIB = 1 << 20


def collect_stale(folder: Path = FOLDER) -> tuple[int, int]:
    """Remove the segments of this user's processes that have ended.

    Returns:
        How many, and how many bytes they held.
    """
    count = freed = 0
    for lock in _own_files(folder, _LOCK_FILE):
        segment = folder / lock.name.removesuffix("_el")
        with suppress(OSError):
            if time() - lock.stat().st_mtime < _YOUNG_SECONDS or not _is_free(lock):
                continue
            held = segment.stat().st_blocks * 512 if segment.exists() else 0
            segment.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
            count, freed = count + 1, freed + held
    return count, freed


def make_private(segments: Iterable[Path]) -> None:
    """Take from others than this user the right to read the segments of this process.

    Fast DDS makes them readable for everybody. Processes of other users could not exchange images through them anyway:
    whoever receives opens the sender's segment for writing, too.
    """
    for path in segments:
        with suppress(OSError):
            path.chmod(0o600)


def own_segments(folder: Path = FOLDER, locks: Path = Path("/proc/locks")) -> dict[Path, int]:
    """Return the segments of this process, with their size in bytes: those whose lock it holds."""
    held: set[int] = set()
    with suppress(OSError, ValueError):
        for line in locks.read_text(errors="replace").splitlines():
            # 1: FLOCK  ADVISORY  WRITE PID MAJOR:MINOR:INODE 0 EOF
            fields = line.split()
            if fields[1:2] == ["FLOCK"] and fields[4] == str(os.getpid()):
                held.add(int(fields[5].rpartition(":")[2]))
    found: dict[Path, int] = {}
    for lock in _own_files(folder, _LOCK_FILE):
        with suppress(OSError):
            segment = folder / lock.name.removesuffix("_el")
            if lock.stat().st_ino in held:
                found[segment] = segment.stat().st_size
    return found


def wanted_transport(rmw: str, segments: Iterable[Path]) -> Transport | None:
    """Return the shared-memory transport that the Fast DDS profile of this process asks for; None if it asks for none.

    Args:
        rmw: the middleware.
        segments: of this process; their names tell the generation of Fast DDS, and with it the variable that counts.
    """
    old = os.environ.get(OLD_VARIABLE, "")
    is_old = any(path.name.startswith("fastrtps") for path in segments)
    value = old if is_old else os.environ.get(NEW_VARIABLE, "") or old
    if not rmw.startswith(FAST_DDS) or not value:
        return None
    try:
        return shared_memory(Path(value).expanduser())
    except (OSError, ElementTree.ParseError, ValueError):
        return None


def shortage(transport: Transport | None, segments: Mapping[Path, int], folder: Path = FOLDER) -> str:
    """Say what is wrong with shared memory, and what to do; empty when nothing is.

    Args:
        transport: that this process wants; None for none.
        segments: that it has, with their size in bytes.
        folder: where segments lie.
    """
    if transport is None:
        return ""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return f"{folder} cannot be looked at ({error.strerror}), and large images need it; mount a tmpfs there"
    room = f"{usage.free // _MIB} of {usage.total // _MIB} MiB free in {folder}"
    remedy = "start the container with --shm-size=1g or --ipc=host, or free what others hold there, and start again"
    if not any(size >= transport.segment for size in segments.values()):
        return (
            f"no segment of {transport.segment // _MIB} MiB could be had ({room}), so that large images are lost on "
            f"their way; {remedy}"
        )
    if usage.free < _MIB:
        return f"{folder} is full ({room}): a camera that starts now cannot send its images; {remedy}"
    return ""


def _own_files(folder: Path, name: re.Pattern[str]) -> Iterator[Path]:
    """Regular files of this user with such a name."""
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if name.fullmatch(path.name):
                with suppress(OSError):
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                        yield path


def _is_free(lock: Path) -> bool:
    handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True
