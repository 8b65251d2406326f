"""Messages of the SQLite files of rosbag2, also of damaged ones.

Rows are read by their number, and those on pages that are gone are stepped over. Only tables are read: a view can be
endless, or make gigabytes out of nothing.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .storage import MOST_BYTES, Channel, Report, Storage, StorageError, StoredMessage, error_text

MAGIC = b"SQLite format 3\x00"
# Rows in a row that cannot be read before nothing more is expected.
_MOST_MISSING_ROWS = 20_000
_HIDDEN = 6


class SqliteStorage(Storage):
    """An SQLite file of rosbag2."""

    def __init__(self, path: Path, report: Report) -> None:
        """Open it and look at every row, though not at what is in the messages.

        Raises:
            StorageError: it is no such file.
        """
        super().__init__()
        self._name = path.name
        self._report = report
        self._database = _connected(path, report)
        try:
            # Without it SQLite refuses a file that is shorter than its first page says.
            self._database.execute("PRAGMA writable_schema = ON")
            self._database.execute("PRAGMA trusted_schema = OFF")
            self._database.text_factory = bytes
            for table in ("topics", "messages"):
                self._check_table(table)
            self._read_topics()
            self._rows = self._read_rows()
        except sqlite3.Error as error:
            self._database.close()
            raise StorageError(error_text(error)) from error
        except StorageError:
            self._database.close()
            raise
        self.counts = Counter(dict(zip(*map(list, np.unique(self._rows[:, 1], return_counts=True)), strict=True)))
        self.start_ns = int(self._rows[:, 0].min()) if len(self._rows) else None

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def messages(self, wanted: Collection[int], start_ns: int | None, stop_ns: int | None) -> Iterator[StoredMessage]:
        """Messages of the channels `wanted`, by time, recorded from `start_ns` on and before `stop_ns`."""
        rows = self._rows[np.isin(self._rows[:, 1], np.array(list(wanted), np.int64))]
        rows = rows[(rows[:, 0] >= (start_ns or 0)) & ((stop_ns is None) | (rows[:, 0] < (stop_ns or 0)))]
        damaged = 0
        for time_ns, channel, number in rows[np.lexsort((rows[:, 2], rows[:, 0]))].tolist():
            try:
                row = self._database.execute("SELECT data FROM messages WHERE _rowid_ = ?", (number,)).fetchone()
            except sqlite3.Error:
                row = None
            if row is not None and isinstance(row[0], bytes):
                yield StoredMessage(channel, time_ns, row[0])
            else:
                damaged += 1
        if damaged:
            self._report(f"{self._name}: the messages of {damaged} rows are damaged")

    def _check_table(self, name: str) -> None:
        query = "SELECT type, rootpage, sql FROM sqlite_master WHERE name = ?"
        kind, page, text = self._database.execute(query, (name,)).fetchone() or (b"nothing", 0, b"")
        if kind != b"table" or not page or not bytes(text or b"").upper().startswith(b"CREATE TABLE"):
            got = kind.decode("utf-8", "replace") if kind != b"table" else "a virtual table"
            raise StorageError(f"{name}: expected a table as rosbag2 writes it, got {got}")
        if any(row[_HIDDEN] for row in self._database.execute(f"PRAGMA table_xinfo({name})")):
            raise StorageError(f"{name}: expected a table as rosbag2 writes it, got one whose columns are computed")

    def _read_topics(self) -> None:
        columns = [row[1] for row in self._database.execute("PRAGMA table_info(topics)")]
        qos = "offered_qos_profiles" if b"offered_qos_profiles" in columns else "''"
        definitions: dict[str, tuple[str, bytes]] = {}
        # Bags of before ROS 2 Iron have no such table.
        with suppress(sqlite3.Error, StorageError):
            self._check_table("message_definitions")
            query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            for kind, encoding, text in self._database.execute(query):
                definitions[_text(kind)] = _text(encoding), bytes(text)
        query = f"SELECT id, name, type, serialization_format, {qos} FROM topics"
        for number, *values in self._database.execute(query):
            name, kind, encoding, offered = map(_text, values)
            self.channels[number] = Channel(name, kind, encoding, offered, *definitions.get(kind, ("", b"")))

    def _read_rows(self) -> NDArray[np.int64]:
        """Time, channel and number of the rows that can be read, `[N, 3]`."""
        columns = "_rowid_, topic_id, timestamp, typeof(data), length(data)"
        query = f"SELECT {columns} FROM messages WHERE _rowid_ > ? ORDER BY _rowid_"
        rows = array("q")
        last, lost, missing, long = -1, 0, 0, 0
        while missing < _MOST_MISSING_ROWS:
            try:
                for number, topic, time_ns, kind, length in self._database.execute(query, (last,)):
                    last, lost, missing = number, lost + missing, 0
                    # A damaged page may give values of any kind.
                    if kind != b"blob" or not isinstance(topic, int) or not isinstance(time_ns, int) or time_ns < 0:
                        lost += 1
                    elif length > MOST_BYTES:
                        long += 1
                    else:
                        rows.extend((time_ns, topic, number))
                break
            except sqlite3.DatabaseError:
                last += 1
                missing += 1
        if lost or missing:
            more = ", and all rows after the last that could be read" if missing else ""
            self._report(f"{self._name}: {lost} rows are damaged{more}")
        if long:
            self._report(f"{self._name}: {long} messages are longer than the {MOST_BYTES} bytes that are read here")
        return np.frombuffer(rows, np.int64).reshape(-1, 3)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _connected(path: Path, report: Report) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    if has_journal(path):
        database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        try:
            database.execute("SELECT name FROM sqlite_master LIMIT 1")
            return database
        except sqlite3.Error as error:
            database.close()
            report(
                f"{path.name}: what is in its journal {_journal(path).name} cannot be read ({error_text(error)}); copy "
                "both to a folder that can be written"
            )
    # Immutable: no lock is asked for and no journal looked for, as the file may lie where nothing can be written.
    return sqlite3.connect(f"{uri}&immutable=1", uri=True, check_same_thread=False)


def has_journal(path: Path) -> bool:
    """Return whether a part of an SQLite file is in the journal next to it, because the recorder did not close it."""
    journal = _journal(path)
    return journal.is_file() and journal.stat().st_size > 0


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
