"""Files that spare the next start some work. They are whole or they are not there, and nothing but time needs them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

_DIGEST_BYTES = hashlib.sha256().digest_size


def cache_file(name: str) -> Path | None:
    """Return where a file of this package's cache lies, by XDG's rules; None for a user without a home."""
    caches = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # A path that is not absolute counts as none.
        folder = Path(caches) if Path(caches).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return folder / "seg_perception" / name


def read_cached(file: Path | None) -> bytes:
    """Return what `write_cached` wrote; empty if that is absent or damaged."""
    try:
        content = b"" if file is None else file.read_bytes()
    except OSError:
        return b""
    data = content[_DIGEST_BYTES:]
    return data if hashlib.sha256(data).digest() == content[:_DIGEST_BYTES] else b""


def write_cached(file: Path | None, data: bytes) -> None:
    """Write a file, if there is a place for it, with its SHA-256 in front, at once and whole.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", suffix=".partial", delete=False) as opened:
        partial = Path(opened.name)
    try:
        partial.write_bytes(hashlib.sha256(data).digest() + data)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
