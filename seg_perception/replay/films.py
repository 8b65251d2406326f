"""Videos of what was found: the overlay of every frame, for people without ROS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from ..instances import Segmentation
from ..pipeline.overlay import draw_overlay
from ..sources.encodings import to_bgr
from .ahead import Behind

SUFFIX = ".mp4"
# A video has one rate; odd first stamps must not make it a slide show.
_LOWEST_RATE, _HIGHEST_RATE, _USUAL_RATE = 1.0, 120.0, 10.0


class Films:
    """Watches a `Replay` and makes an MPEG-4 file for each camera; to be used with `with`.

    Frames follow one another at the rate of the first two; those of another size than the first are scaled.
    """

    def __init__(self, path: Path, class_names: Sequence[str], several: bool) -> None:
        """Prepare.

        Args:
            path: of the video.
            class_names: of the model.
            several: whether there are several cameras, whose names go into those of the files.

        Raises:
            ConfigurationError: it has another suffix.
        """
        if path.suffix != SUFFIX:
            raise ConfigurationError(f"video {path}: expected a file name that ends in {SUFFIX}")
        self._path = path
        self._names = class_names
        self._several = several
        self._videos: dict[str, cv2.VideoWriter] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        # The first frame of each camera waits for the second, which tells the rate.
        self._first: dict[str, tuple[int, Segmentation]] = {}
        self._behind: Behind[tuple[int, Segmentation]] = Behind(self._take, 4)

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

    def _open(self, camera: str, rate: float, overlay: NDArray[np.uint8]) -> None:
        path = self._path.with_suffix(f".{camera}{SUFFIX}") if self._several else self._path
        size = self._sizes[camera] = (overlay.shape[1], overlay.shape[0])
        video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        if not video.isOpened():
            raise ConfigurationError(f"video {path}: OpenCV cannot write it; check the folder, or choose another one")
        self._videos[camera] = video
