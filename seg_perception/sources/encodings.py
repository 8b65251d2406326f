"""The one place where image encodings are decoded, on plain buffers.

The node and the replay without ROS both come here, so equal bytes become equal pixels everywhere.
"""

from __future__ import annotations

import array
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from ..frame import ENCODINGS, Frame
from .compressed import CAMERA_REMEDY, read_header

Buffer: TypeAlias = "bytes | bytearray | memoryview | array.array[Any] | NDArray[np.uint8]"

_CHANNEL_ORDERS = {
    "bgr8": "bgr",
    "rgb8": "rgb",
    "bgra8": "bgra",
    "rgba8": "rgba",
    "mono8": "mono",
    "8UC1": "mono",
    "8UC3": "bgr",
    "8UC4": "bgra",
    "bgr16": "bgr",
    "rgb16": "rgb",
    "bgra16": "bgra",
    "rgba16": "rgba",
    "mono16": "mono",
    "16UC1": "mono",
    "16UC3": "bgr",
    "16UC4": "bgra",
}

# ROS names a mosaic by its first two pixels of the first two rows; OpenCV's two letters are the second row's second
# and third pixel, so the same mosaic has another name there: ROS rggb is OpenCV BG.
_BAYER = {
    f"bayer_{order}{bits}": code
    for order, code in (
        ("rggb", cv2.COLOR_BayerBG2BGR),
        ("bggr", cv2.COLOR_BayerRG2BGR),
        ("gbrg", cv2.COLOR_BayerGR2BGR),
        ("grbg", cv2.COLOR_BayerGB2BGR),
    )
    for bits in (8, 16)
}
_YUV422 = {
    "yuv422": cv2.COLOR_YUV2BGR_UYVY,
    "uyvy": cv2.COLOR_YUV2BGR_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2BGR_YUY2,
    "yuyv": cv2.COLOR_YUV2BGR_YUY2,
}
_NV = {"nv12": cv2.COLOR_YUV2BGR_NV12, "nv21": cv2.COLOR_YUV2BGR_NV21}

_TO_BGR = {
    "rgb": cv2.COLOR_RGB2BGR,
    "bgra": cv2.COLOR_BGRA2BGR,
    "rgba": cv2.COLOR_RGBA2BGR,
    "mono": cv2.COLOR_GRAY2BGR,
}


def view(frame: Frame) -> tuple[NDArray[np.uint8], str]:
    """The pixels of a frame in the cheapest form.

    Interleaved 8-bit encodings are not copied: the array looks into `frame.data` and skips the row padding. Interleaved
    16-bit encodings are scaled to 8 bits, 65535 to 255, rounded. The others are decoded to bgr.

    Args:
        frame: a frame of any encoding in `frame.ENCODINGS`.

    Returns:
        uint8 `[H, W, C]` and the order of its C channels: `bgr`, `rgb`, `bgra`, `rgba` or `mono`.

    Raises:
        FrameError: kind `encoding`, the encoding is in `ENCODINGS` but has no decoder here.
    """
    channels = _channels(frame)
    order = _CHANNEL_ORDERS.get(frame.encoding)
    return (_decode(channels, frame.encoding), "bgr") if order is None else (channels, order)


def to_bgr(frame: Frame) -> NDArray[np.uint8]:
    """The pixels of a frame as uint8 `[H, W, 3]`, bgr; a view into `frame.data` where it is bgr already.

    Raises:
        FrameError: as `view`.
    """
    pixels, order = view(frame)
    return pixels if order == "bgr" else _convert(pixels, _TO_BGR[order])


def decode_compressed(
    data: Buffer,
    *,
    stamp_ns: int = 0,
    frame_id: str = "",
    camera: str = "",
    apply_orientation: bool = False,
    remedy: str = CAMERA_REMEDY,
) -> Frame:
    """Decode a JPEG or PNG to a bgr8 frame.

    Args:
        data: the compressed image. The format is recognised from the data themselves.
        stamp_ns: acquisition time in nanoseconds.
        frame_id: coordinate frame of the camera.
        camera: name of the camera in the configuration.
        apply_orientation: turn the image as its EXIF data say. Right for photos; wrong for cameras, whose calibration
            refers to the pixels as they are.
        remedy: what to do about an image that cannot be used, for the message.

    Raises:
        FrameError: kind `compressed`, the data are not a JPEG or PNG, are truncated or damaged, or claim a size that
            they cannot hold; kind `size`, the size is one no camera has.
    """
    buffer = np.frombuffer(data, np.uint8)
    # The header comes first: OpenCV allocates what it claims, and fills what is missing with grey without a word.
    header = read_header(buffer.data, remedy)
    flags = cv2.IMREAD_COLOR if apply_orientation else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(buffer, flags)
    except cv2.error as error:
        raise FrameError("compressed", f"compressed image: OpenCV cannot decode it: {error}") from error
    if image is None or sorted(image.shape[:2]) != sorted((header.height, header.width)):
        raise FrameError(
            "compressed",
            f"compressed image: expected a {header.format} of {header.width} x {header.height} pixels, "
            f"but its {buffer.size} bytes are damaged; {remedy}",
        )
    return Frame.from_bgr(image.view(np.uint8), stamp_ns=stamp_ns, frame_id=frame_id, camera=camera)


def _channels(frame: Frame) -> NDArray[np.uint8]:
    """The memory of a frame as uint8 `[rows, W, channels]`, row padding skipped; 8-bit encodings are not copied."""
    layout = ENCODINGS[frame.encoding]
    shape = (frame.rows, frame.width, layout.bytes_per_pixel)
    data = np.ascontiguousarray(frame.data)
    pixels: NDArray[np.uint8] = np.ndarray(shape, np.uint8, data, strides=(frame.step, layout.bytes_per_pixel, 1))
    if layout.bytes_per_channel == 1:
        return pixels
    words = np.require(pixels.view(">u2" if frame.big_endian else "<u2"), np.uint16, ["C", "A"])
    # OpenCV drops a last axis of one channel.
    return cv2.convertScaleAbs(words, alpha=255.0 / 65535.0).view(np.uint8).reshape(words.shape)


def _decode(channels: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    """Decode an encoding that is not interleaved bgr or the like; bgr `[H, W, 3]`."""
    if encoding in _BAYER:
        return _demosaic(channels[..., 0], _BAYER[encoding])
    if encoding in _YUV422:
        return _convert(channels, _YUV422[encoding])
    if encoding in _NV:
        # The rows of the chroma plane follow those of the luma plane with the same step, as OpenCV expects.
        return _convert(channels[..., 0], _NV[encoding])
    raise FrameError("encoding", f"image encoding: {encoding!r} has no decoder in sources/encodings.py; add one")


def _demosaic(mosaic: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    """Decode a Bayer mosaic `[H, W]` bilinearly to bgr `[H, W, 3]`."""
    if min(mosaic.shape) > 2:
        return _convert(mosaic, code)
    # OpenCV leaves images of two rows or columns black. Mirroring about the border pixel keeps the mosaic's phase.
    return _convert(np.pad(mosaic, 2, mode="reflect"), code)[2:-2, 2:-2]


def _convert(pixels: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    return cv2.cvtColor(pixels, code).view(np.uint8)
