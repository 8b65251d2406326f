"""Images in the size and encoding of a camera, for `seg_perception bench`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import ConfigurationError, SourceError
from seg_perception.core.frame import ENCODINGS, Frame, check_size
from seg_perception.offboard.data.images import open_source

MOST_IMAGES = 8
# A street world takes a second or so for each.
GENERATED_IMAGES = 4

_INTERLEAVED = {
    "rgb": cv2.COLOR_BGR2RGB,
    "bgra": cv2.COLOR_BGR2BGRA,
    "rgba": cv2.COLOR_BGR2RGBA,
    "mono": cv2.COLOR_BGR2GRAY,
}
_ALIASES = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8", "16UC1": "mono16", "16UC3": "bgr16", "16UC4": "bgra16"}
# Channel of bgr in the first and second pixel of the first and second row.
_MOSAICS = {"rggb": (2, 1, 1, 0), "bggr": (0, 1, 1, 2), "gbrg": (1, 0, 2, 1), "grbg": (1, 2, 0, 1)}


def frames(paths: Sequence[Path], width: int, height: int, encoding: str) -> list[Frame]:
    """Images of files, or of a street world where there are none, as a camera would deliver them.

    Args:
        paths: images, folders, videos or bags; `MOST_IMAGES` in all are taken, as many of each as of the others.
        width, height: to which images are scaled.
        encoding: a key of `frame.ENCODINGS`.

    Raises:
        ConfigurationError: the encoding is unknown, or has no images of this size.
        FrameError: no camera has this size.
        SourceError: a file cannot be read.
    """
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise ConfigurationError(f"--encoding: expected one of {', '.join(ENCODINGS)}; got {encoding!r}")
    check_size("--size", width, height, "give a camera's")
    if width % layout.width_multiple or height % layout.height_multiple:
        raise ConfigurationError(
            f"--size: {encoding} needs a width that is a multiple of {layout.width_multiple} and a height that is a "
            f"multiple of {layout.height_multiple}, got {width}x{height}"
        )
    images = _read(paths, width, height) if paths else _generated(width, height)
    return [encoded(image, encoding) for image in images]


def encoded(bgr: NDArray[np.uint8], encoding: str) -> Frame:
    """An image in an encoding.

    Args:
        bgr: uint8 `[height, width, 3]`.
        encoding: a key of `frame.ENCODINGS`; the image has a size that it allows.
    """
    height, width, _ = bgr.shape
    name = _ALIASES.get(encoding, encoding)
    if name.startswith("bayer_"):
        data = _mosaic(bgr, name[6:10])
    elif name.startswith("nv"):
        data = _planes(bgr, interleaved="uv" if name == "nv12" else "vu")
    elif name.startswith(("yuv", "yuyv", "uyvy")):
        data = _packed(bgr, luma_first=name in ("yuyv", "yuv422_yuy2"))
    else:
        order = name.removesuffix("16").removesuffix("8")
        data = bgr if order == "bgr" else cv2.cvtColor(bgr, _INTERLEAVED[order]).view(np.uint8)
    layout = ENCODINGS[encoding]
    if layout.bytes_per_channel == 2:
        data = (data.astype("<u2") * 257).view(np.uint8)
    return Frame(np.ascontiguousarray(data).reshape(-1), width, height, width * layout.bytes_per_pixel, encoding)


def _read(paths: Sequence[Path], width: int, height: int) -> list[NDArray[np.uint8]]:
    found: list[NDArray[np.uint8]] = []
    for path in paths:
        source = open_source(path)
        images = [frame for _, frame in islice(source, max(1, MOST_IMAGES // len(paths)))]
        if not images:
            raise SourceError(f"{path}: not one image could be read: {'; '.join(map(str, source.failures))}")
        found += [
            cv2.resize(to_bgr(image), (width, height), interpolation=cv2.INTER_AREA).view(np.uint8) for image in images
        ]
    return found


def _generated(width: int, height: int) -> list[NDArray[np.uint8]]:
    from seg_perception.offboard.streetworld.world import StreetWorld, WorldOptions

    if min(width, height) < 64:
        raise ConfigurationError(f"--size: expected at least 64x64 for generated images, got {width}x{height}")
    # Four drives of one frame each, so that they show different streets.
    world = StreetWorld(WorldOptions(GENERATED_IMAGES, 0, width, height, scene_frames=1))
    return [to_bgr(frame) for _, frame in world]


def _mosaic(bgr: NDArray[np.uint8], order: str) -> NDArray[np.uint8]:
    """uint8 `[height, width]`."""
    mosaic = np.empty(bgr.shape[:2], np.uint8)
    for place, channel in enumerate(_MOSAICS[order]):
        row, column = divmod(place, 2)
        mosaic[row::2, column::2] = bgr[row::2, column::2, channel]
    return mosaic


def _yuv420(bgr: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.uint8]]]:
    """Luma `[height, width]` and chroma `[height / 2, width / 2]`; height and width are even."""
    height, width, _ = bgr.shape
    planes = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420).view(np.uint8).reshape(-1)
    luma, chroma = planes[: height * width], planes[height * width :].reshape(2, height // 2, width // 2)
    return luma.reshape(height, width), {"u": chroma[0], "v": chroma[1]}


def _planes(bgr: NDArray[np.uint8], interleaved: str) -> NDArray[np.uint8]:
    luma, chroma = _yuv420(bgr)
    return np.concatenate([luma.reshape(-1), np.stack([chroma[name] for name in interleaved], axis=-1).reshape(-1)])


def _packed(bgr: NDArray[np.uint8], luma_first: bool) -> NDArray[np.uint8]:
    """uint8 `[height, width, 2]`: luma, and the chroma that two pixels of a row share."""
    height, width, _ = bgr.shape
    # OpenCV halves the chroma of rows as well, so it gets each row twice.
    luma, chroma = _yuv420(np.repeat(bgr, 2, axis=0))
    shared = np.stack([chroma["u"], chroma["v"]], axis=-1).reshape(height, width)
    pair = (luma[::2], shared) if luma_first else (shared, luma[::2])
    return np.stack(pair, axis=-1)
