"""What can still be read of the damaged files of a bag, in the order in which it was written.

An MCAP file that was cut off lacks the index at its end; here its records are read one after the other, and behind
damage from the next whole chunk on. Of an SQLite file the rows are read by their number, and those on pages that are
gone are stepped over.
"""

from __future__ import annotations

import mmap
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

COMPRESSED_SUFFIX = ".zstd"
# Rows in a row that cannot be read before nothing more is expected.
_MOST_MISSING_ROWS = 20_000
# The head of a chunk record: its length, times, size and checksum, the compression, and the length of what is in it.
_CHUNK_HEAD = re.compile(
    rb"\x06(.{8}).{28}(\x00\x00\x00\x00|\x03\x00\x00\x00lz4|\x04\x00\x00\x00zstd)(.{8})", re.DOTALL
)
_CHUNK_HEAD_BYTES = 36
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_PIECE_BYTES = 1 << 20


class BagMessage(NamedTuple):
    """A message as it was recorded: topic, type, time of recording in nanoseconds, and its serialized bytes (CDR)."""

    topic: str
    kind: str
    time_ns: int
    data: bytes


# Takes what is wrong with a file, for people.
Report = Callable[[str], None]


def salvage(path: Path, report: Report) -> Iterator[BagMessage]:
    """The messages of a damaged file, `.mcap` or `.db3`, also compressed (`.zstd`), as far as they can be read."""
    if path.suffix == COMPRESSED_SUFFIX:
        with TemporaryDirectory() as folder:
            yield from salvage(_unpacked(path, Path(folder), report), report)
        return
    for message in _mcap(path, report) if path.suffix == ".mcap" else _sqlite(path, report):
        # Bags of compressed messages; no CDR begins like that.
        yield message._replace(data=_inflated(message.data)) if message.data[:4] == _ZSTD_MAGIC else message


def _unpacked(path: Path, folder: Path, report: Report) -> Path:
    """A compressed file without its compression, as far as it can be read."""
    import zstandard

    unpacked = folder / path.stem
    with path.open("rb") as packed, unpacked.open("wb") as file:
        try:
            for piece in zstandard.ZstdDecompressor().read_to_iter(packed, _PIECE_BYTES):
                file.write(piece)
        except (zstandard.ZstdError, OSError) as error:
            report(f"{path.name}: cannot be unpacked whole ({error_text(error)})")
    return unpacked


def _inflated(data: bytes) -> bytes:
    """A message without its compression; as it is where that is damaged, so that it can be named."""
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError:
        return data


def _mcap(path: Path, report: Report) -> Iterator[BagMessage]:
    """MCAP records one by one; a chunk that is damaged is left out."""
    from mcap.records import Channel, Message, Schema

    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    for record in _mcap_records(path, report):
        if isinstance(record, Schema):
            schemas[record.id] = record.name
        elif isinstance(record, Channel):
            if record.message_encoding == "cdr":
                channels[record.id] = record.topic, schemas.get(record.schema_id, "")
            else:
                report(f"{path.name}: topic {record.topic} has messages in {record.message_encoding!r}, expected 'cdr'")
        elif isinstance(record, Message) and record.channel_id in channels:
            yield BagMessage(*channels[record.channel_id], record.log_time, record.data)


def _mcap_records(path: Path, report: Report) -> Iterator[Any]:
    from mcap.records import Chunk
    from mcap.stream_reader import StreamReader, breakup_chunk

    yield from _mcap_summary(path)
    size = path.stat().st_size
    begin: int | None = 0
    with path.open("rb") as file:
        while begin is not None:
            file.seek(begin)
            # A length beyond the file's own is damage, and nothing to ask memory for.
            records = StreamReader(file, skip_magic=begin > 0, emit_chunks=True, record_size_limit=size).records
            while True:
                position = file.tell()
                # mcap and the decompressors raise errors of many kinds for bytes that are no such record.
                try:
                    record = next(records, None)
                    inner = breakup_chunk(record, validate_crc=True) if isinstance(record, Chunk) else [record]
                except Exception as error:
                    # Nor are lengths to be trusted.
                    begin = _next_chunk(path, position + 1)
                    where = f"the messages from byte {position} to {begin} are damaged"
                    where = where if begin is not None else f"ends early or is damaged after byte {position}"
                    report(f"{path.name}: {where} ({error_text(error)})")
                    break
                if record is None:
                    return
                yield from inner


def _mcap_summary(path: Path) -> list[Any]:
    """Schemas and channels from the end of a file that has one: where they were first told may be damaged."""
    from mcap.reader import make_reader

    try:
        with path.open("rb") as file:
            summary = make_reader(file).get_summary()
    # Whatever is wrong is found again where the records are read.
    except Exception:
        return []
    return [] if summary is None else [*summary.schemas.values(), *summary.channels.values()]


def _next_chunk(path: Path, position: int) -> int | None:
    """Where the next record begins that looks like a whole chunk; None for nowhere."""
    if position >= path.stat().st_size:
        return None
    with path.open("rb") as file, closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as content:
        while (found := _CHUNK_HEAD.search(content, position)) is not None:
            position = found.start()
            length, inner = (int.from_bytes(found[group], "little") for group in (1, 3))
            end = position + 9 + length
            if length == _CHUNK_HEAD_BYTES + len(found[2]) + inner and end <= len(content):
                return position
            position += 1
    return None


def _sqlite(path: Path, report: Report) -> Iterator[BagMessage]:
    try:
        with closing(_connected(path, report)) as database:
            # Without it SQLite refuses a file that is shorter than its first page says.
            database.execute("PRAGMA writable_schema = ON")
            topics = {
                row[0]: (str(row[1]), str(row[2])) for row in database.execute("SELECT id, name, type FROM topics")
            }
            for topic, time_ns, data in _sqlite_rows(path, database, report):
                if topic in topics:
                    yield BagMessage(*topics[topic], time_ns, data)
    except sqlite3.Error as error:
        report(f"{path.name}: cannot be read ({error_text(error)})")


def _connected(path: Path, report: Report) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    if has_journal(path):
        database = sqlite3.connect(uri, uri=True)
        try:
            database.execute("SELECT id FROM topics LIMIT 1")
            return database
        except sqlite3.Error as error:
            database.close()
            report(
                f"{path.name}: what is in its journal {_journal(path).name} cannot be read ({error_text(error)}); copy "
                "both to a folder that can be written"
            )
    # Immutable: no lock is asked for and no journal looked for, as the file may lie where nothing can be written.
    return sqlite3.connect(f"{uri}&immutable=1", uri=True)


def has_journal(path: Path) -> bool:
    """Whether a part of an SQLite file is still in the journal beside it, because the recorder did not close it."""
    journal = _journal(path)
    return journal.is_file() and journal.stat().st_size > 0


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _sqlite_rows(path: Path, database: sqlite3.Connection, report: Report) -> Iterator[tuple[int, int, bytes]]:
    query = "SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? ORDER BY id"
    last, lost, missing = 0, 0, 0
    while missing < _MOST_MISSING_ROWS:
        try:
            for number, topic, time_ns, data in database.execute(query, (last,)):
                last, lost, missing = number, lost + missing, 0
                # A damaged page may give values of any kind.
                if isinstance(topic, int) and isinstance(time_ns, int) and isinstance(data, bytes) and time_ns >= 0:
                    yield topic, time_ns, data
                else:
                    lost += 1
            break
        except sqlite3.DatabaseError:
            last += 1
            missing += 1
    if lost or missing:
        more = ", and all rows after the last that could be read" if missing else ""
        report(f"{path.name}: {lost} rows are damaged{more}")


def error_text(error: Exception) -> str:
    """What went wrong, in one line of no great length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
