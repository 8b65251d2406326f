"""Frames from bags of ROS 2 (sqlite3 and mcap) and ROS 1, read without any ROS."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from seg_perception.core.errors import FrameError, IncompleteBagError, SourceError
from seg_perception.core.frame import Frame
from seg_perception.core.messages.detections import DETECTIONS
from seg_perception.core.messages.images import COMPRESSED_IMAGE, IMAGE
from seg_perception.core.messages.topics import raw_above
from seg_perception.core.text import printable

from ..base import FrameSource
from .reader import Bag
from .video import Decoded, ImageDecoder

# What a segmenter publishes in addition to its detections is no camera.
_RESULTS = ("instance_map", "instance_map/color", "semantic_map", "overlay", "overlay/compressed")
# Images of distances; whoever wants them as grey images can name their topics.
_DISTANCES = ("depth", "disparity")
_SECOND = 1_000_000_000
# Names of cameras become parts of topics and of file names.
_MOST_NAME = 100
# Of the topics that an error lists.
_MOST_TEXT = 1000


class BagImages(FrameSource):
    """The images of a bag in the order in which they were recorded.

    Stamps and `frame_id` are those of the messages; names are `BAG_000000`, `BAG_000001`, ... Messages that cannot be
    decoded are failures, and so is what is damaged; the bag goes on.

    Attributes:
        cameras: name of the camera by topic, for each topic that is read.
    """

    def __init__(self, path: Path, *, camera: str = "", topics: Sequence[str] = ()) -> None:
        """Open the bag once to see what it has.

        Args:
            path: a bag's folder, or a single file.
            camera: name of the camera in the configuration; by default one after each topic.
            topics: only of these; none for all with camera images.

        Raises:
            SourceError: it cannot be read or has no images.
            BackendUnavailable: rosbags is not installed.
        """
        super().__init__(sequence=True)
        self._path = path
        with Bag(path) as bag:
            self.cameras = camera_topics(bag, topics)
            self._count = sum(bag.counts[topic] for topic in self.cameras)
            faults = bag.faults
        if not self._count:
            reasons = "".join(f"; {fault}" for fault in faults[:3])
            topics = printable(", ".join(self.cameras), _MOST_TEXT)
            raise SourceError(f"{path}: its topics {topics} have no images{reasons}")
        if camera:
            self.cameras = dict.fromkeys(self.cameras, camera)

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield the images that can be decoded."""
        self.failures = []
        with Bag(self._path) as bag:
            decoder = ImageDecoder(self.cameras)
            for index, message in enumerate(bag.messages(self.cameras)):
                yield from self._named(decoder.decode(index, message))
            yield from self._named(decoder.finish())
            faults = (*bag.faults, *decoder.faults())
            self.failures += [IncompleteBagError(f"{self._path}: {fault}") for fault in faults]

    def _named(self, decoded: Iterable[Decoded]) -> Iterator[tuple[str, Frame]]:
        """Give each frame its name, and keep what has become none as a failure."""
        for index, message, frame in decoded:
            name = f"{self._path.stem}_{index:06d}"
            if isinstance(frame, FrameError):
                self.failures.append(SourceError(f"{self._path}: {name} on {printable(message.topic)}: {frame}"))
            else:
                yield name, frame

    def __len__(self) -> int:
        """Return how many image messages the bag has."""
        return self._count


def camera_topics(bag: Bag, wanted: Sequence[str] = ()) -> dict[str, str]:
    """The topics of a bag with camera images, and a name for each camera.

    Of a camera that was recorded raw and compressed, the raw images are taken; results of a segmenter and depth
    images are left out.

    Args:
        bag: open.
        wanted: these and no others; none for all.

    Raises:
        SourceError: there is none, or one that is wanted is not there or has no images.
    """
    images = {topic: kind for topic, kind in bag.topics.items() if kind in (IMAGE, COMPRESSED_IMAGE)}
    for topic in wanted:
        if topic not in images:
            got = f"{topic} ({bag.topics[topic]})" if topic in bag.topics else ", ".join(images) or "no images"
            got = printable(got, _MOST_TEXT)
            raise SourceError(f"{bag.path}: topic {topic}: expected one of {IMAGE} or {COMPRESSED_IMAGE}, got {got}")
    chosen = list(dict.fromkeys(wanted)) or _cameras(bag.topics, images)
    if not chosen:
        topics = ", ".join(f"{name} ({kind})" for name, kind in bag.topics.items()) or "an empty bag"
        listed = "; ".join((printable(topics, _MOST_TEXT), *bag.notes, *bag.faults[:3]))
        raise SourceError(f"{bag.path}: expected a topic of {IMAGE} or {COMPRESSED_IMAGE} from a camera, got {listed}")
    return _names(chosen)


def time_range(bag: Bag, start: float, duration: float) -> tuple[int | None, int | None]:
    """Times of recording in nanoseconds between which a part of a bag lies; None where it is not limited.

    Args:
        bag: open.
        start: seconds to leave out.
        duration: seconds to read; 0 for all that follows.
    """
    begin = bag.start_ns + round(start * _SECOND)
    return (begin if start else None), (begin + round(duration * _SECOND) if duration else None)


def _cameras(topics: Mapping[str, str], images: Mapping[str, str]) -> list[str]:
    """Topics of cameras."""
    spaces = [topic.rpartition("/")[0] for topic, kind in topics.items() if kind == DETECTIONS]
    results = {f"{space}/{name}" for space in spaces for name in _RESULTS}
    return [
        topic
        for topic, kind in images.items()
        if topic not in results
        and not any(word in topic.lower() for word in _DISTANCES)
        and not (kind == COMPRESSED_IMAGE and images.get(raw_above(topic)) == IMAGE)
    ]


def _names(topics: Sequence[str]) -> dict[str, str]:
    """A name for each topic, fit for a parameter: of /front/image_raw it is front."""
    names: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for topic in topics:
        parts = [part for part in raw_above(topic).split("/") if part]
        words = "_".join(parts[:-1] or parts)
        name = re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_")[:_MOST_NAME] or "camera"
        name = name if name[0].isalpha() else f"camera_{name}"
        if len(parts) == 1 and name.startswith("image"):
            name = "camera"
        number, base = taken[name], name
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken[base] = max(number, 1)
        taken[name] = max(taken[name], 1)
        names[topic] = name
    return names
