"""Messages of ROS 1 bags (format 2.0), indexed or not, whole or cut off.

The index at the end of a bag says where its chunks are. A recorder that died leaves none; then records are read one
after the other, and behind damage reading goes on with the next chunk.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from seg_perception.core.text import printable

from .storage import (
    MOST_DAMAGED,
    Channel,
    FileBlock,
    LimitError,
    Report,
    Storage,
    StorageError,
    StoredMessage,
    error_text,
    in_order,
    read_at,
    unpack,
    within,
)

MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG_HEADER, _CHUNK, _CHUNK_INFO, _CONNECTION = b"\x02", b"\x03", b"\x05", b"\x06", b"\x07"
_UINT32 = struct.Struct("<I")
_TWO = struct.Struct("<II")
_CHUNK_FIELD = b"\x04\x00\x00\x00op=\x05"
# Bytes before that field in which the header of a chunk begins.
_MOST_BEFORE = 64
# The field names of a header take no more; a longer one is damage.
_MOST_HEADER_BYTES = 1 << 20


class Ros1Storage(Storage):
    """A ROS 1 bag."""

    def __init__(self, path: Path, report: Report) -> None:
        """Open it and read its index; without one, all of it.

        Raises:
            StorageError: it is no such bag, or of a format of before ROS Diamondback.
        """
        super().__init__()
        self._name = path.name
        self._report = report
        self._file = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size
        self._blocks: list[FileBlock] = []
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise
        self.start_ns = min((block.start_ns for block in self._blocks), default=None)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, wanted: Collection[int], start_ns: int | None, stop_ns: int | None) -> Iterator[StoredMessage]:
        """Messages of the channels `wanted`, by time, recorded from `start_ns` on and before `stop_ns`."""

        def load(block: FileBlock) -> Iterator[StoredMessage]:
            try:
                for message in self._chunk_messages(block.position):
                    if message.channel in wanted and within(message.time_ns, start_ns, stop_ns):
                        yield message
            except StorageError as error:
                self._report(f"{self._name}: messages at byte {block.position} are left out ({error_text(error)})")

        yield from in_order((block for block in self._blocks if block.holds(wanted, start_ns, stop_ns)), load)

    def _open(self) -> None:
        magic = self._file.read(len(MAGIC))
        if magic != MAGIC:
            if magic.startswith(b"#ROSBAG V"):
                version = printable(magic[9:12].decode("latin-1"))
                raise StorageError(f"is of version {version}, expected 2.0; convert it with `rosbag fix`")
            raise StorageError("does not begin as a ROS 1 bag")
        try:
            header, _, begin = self._record(len(MAGIC))
            index = int.from_bytes(_field(header, "index_pos", 8), "little")
            chunks = int.from_bytes(_field(header, "chunk_count", 4), "little")
            if header.get("encryptor"):
                raise StorageError("is encrypted, which is not supported; decrypt it first")
            if index and self._read_index(index, chunks):
                return
            if not index:
                self.notes.append(f"{self._name}: has no index, its recorder was not ended; what is in it is read")
        except StorageError as error:
            if "encrypted" in str(error):
                raise
            begin = len(MAGIC)
            self._report(f"{self._name}: its head is damaged ({error_text(error)})")
        self._scan(begin)

    def _read_index(self, position: int, chunks: int) -> bool:
        """Read the index; returns whether it is whole."""
        blocks: dict[int, FileBlock] = {}
        counts: Counter[int] = Counter()
        try:
            while position < self._size:
                header, data, position = self._record(position)
                if header.get("op") == _CONNECTION:
                    self._learn(header, data)
                elif header.get("op") == _CHUNK_INFO:
                    start = int.from_bytes(_field(header, "chunk_pos", 8), "little")
                    first, last = (_time(_field(header, name, 8)) for name in ("start_time", "end_time"))
                    pairs = dict(_TWO.iter_unpack(data[: len(data) // _TWO.size * _TWO.size]))
                    counts.update(pairs)
                    blocks[start] = FileBlock(first, last, start, frozenset(pairs))
            if len(blocks) != chunks:
                raise StorageError(f"it names {len(blocks)} of {chunks} chunks")
        except StorageError as error:
            self.channels.clear()
            self._report(f"{self._name}: its index is damaged or cut off ({error_text(error)}); it is read without")
            return False
        self._blocks, self.counts = list(blocks.values()), counts
        return True

    def _scan(self, position: int) -> None:
        """Go from record to record."""
        damaged = 0
        while position < self._size:
            following = self._size
            try:
                header, _, following = self._record(position, content=False)
                op = header.get("op")
                if op == _CHUNK:
                    self._look_at(position)
                elif op == _CONNECTION:
                    self._learn(header, self._record(position)[1])
                if following > self._size:
                    raise StorageError(f"the file ends {following - self._size} bytes early")
                position = following
            except LimitError as error:
                self._report(f"{self._name}: messages at byte {position} are left out ({error_text(error)})")
                position = following
            except StorageError as error:
                damaged += 1
                chunk = self._next_chunk(position + 1) if damaged < MOST_DAMAGED else None
                where = f"the messages from byte {position} to {chunk} are damaged"
                where = where if chunk is not None else f"ends early or is damaged after byte {position}"
                self._report(f"{self._name}: {where} ({error_text(error)})")
                if chunk is None:
                    return
                position = chunk

    def _look_at(self, position: int) -> None:
        counts: Counter[int] = Counter()
        times: list[int] = []
        try:
            for message in self._chunk_messages(position):
                counts[message.channel] += 1
                times.append(message.time_ns)
        finally:
            # Of a chunk that is cut off, the messages before the cut.
            if counts:
                self.counts += counts
                self._blocks.append(FileBlock(min(times), max(times), position, frozenset(counts)))

    def _chunk_messages(self, position: int) -> Iterator[StoredMessage]:
        """Read the messages of a chunk; those before a cut are given before it is reported."""
        header, _, end = self._record(position, content=False)
        if header.get("op") != _CHUNK:
            raise StorageError("expected a chunk")
        compression = _field(header, "compression").decode("latin-1")
        size = int.from_bytes(_field(header, "size", 4), "little")
        begin = position + 8 + _UINT32.unpack(read_at(self._file, position, 4))[0]
        packed = read_at(self._file, begin, min(end, self._size) - begin)
        cut = end > self._size and compression == "none"
        data = memoryview(packed if cut else unpack(packed, compression, size))
        place = 0
        while place < len(data):
            inner, content, place = _parse(data, place)
            if "op" not in inner:
                raise StorageError("no record begins there")
            if inner.get("op") == _CONNECTION:
                self._learn(inner, content)
            elif inner.get("op") == _MESSAGE:
                channel = int.from_bytes(_field(inner, "conn", 4), "little")
                yield StoredMessage(channel, _time(_field(inner, "time", 8)), bytes(content))

    def _record(self, position: int, content: bool = True) -> tuple[dict[str, bytes], memoryview, int]:
        """Read a record of the file: header, data (empty unless wanted), and where the next one begins."""
        length = _UINT32.unpack(read_at(self._file, position, 4))[0]
        if length > _MOST_HEADER_BYTES:
            raise StorageError("no record begins there")
        header = _fields(memoryview(read_at(self._file, position + 4, length)))
        size = _UINT32.unpack(read_at(self._file, position + 4 + length, 4))[0]
        begin = position + 8 + length
        data = read_at(self._file, begin, size) if content else b""
        return header, memoryview(data), begin + size

    def _learn(self, header: Mapping[str, bytes], data: memoryview) -> None:
        """Keep a connection."""
        about = _fields(data)
        number = int.from_bytes(_field(header, "conn", 4), "little")
        topic, kind = (_text(fields, name) for fields, name in ((header, "topic"), (about, "type")))
        definition = about.get("message_definition", b"")
        self.channels[number] = Channel(topic, kind, "ros1", schema="ros1msg", definition=definition)

    def _next_chunk(self, position: int) -> int | None:
        """Return where the next chunk begins; None for nowhere."""
        if position >= self._size:
            return None
        with closing(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)) as content:
            found = content.find(_CHUNK_FIELD, position)
            while found >= 0:
                # The fields of a header are in any order.
                for start in range(max(position, found - _MOST_BEFORE), found - 3):
                    (length,) = _UINT32.unpack_from(content, start)
                    if not found - start < length + 4 <= 2 * _MOST_BEFORE:
                        continue
                    try:
                        fields = _fields(memoryview(content[start + 4 : start + 4 + length]))
                    except StorageError:
                        continue
                    if {"op", "compression", "size"} <= set(fields):
                        return start
                found = content.find(_CHUNK_FIELD, found + 1)
        return None


def _parse(data: memoryview, position: int) -> tuple[dict[str, bytes], memoryview, int]:
    """Read a record in a chunk: header, data, and where the next one begins."""
    parts: list[memoryview] = []
    for _ in range(2):
        if position + 4 > len(data):
            raise StorageError("the chunk ends within a record")
        (length,) = _UINT32.unpack_from(data, position)
        position += 4
        if position + length > len(data):
            raise StorageError("the chunk ends within a record")
        parts.append(data[position : position + length])
        position += length
    return _fields(parts[0]), parts[1], position


def _fields(data: memoryview) -> dict[str, bytes]:
    fields: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        if position + 4 > len(data):
            raise StorageError("no header of a record")
        (length,) = _UINT32.unpack_from(data, position)
        position += 4
        name, equals, value = bytes(data[position : position + length]).partition(b"=")
        position += length
        if not equals or position > len(data):
            raise StorageError("no header of a record")
        fields[name.decode("latin-1")] = value
    return fields


def _field(header: Mapping[str, bytes], name: str, length: int | None = None) -> bytes:
    value = header.get(name)
    if value is None or (length is not None and len(value) != length):
        raise StorageError(f"a record lacks the field {name}")
    return value


def _text(header: Mapping[str, bytes], name: str) -> str:
    return _field(header, name).decode("utf-8", "replace")


def _time(value: bytes) -> int:
    seconds, nanoseconds = _TWO.unpack(value)
    return int(seconds * 10**9 + nanoseconds)
