"""The one gate between the bytes of an image and a codec.

A header is read, and refused if it claims too much, before any memory is allocated for what it claims and before any
codec sees the image. Every reader of images comes here: cameras, bags, image files, label images.
"""

from __future__ import annotations

import array
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError, is_out_of_memory
from ..frame import MAX_PIXELS
from .exif import unturned
from .header import CAMERA_REMEDY, ImageHeader, check_limits, damaged, truncated
from .jpeg import JPEG_END, JPEG_START, may_be_complete, read_jpeg
from .other_formats import is_pnm, is_tiff, is_webp, name_of_other, read_bmp, read_pnm, read_tiff, read_webp
from .png import PNG_START, read_png, without_extras

Buffer: TypeAlias = "bytes | bytearray | memoryview | array.array[Any] | NDArray[np.uint8]"

_START_BYTES = 64
# Bytes of a pixel that a decoder allocates at most, for the question whether there was too little memory.
_WORKING_BYTES = 8
# Follows a JPEG without an end: blocks that are missing come out differently with it than with nothing.
_FILLER = b"\xfe" + bytes(range(1, 255)) * 4


def read_header(data: memoryview, remedy: str = CAMERA_REMEDY, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Read format and size of an image and check that it is complete and within the limits; nothing is decoded.

    Args:
        data: the bytes of the image.
        remedy: what to do about an image that cannot be used, for the message.
        max_pixels: most pixels that it may have.

    Raises:
        FrameError: kind `compressed`, it is of a format that is not read, truncated, damaged, or has too few bytes for
            the size it claims; kind `size`, it has too many pixels; kind `encoding`, its pixels are no brightness.
    """
    start = bytes(data[:_START_BYTES])
    if start.startswith(JPEG_START):
        header = read_jpeg(data, remedy, max_pixels)
    elif start.startswith(PNG_START):
        header = read_png(data, remedy)
    elif is_tiff(start):
        header = read_tiff(data, remedy)
    elif is_webp(start):
        header = read_webp(data, remedy)
    elif is_pnm(start):
        header = read_pnm(data, remedy)
    elif start.startswith(b"BM"):
        header = read_bmp(data, remedy)
    else:
        name = name_of_other(start)
        got = name or f"{len(data)} bytes that begin with {start[:8].hex(' ') or '-'}"
        raise damaged(
            f"expected a JPEG, PNG, TIFF, WebP, BMP, PGM or PPM, got {got}",
            "convert it to one of these, or see what wrote it" if name else f"it is of another format, or {remedy}",
        )
    check_limits(header, len(data), remedy, max_pixels)
    return header


def decode_pixels(
    data: Buffer, flags: int = cv2.IMREAD_COLOR, *, remedy: str = CAMERA_REMEDY, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[Any], ImageHeader]:
    """Decode an image that passes the gate.

    Args:
        data: the bytes of the image; the format is recognised from them.
        flags: of `cv2.imdecode`.
        remedy: what to do about an image that cannot be used, for the message.
        max_pixels: most pixels that it may have.

    Returns:
        The pixels as stored, not turned, uint8 or uint16 `[H, W]` or `[H, W, C]`, and the header.

    Raises:
        FrameError: as `read_header`; kind `memory`, there is too little memory for it.
    """
    header = read_header(np.frombuffer(data, np.uint8).data, remedy, max_pixels)
    return decode_checked(data, header, flags, remedy), header


def decode_checked(data: Buffer, header: ImageHeader, flags: int, remedy: str = CAMERA_REMEDY) -> NDArray[Any]:
    """Decode an image whose header was read; arguments, result and errors as `decode_pixels`."""
    pixels = _decode_stored(np.frombuffer(data, np.uint8), header, flags, remedy)
    # OpenCV turns a TIFF whatever it is told.
    if header.format == "TIFF" and header.orientation != 1:
        pixels = unturned(pixels, header.orientation)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise FrameError("encoding", f"compressed image: a {header.format} of {pixels.dtype}; write it as 8 or 16 bits")
    if pixels.shape[:2] != (header.height, header.width):
        raise damaged(
            f"a {header.format} of {header.width} x {header.height} pixels was decoded as one of "
            f"{pixels.shape[1]} x {pixels.shape[0]}", remedy,
        )  # fmt: skip
    return pixels


def stored_pixels(path: Path, flags: int = cv2.IMREAD_UNCHANGED) -> NDArray[Any] | None:
    """Return the pixels of an image file as stored, as `cv2.imread` does, but only if it passes the checks of a frame.

    Args:
        path: of the file.
        flags: of `cv2.imread`.

    Returns:
        uint8 or uint16 `[H, W]` or `[H, W, C]`; None where the file cannot be read.
    """
    try:
        return decode_pixels(path.read_bytes(), flags, remedy="")[0]
    except (OSError, MemoryError, FrameError):
        return None


def _decode_stored(buffer: NDArray[np.uint8], header: ImageHeader, flags: int, remedy: str) -> NDArray[Any]:
    if header.format == "PNG":
        return _decode(np.frombuffer(without_extras(buffer.data), np.uint8), header, flags, remedy)
    if header.ended:
        return _decode(buffer, header, flags, remedy)
    # A single 0xFF at its end is the first half of the end marker.
    body = bytes(buffer).rstrip(b"\xff")
    if may_be_complete(memoryview(body), remedy):
        plain, filled = (
            _decode(np.frombuffer(body + filler + JPEG_END, np.uint8), header, flags, remedy)
            for filler in (b"", _FILLER)
        )
        if np.array_equal(plain, filled):
            return plain
    raise truncated(header, buffer.size, remedy)


def _decode(buffer: NDArray[np.uint8], header: ImageHeader, flags: int, remedy: str) -> NDArray[Any]:
    """Let OpenCV decode an image; its errors become those of a frame."""
    reason = (
        f"expected a {header.format} of {header.width} x {header.height} pixels, but its {buffer.size} bytes are "
        f"damaged or of a kind of {header.format} that OpenCV {cv2.__version__} does not decode"
    )
    try:
        image = cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is not None:
            return image
        # OpenCV returns nothing whatever went wrong inside of it, so that memory is asked for once more.
        np.empty(_WORKING_BYTES * header.pixels, np.uint8)
    except (MemoryError, cv2.error) as error:
        if is_out_of_memory(error):
            raise out_of_memory(header.width, header.height) from error
        reason = f"OpenCV cannot decode it: {error}"
    if header.variant:
        reason = f"OpenCV {cv2.__version__} does not decode a {header.variant} {header.format}; write another kind"
    raise damaged(reason, remedy)


def out_of_memory(width: int, height: int) -> FrameError:
    """Return the error of an image for which there is too little memory."""
    return FrameError(
        "memory",
        f"image: not enough memory for one of {width} x {height} pixels; the image may be in order; "
        "give the process more memory or set a smaller limit for the size of images",
    )
