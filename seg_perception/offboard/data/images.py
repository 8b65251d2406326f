"""Frames from image files and folders of them, and the one way to open any source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from seg_perception.core.encodings.bit_depth import AUTO, BitDepth, BitDepths
from seg_perception.core.encodings.compressed import read_header
from seg_perception.core.encodings.exif import QUARTER_TURNS
from seg_perception.core.encodings.raw import decode_compressed
from seg_perception.core.errors import FrameError, SourceError
from seg_perception.core.frame import FULL_DEPTH, Frame, FrameWarning

from .bags.reader import BAG_SUFFIXES, is_bag
from .bags.source import BagImages
from .base import FrameSource, WarningCounts
from .video import VIDEO_SUFFIXES, VideoFile

_REMEDY = "the file is damaged, or was not written or copied completely"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class ImageFiles(FrameSource):
    """Image files in the given order; names are the files' stems, with the suffix where two would be equal."""

    def __init__(self, paths: Sequence[Path], *, ignored: Sequence[str] = (), camera: str = "") -> None:
        """Take the files; they are read when their turn comes."""
        super().__init__(ignored=ignored)
        self._paths = tuple(paths)
        self._stems = Counter(path.stem for path in self._paths)
        self._camera = camera

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield the images that can be read."""
        return self._read(self._paths)

    def chosen(self, names: Collection[str]) -> Iterator[tuple[str, Frame]]:
        """Yield the images of these names; the others are read only where the bit depth follows from them."""
        if self.bit_depth == AUTO:
            return super().chosen(names)
        return self._read([path for path in self._paths if self._name(path) in names])

    def _read(self, paths: Sequence[Path]) -> Iterator[tuple[str, Frame]]:
        self.failures, self.warnings = [], WarningCounts()
        depth = BitDepth(self.bit_depth)
        for path in paths:
            try:
                frame = read_image(path, camera=self._camera, depth=depth)
            except SourceError as error:
                self.failures.append(error)
            else:
                self.warnings.add(str(path), frame)
                yield self._name(path), frame
        for hint in depth.at_end():
            self.warnings.add_warning(str(paths[-1]), hint)

    def _name(self, path: Path) -> str:
        return path.stem if self._stems[path.stem] == 1 else path.name.replace(".", "_")

    def __len__(self) -> int:
        """Return how many files there are."""
        return len(self._paths)


class _BagImages(BagImages):
    """The images of a bag, each camera with a bit depth of its own."""

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield the images that can be decoded."""
        self.warnings, depths = WarningCounts(), BitDepths(self.bit_depth)
        for name, frame in super().__iter__():
            deep = depths.apply(frame)
            self.warnings.add(name, deep)
            yield name, deep
        for camera, hint in depths.at_end():
            self.warnings.add_warning(camera, hint)


def open_source(path: Path, *, camera: str = "") -> FrameSource:
    """Open an image, a folder of images (sorted by name, without its folders), a video, or a bag.

    Raises:
        SourceError: there is nothing of that kind.
    """
    suffix = path.suffix.lower()
    if path.exists() and is_bag(path):
        return _BagImages(path, camera=camera)
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.is_file())
        images = [each for each in files if each.suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            videos = [each.name for each in files if each.suffix.lower() in VIDEO_SUFFIXES]
            got = f"none, but videos ({', '.join(videos[:3])}); give these by their own paths" if videos else "none"
            raise SourceError(f"{path}: expected files ending in {', '.join(IMAGE_SUFFIXES)} in this folder, got {got}")
        ignored = [each.name for each in files if each.suffix.lower() not in IMAGE_SUFFIXES]
        return ImageFiles(images, ignored=ignored, camera=camera)
    if not path.is_file():
        raise SourceError(f"{path}: does not exist; expected an image, a folder of images, a video or a bag")
    if suffix in IMAGE_SUFFIXES:
        return ImageFiles([path], camera=camera)
    if suffix in VIDEO_SUFFIXES:
        return VideoFile(path, camera=camera)
    raise SourceError(
        f"{path}: expected a folder, an image ({', '.join(IMAGE_SUFFIXES)}), a video "
        f"({', '.join(VIDEO_SUFFIXES)}) or a bag ({', '.join(BAG_SUFFIXES)}), got a file ending in {suffix!r}"
    )


def read_image(
    path: Path,
    *,
    camera: str = "",
    depth: BitDepth | None = None,
    labelled_size: tuple[int, int] | None = None,
) -> Frame:
    """Read an image file; its format is recognised from its content, whatever its name ends in.

    Args:
        path: of the file.
        camera: name of the camera in the configuration.
        depth: of the images that this one belongs to; by default channels of 16 bits use all of them.
        labelled_size: width and height that labels state. A photograph that has this size as it is stored, and another
            one when it is turned as its EXIF data say, is not turned: its labels are of the pixels as stored.

    Returns:
        A frame of bgr8; of an image with 16-bit channels of a lower bit depth, one of 16 bits.

    Raises:
        SourceError: it cannot be read or decoded, or is incomplete.
    """
    try:
        data = path.read_bytes()
        note = _turn_note(data, labelled_size) if labelled_size else None
        decode = partial(decode_compressed, data, camera=camera, apply_orientation=note is None, remedy=_REMEDY)
        frame = (depth or BitDepth()).apply(decode())
        if frame.encoding != "bgr8" and frame.bit_depth == FULL_DEPTH:
            frame = replace(decode(narrow=True), warnings=frame.warnings)
        return frame if note is None else replace(frame, warnings=(*frame.warnings, note))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise SourceError(f"{path}: not enough memory to read it") from error
    except FrameError as error:
        raise SourceError(f"{path}: {error}") from error


def _turn_note(data: bytes, labelled_size: tuple[int, int]) -> FrameWarning | None:
    """Return why an image is not turned as its EXIF data say; None where it is."""
    header = read_header(memoryview(data), _REMEDY)
    stored = (header.width, header.height)
    if header.orientation not in QUARTER_TURNS or labelled_size != stored or header.width == header.height:
        return None
    text = (
        f"its EXIF data turn it to {header.height} x {header.width} pixels, but its labels are of {header.width} x "
        f"{header.height}, the pixels as stored; it is not turned"
    )
    return FrameWarning("orientation", text)
