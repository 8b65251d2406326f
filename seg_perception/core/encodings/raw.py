"""The one place where image encodings are decoded, on plain buffers.

The node and the replay without ROS both come here, so equal bytes become equal pixels everywhere.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError, is_out_of_memory
from ..frame import ENCODINGS, MAX_PIXELS, Frame
from .compressed import Buffer, decode_checked, out_of_memory, read_header
from .exif import turned
from .header import CAMERA_REMEDY
from .transport_format import PixelFormat, pixel_format

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
    16-bit encodings are scaled to 8 bits, the highest value of the frame's bit depth to 255, rounded. The others are
    decoded to bgr.

    Args:
        frame: a frame of any encoding in `frame.ENCODINGS`.

    Returns:
        uint8 `[H, W, C]` and the order of its C channels: `bgr`, `rgb`, `bgra`, `rgba` or `mono`.

    Raises:
        FrameError: kind `encoding`, the encoding is in `ENCODINGS` but has no decoder here; kind `memory`, there is too
            little memory for it.
    """
    try:
        channels = _channels(frame)
        order = _CHANNEL_ORDERS.get(frame.encoding)
        return (_decode(channels, frame.encoding), "bgr") if order is None else (channels, order)
    except (MemoryError, cv2.error) as error:
        if is_out_of_memory(error):
            raise out_of_memory(frame.width, frame.height) from error
        raise


def to_bgr(frame: Frame) -> NDArray[np.uint8]:
    """The pixels of a frame as uint8 `[H, W, 3]`, bgr; a view into `frame.data` where it is bgr already.

    Raises:
        FrameError: as `view`.
    """
    pixels, order = view(frame)
    try:
        return pixels if order == "bgr" else _convert(pixels, _TO_BGR[order])
    except (MemoryError, cv2.error) as error:
        if is_out_of_memory(error):
            raise out_of_memory(frame.width, frame.height) from error
        raise


def decode_compressed(
    data: Buffer,
    *,
    described: str = "",
    stamp_ns: int = 0,
    frame_id: str = "",
    camera: str = "",
    apply_orientation: bool = False,
    narrow: bool = False,
    remedy: str = CAMERA_REMEDY,
    max_pixels: int = MAX_PIXELS,
) -> Frame:
    """Decode a JPEG, PNG, TIFF, WebP, BMP, PGM or PPM to a frame.

    Args:
        data: the compressed image. The format is recognised from the data themselves.
        described: `format` of the message that it came with.
        stamp_ns: acquisition time in nanoseconds.
        frame_id: coordinate frame of the camera.
        camera: name of the camera in the configuration.
        apply_orientation: turn the image as its EXIF data say. Right for photos; wrong for cameras, whose calibration
            refers to the pixels as they are.
        narrow: make bgr8 of 16-bit channels, as OpenCV does.
        remedy: what to do about an image that cannot be used, for the message.
        max_pixels: most pixels that the image may have.

    Returns:
        A frame of bgr8; of an image with 16-bit channels, or one whose format says that it is a mosaic or has other
        channels, a frame of that encoding.

    Raises:
        FrameError: kind `compressed`, the data are of another format, are truncated or damaged, or claim a size that
            they cannot hold; kind `size`, the size is one no camera has; kind `encoding`, it is no image of brightness;
            kind `memory`, there is too little memory for it.
    """
    header = read_header(np.frombuffer(data, np.uint8).data, remedy, max_pixels)
    form = pixel_format(described, header.format, header.channels, header.bits)
    as_stored = bool(form.kind) or (header.bits == 16 and not narrow)
    flags = cv2.IMREAD_UNCHANGED if as_stored else cv2.IMREAD_COLOR
    pixels = decode_checked(data, header, flags, remedy)
    if apply_orientation and header.orientation != 1:
        pixels = turned(pixels, header.orientation)
    encoding, pixels = _encoding_of(pixels, form, header.channels)
    height, width = pixels.shape[:2]
    return Frame(
        np.ascontiguousarray(pixels).view(np.uint8).reshape(-1),
        width, height, pixels.nbytes // height, encoding, stamp_ns, frame_id, camera,
        bit_depth=header.depth, warnings=header.warnings + form.warnings,
    )  # fmt: skip


def _encoding_of(pixels: NDArray[Any], form: PixelFormat, stored_channels: int) -> tuple[str, NDArray[Any]]:
    """The encoding of decoded pixels, and those of its channels."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    bits = 8 * pixels.dtype.itemsize
    if form.kind == "bayer" and channels == 1:
        return form.encoding, pixels
    if form.kind == "yuv422" and (channels, stored_channels) == (4, 2):
        # OpenCV repeats the first of two channels and takes the second one for opacity.
        return form.encoding, pixels[..., ::3]
    order = {1: "mono", 3: "bgr", 4: "bgra"}[channels]
    return f"{order.replace('bgr', form.kind or 'bgr') if form.kind == 'rgb' else order}{bits}", pixels


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
    scale = 255.0 / ((1 << frame.bit_depth) - 1)
    return cv2.convertScaleAbs(words, alpha=scale).view(np.uint8).reshape(words.shape)


def _decode(channels: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    """Decode an encoding that is not interleaved bgr or the like; bgr `[H, W, 3]`."""
    if encoding in _BAYER:
        return _demosaic(channels[..., 0], _BAYER[encoding])
    if encoding in _YUV422:
        return _convert(channels, _YUV422[encoding])
    if encoding in _NV:
        # The rows of the chroma plane follow those of the luma plane with the same step, as OpenCV expects.
        return _convert(channels[..., 0], _NV[encoding])
    raise FrameError("encoding", f"image encoding: {encoding!r} has no decoder in core/encodings/raw.py; add one")


def _demosaic(mosaic: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    """Decode a Bayer mosaic `[H, W]` bilinearly to bgr `[H, W, 3]`."""
    if min(mosaic.shape) > 2:
        return _convert(mosaic, code)
    # OpenCV leaves images of two rows or columns black. Mirroring about the border pixel keeps the mosaic's phase.
    return _convert(np.pad(mosaic, 2, mode="reflect"), code)[2:-2, 2:-2]


def _convert(pixels: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    return cv2.cvtColor(pixels, code).view(np.uint8)
