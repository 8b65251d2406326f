"""Videos of what was found: the overlay of every frame, for viewers without ROS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.instances import Segmentation
from seg_perception.onboard.pipeline.overlay import draw_overlay

from .threads import BackgroundWriter

SUFFIX = ".mp4"
# A video has one rate; odd first stamps must not make it a slide show.
_LOWEST_RATE, _HIGHEST_RATE, _USUAL_RATE = 1.0, 120.0, 10.0


class Films:
    """Watches a `Replay` and makes an MPEG-4 file for each camera; to be used with `with`.

    Frames follow one another at the rate of the first two; those of another size than the first are scaled.
    """

    def __init__(self, path: Path, class_names: Sequence[str], cameras: Collection[str]) -> None:
        """Prepare.

        Args:
            path: of the video.
            class_names: of the model.
            cameras: their names; those of several go into the names of the files.

        Raises:
            ConfigurationError: it has another suffix, or exists.
        """
        if path.suffix != SUFFIX:
            raise ConfigurationError(f"video {path}: expected a file name that ends in {SUFFIX}")
        self._paths = {camera: path if len(cameras) == 1 else path.with_suffix(f".{camera}{SUFFIX}")
                       for camera in cameras}  # fmt: skip
        for target in self._paths.values():
            absent(target, "--video")
        self._names = class_names
        self._written: Counter[str] = Counter()
        self._videos: dict[str, cv2.VideoWriter] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        # The first frame of each camera waits for the second, which tells the rate.
        self._first: dict[str, tuple[int, Segmentation]] = {}
        self._behind: BackgroundWriter[tuple[int, Segmentation]] = BackgroundWriter(self._take, 4)

    def __enter__(self) -> Films:
        return self

    def __exit__(self, kind: object, *details: object) -> None:
        try:
            self._behind.__exit__(kind, *details)
            for camera, (_, segmentation) in self._first.items():
                self._write(camera, _USUAL_RATE, segmentation)
        finally:
            for video in self._videos.values():
                video.release()
        if kind is None:
            for camera in self._videos:
                _check(self._paths[camera], self._written[camera])

    def __call__(self, time_ns: int, segmentation: Segmentation) -> None:
        """Add a frame."""
        self._behind.give((time_ns, segmentation))

    def _take(self, item: tuple[int, Segmentation]) -> None:
        time_ns, segmentation = item
        camera = segmentation.frame.camera
        if camera not in self._videos:
            first = self._first.pop(camera, None)
            if first is None:
                self._first[camera] = item
                return
            rate = 1e9 / max(1, time_ns - first[0])
            self._write(camera, min(max(rate, _LOWEST_RATE), _HIGHEST_RATE), first[1])
        self._write(camera, _USUAL_RATE, segmentation)

    def _write(self, camera: str, rate: float, segmentation: Segmentation) -> None:
        overlay = draw_overlay(to_bgr(segmentation.frame), segmentation, self._names)
        if camera not in self._videos:
            self._open(camera, rate, overlay)
        size = self._sizes[camera]
        if (overlay.shape[1], overlay.shape[0]) != size:
            overlay = cv2.resize(overlay, size).view(np.uint8)
        self._videos[camera].write(overlay)
        self._written[camera] += 1

    def _open(self, camera: str, rate: float, overlay: NDArray[np.uint8]) -> None:
        path = self._paths[camera]
        size = self._sizes[camera] = (overlay.shape[1], overlay.shape[0])
        video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        if not video.isOpened():
            raise ConfigurationError(f"video {path}: OpenCV cannot write it; check the folder, or choose another one")
        self._videos[camera] = video


def absent(path: Path, option: str) -> None:
    """See that nothing would be overwritten.

    Raises:
        ConfigurationError: there is something.
    """
    if path.exists():
        raise ConfigurationError(f"{option} {path}: exists already; remove it or choose another name")


def _check(path: Path, frames: int) -> None:
    """Read a finished video's end: OpenCV says nothing when the disk is full.

    Raises:
        ConfigurationError: it is not whole.
    """
    video = cv2.VideoCapture(str(path))
    try:
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        video.set(cv2.CAP_PROP_POS_FRAMES, frames - 1)
        whole = count == frames and video.read()[0]
    finally:
        video.release()
    if not whole:
        raise ConfigurationError(
            f"--video {path}: cannot be written whole ({max(count, 0)} of {frames} frames can be read again); make "
            "space or choose another disk"
        )
