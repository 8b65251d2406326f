"""Messages of bags of ROS 2 (sqlite3 and mcap) and ROS 1 as those of ROS 2, read without any ROS.

Whole bags are read by their index. What has none, or turns out to be damaged, is read as far as it can be. A bag that
gives fewer messages than its index or `metadata.yaml` counts says so in `Bag.faults`.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from seg_perception.core.errors import BackendUnavailable, ConfigurationError, SourceError
from seg_perception.core.files import inside
from seg_perception.core.text import printable

from .convert import Convert, convert, converter
from .mcap import MAGIC as MCAP_MAGIC
from .mcap import McapStorage
from .ros1 import Ros1Storage
from .sqlite import MAGIC as SQLITE_MAGIC
from .sqlite import SqliteStorage
from .storage import BagMessage as BagMessage
from .storage import LimitError, Report, Storage, StorageError, error_text

METADATA = "metadata.yaml"
STORAGE_SUFFIXES = (".mcap", ".db3")
COMPRESSED_SUFFIX = ".zstd"
BAG_SUFFIXES = (*STORAGE_SUFFIXES, ".bag")
# The metadata of the largest bags have some hundred kilobytes.
_MOST_METADATA_BYTES = 4 << 20
_MOST_LISTED, _MOST_REASONS, _MOST_FAULTS = 20, 3, 1000
_PIECE_BYTES = 1 << 20
# Left free on the disk that compressed files are unpacked to.
_SPARE_BYTES = 1 << 30
_POINTERS = (b"version https://git-lfs.github.com/spec/", b"/annex/objects/", b"../.git/annex/objects/")


@dataclass
class _Metadata:
    """What metadata.yaml says: files in their order, type by topic, and how many messages there are of each topic."""

    files: list[Path] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


class Bag:
    """A bag that is open for reading; to be used with `with`.

    Attributes:
        path: its folder or file.
        topics: type by topic, as ROS 2 names it; those of messages that cannot be read are left out.
        counts: messages by topic, as the index of the files counts them.
        qos: how each topic was offered, rosbag2's YAML, as far as it is known.
        definitions: format (`ros2msg` or `ros2idl`) and text of the types that the bag defines.
        faults: what was lost, human-readable, at most about a thousand; complete when `messages` has ended.
        notes: what is passed over and is no loss, human-readable.
        start_ns: when the first message was recorded; 0 of an empty bag.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            SourceError: nothing of it can be read.
            BackendUnavailable: mcap or rosbags is not installed.
        """
        self.path = path
        self.faults: list[str] = []
        self._noted: set[str] = set()
        self.notes: list[str] = []
        self.topics: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.qos: dict[str, str] = {}
        self.definitions: dict[str, tuple[str, str]] = {}
        self.start_ns = 0
        self._metadata = _Metadata()
        self._storages: list[tuple[Storage, dict[int, tuple[str, str, Convert]]]] = []
        self._foreign: dict[str, str] = {}
        self._stack = ExitStack()
        try:
            self._open()
        except ImportError as error:
            self._stack.close()
            message = f"{path}: bags need the Python packages rosbags and mcap ({error}): pip install rosbags mcap"
            raise BackendUnavailable(message) from error
        except BaseException:
            self._stack.close()
            raise
        if self.faults and not any(storage.channels for storage, _ in self._storages):
            self._stack.close()
            reasons = "; ".join(self.faults[:_MOST_REASONS])
            raise SourceError(
                f"{path}: cannot be read as a bag ({reasons}); expected a folder with {METADATA} or a file ending in "
                f"{', '.join(BAG_SUFFIXES)}"
            )

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def messages(
        self, topics: Collection[str] = (), start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Messages in the order in which they were recorded; those of files that follow one another, file by file.

        Args:
            topics: only of these; of all for none.
            start_ns, stop_ns: only those recorded from the first on and before the second.
        """
        wanted = set(topics) or set(self.topics)
        given: Counter[str] = Counter()
        unusable: Counter[tuple[str, str]] = Counter()
        for storage, readers in self._storages:
            channels = {number for number, (topic, *_) in readers.items() if topic in wanted}
            for number, time_ns, data in storage.messages(channels, start_ns, stop_ns):
                topic, kind, function = readers[number]
                try:
                    message = BagMessage(topic, kind, time_ns, convert(function, data))
                except StorageError as error:
                    unusable[topic, str(error)[:100]] += 1
                    if len(unusable) > _MOST_LISTED:
                        unusable[topic, "other reasons"] += unusable.pop((topic, str(error)[:100]))
                    continue
                given[topic] += 1
                yield message
        for (topic, reason), count in unusable.items():
            self._note(f"{_shown(topic)}: {count} messages are not what they should be ({printable(reason)})")
        self._check(wanted, given, whole=start_ns is None and stop_ns is None)

    def _check(self, wanted: Collection[str], given: Counter[str], whole: bool) -> None:
        """Say where fewer messages came than there should be."""
        for topic in sorted(wanted & self.topics.keys()):
            named, held = self._metadata.counts[topic], self.counts[topic]
            if named > held:
                self._note(f"{_shown(topic)}: {METADATA} counts {named} messages, the files hold {held}")
            if whole and given[topic] < held:
                self._note(f"{_shown(topic)}: {given[topic]} of {held} messages could be read")

    def _open(self) -> None:
        for file in self._files():
            try:
                storage = self._opened(file)
            except (StorageError, OSError) as error:
                self._note(f"{file.name}: {error_text(error)}")
                continue
            self._stack.callback(storage.close)
            self._add(storage)
        for topic, kind in self._metadata.kinds.items():
            if topic not in self._foreign:
                self.topics.setdefault(topic, kind)
        starts = [storage.start_ns for storage, _ in self._storages if storage.start_ns is not None]
        self.start_ns = min(starts, default=0)
        if self._foreign:
            listed = [f"{_shown(topic)} ({about})" for topic, about in self._foreign.items()]
            more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
            self.notes.append(f"topics of other kinds of messages, not read: {', '.join(listed[:_MOST_LISTED])}{more}")

    def _add(self, storage: Storage) -> None:
        readers: dict[int, tuple[str, str, Convert]] = {}
        for number, channel in storage.channels.items():
            made = converter(channel)
            if made is None:
                about = f"{channel.encoding or 'unknown encoding'} {channel.kind}".strip()
                self._foreign.setdefault(channel.topic, printable(about))
                continue
            kind, function = made
            readers[number] = channel.topic, kind, function
            self.topics.setdefault(channel.topic, kind)
            self.counts[channel.topic] += storage.counts[number]
            self.qos.setdefault(channel.topic, _qos(channel.qos))
            if channel.schema in ("ros2msg", "ros2idl") and kind == channel.kind and channel.encoding == "cdr":
                self.definitions[kind] = channel.schema, channel.definition.decode("utf-8", "replace")
        lost = sum(count for number, count in storage.counts.items() if number not in storage.channels)
        if lost:
            self._note(f"{lost} messages are of topics whose description is lost")
        self.notes += storage.notes
        self._storages.append((storage, readers))

    def _opened(self, file: Path) -> Storage:
        """Open a storage file, unpacked if it is compressed.

        Raises:
            StorageError: it is none.
        """
        with file.open("rb") as opened:
            start = opened.read(64)
        if start.startswith(_POINTERS):
            raise StorageError(
                "is a pointer of Git LFS or git-annex and not the bag itself; fetch it with `git lfs pull` or "
                "`git annex get`"
            )
        if not start:
            raise StorageError("is empty")
        if file.suffix == COMPRESSED_SUFFIX:
            file = self._unpacked(file)
        kinds: dict[str, Callable[[Path, Report], Storage]] = {
            ".mcap": McapStorage, ".db3": SqliteStorage, ".bag": Ros1Storage,
        }  # fmt: skip
        return kinds[file.suffix.lower()](file, self._note)

    def _unpacked(self, path: Path) -> Path:
        """Unpack a compressed file, as far as it can be, to a folder that goes when the bag is closed."""
        import zstandard

        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="seg_perception-")))
        unpacked = folder / path.stem
        magic = MCAP_MAGIC if unpacked.suffix == ".mcap" else SQLITE_MAGIC
        room = shutil.disk_usage(folder).free - _SPARE_BYTES
        size = 0
        with path.open("rb") as packed, unpacked.open("wb") as file:
            try:
                for piece in zstandard.ZstdDecompressor().read_to_iter(packed, _PIECE_BYTES):
                    if not size and not piece.startswith(magic):
                        raise StorageError(f"what it unpacks to is no {unpacked.suffix} file")
                    size += len(piece)
                    if size > room:
                        raise LimitError(
                            f"unpacks to more than fits into {folder.parent}; set TMPDIR to another folder"
                        )
                    file.write(piece)
            except (zstandard.ZstdError, OSError) as error:
                self._note(f"{path.name}: cannot be unpacked whole ({error_text(error)})")
        return unpacked

    def _files(self) -> list[Path]:
        """The storage files in their order; what is none is named."""
        if not self.path.is_dir():
            if not self.path.is_file():
                self._note("is no regular file" if self.path.exists() else "does not exist")
                return []
            return [self.path]
        if (self.path / METADATA).exists():
            try:
                self._metadata = _read_metadata(self.path, self._note)
            except StorageError as error:
                self._note(f"{METADATA}: cannot be used ({error_text(error)})")
        if self._metadata.files:
            return self._metadata.files
        files = []
        for path in storage_files(self.path):
            try:
                files.append(inside(self.path, path.name, what="file of the bag"))
            except ConfigurationError as error:
                self._note(str(error))
        return files

    def _note(self, fault: str) -> None:
        if fault in self._noted:
            return
        self._noted.add(fault)
        if len(self._noted) <= _MOST_FAULTS:
            self.faults.append(fault)
        else:
            self.faults[_MOST_FAULTS:] = [f"{len(self._noted) - _MOST_FAULTS} more places that are damaged"]


def is_bag(path: Path) -> bool:
    """Return whether a path is meant as a bag: a file by its suffix, a folder by what ROS 2 writes into it."""
    if path.is_dir():
        return (path / METADATA).is_file() or bool(storage_files(path))
    return path.suffix.lower() in BAG_SUFFIXES


def storage_files(folder: Path) -> list[Path]:
    """The storage files in a folder in the order of their numbers: NAME_2 comes before NAME_10."""
    files = {path.name: path for path in folder.iterdir() if _is_storage(path.name)}
    # What was unpacked once lies next to the compressed file.
    chosen = [
        path
        for name, path in files.items()
        if not name.endswith(COMPRESSED_SUFFIX) or name.removesuffix(COMPRESSED_SUFFIX) not in files
    ]
    return sorted(chosen, key=lambda path: [(int(part), "") if part.isdigit() else (0, part)
                                            for part in re.split(r"(\d+)", path.name)])  # fmt: skip


def _is_storage(name: str) -> bool:
    return Path(name.removesuffix(COMPRESSED_SUFFIX)).suffix in STORAGE_SUFFIXES


def _read_metadata(folder: Path, report: Report) -> _Metadata:
    """Read metadata.yaml.

    Raises:
        StorageError: it is not what rosbag2 writes.
    """
    import yaml

    metadata = _Metadata()
    try:
        path = inside(folder, METADATA, what="metadata of the bag")
        if path.stat().st_size > _MOST_METADATA_BYTES:
            raise StorageError(f"has more than {_MOST_METADATA_BYTES} bytes")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        about = yaml.load(path.read_bytes(), loader)["rosbag2_bagfile_information"]
        for entry in about["topics_with_message_count"]:
            topic = entry["topic_metadata"]
            metadata.kinds[str(topic["name"])] = str(topic["type"])
            metadata.counts[str(topic["name"])] += int(entry["message_count"])
        names, missing = about["relative_file_paths"], []
        for name in names:
            # Before version 4 the name of the folder came first, which may be another by now.
            old = about.get("version", 0) < 4 and isinstance(name, str) and ".." not in PurePosixPath(name).parts
            listed = _listed(folder, PurePosixPath(name).name if old else name, report)
            if listed is not None and not listed.exists():
                missing.append(printable(listed.name))
            elif listed is not None:
                metadata.files.append(listed)
        if missing:
            more = f" and {len(missing) - _MOST_REASONS} more" if len(missing) > _MOST_REASONS else ""
            report(f"{METADATA} lists files that are not there: {', '.join(missing[:_MOST_REASONS])}{more}")
    except StorageError:
        raise
    # Whatever YAML and fields of other kinds than they should be raise.
    except Exception as error:
        raise StorageError(error_text(error)) from error
    return metadata


def _listed(folder: Path, name: object, report: Report) -> Path | None:
    """Return a file that metadata.yaml lists, if it is one of this bag."""
    try:
        path = inside(folder, name, what=f"{METADATA}: relative_file_paths")
    except ConfigurationError as error:
        report(str(error))
        return None
    # rosbag2 lists compressed files with their suffix, and somebody may have unpacked them.
    unpacked = path.with_name(path.name.removesuffix(COMPRESSED_SUFFIX))
    path = path if path.exists() else unpacked
    if not _is_storage(path.name):
        report(f"{printable(path.name)}: expected a name ending in {' or '.join(STORAGE_SUFFIXES)}")
        return None
    return path


@lru_cache(maxsize=256)
def _qos(text: str) -> str:
    """Return QoS profiles in the form that every release of ROS 2 plays."""
    from rosbags.rosbag2.metadata import dump_qos_v8, parse_qos

    try:
        return dump_qos_v8(parse_qos(text)) if text else ""
    # Whatever rosbags raises for what is no such profile; players then take their own.
    except Exception:
        return ""


def _shown(topic: str) -> str:
    return printable(topic)
