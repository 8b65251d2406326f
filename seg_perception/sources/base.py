"""What a source of frames is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from ..errors import SourceError
from ..frame import Frame


class FrameSource(ABC):
    """Named frames, one after the other. It can be iterated again, from the start.

    Attributes:
        fps: frames per second of a video; None for pictures that have no time.
        failures: what could not be read since the last iteration began; such pictures are left out.
        ignored: names of the files of a folder that are no pictures.
        sequence: whether each frame follows the one before in time and so resembles it (videos, bags).
    """

    def __init__(self, fps: float | None = None, ignored: Sequence[str] = (), sequence: bool = False) -> None:
        self.fps = fps
        self.sequence = sequence
        self.failures: list[SourceError] = []
        self.ignored = tuple(ignored)

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Frames with names that are unique within the source and fit for a file."""

    @abstractmethod
    def __len__(self) -> int:
        """How many frames there are, those that cannot be read included.

        Raises:
            TypeError: it is not known (a video whose container does not say), as for an iterator.
        """

    def __bool__(self) -> bool:
        """True: a source without a single frame is not opened."""
        return True
