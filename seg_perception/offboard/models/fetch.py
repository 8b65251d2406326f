"""Bring the file of a catalogue entry here, from its address or a mirror, and hold it against its checksum.

A file gets its name only after it was verified. What came is recorded next to it: where nobody published a checksum,
the first file that came is the one that all later ones have to equal.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from seg_perception.core.catalogue import CatalogueEntry
from seg_perception.core.errors import ConfigurationError, SourceError
from seg_perception.core.files import write_atomically
from seg_perception.core.share import user_path
from seg_perception.core.text import printable

from .records import DownloadRecord, discard_part, downloads_folder, part_of, read_record, record_path, shown

MIRROR = "SEG_PERCEPTION_MODELS"
_GIT_LFS = b"version https://git-lfs"


class WrongFileError(SourceError):
    """A file came that is not the one of the catalogue."""


def fetch_file(entry: CatalogueEntry, origin: str, report: Callable[[str], None]) -> tuple[Path, DownloadRecord]:
    """Bring the file of an entry, unless it is here already.

    Args:
        entry: of the catalogue; not one that comes with the package.
        origin: a folder, file or address (http, https) in place of the catalogue's addresses; empty for the mirror that
            SEG_PERCEPTION_MODELS names, or else the catalogue's addresses.
        report: called with a line of text for each step.

    Returns:
        The file, verified, and its record.

    Raises:
        ConfigurationError: the mirror or the folder of models is not usable.
        BackendUnavailable: the package for downloads is missing.
        SourceError: the file could not be brought, or is not the one of the catalogue; nothing is left of it then.
    """
    target = downloads_folder() / entry.file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{target.parent}: cannot be made ({error.strerror}); name another folder with SEG_PERCEPTION_HOME"
        ) from error
    known = read_record(entry)
    if known is not None and target.is_file():
        sha256, md5 = _digests(target)
        if sha256 == known.sha256 and entry.checksum.fits(sha256, md5):
            report(f"is here already: {target}")
            return target, known
        report(f"{target} was changed since it was fetched; fetching it again")
    failures = []
    for source in _sources(entry, origin):
        report(f"from {shown(source)}")
        try:
            return target, _bring(entry, source, target, known)
        except SourceError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise SourceError(f"{entry.name}: no address gave it:\n" + "\n".join(f"  {failure}" for failure in failures))


def _sources(entry: CatalogueEntry, origin: str) -> list[str | Path]:
    """Return where to look for an entry's file: addresses and paths."""
    option = "--from" if origin else MIRROR
    origin = origin or os.environ.get(MIRROR, "")
    if not origin:
        return list(entry.urls)
    scheme, mark, _ = origin.partition("://")
    if mark and scheme.lower() in ("http", "https"):
        return [f"{origin.rstrip('/')}/{quote(entry.file)}"]
    if mark:
        raise ConfigurationError(
            f"{option}: expected a folder, a file or an address with http or https, got '{printable(origin)}'"
        )
    path = user_path(origin)
    return [path / entry.file if path.is_dir() else path]


def _bring(entry: CatalogueEntry, source: str | Path, target: Path, known: DownloadRecord | None) -> DownloadRecord:
    """Bring the file from one place, verify it, and give it its name."""
    part = part_of(target)
    if isinstance(source, Path):
        _copy(source, part)
        pieced = False
    else:
        from .download import download

        pieced = download(source, target, entry.size, needs_length=not (entry.checksum.kind or entry.size))
    sha256, md5 = _digests(part)
    if fault := _fault(entry, part, sha256, md5, known):
        discard_part(target)
        # A part of an earlier version and the rest of a later one; the whole of one may fit.
        if pieced:
            return _bring(entry, source, target, known)
        raise WrongFileError(f"{shown(source)}: {fault} (nothing of it was kept)")
    record = DownloadRecord(
        entry.name,
        shown(source),
        sha256,
        part.stat().st_size,
        str(entry.checksum),
        entry.code_licence,
        entry.weights_licence,
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    # First the record: a file without one is not taken for verified.
    write_atomically(record_path(entry), json.dumps(asdict(record), indent=1).encode())
    part.replace(target)
    discard_part(target)
    return record


def _copy(source: Path, part: Path) -> None:
    try:
        if not source.is_file():
            raise SourceError(f"{source}: expected the file of the model, there is none")
        shutil.copyfile(source, part)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SourceError(f"{source}: cannot be copied to {part} ({error.strerror or error})") from error


def _fault(entry: CatalogueEntry, part: Path, sha256: str, md5: str, known: DownloadRecord | None) -> str:
    """Return why a file that came is not the entry's; empty where it is, as far as can be told."""
    with part.open("rb") as file:
        begin = file.read(512).lstrip().lower()
    if not begin:
        return f"expected the file {entry.file}, got an empty one"
    if begin.startswith((b"<!doctype html", b"<html")):
        return f"expected the file {entry.file}, got a web page: a login, an error or a proxy's notice"
    if begin.startswith(_GIT_LFS):
        return f"expected the file {entry.file}, got a Git LFS pointer to it; mirror the file itself (git lfs pull)"
    if entry.size and part.stat().st_size != entry.size:
        return f"expected {entry.size} bytes, got {part.stat().st_size}"
    if not entry.checksum.fits(sha256, md5):
        came = md5 if entry.checksum.kind == "md5" else sha256
        return f"expected the {entry.checksum}, got {came}: a damaged or a different file"
    # A checksum in full decides alone: with a new catalogue there may be a new file.
    if known is not None and entry.checksum.kind != "sha256" and known.sha256 != sha256:
        return (
            f"expected the file that came on {printable(known.fetched)} (sha256 {printable(known.sha256)}), got "
            f"another one (sha256 {sha256}); if you trust it, delete {record_path(entry)} and fetch again"
        )
    return ""


def _digests(path: Path) -> tuple[str, str]:
    """SHA-256 and MD5 of a file."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            md5.update(chunk)
    return sha256.hexdigest(), md5.hexdigest()
