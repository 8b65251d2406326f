"""What cv_bridge adds: encodings that the package does not know, where it is installed, become bgr8."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.encodings.compressed import out_of_memory
from seg_perception.core.errors import FrameError, is_out_of_memory
from seg_perception.core.frame import ENCODINGS, check_size
from seg_perception.core.messages.images import ImageMessage

# Signed and floating-point images have no agreed brightness; a conversion would be a guess.
_NO_BRIGHTNESS = ("8S", "16S", "32S", "32F", "64F")


def through_cv_bridge(serialized: bytes, message: ImageMessage) -> NDArray[np.uint8]:
    """Let cv_bridge convert an image to bgr, uint8 `[height, width, 3]`.

    Args:
        serialized: the image.
        message: its fields.

    Raises:
        FrameError: kind `encoding`, it cannot be converted; kind `size` or `layout`, its data do not match its size;
            kind `memory`, there is too little memory for it.
    """
    check_size("image size", message.width, message.height)
    # cv_bridge allocates what the header claims. No encoding has less than a byte a pixel.
    if message.step < message.width or message.step * message.height > message.data.size:
        raise FrameError(
            "layout",
            f"image data: {message.height} rows of {message.step} bytes for {message.width} pixels, got "
            f"{message.data.size} bytes; the message is truncated or its header is wrong",
        )
    encoding = message.encoding
    if encoding.startswith(_NO_BRIGHTNESS):
        raise _unsupported(encoding, "signed and floating-point pixels have no defined brightness")
    bridge = _cv_bridge()
    if bridge is None:
        raise _unsupported(encoding, "it is unknown here, and cv_bridge is not installed or does not load")
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image

    try:
        image = bridge.imgmsg_to_cv2(deserialize_message(serialized, Image), "bgr8")
    except Exception as error:  # cv_bridge raises errors of OpenCV, its own, KeyError and TypeError
        if is_out_of_memory(error):
            raise out_of_memory(message.width, message.height) from error
        raise _unsupported(encoding, f"cv_bridge: {error}") from error
    shape = (message.height, message.width, 3)
    if image.shape != shape or image.dtype != np.uint8:
        raise _unsupported(encoding, f"cv_bridge returned {image.dtype} {image.shape}, expected uint8 {shape}")
    return np.ascontiguousarray(image)


def _unsupported(encoding: str, reason: str) -> FrameError:
    return FrameError(
        "encoding",
        f"image encoding: {encoding!r} cannot be converted ({reason}); expected one of {', '.join(ENCODINGS)}; "
        "let the camera driver publish one of these",
    )


@lru_cache(maxsize=1)
def _cv_bridge() -> Any:
    try:
        from cv_bridge import CvBridge
    except Exception:  # built for another NumPy, it fails with AttributeError or ImportError
        return None
    return CvBridge()
