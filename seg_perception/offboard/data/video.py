"""Frames from video files, decoded by OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from seg_perception.core.errors import FrameError, SourceError
from seg_perception.core.frame import MAX_PIXELS, Frame, check_size

from .base import FrameSource

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")
_NANOSECONDS = 1_000_000_000
# Some containers state nonsense such as the time base instead of a rate.
_PLAUSIBLE_FPS = (0.1, 1000.0)
_ASSUMED_FPS = 30.0


class VideoFile(FrameSource):
    """A video. Stamps count from 0 by its frame rate; names are `STEM_000000`, `STEM_000001`, ..."""

    def __init__(self, path: Path, *, camera: str = "") -> None:
        """Open the video once to see that it can be read.

        Raises:
            SourceError: it cannot be opened or has no frame that can be decoded.
        """
        capture = _open(path)
        stated_fps, stated_count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        readable = capture.grab()
        capture.release()
        if not readable:
            raise SourceError(f"{path}: expected a video with at least one frame, none can be decoded; check the file")
        plausible = _PLAUSIBLE_FPS[0] <= stated_fps <= _PLAUSIBLE_FPS[1]
        super().__init__(stated_fps if plausible else _ASSUMED_FPS, sequence=True)
        self._count = int(stated_count) if stated_count > 0 else None
        self._path = path
        self._camera = camera

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield frames until the end of the video, or until one cannot be decoded."""
        self.failures = []
        fps = self.fps or _ASSUMED_FPS
        capture = _open(self._path)
        index = 0
        try:
            while True:
                done, image = capture.read()
                if not done:
                    break
                stamp_ns = round(index * _NANOSECONDS / fps)
                frame = Frame.from_bgr(image.view(np.uint8), stamp_ns=stamp_ns, camera=self._camera)
                yield f"{self._path.stem}_{index:06d}", frame
                index += 1
        finally:
            capture.release()
        # The stated count may be an estimate, so a frame or two less is no fault.
        if self._count is not None and index < self._count * 0.95 - 2:
            self.failures.append(
                SourceError(f"{self._path}: ends after {index} of {self._count} frames; it is truncated or damaged")
            )

    def __len__(self) -> int:
        """Return how many frames the container states; not every container's number is exact."""
        if self._count is None:
            raise TypeError(f"{self._path}: the container does not say how many frames it has")
        return self._count


def _open(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise SourceError(f"{path}: OpenCV cannot open it as a video; check that the file is complete and its codec")
    try:
        # A frame is allocated with the size that the container claims.
        width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        check_size("video", width, height, "scale it down", MAX_PIXELS)
    except FrameError as error:
        capture.release()
        raise SourceError(f"{path}: {error}") from error
    return capture
