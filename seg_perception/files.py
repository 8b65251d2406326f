"""Writing results so that a name never holds half a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import ConfigurationError


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
