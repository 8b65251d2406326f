"""Files: results that are whole or absent, and names in files of strangers, which stay inside of their folder."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from .errors import ConfigurationError
from .text import is_printable, printable


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` at once: whatever happens, the name holds the old file or the whole new one.

    Raises:
        ConfigurationError: the folder does not exist or cannot be written, or the disk is full.
    """
    partial = ""
    try:
        # In the same folder, because only a rename within one file system is atomic.
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp's files are private; the result gets the rights that any new file gets.
        Path(partial).chmod(0o666 & ~_umask())
        Path(partial).replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "choose an existing folder with enough space that you may write to"
        ) from error
    finally:
        if partial:
            Path(partial).unlink(missing_ok=True)


def writable_folder(folder: Path) -> None:
    """Make a folder, or find that results can be written to the one that is there; before the work, not after it.

    Raises:
        ConfigurationError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"output folder {folder}: cannot be written ({error.strerror or error}); choose another with -o"
        ) from error


def read_regular(path: Path, most: int) -> bytes:
    """Read a file whose name somebody else chose: no FIFO or device makes us wait or read without end.

    Args:
        path: of the file.
        most: bytes that are expected at most.

    Returns:
        Its bytes; of a longer file the first `most + 1`.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    # What waits for a writer would wait in `open` already.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(handle, "rb", closefd=False) as file:
            # Files of the kernel say that they are empty.
            return file.read(min(most, status.st_size or most) + 1)
    finally:
        os.close(handle)


def inside(folder: Path, name: object, *, what: str, kind: Literal["file", "folder", "any"] = "file") -> Path:
    """Return the path below a folder that a file of somebody else names, without leaving that folder.

    A label file, record, manifest or bag of a stranger must never make us read, write or delete anything outside of
    its own folder. Whoever takes a path from a file takes it through here.

    Args:
        folder: where the path has to lie; it need not exist.
        name: what the file says: relative to `folder`, with slashes.
        what: the field of the file, for the message.
        kind: of what may lie there: a regular file, a folder, or either.

    Returns:
        `folder / name`. Symbolic links on the way are followed: where they lead has to lie in the folder, too.

    Raises:
        ConfigurationError: the name is no text, empty, absolute, a drive or has control characters, or leads outside of
            the folder; or what lies there is of another kind (a FIFO, a device).
    """
    shown = printable(repr(name))
    if not isinstance(name, str) or not name.strip() or not is_printable(name):
        raise ConfigurationError(f"{what}: expected the name of a file inside {folder}, got {shown}")
    parts = PurePosixPath(name).parts
    drive = bool(PureWindowsPath(name).drive)
    if PurePosixPath(name).is_absolute() or drive or ".." in parts or not parts:
        raise ConfigurationError(
            f"{what}: expected the name of a file inside {folder}, got {shown}, which leads elsewhere; it is not opened"
        )
    path = folder / name
    try:
        real = path.resolve()
        outside = not real.is_relative_to(folder.resolve())
        mode = _mode(real)
    except (OSError, RuntimeError) as error:  # a name that is too long; links in a circle
        raise ConfigurationError(f"{what}: {shown} cannot be opened in {folder} ({error})") from error
    if outside:
        raise ConfigurationError(
            f"{what}: expected a file inside {folder}, got {shown}, a link that leads elsewhere; it is not opened"
        )
    right = mode is None or (kind != "folder" and stat.S_ISREG(mode)) or (kind != "file" and stat.S_ISDIR(mode))
    if not right:
        expected = {"file": "a regular file", "folder": "a folder", "any": "a regular file or a folder"}[kind]
        raise ConfigurationError(f"{what}: expected {expected}, got {shown} in {folder}, which is none")
    return path


def _mode(path: Path) -> int | None:
    """The kind and rights of what lies at a path; None for nothing. A path that is too long is an OSError."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
