"""What the storage files of bags have in common: topics, messages in the order of time, and bounded decompression.

Bags come from strangers. Nothing here asks for more memory than `MOST_BYTES` because a file says so, and every message
that is left out is counted and named.
"""

from __future__ import annotations

import bz2
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import IO, NamedTuple

from seg_perception.core.text import printable

# The most that is read or unpacked at once. A chunk holds at least one message, and the largest images that a camera
# can have here, 16384 x 5461 of bgr8 or 8K with three channels of 16 bits, stay below it.
MOST_BYTES = 256 << 20
# Messages of overlapping chunks that wait for their turn; beyond, messages come a little out of order.
_MOST_HELD_BYTES = 512 << 20
# Damaged places of a file, after which it is not read further: each can cost as much as reading all that follows.
MOST_DAMAGED = 1000
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

# Takes what is wrong with a file, human-readable.
Report = Callable[[str], None]


class StorageError(Exception):
    """A part of a file cannot be read; it is left out, and the message says why."""


class LimitError(StorageError):
    """A part of a file is larger than what is read here; nothing is wrong with it."""


class BagMessage(NamedTuple):
    """A message as it was recorded: topic, type, time of recording in nanoseconds, and its serialized bytes (CDR)."""

    topic: str
    kind: str
    time_ns: int
    data: bytes


class StoredMessage(NamedTuple):
    """A message of one storage file: id of its channel, time of recording in nanoseconds, bytes as they are stored."""

    channel: int
    time_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic of one storage file.

    Attributes:
        topic: its name.
        kind: name of the type, as the file has it.
        encoding: of the messages: `cdr`, `ros1`, `protobuf`, `json`, or any other.
        qos: how it was offered, YAML as rosbag2 writes it; empty where that is not known.
        schema: what `definition` is written in: `ros2msg`, `ros2idl`, `ros1msg`, `protobuf`, `jsonschema`.
        definition: of the type; empty where the file has none.
    """

    topic: str
    kind: str
    encoding: str = "cdr"
    qos: str = ""
    schema: str = ""
    definition: bytes = b""


class Storage(ABC):
    """One storage file of a bag, open.

    Attributes:
        channels: by id.
        counts: how many messages the file's index, or a first look at all of it, finds of each channel.
        start_ns: the earliest time of recording; None without messages.
        notes: what is worth to be known and is no loss.
    """

    def __init__(self) -> None:
        self.channels: dict[int, Channel] = {}
        self.counts: Counter[int] = Counter()
        self.start_ns: int | None = None
        self.notes: list[str] = []

    @abstractmethod
    def messages(self, wanted: Collection[int], start_ns: int | None, stop_ns: int | None) -> Iterator[StoredMessage]:
        """Messages of the channels `wanted`, by time, recorded from `start_ns` on and before `stop_ns`."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""


class FileBlock(NamedTuple):
    """A stretch of a file whose messages are read together.

    Attributes:
        start_ns, stop_ns: times of its first and last message.
        position: where it begins in the file.
        channels: whose messages it may hold; None for any.
    """

    start_ns: int
    stop_ns: int
    position: int
    channels: frozenset[int] | None = None

    def holds(self, wanted: Collection[int], start_ns: int | None, stop_ns: int | None) -> bool:
        """Return whether it may have messages of these channels and times."""
        if (stop_ns is not None and self.start_ns >= stop_ns) or (start_ns is not None and self.stop_ns < start_ns):
            return False
        return self.channels is None or not self.channels.isdisjoint(wanted)


def in_order(
    blocks: Iterable[FileBlock], load: Callable[[FileBlock], Iterable[StoredMessage]]
) -> Iterator[StoredMessage]:
    """Yield the messages of blocks by time; those of one time as they follow one another in the file.

    Args:
        blocks: in any order.
        load: reads the messages of one.
    """
    waiting = deque(sorted(blocks, key=lambda block: (block.start_ns, block.position)))
    heap: list[tuple[int, int, StoredMessage]] = []
    held = number = 0
    while waiting or heap:
        if waiting and (not heap or (waiting[0].start_ns <= heap[0][0] and held < _MOST_HELD_BYTES)):
            for message in load(waiting.popleft()):
                heappush(heap, (message.time_ns, number, message))
                number += 1
                held += len(message.data)
            continue
        _, _, message = heappop(heap)
        held -= len(message.data)
        yield message


def within(time_ns: int, start_ns: int | None, stop_ns: int | None) -> bool:
    """Return whether a time lies in a range; None is no limit."""
    return (start_ns is None or time_ns >= start_ns) and (stop_ns is None or time_ns < stop_ns)


def unpack(data: bytes | memoryview, compression: str, size: int | None = None) -> bytes | memoryview:
    """Decompress, without ever holding more than is allowed.

    Args:
        data: packed.
        compression: `zstd`, `lz4`, `bz2`; `none` or empty for none.
        size: how long the result has to be; None where that is not known.

    Raises:
        StorageError: it is damaged, of another length, longer than `MOST_BYTES`, or packed by something else.
    """
    most = MOST_BYTES if size is None else size
    if most > MOST_BYTES:
        raise LimitError(f"{most} bytes unpacked are more than the {MOST_BYTES} that are unpacked at once here")
    if compression in ("", "none"):
        result: bytes | memoryview = data
    elif compression not in _DECOMPRESSORS:
        raise StorageError(f"compression {printable(compression)!r}: expected zstd, lz4, bz2 or none")
    else:
        try:
            result = _DECOMPRESSORS[compression](data, most + 1)
        # Each of these libraries has errors of its own.
        except Exception as error:
            raise StorageError(f"cannot be unpacked ({error_text(error)})") from error
    if len(result) > most or (size is not None and len(result) != size):
        what = f"more than {most} bytes" if len(result) > most else f"{len(result)} bytes, expected {size}"
        raise StorageError(f"unpacks to {what}")
    return result


def _unzstd(data: bytes | memoryview, most: int) -> bytes:
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return bytes(reader.read(most))


def _unlz4(data: bytes | memoryview, most: int) -> bytes:
    from lz4.frame import LZ4FrameDecompressor

    return bytes(LZ4FrameDecompressor().decompress(data, most))


def _unbz2(data: bytes | memoryview, most: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, most)


_DECOMPRESSORS = {"zstd": _unzstd, "lz4": _unlz4, "bz2": _unbz2}


def read_at(file: IO[bytes], position: int, length: int) -> bytes:
    """Read a stretch of a file.

    Raises:
        StorageError: the file ends before, or the stretch is too long.
    """
    if length > MOST_BYTES:
        raise LimitError(f"has {length} bytes, more than the {MOST_BYTES} that are read at once here")
    file.seek(position)
    data = file.read(length)
    if len(data) != length:
        raise StorageError(f"the file ends {length - len(data)} bytes early")
    return data


def error_text(error: Exception) -> str:
    """Return what went wrong, in one line of no great length."""
    text = str(error) if isinstance(error, StorageError) else f"{type(error).__name__}: {error}"
    return printable(" ".join(text.split()))
