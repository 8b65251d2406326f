"""What can still be read of the damaged files of a bag, in the order in which it was written.

An MCAP file that was cut off lacks the index at its end; here its records are read one after the other. Of an SQLite
file the rows are read by their number, and those on pages that are gone are stepped over.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

# Rows in a row that cannot be read before nothing more is expected.
_MOST_MISSING_ROWS = 20_000


class BagMessage(NamedTuple):
    """A message as it was recorded: topic, type, time of recording in nanoseconds, and its serialized bytes (CDR)."""

    topic: str
    kind: str
    time_ns: int
    data: bytes


# Takes what is wrong with a file, for people.
Report = Callable[[str], None]


def salvage(path: Path, report: Report) -> Iterator[BagMessage]:
    """The messages of a damaged file, `.mcap` or `.db3`, as far as they can be read."""
    return _mcap(path, report) if path.suffix == ".mcap" else _sqlite(path, report)


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

    with path.open("rb") as file:
        # A length beyond the file's own is damage, and nothing to ask memory for.
        records = StreamReader(file, emit_chunks=True, record_size_limit=path.stat().st_size).records
        while True:
            position = file.tell()
            try:
                record = next(records, None)
            # mcap and the decompressors raise errors of many kinds for bytes that are no such record.
            except Exception as error:
                report(f"{path.name}: ends early or is damaged after byte {position} ({_text(error)})")
                return
            if record is None:
                return
            if not isinstance(record, Chunk):
                yield record
                continue
            try:
                inner = breakup_chunk(record, validate_crc=True)
            except Exception as error:
                report(f"{path.name}: the messages from byte {position} to {file.tell()} are damaged ({_text(error)})")
            else:
                yield from inner


def _sqlite(path: Path, report: Report) -> Iterator[BagMessage]:
    try:
        # Immutable: no lock is asked for and no journal looked for, as the file may lie where nothing can be written.
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            # Without it SQLite refuses a file that is shorter than its first page says.
            database.execute("PRAGMA writable_schema = ON")
            topics = {row[0]: (row[1], row[2]) for row in database.execute("SELECT id, name, type FROM topics")}
            for topic, time_ns, data in _sqlite_rows(path, database, report):
                if topic in topics:
                    yield BagMessage(*topics[topic], time_ns, bytes(data))
    except sqlite3.Error as error:
        report(f"{path.name}: cannot be read ({_text(error)})")


def _sqlite_rows(path: Path, database: sqlite3.Connection, report: Report) -> Iterator[tuple[int, int, bytes]]:
    query = "SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? ORDER BY id"
    last, lost, missing = 0, 0, 0
    while missing < _MOST_MISSING_ROWS:
        try:
            for number, topic, time_ns, data in database.execute(query, (last,)):
                last, lost, missing = number, lost + missing, 0
                yield topic, time_ns, data
            break
        except sqlite3.DatabaseError:
            last += 1
            missing += 1
    if lost or missing:
        more = ", and all rows after the last that could be read" if missing else ""
        report(f"{path.name}: {lost} rows are damaged{more}")


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
