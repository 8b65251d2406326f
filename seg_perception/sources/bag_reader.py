"""Messages of bags of ROS 2 (sqlite3 and mcap) and ROS 1, serialized as they were recorded, read without any ROS.

Whole bags are read by their index. What has none, or turns out to be damaged, is read as far as it can be; what is
wrong is said in `Bag.faults`.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendUnavailable, SourceError
from .bag_salvage import COMPRESSED_SUFFIX, error_text, has_journal, salvage
from .bag_salvage import BagMessage as BagMessage

METADATA = "metadata.yaml"
STORAGE_SUFFIXES = (".mcap", ".db3")
BAG_SUFFIXES = (*STORAGE_SUFFIXES, ".bag")


class Bag:
    """A bag that is open for reading; to be used with `with`.

    Attributes:
        path: its folder or file.
        topics: type by topic.
        counts: messages by topic, as far as they can be read.
        qos: how each topic was offered, rosbag2's YAML, as far as it is known.
        definitions: format (`ros2msg` or `ros2idl`) and text of the types that the bag defines.
        faults: what cannot be read, for people.
        start_ns: when the first message was recorded; 0 of an empty bag.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            SourceError: nothing of it can be read.
            BackendUnavailable: rosbags is not installed.
        """
        self.path = path
        self.faults: list[str] = []
        self.topics: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.qos: dict[str, str] = {}
        self.definitions: dict[str, tuple[str, str]] = {}
        self.start_ns = 0
        self._reader: Any = None
        self._stack = ExitStack()
        try:
            self._open()
        except ImportError as error:
            message = f"{path}: bags need the Python packages rosbags and mcap ({error}): pip install rosbags mcap"
            raise BackendUnavailable(message) from error
        if not self.topics and self.faults:
            raise SourceError(
                f"{path}: cannot be read as a bag ({self.faults[-1]}); expected a folder with {METADATA} or a file "
                f"ending in {', '.join(BAG_SUFFIXES)}; copy it again"
            )

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def messages(
        self, topics: Collection[str] = (), start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Messages in the order in which they were recorded.

        Args:
            topics: only of these; of all for none.
            start_ns, stop_ns: only those recorded from the first on and before the second.
        """
        given: dict[str, array[int]] = {}
        if self._reader is not None:
            try:
                for message in self._indexed(topics, start_ns, stop_ns):
                    given.setdefault(message.topic, array("q")).append(message.time_ns)
                    yield message
            # Whatever rosbags and the decompressors raise for bytes that are not as they should be.
            except Exception as error:
                self._note(f"{self.path.name}: damaged ({error_text(error)})")
            else:
                return
        known = {topic: _Times(times) for topic, times in given.items()}
        for message in self._salvaged():
            if topics and message.topic not in topics:
                continue
            if (start_ns is not None and message.time_ns < start_ns) or (
                stop_ns is not None and message.time_ns >= stop_ns
            ):
                continue
            if message.topic not in known or not known[message.topic].take(message.time_ns):
                yield message

    def _open(self) -> None:
        from rosbags.highlevel import AnyReader
        from rosbags.rosbag2 import Reader
        from rosbags.typesys import Stores, get_typestore

        if any(has_journal(file) for file in _storage_files(self.path)):
            # rosbags does not look into it.
            self._count_salvaged()
            return
        try:
            if self.path.suffix == ".bag":
                reader: Any = AnyReader([self.path], default_typestore=get_typestore(Stores.ROS1_NOETIC))
            else:
                reader = Reader(self.path)
            self._reader = self._stack.enter_context(reader)
        except Exception as error:
            self._note(f"{self.path.name}: not whole ({error_text(error)})")
            self._count_salvaged()
            return
        for each in reader.connections:
            self.topics.setdefault(each.topic, each.msgtype)
            self.counts[each.topic] += each.msgcount
            if self.path.suffix != ".bag":
                self._describe(each)
        self.start_ns = int(reader.start_time) if any(self.counts.values()) else 0

    def _describe(self, connection: Any) -> None:
        """Keep how a topic was offered, and its type's definition."""
        from rosbags.interfaces import MessageDefinitionFormat
        from rosbags.rosbag2.metadata import dump_qos_v8

        self.qos[connection.topic] = dump_qos_v8(list(connection.ext.offered_qos_profiles))
        encodings = {MessageDefinitionFormat.MSG: "ros2msg", MessageDefinitionFormat.IDL: "ros2idl"}
        if connection.msgdef.format in encodings:
            self.definitions[connection.msgtype] = encodings[connection.msgdef.format], connection.msgdef.data

    def _indexed(
        self, topics: Collection[str], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[BagMessage]:  # fmt: skip
        reader = self._reader
        wanted = [each for each in reader.connections if not topics or each.topic in topics]
        if not wanted:
            return
        convert = reader.typestore.ros1_to_cdr if self.path.suffix == ".bag" else None
        for connection, time_ns, data in reader.messages(wanted, start=start_ns, stop=stop_ns):
            serialized = bytes(data if convert is None else convert(data, connection.msgtype))
            yield BagMessage(connection.topic, connection.msgtype, time_ns, serialized)

    def _count_salvaged(self) -> None:
        for message in self._salvaged():
            self.topics.setdefault(message.topic, message.kind)
            self.counts[message.topic] += 1
            self.start_ns = min(self.start_ns or message.time_ns, message.time_ns)

    def _salvaged(self) -> Iterator[BagMessage]:
        for file in _storage_files(self.path):
            yield from salvage(file, self._note)

    def _note(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)


class _Times:
    """When messages were recorded that were given already; each is taken once. An index sorts, a recorder need not."""

    def __init__(self, times: array[int]) -> None:
        self._times = np.sort(np.frombuffer(times, np.int64))
        self._taken = np.zeros(len(times), bool)

    def take(self, time_ns: int) -> bool:
        begin, end = (int(np.searchsorted(self._times, time_ns, side)) for side in ("left", "right"))
        left = np.flatnonzero(~self._taken[begin:end])
        self._taken[begin + left[:1]] = True
        return len(left) > 0


def is_bag(path: Path) -> bool:
    """Whether a path is meant as a bag: a file by its suffix, a folder by what ROS 2 writes into it."""
    if path.is_dir():
        return (path / METADATA).is_file() or bool(_storage_files(path))
    return path.suffix.lower() in BAG_SUFFIXES


def _storage_files(path: Path) -> list[Path]:
    """The files of a bag in the order of their numbers: NAME_2 comes before NAME_10."""
    if not path.is_dir():
        return [path] if path.suffix in STORAGE_SUFFIXES else []
    files = {each.name: each for each in path.iterdir() if _is_storage(each.name)}
    # What was unpacked once lies beside the compressed file.
    chosen = [
        each
        for name, each in files.items()
        if not name.endswith(COMPRESSED_SUFFIX) or name.removesuffix(COMPRESSED_SUFFIX) not in files
    ]
    return sorted(chosen, key=lambda each: [(int(part), "") if part.isdigit() else (0, part)
                                            for part in re.split(r"(\d+)", each.name)])  # fmt: skip


def _is_storage(name: str) -> bool:
    return Path(name.removesuffix(COMPRESSED_SUFFIX)).suffix in STORAGE_SUFFIXES
