"""Messages become frames.

Whatever `frame.ENCODINGS` names passes as it is. Images of 16 bits a channel are scaled to 8 bits here, the way
cv_bridge of a ROS distribution does it (255 / 65535, rounded), because ports of cv_bridge disagree: one of them cuts to
the low byte and none of its kind honours `step`. What is left goes through cv_bridge where it is installed and able.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from ..frame import ENCODINGS, MAX_SIDE, Frame
from ..sources.encodings import decode_compressed
from .cdr import ImageMessage, read_compressed_image, read_image

# 16-bit encodings: channels, and the 8-bit encoding of the same layout.
_SIXTEEN_BIT = {
    "mono16": (1, "mono8"),
    "16UC1": (1, "mono8"),
    "bgr16": (3, "bgr8"),
    "16UC3": (3, "bgr8"),
    "rgb16": (3, "rgb8"),
    "bgra16": (4, "bgra8"),
    "16UC4": (4, "bgra8"),
    "rgba16": (4, "rgba8"),
    **{f"bayer_{order}16": (1, f"bayer_{order}8") for order in ("rggb", "bggr", "gbrg", "grbg")},
}
# Signed and floating-point images have no agreed brightness; a conversion would be a guess.
_NO_BRIGHTNESS = ("8S", "16S", "32S", "32F", "64F")


def frame_from_image(serialized: bytes, camera: str) -> Frame:
    """A frame out of a serialized `sensor_msgs/Image`; 8-bit pixels are not copied.

    Args:
        serialized: the message.
        camera: name of the camera in the configuration.

    Raises:
        FrameError: the message is malformed, its encoding is not supported, or its data do not match its size.
    """
    message = read_image(serialized)
    if message.encoding in ENCODINGS:
        return _frame(message, message.data, message.step, message.encoding, camera)
    if message.encoding in _SIXTEEN_BIT:
        channels, encoding = _SIXTEEN_BIT[message.encoding]
        rows = _sixteen_bit_rows(message, channels)
        pixels = cv2.convertScaleAbs(rows, alpha=255.0 / 65535.0).view(np.uint8)
        return _frame(message, pixels.reshape(-1), message.width * channels, encoding, camera)
    return Frame.from_bgr(
        _through_cv_bridge(message), stamp_ns=message.stamp_ns, frame_id=message.frame_id, camera=camera
    )


def frame_from_compressed_image(serialized: bytes, camera: str) -> Frame:
    """A frame out of a serialized `sensor_msgs/CompressedImage`; arguments and errors as `frame_from_image`."""
    message = read_compressed_image(serialized)
    return decode_compressed(message.data, stamp_ns=message.stamp_ns, frame_id=message.frame_id, camera=camera)


def _frame(message: ImageMessage, data: NDArray[np.uint8], step: int, encoding: str, camera: str) -> Frame:
    return Frame(data, message.width, message.height, step, encoding, message.stamp_ns, message.frame_id, camera)


def _sixteen_bit_rows(message: ImageMessage, channels: int) -> NDArray[np.uint16]:
    """Pixels in the host's byte order, uint16 `[height, width * channels]`."""
    row = 2 * channels * message.width
    rows = _rows(message, row)
    words = rows.view(">u2" if message.is_bigendian else "<u2")
    return np.ascontiguousarray(words, np.uint16)


def _rows(message: ImageMessage, row_bytes: int) -> NDArray[np.uint8]:
    """The message's rows without their padding, uint8 `[height, row_bytes]`, checked and not copied."""
    if not (0 < message.width <= MAX_SIDE and 0 < message.height <= MAX_SIDE):
        raise FrameError(
            "size",
            f"image size: expected 1 to {MAX_SIDE} pixels a side, got {message.width} x {message.height}; "
            "check the camera driver",
        )
    needed = (message.height - 1) * message.step + row_bytes
    if message.step < row_bytes or message.data.size < needed:
        raise FrameError(
            "layout",
            f"image data: {message.encoding} of {message.width} x {message.height} needs rows of at least {row_bytes} "
            f"bytes and {needed} bytes in all, got a step of {message.step} and {message.data.size} bytes; "
            "check the camera driver",
        )
    return np.ndarray((message.height, row_bytes), np.uint8, message.data, strides=(message.step, 1))


def _through_cv_bridge(message: ImageMessage) -> NDArray[np.uint8]:
    """Let cv_bridge convert to bgr, uint8 `[height, width, 3]`."""
    bridge = None if message.encoding.startswith(_NO_BRIGHTNESS) else _cv_bridge()
    if bridge is None:
        raise FrameError("encoding", _unsupported(message.encoding, "it has no defined brightness or needs cv_bridge"))
    rows = _rows(message, min(message.step, message.data.size // max(1, message.height)))
    try:
        image = bridge.imgmsg_to_cv2(_image_message(message, rows), "bgr8")
    except Exception as error:  # cv_bridge raises errors of OpenCV, its own, KeyError and TypeError
        raise FrameError("encoding", _unsupported(message.encoding, f"cv_bridge: {error}")) from error
    if image.shape != (message.height, message.width, 3) or image.dtype != np.uint8:
        raise FrameError("encoding", _unsupported(message.encoding, f"cv_bridge returned {image.shape} {image.dtype}"))
    return np.ascontiguousarray(image)


def _unsupported(encoding: str, reason: str) -> str:
    supported = ", ".join((*ENCODINGS, *_SIXTEEN_BIT))
    return (
        f"image encoding: {encoding!r} cannot be converted ({reason}); expected one of {supported}; "
        "let the camera driver publish one of these"
    )


@lru_cache(maxsize=1)
def _cv_bridge() -> Any:
    try:
        from cv_bridge import CvBridge
    except Exception:  # built for another NumPy, it fails with AttributeError or ImportError
        return None
    return CvBridge()


def _image_message(message: ImageMessage, rows: NDArray[np.uint8]) -> Any:
    from sensor_msgs.msg import Image

    image = Image(height=message.height, width=message.width, encoding=message.encoding)
    image.is_bigendian, image.step = int(message.is_bigendian), rows.shape[1]
    image.data.frombytes(rows.tobytes())
    return image
