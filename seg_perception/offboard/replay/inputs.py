"""What is replayed: the frames of a bag with their calibrations, or those of a video or of images."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seg_perception.core.encodings.bit_depth import BitDepths
from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import FrameError
from seg_perception.core.frame import Frame
from seg_perception.core.messages.calibration import CAMERA_INFO, Calibration
from seg_perception.core.messages.images import IMAGE, write_image
from seg_perception.core.messages.topics import camera_info_topic
from seg_perception.core.text import printable
from seg_perception.offboard.data.bags.reader import Bag, BagMessage, is_bag
from seg_perception.offboard.data.bags.source import camera_topics, time_range
from seg_perception.offboard.data.bags.video import Decoded, ImageDecoder
from seg_perception.offboard.data.base import WarningCounts
from seg_perception.offboard.data.images import open_source

# Images have no time; they follow one another as quickly as those of a slow camera.
_IMAGE_NS = 100_000_000
_SECOND = 1_000_000_000
VIDEO_CAMERA = "camera"
# Recorders pause for meals, not for days; seconds.
_LONGEST_PAUSE = 3600.0


@dataclass(frozen=True, slots=True)
class InputFrame:
    """Something to be replayed.

    Attributes:
        time_ns: when it was recorded.
        frame: what it shows; None where only a message is handed on.
        calibration: of the camera then, if it had one.
        copy: the message itself, if it is to be copied.
    """

    time_ns: int
    frame: Frame | None = None
    calibration: Calibration | None = None
    copy: BagMessage | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """The part of a recording that counts: seconds to leave out, and seconds to read; 0 for all that follows."""

    start: float = 0.0
    duration: float = 0.0


class Recording(ABC):
    """Frames in the order in which they were recorded.

    Attributes:
        path: of the file or folder.
        cameras: name of each camera.
        count: frames as far as they are known beforehand; None where they are not.
        failures: what could not be read, human-readable; complete after the last frame.
        warnings: what was odd about images that could be read; complete after the last frame.
        notes: what is passed over and is no loss, human-readable.
    """

    def __init__(self, path: Path, cameras: Sequence[str], count: int | None) -> None:
        self.path = path
        self.cameras = tuple(cameras)
        self.count = count
        self.failures: list[str] = []
        self.warnings = WarningCounts()
        self.notes: tuple[str, ...] = ()

    @abstractmethod
    def shots(self) -> Iterator[InputFrame]:
        """All of it, once."""


class BagRecording(Recording):
    """A bag.

    Attributes:
        topics, qos, definitions: as `Bag` has them.
    """

    def __init__(
        self,
        path: Path,
        topics: Sequence[str] = (),
        part: Range | None = None,
        copy: bool = False,
        bit_depth: str = "16",
    ) -> None:
        """Look what it has.

        Args:
            path: of the bag.
            topics: image topics; none for all with camera images.
            part: which part counts; all by default.
            copy: whether the messages of all topics are handed on, too.
            bit_depth: of 16-bit images, 8 to 16 or `auto`; each camera has its own.

        Raises:
            SourceError: it cannot be read, or has no such images.
            BackendUnavailable: rosbags is not installed.
        """
        self._part = part or Range()
        self._copy = copy
        self._depths = BitDepths(bit_depth)
        with Bag(path) as bag:
            self._names = camera_topics(bag, topics)
            self.topics, self.qos, self.definitions = dict(bag.topics), bag.qos, bag.definitions
            whole = not (self._part.start or self._part.duration)
            count = sum(bag.counts[topic] for topic in self._names)
            super().__init__(path, list(self._names.values()), count if whole else None)
            self.notes = tuple(bag.notes)
            # Raw and rectified images of a camera have one calibration next to them.
            self._infos: dict[str, list[str]] = {}
            for topic, name in self._names.items():
                if bag.topics.get(camera_info_topic(topic)) == CAMERA_INFO:
                    self._infos.setdefault(camera_info_topic(topic), []).append(name)
            # An image comes before the calibration of the same moment.
            self._calibrations: dict[str, Calibration] = {}
            for topic in self._infos:
                for message in bag.messages([topic]):
                    self._calibrate(message)
                    break

    def shots(self) -> Iterator[InputFrame]:
        """The images, and copies of all messages where these are wanted."""
        with Bag(self.path) as bag:
            begin, end = time_range(bag, self._part.start, self._part.duration)
            wanted = [] if self._copy else [*self._names, *self._infos]
            decoder = ImageDecoder(self._names)
            for index, message in enumerate(bag.messages(wanted, begin, end)):
                copy = message if self._copy else None
                if message.topic in self._infos:
                    self._calibrate(message)
                decoded = decoder.decode(index, message) if message.topic in self._names else ()
                shots = list(self._shots(decoded))
                # A message is copied when it comes, whenever its frame is ready.
                if copy is not None and len(shots) == 1 and shots[0].time_ns == message.time_ns:
                    shots = [replace(shots[0], copy=copy)]
                elif copy is not None:
                    yield InputFrame(message.time_ns, copy=copy)
                yield from shots
            yield from self._shots(decoder.finish())
            self.failures += [*bag.faults, *decoder.faults()]
            for camera, hint in self._depths.at_end():
                self.warnings.add_warning(camera, hint)

    def _shots(self, decoded: Iterable[Decoded]) -> Iterator[InputFrame]:
        for _, message, frame in decoded:
            if isinstance(frame, FrameError):
                self.failures.append(f"{printable(message.topic)} at {message.time_ns} ns: {frame}")
                continue
            deep = self._depths.apply(frame)
            self.warnings.add(f"{printable(message.topic)} at {message.time_ns} ns", deep)
            yield InputFrame(message.time_ns, deep, self._calibrations.get(deep.camera))

    def _calibrate(self, message: BagMessage) -> None:
        try:
            calibration = Calibration.read(message.data)
        except FrameError as error:
            self.failures.append(f"{printable(message.topic)} at {message.time_ns} ns: {error}")
        else:
            self._calibrations.update(dict.fromkeys(self._infos[message.topic], calibration))


class FileRecording(Recording):
    """A video, an image or a folder of images."""

    def __init__(self, path: Path, part: Range | None = None, copy: bool = False, bit_depth: str = "16") -> None:
        """Open it.

        Args:
            path: of the file or folder.
            part: which part counts; all by default.
            copy: whether the frames are handed on as messages, too, as a camera would have sent them.
            bit_depth: of 16-bit images, 8 to 16 or `auto`.

        Raises:
            SourceError: there is nothing of that kind.
        """
        self._source = open_source(path, camera=VIDEO_CAMERA)
        self._source.bit_depth = bit_depth
        self._part = part or Range()
        self._copy = copy
        try:
            count: int | None = len(self._source)
        except TypeError:
            count = None
        super().__init__(path, [VIDEO_CAMERA], None if part is not None and part != Range() else count)

    def shots(self) -> Iterator[InputFrame]:
        """The frames."""
        begin = round(self._part.start * _SECOND)
        end = begin + round(self._part.duration * _SECOND) if self._part.duration else None
        for index, (_, image) in enumerate(self._source):
            time_ns = image.stamp_ns if self._source.sequence else index * _IMAGE_NS
            if end is not None and time_ns >= end:
                break
            if time_ns >= begin:
                frame = replace(image, stamp_ns=time_ns)
                yield InputFrame(time_ns, frame, copy=_message(frame, time_ns) if self._copy else None)
        self.failures += [str(failure) for failure in self._source.failures]
        self.warnings = self._source.warnings


def _message(frame: Frame, time_ns: int) -> BagMessage:
    """Return what a camera would have sent."""
    data = write_image(frame.stamp_ns, frame.frame_id, "bgr8", to_bgr(frame))
    return BagMessage(f"/{VIDEO_CAMERA}/image_raw", IMAGE, time_ns, data)


def at_their_pace(shots: Iterable[InputFrame], wait: Callable[[float], object] = time.sleep) -> Iterator[InputFrame]:
    """The same shots, each held back until as much time has passed as when they were recorded.

    Args:
        shots: in the order in which they were recorded.
        wait: lets so many seconds pass.
    """
    begin, first_ns = 0.0, 0
    for index, shot in enumerate(shots):
        if not index:
            begin, first_ns = time.monotonic(), shot.time_ns
        # Odd times of recording must not make it wait for years.
        due = min(begin + (shot.time_ns - first_ns) / _SECOND, time.monotonic() + _LONGEST_PAUSE)
        wait(max(0.0, due - time.monotonic()))
        yield shot


def open_recording(
    path: Path, topics: Sequence[str] = (), part: Range | None = None, copy: bool = False, bit_depth: str = "16"
) -> Recording:
    """Open a bag, a video or images; arguments and errors as `BagRecording`."""
    if path.exists() and is_bag(path):
        return BagRecording(path, topics, part, copy, bit_depth)
    return FileRecording(path, part, copy, bit_depth)
