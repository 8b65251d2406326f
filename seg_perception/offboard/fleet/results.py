"""What is on disk: manifests that say which bags are done, and names that belong to one bag each.

A bag is done when its manifest is there, which is written last. Whatever a worker leaves behind when it dies has a name
that begins with a dot, and is removed when the bag is begun again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from seg_perception.core.errors import ConfigurationError, SourceError
from seg_perception.core.files import inside, write_atomically

from .work import RecordingFile, Result, Task, plain

MANIFEST = ".json"
# What came of all bags.
SUMMARY = "fleet.json"
# Held while a run writes there; a folder that has it is one of a fleet.
LOCK = ".fleet.lock"
# Names of what is made of all bags.
DATASET, EVALUATION = "dataset", "evaluation.json"
RESERVED = frozenset({"fleet", DATASET, EVALUATION.removesuffix(MANIFEST)})


class Results:
    """The results in a folder, as they were when it was opened."""

    def __init__(self, folder: Path) -> None:
        """Look what is there; manifests are read when they are asked for.

        Raises:
            ConfigurationError: the folder cannot be read, or is none of a fleet.
        """
        self.folder = folder
        try:
            # One listing, because asking for each of many names is slow on a network's file system.
            names = [path.name for path in folder.iterdir()]
            self._names = {name.removesuffix(MANIFEST) for name in names if name.endswith(MANIFEST)}
        except OSError as error:
            raise ConfigurationError(
                f"{folder}: cannot be read ({error.strerror or error}); choose another -o"
            ) from error
        if names and LOCK not in names:
            raise ConfigurationError(
                f"{folder}: expected a new or empty folder or that of an earlier run, it has other files; "
                "choose another -o"
            )
        self._read: dict[str, Result | None] = {}

    def get(self, name: str) -> Result | None:
        """The manifest of that name; None if there is none that can be read."""
        if name not in self._names:
            return None
        if name not in self._read:
            self._read[name] = read_manifest(self.folder / f"{name}{MANIFEST}")
        return self._read[name]

    def to_do(self, task: Task, command: str, settings: Mapping[str, Any]) -> str | None:
        """Return why a task has to be done, in words; empty if it never was; None if it is done."""
        if task.name not in self._names:
            return ""
        done = self.get(task.name)
        if done is None:
            return "its manifest cannot be read"
        if done.command != command:
            return f"it was made by `{done.command}`"
        if done.source != task.source:
            return "the bag has changed since"
        if changed := [name for name in {**done.settings, **settings} if done.settings.get(name) != settings.get(name)]:
            return f"done with other {', '.join(changed)}"
        output = self.folder / done.output
        # What is in a folder people may have worked on since.
        if not output.exists() or (not output.is_dir() and bytes_of(output)[0] != done.output_bytes):
            return f"{done.output} is not there, or not as it was written"
        return None


def read_manifest(path: Path) -> Result | None:
    """Return the result that a manifest tells of; None if it is no manifest, or names an output outside of its folder.

    The folder may be somebody else's, so nothing in it is believed: what is refused here is done again.
    """
    try:
        content = json.loads(inside(path.parent, path.name, what="manifest").read_text(encoding="utf-8"))
        result = Result(**{**content, "source": RecordingFile(**content["source"])})
        plain_output = PurePosixPath(result.output).name == result.output and not result.output.startswith(".")
        counts = [result.outcome.get(name, 0) for name in ("frames", "faults")]
        mappings = (result.settings, result.outcome, result.identity)
        if not plain_output or not all(isinstance(each, dict) for each in mappings):
            return None
        if not all(type(each) is int for each in (*counts, result.output_bytes)):
            return None
        inside(path.parent, result.output, what="output of a manifest", kind="any")
    except (ConfigurationError, OSError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return result


def write_manifest(folder: Path, result: Result) -> None:
    """Write it at once.

    Raises:
        ConfigurationError: it cannot be written.
    """
    data = json.dumps(plain(asdict(result)), indent=1, allow_nan=False)
    write_atomically(folder / f"{result.name}{MANIFEST}", f"{data}\n".encode())


def set_aside(path: Path) -> None:
    """Give what is there another name: people may have worked on it."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    if path.exists():
        path.rename(aside)


def source_of(path: Path) -> RecordingFile:
    """A recording as it lies there.

    Raises:
        SourceError: there is nothing.
    """
    try:
        size, modified_ns = bytes_of(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    return RecordingFile(str(path.resolve()), size, modified_ns)


def bytes_of(path: Path) -> tuple[int, int]:
    """Bytes of a file or of all files of a folder, and when the newest was written, in ns."""
    status = path.stat()
    if not path.is_dir():
        return status.st_size, status.st_mtime_ns
    found = [bytes_of(Path(entry.path)) for entry in os.scandir(path)]
    return sum(size for size, _ in found), max((time for _, time in found), default=status.st_mtime_ns)


def tasks_of(paths: Sequence[Path], results: Results) -> list[Task]:
    """A task for each recording, the largest first; one that is given twice is done once.

    A name is the recording's own. Where several have the same, or another one's result has it, as many of its folders
    come before it as are needed. One that has a result keeps its name.

    Raises:
        SourceError: one is not there.
        ConfigurationError: one is in the folder of the results.
    """
    sources = {source.path: source for source in map(source_of, paths)}
    if inside := next((path for path in sources if results.folder in Path(path).parents), ""):
        raise ConfigurationError(f"{inside}: expected bags outside of the folder of the results; choose another -o")
    names = _names(list(sources), results)
    tasks = [Task(names[path], source, results.folder) for path, source in sources.items()]
    return sorted(tasks, key=lambda task: -task.source.bytes)


def _names(paths: Sequence[str], results: Results) -> dict[str, str]:
    """Name by path."""
    names: dict[str, str] = {}
    for path in paths:
        kept = (name for name in _candidates(path) if (own := results.get(name)) and own.source.path == path)
        if name := next(kept, ""):
            names[path] = name
    waiting = {path: _candidates(path) for path in paths if path not in names}
    while waiting:
        wanted = {path: next(candidates) for path, candidates in waiting.items()}
        counts = Counter([*names.values(), *wanted.values()])
        for path, name in wanted.items():
            if counts[name] == 1 and name not in RESERVED and results.get(name) is None:
                names[path] = name
                del waiting[path]
    return names


def _candidates(path: str) -> Iterator[str]:
    """Names that a path may have, the shortest first; the last is like no other."""
    own = Path(path)
    name = (own.name if own.is_dir() else own.stem).lstrip(".") or "bag"
    yield name
    for parent in own.parents:
        if parent.name:
            name = f"{parent.name.lstrip('.')}-{name}"
            yield name
    digest = hashlib.sha256(path.encode()).hexdigest()
    for length in range(8, len(digest) + 1):
        yield f"{name}-{digest[:length]}"
