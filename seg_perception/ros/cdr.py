"""Images out of serialized messages, without a copy of the pixels.

A raw subscription hands over the bytes as they travel. All that is needed of an image message is its short header; the
pixels stay where they are. The layout is OMG CDR (plain, XCDR1; XCDR2 lays these types out alike): a four-byte
encapsulation header, then the fields in order, numbers aligned to their size counted from the end of that header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError

_LITTLE_ENDIAN = {0: False, 1: True, 6: False, 7: True}
_PREFIX_BYTES = 4
# No camera's frame_id or encoding comes near; a longer one is a fault, and would end up in logs.
_MAX_TEXT_BYTES = 1024


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
    """The fields of a `sensor_msgs/CompressedImage`.

    Attributes:
        stamp_ns: `header.stamp` in nanoseconds.
        frame_id: `header.frame_id`.
        format: as in the message.
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
    reader = _Reader(serialized)
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
    reader = _Reader(serialized)
    stamp_ns, frame_id = reader.header()
    return CompressedImageMessage(stamp_ns, frame_id, reader.text("format"), reader.octets("data"))


class _Reader:
    """Walks over the fields of one serialized message; every length is checked against what is left."""

    def __init__(self, serialized: bytes) -> None:
        self._bytes = serialized
        if len(serialized) < _PREFIX_BYTES or serialized[0] != 0 or serialized[1] not in _LITTLE_ENDIAN:
            raise FrameError(
                "message",
                f"image message: expected plain CDR, got {len(serialized)} bytes that begin with "
                f"{serialized[:_PREFIX_BYTES].hex(' ') or '-'}; check that the publisher's message type is the same",
            )
        order = "<" if _LITTLE_ENDIAN[serialized[1]] else ">"
        self._uint32 = struct.Struct(order + "I")
        self._int32 = struct.Struct(order + "i")
        self._position = _PREFIX_BYTES

    def header(self) -> tuple[int, str]:
        """`std_msgs/Header`: stamp in nanoseconds, frame_id."""
        seconds: int = self._int32.unpack_from(self._bytes, self._take("stamp", 4, aligned=True))[0]
        nanoseconds = self.uint32("stamp")
        if nanoseconds >= 10**9:
            # Carried over into the seconds it would be another stamp, and no result would match the image any more.
            raise FrameError(
                "message",
                f"image message: stamp.nanosec: expected less than 1000000000, got {nanoseconds}; check how the camera "
                "driver makes its stamps",
            )
        return seconds * 10**9 + nanoseconds, self.text("frame_id")

    def uint8(self, field: str) -> int:
        return self._bytes[self._take(field, 1)]

    def uint32(self, field: str) -> int:
        value: int = self._uint32.unpack_from(self._bytes, self._take(field, 4, aligned=True))[0]
        return value

    def text(self, field: str) -> str:
        length = self.uint32(field)
        if length > _MAX_TEXT_BYTES:
            raise FrameError(
                "message", f"image message: {field} claims {length} bytes, expected at most {_MAX_TEXT_BYTES}"
            )
        begin = self._take(field, length)
        return self._bytes[begin : begin + length].rstrip(b"\x00").decode("utf-8", "replace")

    def octets(self, field: str) -> NDArray[np.uint8]:
        """A `uint8[]`, as a view."""
        length = self.uint32(field)
        return np.frombuffer(self._bytes, np.uint8, length, self._take(field, length))

    def _take(self, field: str, length: int, aligned: bool = False) -> int:
        """Position of the next `length` bytes; moves behind them."""
        begin = self._position + (-self._position % 4 if aligned else 0)
        if begin + length > len(self._bytes):
            raise FrameError(
                "message",
                f"image message: {field} needs {length} bytes at position {begin}, but the message ends at "
                f"{len(self._bytes)}; it is truncated or its lengths are wrong",
            )
        self._position = begin + length
        return begin
