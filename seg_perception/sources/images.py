"""Frames from image files and folders of them, and the one way to open any source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from ..errors import FrameError, SourceError
from ..frame import Frame, check_size
from .bag_reader import BAG_SUFFIXES, is_bag
from .bags import BagImages
from .base import FrameSource
from .encodings import decode_compressed
from .video import VIDEO_SUFFIXES, VideoFile

# These two are checked for completeness: OpenCV fills what is missing of a truncated JPEG with grey.
_CHECKED_SUFFIXES = (".jpg", ".jpeg", ".png")
_REMEDY = "the file is damaged, or was not written or copied completely"
IMAGE_SUFFIXES = (*_CHECKED_SUFFIXES, ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class ImageFiles(FrameSource):
    """Image files in the given order; names are the files' stems, with the suffix where two would be equal."""

    def __init__(
        self, paths: Sequence[Path], *, ignored: Sequence[str] = (), frame_id: str = "", camera: str = ""
    ) -> None:
        """Take the files; they are read when their turn comes."""
        super().__init__(ignored=ignored)
        self._paths = tuple(paths)
        self._stems = Counter(path.stem for path in self._paths)
        self._frame_id = frame_id
        self._camera = camera

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield the images that can be read."""
        self.failures = []
        for path in self._paths:
            try:
                frame = read_image(path, frame_id=self._frame_id, camera=self._camera)
            except SourceError as error:
                self.failures.append(error)
            else:
                yield path.stem if self._stems[path.stem] == 1 else path.name.replace(".", "_"), frame

    def __len__(self) -> int:
        """How many files there are."""
        return len(self._paths)


def open_source(path: Path, *, frame_id: str = "", camera: str = "") -> FrameSource:
    """Open an image, a folder of images (sorted by name, without its folders), a video, or a bag.

    Raises:
        SourceError: there is nothing of that kind.
    """
    suffix = path.suffix.lower()
    if path.exists() and is_bag(path):
        return BagImages(path, frame_id=frame_id, camera=camera)
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.is_file())
        images = [each for each in files if each.suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            videos = [each.name for each in files if each.suffix.lower() in VIDEO_SUFFIXES]
            got = f"none, but videos ({', '.join(videos[:3])}); give these by their own paths" if videos else "none"
            raise SourceError(f"{path}: expected files ending in {', '.join(IMAGE_SUFFIXES)} in this folder, got {got}")
        ignored = [each.name for each in files if each.suffix.lower() not in IMAGE_SUFFIXES]
        return ImageFiles(images, ignored=ignored, frame_id=frame_id, camera=camera)
    if not path.is_file():
        raise SourceError(f"{path}: does not exist; expected an image, a folder of images, a video or a bag")
    if suffix in IMAGE_SUFFIXES:
        return ImageFiles([path], frame_id=frame_id, camera=camera)
    if suffix in VIDEO_SUFFIXES:
        return VideoFile(path, frame_id=frame_id, camera=camera)
    raise SourceError(
        f"{path}: expected a folder, an image ({', '.join(IMAGE_SUFFIXES)}), a video "
        f"({', '.join(VIDEO_SUFFIXES)}) or a bag ({', '.join(BAG_SUFFIXES)}), got a file ending in {suffix!r}"
    )


def read_image(path: Path, *, frame_id: str = "", camera: str = "") -> Frame:
    """Read an image file as bgr8.

    Raises:
        SourceError: it cannot be read or decoded, or is incomplete.
    """
    try:
        data = path.read_bytes()
        if path.suffix.lower() in _CHECKED_SUFFIXES:
            return decode_compressed(data, frame_id=frame_id, camera=camera, apply_orientation=True, remedy=_REMEDY)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if image is None:
            raise SourceError(f"{path}: OpenCV cannot decode it; it is damaged or no image")
        check_size("image", image.shape[1], image.shape[0], "scale it down")
        return Frame.from_bgr(image.view(np.uint8), frame_id=frame_id, camera=camera)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    except (FrameError, cv2.error) as error:
        raise SourceError(f"{path}: {error}") from error
