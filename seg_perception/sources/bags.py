"""Frames from bags of ROS 2 (sqlite3 and mcap) and ROS 1, read without any ROS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendUnavailable, SourceError
from ..frame import Frame
from .base import FrameSource
from .encodings import decode_compressed

BAG_SUFFIXES = (".mcap", ".db3", ".bag")
_METADATA = "metadata.yaml"
_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_NANOSECONDS = 1_000_000_000


class BagImages(FrameSource):
    """The images of a bag in the order in which they were recorded.

    Stamps and `frame_id` are those of the messages; names are `BAG_000000`, `BAG_000001`, ... Messages that cannot be
    decoded are failures, and the bag goes on.
    """

    def __init__(self, path: Path, *, frame_id: str = "", camera: str = "", topic: str = "") -> None:
        """Open the bag once to see what it has.

        Args:
            path: a bag's folder, or a single file.
            frame_id: for messages that have none.
            camera: name of the camera in the configuration.
            topic: only of this one; empty for all topics with images.

        Raises:
            SourceError: it cannot be read or has no images.
            BackendUnavailable: rosbags is not installed.
        """
        super().__init__(sequence=True)
        self._path, self._frame_id, self._camera, self._topic = path, frame_id, camera, topic
        with open_bag(path) as reader:
            topics = {each.topic: each.msgtype for each in reader.connections}
            images = self._connections(reader)
            if not images:
                raise SourceError(
                    f"{path}: expected {topic or 'a topic'} of {_IMAGE} or {_COMPRESSED}, got "
                    f"{', '.join(f'{name} ({kind})' for name, kind in topics.items()) or 'an empty bag'}"
                )
            self._count = sum(each.msgcount for each in images)
        if not self._count:
            raise SourceError(f"{path}: its topics {', '.join(each.topic for each in images)} have no images")

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield the images that can be decoded."""
        self.failures = []
        with open_bag(self._path) as reader:
            for index, (connection, _, data) in enumerate(reader.messages(self._connections(reader))):
                name = f"{self._path.stem}_{index:06d}"
                try:
                    frame = self._frame(reader.deserialize(data, connection.msgtype), connection.msgtype)
                # Beside FrameError whatever rosbags raises for bytes that are no such message.
                except Exception as error:
                    self.failures.append(SourceError(f"{self._path}: {name} on {connection.topic}: {error}"))
                else:
                    yield name, frame

    def __len__(self) -> int:
        """How many image messages the bag has."""
        return int(self._count)

    def _connections(self, reader: Any) -> list[Any]:
        return [
            each
            for each in reader.connections
            if each.msgtype in (_IMAGE, _COMPRESSED) and self._topic in ("", each.topic)
        ]

    def _frame(self, message: Any, kind: str) -> Frame:
        stamp = message.header.stamp
        stamp_ns = stamp.sec * _NANOSECONDS + stamp.nanosec
        frame_id = message.header.frame_id or self._frame_id
        data = np.asarray(message.data, np.uint8)
        if kind == _COMPRESSED:
            return decode_compressed(data, stamp_ns=stamp_ns, frame_id=frame_id, camera=self._camera)
        return Frame(
            data,
            message.width,
            message.height,
            message.step,
            message.encoding,
            stamp_ns,
            frame_id,
            self._camera,
            bool(message.is_bigendian),
        )


def is_bag(path: Path) -> bool:
    """Whether a path is meant as a bag: a file by its suffix, a folder by what ROS 2 writes into it."""
    if path.is_dir():
        return (path / _METADATA).is_file()
    return path.suffix.lower() in BAG_SUFFIXES


def open_bag(path: Path) -> Any:
    """A reader of rosbags, to be used with `with`.

    Raises:
        SourceError: the bag cannot be read.
        BackendUnavailable: rosbags is not installed.
    """
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        message = f"{path}: bags need the Python package rosbags ({error}): pip install rosbags"
        raise BackendUnavailable(message) from error
    try:
        # Bags before Iron do not say how their messages are built.
        return _Reader(AnyReader([path], default_typestore=get_typestore(Stores.LATEST)), path)
    except Exception as error:
        raise _unreadable(path, error) from error


class _Reader:
    """A reader whose opening raises the errors of this package."""

    def __init__(self, reader: Any, path: Path) -> None:
        self._reader, self._path = reader, path

    def __enter__(self) -> Any:
        try:
            return self._reader.__enter__()
        except Exception as error:
            raise _unreadable(self._path, error) from error

    def __exit__(self, *details: object) -> None:
        self._reader.__exit__(*details)


def _unreadable(path: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{path}: cannot be read as a bag ({error}); expected a folder with {_METADATA} or a file ending in "
        f"{', '.join(BAG_SUFFIXES)}; copy it again, or repair it with `ros2 bag reindex`"
    )
