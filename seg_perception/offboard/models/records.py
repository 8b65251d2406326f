"""The folder of downloads: what came, what is still coming, and the records of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from seg_perception.core.catalogue import CatalogueEntry, models_folder
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.files import read_regular
from seg_perception.core.text import printable

_MOST_RECORD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class DownloadRecord:
    """What came, kept next to the file as JSON.

    Attributes:
        name: of the entry.
        source: address or path that it came from.
        sha256: of the file.
        size: of the file, in bytes.
        checked: the published checksum that it was held against, or that there was none.
        code_licence, weights_licence: as the catalogue had them.
        fetched: when, UTC, ISO 8601.
    """

    name: str
    source: str
    sha256: str
    size: int
    checked: str
    code_licence: str
    weights_licence: str
    fetched: str


def downloads_folder() -> Path:
    """Return the folder of the files as they came; `models_folder` has the errors."""
    return models_folder() / "downloads"


def record_path(entry: CatalogueEntry) -> Path:
    """Return where it is recorded what came for an entry."""
    return downloads_folder() / f"{entry.file}.json"


def read_record(entry: CatalogueEntry) -> DownloadRecord | None:
    """Return what is recorded of an entry's file; None where nothing came so far.

    Raises:
        ConfigurationError: the record is there and cannot be read.
    """
    path = record_path(entry)
    try:
        content = json.loads(read_regular(path, _MOST_RECORD_BYTES))
        record = DownloadRecord(**content)
        if not all(isinstance(getattr(record, name), str) for name in ("name", "source", "sha256", "checked")):
            raise TypeError("expected text")
        if not isinstance(record.size, int):
            raise TypeError("expected a size in bytes")
        return record
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: expected what `fetch` recorded of {entry.file}, cannot read it ({printable(error)}); delete it "
            "and fetch the model again"
        ) from error


def part_of(target: Path) -> Path:
    """Return where a file is while it comes."""
    return target.with_name(f"{target.name}.part")


def note_of(target: Path) -> Path:
    """Return where it is kept which version of a file is coming."""
    return target.with_name(f"{target.name}.part.json")


def discard_part(target: Path) -> None:
    """Remove what has come of a file."""
    part_of(target).unlink(missing_ok=True)
    note_of(target).unlink(missing_ok=True)


def shown(source: str | Path) -> str:
    """Return an address or a path for messages and records: without a password or signature that it may hold."""
    if isinstance(source, Path):
        return str(source)
    parts = urlsplit(source)
    return printable(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))
