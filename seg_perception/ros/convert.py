"""Messages become frames.

Whatever `frame.ENCODINGS` names passes as it is and is decoded by `sources.encodings`, as it would be without ROS. An
encoding that is not named there is offered to cv_bridge, where it is installed, to make bgr8 of it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from ..frame import ENCODINGS, Frame
from ..sources.encodings import decode_compressed
from .cdr import read_compressed_image, read_image

# Signed and floating-point images have no agreed brightness; a conversion would be a guess.
_NO_BRIGHTNESS = ("8S", "16S", "32S", "32F", "64F")


def frame_from_image(serialized: bytes, camera: str) -> Frame:
    """A frame out of a serialized `sensor_msgs/Image`; its pixels are not copied.

    Args:
        serialized: the message.
        camera: name of the camera in the configuration.

    Raises:
        FrameError: the message is malformed, its encoding is not supported, or its data do not match its size.
    """
    message = read_image(serialized)
    if message.encoding not in ENCODINGS:
        bgr = _through_cv_bridge(serialized, message.encoding, (message.height, message.width, 3))
        return Frame.from_bgr(bgr, stamp_ns=message.stamp_ns, frame_id=message.frame_id, camera=camera)
    return Frame(
        message.data,
        message.width,
        message.height,
        message.step,
        message.encoding,
        message.stamp_ns,
        message.frame_id,
        camera,
        message.is_bigendian,
    )


def frame_from_compressed_image(serialized: bytes, camera: str) -> Frame:
    """A frame out of a serialized `sensor_msgs/CompressedImage`; arguments and errors as `frame_from_image`."""
    message = read_compressed_image(serialized)
    return decode_compressed(message.data, stamp_ns=message.stamp_ns, frame_id=message.frame_id, camera=camera)


def _through_cv_bridge(serialized: bytes, encoding: str, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Let cv_bridge convert to bgr, uint8 `[height, width, 3]`."""
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
        raise _unsupported(encoding, f"cv_bridge: {error}") from error
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
