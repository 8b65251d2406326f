"""Messages of MCAP files, whoever wrote them: with or without an index, chunks, or an end.

The index at the end of a file says where its chunks are. Without one, or where it does not fit the file, records are
read one after the other; behind damage reading goes on with the next whole chunk.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

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

MAGIC = b"\x89MCAP0\r\n"
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = range(1, 7)
_CHUNK_INDEX, _STATISTICS, _DATA_END = 8, 11, 15
_RECORD = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_CHUNK_HEAD = struct.Struct("<QQQI")
_FOOTER_RECORD = struct.Struct("<BQQQI")
# The head of a chunk record: its length, times, size and checksum, the compression, and the length of what is in it.
_CHUNK_PATTERN = re.compile(
    rb"\x06(.{8}).{28}(\x00\x00\x00\x00|\x03\x00\x00\x00lz4|\x04\x00\x00\x00zstd)(.{8})", re.DOTALL
)
_CHUNK_FIXED_BYTES = 36


class _NoIndex(StorageError):
    """A file has no index, as many writers leave it out."""


class McapStorage(Storage):
    """An MCAP file."""

    def __init__(self, path: Path, report: Report) -> None:
        """Open it and read its index; without one, all of it.

        Raises:
            StorageError: it is no MCAP file.
        """
        super().__init__()
        self._name = path.name
        self._report = report
        self._file = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size
        self._schemas: dict[int, tuple[str, str, bytes]] = {}
        self._blocks: list[FileBlock] = []
        if self._file.read(len(MAGIC)) != MAGIC:
            self._file.close()
            raise StorageError("does not begin as an MCAP file")
        try:
            self._read_summary()
        # mcap raises errors of many kinds for bytes that are no such record.
        except Exception as error:
            self._blocks.clear()
            self.counts.clear()
            self._schemas.clear()
            self.channels.clear()
            self._learn_from_summary()
            whole = self._scan(len(MAGIC), self._size)
            if not whole and not isinstance(error, _NoIndex):
                self._report(f"{self._name}: its index cannot be used ({error_text(error)}); it is read without")
        self.start_ns = min((block.start_ns for block in self._blocks), default=None)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, wanted: Collection[int], start_ns: int | None, stop_ns: int | None) -> Iterator[StoredMessage]:
        """Messages of the channels `wanted`, by time, recorded from `start_ns` on and before `stop_ns`."""

        def load(block: FileBlock) -> Iterator[StoredMessage]:
            try:
                for number, time_ns, data in self._block_messages(block.position):
                    if number in wanted and within(time_ns, start_ns, stop_ns):
                        yield StoredMessage(number, time_ns, bytes(data))
            except StorageError as error:
                self._report(f"{self._name}: messages at byte {block.position} are left out ({error_text(error)})")

        yield from in_order((block for block in self._blocks if block.holds(wanted, start_ns, stop_ns)), load)

    def _read_summary(self) -> None:
        """Read the index.

        Raises:
            StorageError: there is none, or it does not fit the file.
        """
        statistics: Any = None
        chunks: dict[int, Any] = {}
        begin, section = self._summary()
        for code, body in _records(section):
            self._learn(code, body)
            if code == _STATISTICS:
                statistics = _parsed("Statistics", body)
            elif code == _CHUNK_INDEX:
                index = _parsed("ChunkIndex", body)
                chunks[index.chunk_start_offset] = index
        if statistics is None or statistics.chunk_count != len(chunks):
            raise StorageError("its index does not name all chunks")
        if sum(statistics.channel_message_counts.values()) != statistics.message_count:
            raise StorageError("its index does not count the messages of each channel")
        if not set(statistics.channel_message_counts) <= set(self.channels):
            raise StorageError("its index does not describe all channels")
        # No index names messages that lie between chunks.
        position = len(MAGIC)
        for start, index in sorted(chunks.items()):
            if not position <= start < begin:
                raise StorageError("its index names a chunk where none can be")
            self._scan(position, start)
            channels = frozenset(index.message_index_offsets) or None
            self._blocks.append(FileBlock(index.message_start_time, index.message_end_time, start, channels))
            position = start + index.chunk_length + index.message_index_length
        self._scan(position, begin)
        self.counts = Counter(statistics.channel_message_counts)

    def _summary(self) -> tuple[int, bytes]:
        """Return where the summary of a file with an index begins, and what is in it."""
        tail = _FOOTER_RECORD.size + len(MAGIC)
        if self._size < 2 * len(MAGIC) + tail:
            raise _NoIndex("ends early")
        footer = read_at(self._file, self._size - tail, tail)
        code, length, begin, _, checksum = _FOOTER_RECORD.unpack_from(footer)
        if footer[-len(MAGIC) :] != MAGIC or code != _FOOTER or length != _FOOTER_RECORD.size - _RECORD.size:
            raise _NoIndex("ends early")
        if not len(MAGIC) <= begin <= self._size - tail:
            raise _NoIndex("has no index")
        section = read_at(self._file, begin, self._size - tail - begin)
        if checksum and zlib.crc32(footer[: _FOOTER_RECORD.size - 4], zlib.crc32(section)) != checksum:
            raise StorageError("the checksum of its index is wrong")
        return begin, section

    def _learn_from_summary(self) -> None:
        """Learn schemas and channels from an index that is of no other use: where they were told may be damaged."""
        try:
            for code, body in _records(self._summary()[1]):
                self._learn(code, body)
        # Whatever is wrong is found again where the records are read.
        except Exception:
            return

    def _scan(self, begin: int, end: int) -> bool:
        """Go from record to record; returns whether the file, or this part of it, was whole."""
        position: int | None = begin
        whole, damaged = True, 0
        while position is not None and position < end:
            try:
                code, length = _RECORD.unpack(read_at(self._file, position, _RECORD.size))
                if code == 0 or position + _RECORD.size + length > self._size:
                    raise StorageError("a record ends behind the end of the file" if code else "no record begins there")
                if code in (_DATA_END, _FOOTER):
                    return whole
                self._look_at(code, position, length)
                position += _RECORD.size + length
            except LimitError as error:
                whole = False
                self._report(f"{self._name}: messages at byte {position} are left out ({error_text(error)})")
                position += _RECORD.size + length
            except StorageError as error:
                whole, damaged = False, damaged + 1
                following = self._following(position, end) if damaged < MOST_DAMAGED else None
                where = f"the messages from byte {position} to {following} are damaged"
                where = where if following is not None else f"ends early or is damaged after byte {position}"
                self._report(f"{self._name}: {where} ({error_text(error)})")
                position = following
        if whole and end == self._size:
            self._report(f"{self._name}: ends early, after byte {end}; messages at its end may be missing")
            whole = False
        return whole

    def _following(self, position: int, end: int) -> int | None:
        """Return where reading goes on behind damage: at the next record, if one begins there, or the next chunk."""
        try:
            _, length = _RECORD.unpack(read_at(self._file, position, _RECORD.size))
            following: int = position + _RECORD.size + length
            code, length = _RECORD.unpack(read_at(self._file, following, _RECORD.size))
            if following < end and _HEADER <= code <= _DATA_END and following + _RECORD.size + length <= self._size:
                return following
        except StorageError:
            pass
        return _next_chunk(self._file, position + 1, end)

    def _look_at(self, code: int, position: int, length: int) -> None:
        if code in (_SCHEMA, _CHANNEL):
            self._learn(code, memoryview(read_at(self._file, position + _RECORD.size, length)))
        elif code == _MESSAGE:
            head = read_at(self._file, position + _RECORD.size, _MESSAGE_HEAD.size)
            channel, _, time_ns, _ = _MESSAGE_HEAD.unpack(head)
            self.counts[channel] += 1
            self._blocks.append(FileBlock(time_ns, time_ns, position, frozenset([channel])))
        elif code == _CHUNK:
            messages = Counter[int]()
            first, last = 1 << 64, 0
            for channel, time_ns, _ in self._block_messages(position):
                messages[channel] += 1
                first, last = min(first, time_ns), max(last, time_ns)
            if messages:
                self.counts += messages
                self._blocks.append(FileBlock(first, last, position, frozenset(messages)))

    def _block_messages(self, position: int) -> Iterator[tuple[int, int, memoryview]]:
        """Channel, time and bytes of the messages of a chunk, or of a message that lies in none."""
        code, length = _RECORD.unpack(read_at(self._file, position, _RECORD.size))
        if position + _RECORD.size + length > self._size:
            raise StorageError("ends behind the end of the file")
        body = memoryview(read_at(self._file, position + _RECORD.size, length))
        if code == _MESSAGE:
            yield _message(body)
            return
        if code != _CHUNK:
            raise StorageError("expected a chunk")
        for inner, content in _records(_chunk_data(body)):
            if inner == _MESSAGE:
                yield _message(content)
            else:
                self._learn(inner, content)

    def _learn(self, code: int, body: memoryview) -> None:
        """Keep a schema or a channel; other records tell nothing of these."""
        if code == _SCHEMA:
            schema = _parsed("Schema", body)
            self._schemas[schema.id] = (schema.name, schema.encoding, schema.data)
        elif code == _CHANNEL:
            channel = _parsed("Channel", body)
            kind, encoding, definition = self._schemas.get(channel.schema_id, ("", "", b""))
            qos = channel.metadata.get("offered_qos_profiles", "")
            self.channels[channel.id] = Channel(
                channel.topic, kind, channel.message_encoding, qos, encoding, definition
            )


def _message(body: memoryview) -> tuple[int, int, memoryview]:
    if len(body) < _MESSAGE_HEAD.size:
        raise StorageError("a message is shorter than its head")
    channel, _, time_ns, _ = _MESSAGE_HEAD.unpack_from(body)
    return channel, time_ns, body[_MESSAGE_HEAD.size :]


def _records(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield code and content of the records in a stretch."""
    view, position = memoryview(data), 0
    while position < len(view):
        if position + _RECORD.size > len(view):
            raise StorageError("ends within a record")
        code, length = _RECORD.unpack_from(view, position)
        position += _RECORD.size
        # Zeros would be millions of empty records.
        if code == 0 or position + length > len(view):
            raise StorageError("ends within a record" if code else "no record begins there")
        yield code, view[position : position + length]
        position += length


def _parsed(name: str, body: memoryview) -> Any:
    from mcap import records
    from mcap.data_stream import ReadDataStream

    try:
        return getattr(records, name).read(ReadDataStream(BytesIO(body)))
    # mcap has errors of many kinds for what is no such record.
    except Exception as error:
        raise StorageError(f"a record is no {name} ({error_text(error)})") from error


def _chunk_data(body: memoryview) -> bytes | memoryview:
    """Return the records of a chunk, unpacked and held against their checksum."""
    try:
        _, _, size, checksum = _CHUNK_HEAD.unpack_from(body)
        (name_bytes,) = struct.unpack_from("<I", body, _CHUNK_HEAD.size)
        begin = _CHUNK_HEAD.size + 4 + name_bytes
        compression = str(body[_CHUNK_HEAD.size + 4 : begin][:16], "ascii")
        (length,) = struct.unpack_from("<Q", body, begin)
    except (struct.error, ValueError) as error:
        raise StorageError("the head of the chunk is damaged") from error
    packed = body[begin + 8 : begin + 8 + length]
    if len(packed) != length:
        raise StorageError("the chunk is shorter than it says")
    data = unpack(packed, compression, size)
    if checksum and zlib.crc32(data) != checksum:
        raise StorageError("its checksum is wrong")
    return data


def _next_chunk(file: Any, position: int, end: int) -> int | None:
    """Return where the next record begins that looks like a whole chunk; None for nowhere."""
    if position >= end:
        return None
    with closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as content:
        while (found := _CHUNK_PATTERN.search(content, position, end)) is not None:
            position = found.start()
            length, inner = (int.from_bytes(found[group], "little") for group in (1, 3))
            stop = position + _RECORD.size + length
            if length == _CHUNK_FIXED_BYTES + len(found[2]) + inner and stop <= len(content):
                return position
            position += 1
    return None
