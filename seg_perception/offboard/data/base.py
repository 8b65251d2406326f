"""What a source of frames is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence

from seg_perception.core.encodings.bit_depth import check_bit_depth
from seg_perception.core.errors import SourceError
from seg_perception.core.frame import FULL_DEPTH, Frame, FrameWarning


class WarningCounts:
    """What was odd about the images of a source, counted by kind; the text of each kind is that of its first image."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, frame: Frame) -> None:
        """Count the warnings of a frame; `name` is what a reader calls it."""
        for warning in frame.warnings:
            self.add_warning(name, warning)

    def add_warning(self, name: str, warning: FrameWarning) -> None:
        """Count one warning."""
        kind, text = warning
        self._texts.setdefault(kind, f"{name}: {text}")
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def lines(self) -> list[str]:
        """Return a line for each kind."""
        return [
            text if self._counts[kind] == 1 else f"{self._counts[kind]} images, such as {text}"
            for kind, text in self._texts.items()
        ]


class FrameSource(ABC):
    """Named frames, one after the other. It can be iterated again, from the start.

    Attributes:
        fps: frames per second of a video; None for images that have no time.
        failures: what could not be read since the last iteration began; such images are left out.
        warnings: what was odd about images that could be read, since the last iteration began.
        ignored: names of the files of a folder that are no images.
        sequence: whether each frame follows the one before in time and so resembles it (videos, bags).
    """

    def __init__(self, fps: float | None = None, ignored: Sequence[str] = (), sequence: bool = False) -> None:
        self.fps = fps
        self.sequence = sequence
        self.failures: list[SourceError] = []
        self.warnings = WarningCounts()
        self._bit_depth = str(FULL_DEPTH)
        self.ignored = tuple(ignored)

    @property
    def bit_depth(self) -> str:
        """Bits that channels of 16 bits use: 8 to 16, or `auto`; set it before the frames are read.

        Raises:
            ConfigurationError: it is set to something else.
        """
        return self._bit_depth

    @bit_depth.setter
    def bit_depth(self, setting: str) -> None:
        self._bit_depth = check_bit_depth(setting)

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Frames with names that are unique within the source and fit for a file."""

    def chosen(self, names: Collection[str]) -> Iterator[tuple[str, Frame]]:
        """Yield the frames of these names, in the order of the source.

        Sources that can do so leave the others unread, and then count neither their failures nor their warnings.
        """
        wanted = set(names)
        for name, frame in self if wanted else ():
            if name in wanted:
                wanted.remove(name)
                yield name, frame
            if not wanted:
                return

    @abstractmethod
    def __len__(self) -> int:
        """Return how many frames there are, those that cannot be read included.

        Raises:
            TypeError: it is not known (a video whose container does not say), as for an iterator.
        """

    def __bool__(self) -> bool:
        """True: a source without a single frame is not opened."""
        return True
