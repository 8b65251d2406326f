"""A data set that is being written: images, labels and lists for reviewers, valid whenever the work stops.

Each chosen frame is an image, a LabelMe file and a record of its own, each written at once or not at all. Everything
else is made of the records, so a run that was killed loses nothing that was chosen. Of the records only names stay in
memory; the files that are made of all of them are built there.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.files import inside, writable_folder, write_atomically
from seg_perception.core.text import printable

from .coco import INSTANCES, coco_bytes, read_categories
from .cvat import CVAT, CVAT_LABELS, cvat_bytes, cvat_labels
from .labelme import LABELME, labelme_bytes
from .picks import Moment
from .quality import QUALITY, QUALITY_TABLE, assess, quality_bytes, quality_table
from .records import Category, LabelledFrame, MaskStyle, frame_from_json, frame_to_json

STATE = "label.json"
IMAGES, _RECORDS = "images", ".records"
_FOLDERS = (IMAGES, LABELME, _RECORDS)


@dataclass(slots=True)
class State:
    """The progress of a data set.

    Attributes:
        sources: paths of the recordings, in their order.
        finished: those that were read to their end.
        streams: source and camera of each sequence of frames; a track's number depends on its place here.
        seen: frames that were looked at, of finished sources.
        repeated: frames of finished sources that were left out because the same image is there.
        failures: what could not be read, by source.
        made_by: what ran there, human-readable.
        dropped: names of frames that are taken back, while their files are removed.
    """

    sources: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    streams: list[list[str]] = field(default_factory=list)
    seen: int = 0
    repeated: int = 0
    failures: dict[str, list[str]] = field(default_factory=dict)
    made_by: list[dict[str, str]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _ChosenFrame:
    """What is kept in memory of a chosen frame."""

    source: str
    index: int
    camera: str
    stamp_ns: int
    file_name: str
    digest: str
    picks: Mapping[str, float]


class Dataset:
    """A folder with `instances.json`, `cvat.xml`, `labelme/`, `images/`, `quality.json` and `label.json`.

    Attributes:
        folder: where it is.
        categories: of its objects.
        style: how masks are written.
        how: what was asked for, as plain values.
        state: how far it has come.
    """

    def __init__(
        self, folder: Path, categories: Sequence[Category], style: MaskStyle, how: Mapping[str, Any], resume: bool
    ) -> None:
        """Begin, or go on.

        Args:
            folder: of the data set; made if it is not there.
            categories: of its objects.
            style: how masks are written.
            how: what was asked for, as plain values; a run can go on only with the same.
            resume: whether a data set that is there is gone on with.

        Raises:
            ConfigurationError: there is a data set that is not empty and `resume` is not set, or it was begun
                otherwise, or something else is in the folder.
        """
        self.folder, self.categories, self.style = folder, list(categories), style
        # As it reads when it comes back from a file.
        self.how: dict[str, Any] = json.loads(json.dumps(how))
        self.state = State()
        self._entries: dict[str, _ChosenFrame] = {}
        # The recording in progress, the names that were taken when it began, and what it has displaced of others.
        self._source = ""
        self._taken: frozenset[str] = frozenset()
        self._displaced: dict[str, _ChosenFrame] = {}
        writable_folder(folder)
        if os.path.lexists(folder / STATE):
            self._restore(resume)
        elif any(folder.iterdir()):
            raise ConfigurationError(f"{folder}: expected a new or empty folder, it has other files; choose another -o")
        for name in _FOLDERS:
            inside(folder, name, what="folder of a data set", kind="folder").mkdir(exist_ok=True)
        self.save()

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """A data set that a run has left behind.

        Raises:
            ConfigurationError, SourceError: there is none, or it cannot be read.
        """
        how = _state(folder)["how"]
        try:
            style = MaskStyle(**how["style"])
        except (KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{folder / STATE}: expected what `seg_perception label` has written: {error!r}"
            ) from error
        labels = inside(folder, INSTANCES, what="labels of a data set")
        return cls(folder, read_categories(labels), style, how, resume=True)

    def __len__(self) -> int:
        """Return how many frames are chosen."""
        return len(self._entries)

    def __iter__(self) -> Iterator[LabelledFrame]:
        """The chosen frames by source and time, one at a time from their records."""
        rank = {source: number for number, source in enumerate(self.state.sources)}
        order = {name: (rank[each.source], each.index) for name, each in self._entries.items()}
        for name in sorted(order, key=order.__getitem__):
            yield _read(self._record(name))

    def picks(self, apart: float) -> list[tuple[str, Mapping[str, float], Moment]]:
        """Names of the chosen frames in their order, why they were chosen, and their moments, so many seconds long."""
        return [
            (name, each.picks, Moment.of(each.source, each.camera, each.stamp_ns, name, apart))
            for name, each in sorted(self._entries.items())
        ]

    @property
    def digests(self) -> set[str]:
        """Of the images that are there."""
        return {entry.digest for entry in self._entries.values()}

    def name_for(self, source: str, index: int, name: str) -> str:
        """The name of a frame's image: its own, with a number where a frame of another source has that.

        Names that were taken when the recording began stay taken until its end, also those of frames that it displaces.
        """
        number, candidate = 1, name
        while (candidate in self._entries or candidate in self._taken) and self.place_of(candidate) != (source, index):
            number += 1
            candidate = f"{name}.{number}"
        return candidate

    def place_of(self, name: str) -> tuple[str, int] | None:
        """Source and index of a chosen frame; None for a name that is free."""
        entry = self._entries.get(name)
        return None if entry is None else (entry.source, entry.index)

    def stream(self, source: str, camera: str) -> int:
        """The number of a sequence of frames."""
        key = [source, camera]
        if key not in self.state.streams:
            self.state.streams.append(key)
        return self.state.streams.index(key)

    def add(self, frame: LabelledFrame, image: bytes) -> None:
        """Write a chosen frame; the record comes last and says that the image is whole.

        Raises:
            ConfigurationError: it cannot be written.
        """
        write_atomically(self.image(frame.file_name), image)
        self._write_labelme(frame)
        write_atomically(self._record(frame.name), json.dumps(frame_to_json(frame)).encode())
        self._entries[frame.name] = _entry(frame)

    def begin(self, source: str) -> None:
        """Say that frames of a recording come now, from its start."""
        self.settle()
        self._source, self._taken = source, frozenset(self._entries)

    def forget(self, source: str) -> None:
        """Take back what an interrupted run has chosen of a recording, which is read again from its start.

        Going on from the frames that are there would not give the same data set: which frames are chosen, and the
        numbers they are ranked by, depend on what was there when the recording began.
        """
        for name in [name for name, each in self._entries.items() if each.source == source]:
            self._remove(name, self._entries.pop(name))

    def drop(self, name: str) -> str:
        """Take back a frame that others were preferred to; returns its digest.

        Files of other recordings stay until this one is finished: if the run stops before, they are needed again.
        """
        entry = self._entries.pop(name)
        if entry.source == self._source:
            self._remove(name, entry)
        else:
            self._displaced[name] = entry
        return entry.digest

    def settle(self) -> None:
        """Remove the files of the frames that the recording in progress has displaced; its end is reached."""
        if self._displaced:
            # If this is interrupted, the next run goes on with it.
            self.state.dropped = sorted(self._displaced)
            self.save()
            for name, entry in self._displaced.items():
                self._remove(name, entry)
        self._displaced, self.state.dropped = {}, []
        self._source, self._taken = "", frozenset()

    def _remove(self, name: str, entry: _ChosenFrame) -> None:
        # The record goes last: as long as it is there, the frame is known, and what is left of it can be removed.
        for path in (self.image(entry.file_name), self._labelme(name), self._record(name)):
            path.unlink(missing_ok=True)

    def image(self, file_name: str) -> Path:
        """Return the path of the image of a frame.

        Raises:
            ConfigurationError: it leads out of the data set, or is no file.
        """
        return inside(self.folder, f"{IMAGES}/{file_name}", what=f"{self.folder}: image of a frame")

    def save(self) -> None:
        """Write how far it has come."""
        content = {"how": self.how, "frames": len(self), **asdict(self.state)}
        write_atomically(self.folder / STATE, json.dumps(content, indent=1).encode())

    def write(self) -> Counter[str]:
        """Write the files that are made of all records; returns the count of objects by category."""
        counts = Counter(each.category for frame in self for each in frame.objects)
        write_atomically(self.folder / INSTANCES, coco_bytes(self, self.categories, self.style))
        write_atomically(self.folder / CVAT, cvat_bytes(self, self.categories, self.style))
        write_atomically(self.folder / CVAT_LABELS, cvat_labels(self.categories))
        assessed = assess(self)
        write_atomically(self.folder / QUALITY, quality_bytes(assessed, counts, self.categories))
        write_atomically(self.folder / QUALITY_TABLE, quality_table(assessed))
        self.save()
        return counts

    def _restore(self, resume: bool) -> None:
        content = _state(self.folder)
        if not resume:
            if not content["finished"] and not any((self.folder / _RECORDS).glob("*.json")):
                return  # a run that came to nothing, such as one with a misspelt path
            raise ConfigurationError(
                f"{self.folder}: there is a data set already; go on with --resume, or choose another -o"
            )
        before = content.pop("how")
        content.pop("frames")
        self.state = State(**content)
        other = [name for name in {**before, **self.how} if before.get(name) != self.how.get(name)]
        if other:
            differences = ", ".join(f"{name} {before.get(name)!r}, not {self.how.get(name)!r}" for name in other)
            raise ConfigurationError(
                f"{self.folder}: --resume: expected the options it was begun with: {differences}; or choose another -o"
            )
        # Halves of files that a run was killed over.
        folders = [inside(self.folder, name, what="folder of a data set", kind="folder") for name in _FOLDERS]
        for partial in (path for each in (self.folder, *folders) for path in each.glob(".*.partial")):
            partial.unlink()
        for record in sorted((self.folder / _RECORDS).glob("*.json")):
            frame = _read(self._record(record.stem))
            if frame.source not in self.state.sources:
                raise ConfigurationError(
                    f"{record}: expected a recording of {STATE} as its source, got {printable(frame.source)}; "
                    "the data set was changed by hand, begin again with another -o"
                )
            if frame.name in self.state.dropped:
                self._remove(frame.name, _entry(frame))
                continue
            self._entries[frame.name] = _entry(frame)
            if not self._labelme(frame.name).is_file():
                self._write_labelme(frame)
        self.state.dropped = []

    def _record(self, name: str) -> Path:
        return inside(self.folder, f"{_RECORDS}/{name}.json", what=f"{self.folder}: record of a frame")

    def _labelme(self, name: str) -> Path:
        return inside(self.folder, f"{LABELME}/{name}.json", what=f"{self.folder}: LabelMe's file of a frame")

    def _write_labelme(self, frame: LabelledFrame) -> None:
        write_atomically(self._labelme(frame.name), labelme_bytes(frame, self.style, f"../{IMAGES}"))


def _state(folder: Path) -> dict[str, Any]:
    """Return what a run has written of itself, with the keys that are used."""
    path = folder / STATE
    kinds = {"how": dict, "frames": int, **{name: type(value) for name, value in asdict(State()).items()}}
    try:
        content = json.loads(inside(folder, STATE, what="state of a data set").read_text(encoding="utf-8"))
        # Data sets of earlier releases have none.
        content.setdefault("dropped", [])
        wrong = [name for name, kind in kinds.items() if type(content.get(name)) is not kind]
        if wrong:
            raise ValueError(f"without {', '.join(sorted(wrong))}, or these are of another kind")
        if not all(isinstance(each, str) for each in (*content["sources"], *content["finished"])):
            raise ValueError("`sources` and `finished` are no lists of paths")
        return {name: content[name] for name in kinds}
    except (OSError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: expected what `seg_perception label` has written: {error}") from error


def _entry(frame: LabelledFrame) -> _ChosenFrame:
    return _ChosenFrame(
        frame.source, frame.index, frame.camera, frame.stamp_ns, frame.file_name, frame.digest, frame.picks
    )


def _read(path: Path) -> LabelledFrame:
    try:
        frame = frame_from_json(json.loads(path.read_text(encoding="utf-8")))
        if frame.name != path.stem:
            raise ValueError(f"expected the frame {path.stem}, got {printable(frame.name)}")
        return frame
    except (OSError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigurationError(
            f"{path}: cannot be read ({printable(repr(error))}); delete it, or begin again with another -o"
        ) from error
