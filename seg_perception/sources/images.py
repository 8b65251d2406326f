"""Pictures, folders and videos as frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2

from ..errors import FrameError, SourceError
from ..frame import Frame

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm"})


class FrameSource(Protocol):
    """Frames with names, one after the other.

    Attributes:
        skipped: what could not be read so far, with the reason; the rest is delivered all the same.
        rate: frames per second of a video, 0 for pictures.
    """

    skipped: list[str]
    rate: float

    def __len__(self) -> int:
        """How many there are, as far as that is known beforehand."""

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Name (of the file, without suffix; of a video, with the frame's index) and frame, bgr8."""


class Pictures:
    """Image files; see `FrameSource`."""

    rate = 0.0

    def __init__(self, paths: list[Path]) -> None:
        self.skipped: list[str] = []
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        for path in self._paths:
            try:
                yield path.stem, _read_picture(path)
            except (SourceError, FrameError) as error:
                self.skipped.append(str(error))


class Video:
    """A video file; see `FrameSource`. Stamps are those of the frames in the video, from 0."""

    def __init__(self, path: Path) -> None:
        self.skipped: list[str] = []
        self._path = path
        capture = self._open()
        self.rate = float(capture.get(cv2.CAP_PROP_FPS)) or 25.0
        self._count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        capture.release()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        capture, index = self._open(), 0
        try:
            while True:
                read, image = capture.read()
                if not read:
                    break
                yield f"{self._path.stem}_{index:06d}", Frame.from_bgr(image, stamp_ns=round(1e9 * index / self.rate))
                index += 1
        finally:
            capture.release()
        if index < self._count:
            self.skipped.append(f"{self._path}: {self._count - index} of {self._count} frames cannot be decoded")

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise SourceError(
                f"{self._path}: expected a video that OpenCV can decode, could not open it; convert it to mp4 (H.264)"
            )
        return capture


def open_source(path: Path) -> FrameSource:
    """Open an image file, a folder of images (sorted by name, not recursive), or a video.

    Raises:
        SourceError: there is nothing of that kind.
    """
    if path.is_dir():
        pictures = sorted(each for each in path.iterdir() if each.suffix.lower() in IMAGE_SUFFIXES)
        if not pictures:
            raise SourceError(f"{path}: expected pictures ({_names(IMAGE_SUFFIXES)}) in this folder, found none")
        return Pictures(pictures)
    if not path.is_file():
        raise SourceError(f"{path}: expected a picture, a folder or a video, there is no such file")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Video(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Pictures([path])
    raise SourceError(
        f"{path}: expected a picture ({_names(IMAGE_SUFFIXES)}) or a video ({_names(VIDEO_SUFFIXES)}), "
        f"got a file ending in {path.suffix!r}"
    )


def _read_picture(path: Path) -> Frame:
    try:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error:  # raised for pictures beyond OpenCV's own limit of pixels
        image = None
    if image is None:
        raise SourceError(f"{path}: expected a picture, it cannot be decoded; it is damaged, empty or something else")
    try:
        return Frame.from_bgr(image)
    except FrameError as error:
        raise FrameError(error.kind, f"{path}: {error}") from error


def _names(suffixes: frozenset[str]) -> str:
    return ", ".join(sorted(suffixes))
