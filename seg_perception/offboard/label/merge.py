"""Data sets of several recordings as one, as if one run had made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from seg_perception.core.errors import ConfigurationError

from .dataset import Dataset
from .picks import Moment, Picker, PickOptions
from .records import LabelledFrame
from .run import TRACKS


def merge(parts: Sequence[Path], folder: Path) -> Dataset:
    """Write one data set out of several that were made with the same options.

    Where frames were chosen by rank (the least certain ones, those in which models disagree), the best of all parts are
    kept, as many as one part may have.

    Args:
        parts: folders of the data sets, in the order of their recordings.
        folder: of the new one; new or empty.

    Raises:
        ConfigurationError: a part cannot be read, was made with other options, or the result cannot be written.
        SourceError: a part's annotation file cannot be read.
    """
    if not parts:
        raise ConfigurationError("merging data sets: expected at least one, got none")
    first = Dataset.open(parts[0])
    merged = Dataset(folder, first.categories, first.style, first.how, resume=False)
    try:
        options = PickOptions(**first.how["picks"])
    except (KeyError, TypeError) as error:
        raise ConfigurationError(f"{parts[0]}: expected the options of `seg_perception label`: {error!r}") from error
    picker, digests = Picker(options), set[str]()
    for path in parts:
        part = Dataset.open(path)
        other = [name for name in first.how if part.how.get(name) != first.how[name]]
        if other:
            raise ConfigurationError(
                f"{path}: expected the options of {parts[0]}, others are {', '.join(other)}; label them alike"
            )
        _count(part, merged)
        source = ""
        for frame in part:
            if frame.source != source:
                source = frame.source
                merged.begin(source)
            if frame.digest in digests:
                merged.state.repeated += 1
            else:
                digests.add(frame.digest)
                digests -= _take(frame, part, merged, picker, options.apart)
    merged.settle()
    merged.write()
    return merged


def _count(part: Dataset, merged: Dataset) -> None:
    state = merged.state
    state.sources += [each for each in part.state.sources if each not in state.sources]
    state.finished += [each for each in part.state.finished if each not in state.finished]
    state.seen += part.state.seen
    state.repeated += part.state.repeated
    state.failures.update(part.state.failures)
    state.made_by += [each for each in part.state.made_by if each not in state.made_by]
    for source, camera in part.state.streams:
        merged.stream(source, camera)


def _take(frame: LabelledFrame, part: Dataset, merged: Dataset, picker: Picker, apart: float) -> set[str]:
    """Add one frame under the tracks and the name that it has in the whole; returns the digests of what has to go."""
    shift = TRACKS * (merged.stream(frame.source, frame.camera) - part.stream(frame.source, frame.camera))
    name = merged.name_for(frame.source, frame.index, frame.name)
    path = part.image(frame.file_name)
    try:
        image = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); copy the data set completely") from error
    whole = replace(
        frame,
        file_name=f"{name}{Path(frame.file_name).suffix}",
        objects=tuple(replace(each, track=each.track + shift if each.track else 0) for each in frame.objects),
    )
    gone = picker.keep(name, frame.picks, Moment.of(frame.source, frame.camera, frame.stamp_ns, name, apart))
    if name not in gone:
        merged.add(whole, image)
    return {frame.digest if each == name else merged.drop(each) for each in gone}
