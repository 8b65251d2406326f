"""Depth images that are aligned with a camera: read into metres, and turned into points."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.encodings.compressed import decode_checked, read_header
from seg_perception.core.errors import FrameError
from seg_perception.core.frame import MAX_SIDE
from seg_perception.core.messages.images import CompressedImageMessage, ImageMessage
from seg_perception.core.text import printable

# Type of the pixels and metres to one unit, by encoding.
_ENCODINGS = {"16UC1": ("u2", 1e-3), "mono16": ("u2", 1e-3), "32FC1": ("f4", 1.0)}
# Of compressed_depth_image_transport: a number for the format, and two that undo the quantization of inverse depth.
_CONFIG = struct.Struct("<iff")
_REMEDY = "check the driver of the depth camera"


@dataclass(frozen=True, slots=True)
class DepthImage:
    """Distances along the optical axis.

    Attributes:
        stamp_ns, frame_id: of the header.
        values: uint16 or float32 `[height, width]`; 0, NaN and infinity are no measurement.
        metres: to one unit.
    """

    stamp_ns: int
    frame_id: str
    values: NDArray[Any]
    metres: float


def read_depth(message: ImageMessage) -> DepthImage:
    """Read a depth image.

    Raises:
        FrameError: kind `encoding`, it is none; `layout`, its lengths contradict each other; `size`, it is too large.
    """
    if message.encoding not in _ENCODINGS:
        raise FrameError(
            "encoding",
            f"depth image: expected encoding 16UC1 (millimetres) or 32FC1 (metres), got {printable(message.encoding)}; "
            "name the topic of the depth image",
        )
    kind, metres = _ENCODINGS[message.encoding]
    height, width, step = message.height, message.width, message.step
    if not 0 < max(height, width) <= MAX_SIDE or not min(height, width):
        raise FrameError("size", f"depth image: expected sides of 1 to {MAX_SIDE} pixels, got {width} x {height}")
    pixel = np.dtype((">" if message.is_bigendian else "<") + kind)
    if step < width * pixel.itemsize or len(message.data) < (height - 1) * step + width * pixel.itemsize:
        raise FrameError(
            "layout",
            f"depth image: expected {height} rows of at least {width * pixel.itemsize} bytes, got step {step} and "
            f"{len(message.data)} bytes; {_REMEDY}",
        )
    values: NDArray[Any] = np.ndarray((height, width), pixel, message.data, strides=(step, pixel.itemsize))
    return DepthImage(message.stamp_ns, message.frame_id, values.astype(pixel.newbyteorder("="), copy=False), metres)


def read_compressed_depth(message: CompressedImageMessage) -> DepthImage:
    """Read a depth image of compressed_depth_image_transport, in its PNG form.

    Raises:
        FrameError: kind `compressed`, it is no such image or damaged; `size`, it is too large.
    """
    encoding, _, how = message.format.partition(";")
    data = memoryview(message.data)  # type: ignore[arg-type]
    if encoding.strip() not in _ENCODINGS or "compressedDepth" not in how or how.strip().endswith("rvl"):
        raise FrameError(
            "compressed",
            "depth image: expected format `16UC1; compressedDepth png` or `32FC1; compressedDepth png`, got "
            f"{printable(message.format)}; set the publisher's compressedDepth.format to png, or take the raw topic",
        )
    if len(data) < _CONFIG.size:
        raise FrameError("compressed", f"depth image: expected compressed data, got {len(data)} bytes; {_REMEDY}")
    _, numerator, offset = _CONFIG.unpack_from(data)
    body = data[_CONFIG.size :]
    pixels = decode_checked(body, read_header(body, _REMEDY), cv2.IMREAD_UNCHANGED, _REMEDY)
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise FrameError("compressed", f"depth image: expected a PNG of one channel of 16 bits; {_REMEDY}")
    if _ENCODINGS[encoding.strip()][0] == "u2":
        return DepthImage(message.stamp_ns, message.frame_id, pixels, 1e-3)
    if not (np.isfinite(numerator) and np.isfinite(offset)) or not numerator:
        raise FrameError("compressed", f"depth image: its header has no numbers to undo the compression; {_REMEDY}")
    with np.errstate(divide="ignore"):
        depth = np.float32(numerator) / (pixels.astype(np.float32) - np.float32(offset))
    depth[pixels == 0] = 0.0
    return DepthImage(message.stamp_ns, message.frame_id, depth.astype(np.float32), 1.0)
