"""Serialized image messages become frames, with or without ROS.

Whatever `frame.ENCODINGS` names passes as it is and is decoded by `encodings`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..encodings.raw import decode_compressed
from ..encodings.video import video_codec
from ..errors import FrameError
from ..frame import ENCODINGS, MAX_PIXELS, Frame
from ..text import printable
from .images import COMPRESSED_IMAGE, ImageMessage, read_compressed_image, read_image

# Makes bgr, uint8 `[height, width, 3]`, of a message whose encoding is unknown here, or raises FrameError.
Converter = Callable[[bytes, ImageMessage], NDArray[np.uint8]]


def frame_from_message(serialized: bytes, kind: str, camera: str) -> Frame:
    """A frame out of a message of either kind of image; arguments and errors as `frame_from_image`."""
    read = frame_from_compressed_image if kind == COMPRESSED_IMAGE else frame_from_image
    return read(serialized, camera)


def frame_from_image(serialized: bytes, camera: str, convert: Converter | None = None) -> Frame:
    """A frame out of a serialized `sensor_msgs/Image`; its pixels are not copied.

    Args:
        serialized: the message.
        camera: name of the camera in the configuration.
        convert: is asked for encodings that `frame.ENCODINGS` lacks.

    Raises:
        FrameError: the message is malformed, its encoding is not supported, or its data do not match its size.
    """
    message = read_image(serialized)
    if convert is not None and message.encoding not in ENCODINGS:
        bgr = convert(serialized, message)
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


def frame_from_compressed_image(serialized: bytes, camera: str, max_pixels: int = MAX_PIXELS) -> Frame:
    """A frame out of a serialized `sensor_msgs/CompressedImage`.

    Args:
        serialized: the message.
        camera: name of the camera in the configuration.
        max_pixels: most pixels that the image may have; it is refused before it is decoded.

    Raises:
        FrameError: the message is malformed, or its image cannot be decoded (`decode_compressed`).
    """
    message = read_compressed_image(serialized)
    codec = video_codec(message.format, message.data)
    if codec is not None:
        raise FrameError(
            "compressed",
            f"compressed image: expected a still image (JPEG, PNG, TIFF), got a packet of {codec} video "
            f"({printable(message.format)!r}), which needs those before it; set cameras.NAME.transport: video",
        )
    return decode_compressed(
        message.data, described=message.format, stamp_ns=message.stamp_ns, frame_id=message.frame_id, camera=camera,
        max_pixels=max_pixels,
    )  # fmt: skip
