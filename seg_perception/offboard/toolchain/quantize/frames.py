"""Calibration frames: gathered from any source, told apart, split into those that set scales and those held back."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import ModelSpec
from seg_perception.core.encodings.raw import view
from seg_perception.core.errors import ConfigurationError, FrameError, SegPerceptionError
from seg_perception.core.frame import FULL_DEPTH, Frame
from seg_perception.core.geometry import ResizeGeometry
from seg_perception.offboard.data.base import FrameSource
from seg_perception.offboard.data.images import open_source
from seg_perception.offboard.evaluation.coco import CocoSet, is_annotation_file
from seg_perception.onboard.backend.host.letterbox import letterbox

from .progress import Progress, silent

FEWEST = 32
# Of four images with labels one sets scales and three are held back for the gate, where AP needs many; of those
# without, and of videos and bags, it is the other way round.
_PART = 4


@dataclass(frozen=True, slots=True)
class CalibrationImage:
    """One calibration frame, by where it can be read again.

    Attributes:
        source: number of the path it came from.
        name: within that source.
        digest: SHA-256 of its pixels, as hexadecimal text.
        image_id: its number in the annotation file; None for a frame without labels.
    """

    source: int
    name: str
    digest: str
    image_id: int | None = None


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Frames for calibration and gate.

    Attributes:
        paths: where they come from.
        labels: the annotation file among them, if there is one.
        calibration: frames that scales are found on.
        held_back: frames that only the gate sees.
        failures: what could not be read.
        duplicates: frames that are left out because another one is the same.
        warnings: what was odd about frames that could be read, one line for each kind.
    """

    paths: tuple[Path, ...]
    labels: CocoSet | None
    calibration: tuple[CalibrationImage, ...]
    held_back: tuple[CalibrationImage, ...]
    failures: tuple[SegPerceptionError, ...] = ()
    duplicates: int = 0
    warnings: tuple[str, ...] = ()
    _sources: tuple[FrameSource, ...] = field(default=(), repr=False)

    @property
    def images(self) -> tuple[CalibrationImage, ...]:
        """All of them."""
        return (*self.calibration, *self.held_back)

    @property
    def sha256(self) -> str:
        """Of all frames together, whatever their order."""
        return hashlib.sha256("".join(sorted(each.digest for each in self.images)).encode()).hexdigest()

    def frames(self, chosen: Collection[CalibrationImage]) -> Iterator[tuple[CalibrationImage, Frame]]:
        """Read frames again; order of the sources."""
        for number, source in enumerate(self._sources):
            wanted = {each.name: each for each in chosen if each.source == number}
            for name, frame in source.chosen(wanted):
                yield wanted[name], frame


def gather(
    paths: Sequence[Path], limit: int = 512, progress: Progress = silent, bit_depth: str = "16"
) -> CalibrationSet:
    """Look at every frame once.

    Args:
        paths: images, folders, videos, bags, and at most one COCO annotation file.
        limit: of more frames than this, as many are taken, evenly spread.
        progress: shows how many frames were looked at.
        bit_depth: of 16-bit images, 8 to 16 or `auto`.

    Raises:
        SourceError: a path has nothing to read.
        ConfigurationError: there are not at least two different frames, or several annotation files.
    """
    if limit < 2:
        raise ConfigurationError(
            f"--max-frames: expected at least 2, one to calibrate and one for the gate, got {limit}"
        )
    labels = labels_among(paths)
    failures: list[SegPerceptionError] = []
    labelled = [is_annotation_file(path) for path in paths]
    sources = [
        labels.source() if labels and own else open_source(path) for path, own in zip(paths, labelled, strict=True)
    ]
    for source in sources:
        source.bit_depth = bit_depth
    found = list(progress(_look(sources, labelled, failures), "frames", None))
    for source in sources:
        failures.extend(source.failures)
    distinct = list({each.digest: each for each in reversed(found)}.values())[::-1]
    if len(distinct) < 2:
        raise ConfigurationError(_too_few(found, failures))
    if len(distinct) > limit:
        distinct = [distinct[place] for place in np.linspace(0, len(distinct) - 1, limit).round().astype(int)]
    held = _held_back(distinct, {number for number, source in enumerate(sources) if source.sequence})
    return CalibrationSet(
        tuple(paths),
        labels,
        tuple(each for each in distinct if each not in held),
        tuple(each for each in distinct if each in held),
        tuple(failures),
        len(found) - len({each.digest for each in found}),
        tuple(line for source in sources for line in source.warnings.lines()),
        tuple(sources),
    )


def labels_among(paths: Sequence[Path]) -> CocoSet | None:
    """The annotation file among paths; None without one.

    Raises:
        SourceError: it cannot be read.
        ConfigurationError: there are several.
    """
    files = [path for path in paths if is_annotation_file(path)]
    if len(files) > 1:
        raise ConfigurationError("--calibration: expected at most one COCO annotation file; join them")
    return CocoSet.load(files[0]) if files else None


def network_input(frame: Frame, spec: ModelSpec) -> NDArray[np.uint8]:
    """A frame as the network sees it: uint8 `[1, H, W, 3]`, RGB, through the node's own letterbox.

    Raises:
        FrameError: it cannot be decoded.
    """
    image, order = view(frame)
    out = np.empty((1, spec.network_height, spec.network_width, 3), np.uint8)
    geometry = ResizeGeometry.fit(spec.resize, frame.width, frame.height, spec.network_width, spec.network_height)
    letterbox(image, order, geometry, spec.resize.pad_value, out[0])
    return out


def _look(
    sources: Sequence[Iterable[tuple[str, Frame]]], labelled: Sequence[bool], failures: list[SegPerceptionError]
) -> Iterator[CalibrationImage]:
    for number, source in enumerate(sources):
        for name, frame in source:
            try:
                view(frame)
            except FrameError as error:
                failures.append(error)
                continue
            yield CalibrationImage(number, name, _digest(frame), int(name) if labelled[number] else None)


def _digest(frame: Frame) -> str:
    digest = hashlib.sha256(f"{frame.encoding} {frame.width} {frame.height} {frame.step}".encode())
    if frame.bit_depth != FULL_DEPTH:
        digest.update(str(frame.bit_depth).encode())
    digest.update(np.ascontiguousarray(frame.data).data)
    return digest.hexdigest()


def _held_back(images: Sequence[CalibrationImage], sequences: Collection[int]) -> set[CalibrationImage]:
    """Images by their pixels, so that neither names nor the order of the paths matter; the end of each sequence.

    Args:
        images: all of them.
        sequences: the sources whose frames resemble their neighbours. The gate must not see neighbours of those that
            set the scales.
    """
    held: set[CalibrationImage] = set()
    for labelled in (True, False):
        kind = [each for each in images if (each.image_id is not None) == labelled and each.source not in sequences]
        kind.sort(key=lambda each: each.digest)
        held.update(each for place, each in enumerate(kind) if (place % _PART == 0) != labelled)
    for number in sequences:
        kind = [each for each in images if each.source == number]
        held.update(kind[len(kind) - len(kind) // _PART :])
    if len(held) == len(images):
        held.remove(max(held, key=lambda each: each.digest))
    return held


def _too_few(found: Sequence[CalibrationImage], failures: Sequence[SegPerceptionError]) -> str:
    remedy = f"give {FEWEST} or more different frames from the cameras that the model will see"
    if not found:
        reasons = "".join(f"\n  {failure}" for failure in failures[:8])
        return f"--calibration: no frame could be read; {remedy}{reasons}"
    if len(found) == 1:
        return f"--calibration: expected at least two frames, got one; {remedy}"
    return f"--calibration: all {len(found)} frames are the same image, so the scales would fit nothing else; {remedy}"
