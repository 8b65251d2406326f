"""`sensor_msgs/Image` and `CompressedImage`, and the packets of video of Foxglove and ffmpeg_image_transport.

All that is needed of a received image is its short header; the pixels stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cdr import CdrReader, CdrWriter

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
COMPRESSED_VIDEO = "foxglove_msgs/msg/CompressedVideo"
FFMPEG_PACKET = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"


@dataclass(frozen=True, slots=True)
class ImageMessage:
    """The fields of a `sensor_msgs/Image`.

    Attributes:
        stamp_ns: `header.stamp` in nanoseconds.
        frame_id: `header.frame_id`.
        height, width, encoding, is_bigendian, step: as in the message.
        data: uint8 `[bytes]`, a view into the serialized message.
    """

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    encoding: str
    is_bigendian: bool
    step: int
    data: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CompressedImageMessage:
    """The fields of a `sensor_msgs/CompressedImage`, or of a packet of video.

    Attributes:
        stamp_ns: `header.stamp` in nanoseconds.
        frame_id: `header.frame_id`.
        format: as in the message; the `encoding` of a packet of video.
        data: uint8 `[bytes]`, a view into the serialized message.
    """

    stamp_ns: int
    frame_id: str
    format: str
    data: NDArray[np.uint8]


def read_image(serialized: bytes) -> ImageMessage:
    """Read a serialized `sensor_msgs/Image`.

    Raises:
        FrameError: kind `message`, the bytes are not such a message.
    """
    reader = CdrReader(serialized)
    stamp_ns, frame_id = reader.header()
    height, width = reader.uint32("height"), reader.uint32("width")
    encoding = reader.text("encoding")
    is_bigendian = reader.uint8("is_bigendian") != 0
    step = reader.uint32("step")
    return ImageMessage(stamp_ns, frame_id, height, width, encoding, is_bigendian, step, reader.octets("data"))


def read_compressed_image(serialized: bytes) -> CompressedImageMessage:
    """Read a serialized `sensor_msgs/CompressedImage`.

    Raises:
        FrameError: kind `message`, the bytes are not such a message.
    """
    reader = CdrReader(serialized)
    stamp_ns, frame_id = reader.header()
    return CompressedImageMessage(stamp_ns, frame_id, reader.text("format"), reader.octets("data"))


def read_foxglove(serialized: bytes) -> CompressedImageMessage:
    """Read a serialized `foxglove_msgs/CompressedVideo` or `CompressedImage`: stamp and frame, the data, their format.

    Raises:
        FrameError: kind `message`, the bytes are not such a message.
    """
    reader = CdrReader(serialized)
    stamp_ns, frame_id = reader.header()
    octets = reader.octets("data")
    return CompressedImageMessage(stamp_ns, frame_id, reader.text("format"), octets)


def read_ffmpeg_packet(serialized: bytes) -> CompressedImageMessage:
    """Read a serialized `ffmpeg_image_transport_msgs/FFMPEGPacket`.

    Raises:
        FrameError: kind `message`, the bytes are not such a message.
    """
    reader = CdrReader(serialized)
    stamp_ns, frame_id = reader.header()
    reader.uint32("width"), reader.uint32("height")
    encoding = reader.text("encoding")
    reader.float64s("pts", 1)
    reader.uint8("flags"), reader.uint8("is_bigendian")
    return CompressedImageMessage(stamp_ns, frame_id, encoding, reader.octets("data"))


def write_image(stamp_ns: int, frame_id: str, encoding: str, pixels: NDArray[Any]) -> bytes:
    """A serialized `sensor_msgs/Image`.

    Args:
        stamp_ns, frame_id: of its header.
        encoding: name of the pixels' format, 8 or 16 bits a channel.
        pixels: `[height, width]` or `[height, width, channels]`.
    """
    pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    height, width = pixels.shape[:2]
    writer = CdrWriter()
    writer.header(stamp_ns, frame_id)
    writer.uint32s(height, width)
    writer.text(encoding)
    writer.uint8(0)
    writer.uint32s(pixels.strides[0])
    return writer.finish(pixels.data.cast("B") if pixels.size else b"")


def write_compressed_image(stamp_ns: int, frame_id: str, described: str, data: bytes | memoryview) -> bytes:
    """A serialized `sensor_msgs/CompressedImage`; `described` is its format, `data` the encoded image."""
    writer = CdrWriter()
    writer.header(stamp_ns, frame_id)
    writer.text(described)
    return writer.finish(data)
