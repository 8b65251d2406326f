"""Fields of serialized messages, read and written one after the other.

The layout is OMG CDR (plain, XCDR1; XCDR2 lays the types of this package out alike but for 8-byte numbers, which are
written and expected as XCDR1 has them): a four-byte encapsulation header, then the fields in order, numbers aligned to
their size counted from the end of that header.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError

_LITTLE_ENDIAN = {0: False, 1: True, 6: False, 7: True}
_PREFIX = b"\x00\x01\x00\x00"
_PREFIX_BYTES = len(_PREFIX)
# XCDR2 aligns 8-byte numbers to 4.
_XCDR2 = (6, 7)
# No camera's frame_id or encoding comes near; a longer one is a fault, and would end up in logs.
_MAX_TEXT_BYTES = 1024


class CdrReader:
    """Walks over the fields of one serialized message; every length is checked against what is left."""

    def __init__(self, serialized: bytes, subject: str = "image message") -> None:
        """Look at the encapsulation header.

        Args:
            serialized: the message.
            subject: what it is, for errors.

        Raises:
            FrameError: kind `message`, it is no plain CDR.
        """
        self._bytes = serialized
        self._subject = subject
        if len(serialized) < _PREFIX_BYTES or serialized[0] != 0 or serialized[1] not in _LITTLE_ENDIAN:
            raise FrameError(
                "message",
                f"{subject}: expected plain CDR, got {len(serialized)} bytes that begin with "
                f"{serialized[:_PREFIX_BYTES].hex(' ') or '-'}; check that the publisher's message type is the same",
            )
        self._order = "<" if _LITTLE_ENDIAN[serialized[1]] else ">"
        self._uint32 = struct.Struct(self._order + "I")
        self._int32 = struct.Struct(self._order + "i")
        self._widest = 4 if serialized[1] in _XCDR2 else 8
        self._position = _PREFIX_BYTES

    def header(self) -> tuple[int, str]:
        """`std_msgs/Header`: stamp in nanoseconds, frame_id."""
        seconds: int = self._int32.unpack_from(self._bytes, self._take("stamp", 4, 4))[0]
        nanoseconds = self.uint32("stamp")
        if nanoseconds >= 10**9:
            # Carried over into the seconds it would be another stamp, and no result would match the image any more.
            raise FrameError(
                "message",
                f"{self._subject}: stamp.nanosec: expected less than 1000000000, got {nanoseconds}; check how the "
                "camera driver makes its stamps",
            )
        return seconds * 10**9 + nanoseconds, self.text("frame_id")

    def uint8(self, field: str) -> int:
        """A `uint8` or `bool`."""
        return self._bytes[self._take(field, 1)]

    def uint32(self, field: str) -> int:
        """A `uint32`."""
        value: int = self._uint32.unpack_from(self._bytes, self._take(field, 4, 4))[0]
        return value

    def float64s(self, field: str, count: int) -> NDArray[np.float64]:
        """A `float64[count]`, a copy."""
        if not count:
            return np.zeros(0)
        begin = self._take(field, 8 * count, self._widest)
        return np.frombuffer(self._bytes, self._order + "f8", count, begin).astype(np.float64)

    def text(self, field: str) -> str:
        """A `string`."""
        length = self.uint32(field)
        if length > _MAX_TEXT_BYTES:
            raise FrameError(
                "message", f"{self._subject}: {field} claims {length} bytes, expected at most {_MAX_TEXT_BYTES}"
            )
        begin = self._take(field, length)
        return self._bytes[begin : begin + length].rstrip(b"\x00").decode("utf-8", "replace")

    def octets(self, field: str) -> NDArray[np.uint8]:
        """A `uint8[]`, as a view."""
        length = self.uint32(field)
        return np.frombuffer(self._bytes, np.uint8, length, self._take(field, length))

    def _take(self, field: str, length: int, alignment: int = 1) -> int:
        """Position of the next `length` bytes; moves behind them."""
        begin = self._position + -(self._position - _PREFIX_BYTES) % alignment
        if begin + length > len(self._bytes):
            raise FrameError(
                "message",
                f"{self._subject}: {field} needs {length} bytes at position {begin}, but the message ends at "
                f"{len(self._bytes)}; it is truncated or its lengths are wrong",
            )
        self._position = begin + length
        return begin


class CdrWriter:
    """Writes the fields of one message, little-endian, as the middlewares of ROS 2 do."""

    def __init__(self) -> None:
        self._out = bytearray(_PREFIX)

    def header(self, stamp_ns: int, frame_id: str) -> None:
        """`std_msgs/Header`."""
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        self.packed("<iI", 4, seconds, nanoseconds)
        self.text(frame_id)

    def packed(self, layout: str, alignment: int, *values: float) -> None:
        """Numbers after a layout of `struct`, aligned once before the first of them."""
        self._align(alignment)
        self._out += struct.pack(layout, *values)

    def uint8(self, value: int) -> None:
        """A `uint8` or `bool`."""
        self._out.append(value)

    def uint32s(self, *values: int) -> None:
        """Each a `uint32`."""
        self.packed(f"<{len(values)}I", 4, *values)

    def float64s(self, values: Sequence[float] | NDArray[np.float64]) -> None:
        """Each a `float64`."""
        if len(values):
            self._align(8)
            self._out += np.asarray(values, "<f8").tobytes()

    def text(self, value: str) -> None:
        """A `string`."""
        octets = value.encode() + b"\x00"
        self.uint32s(len(octets))
        self._out += octets

    def raw(self, octets: bytes, alignment: int = 1) -> None:
        """Fields that are written already, beginning with numbers of this alignment."""
        self._align(alignment)
        self._out += octets

    def finish(self, octets: memoryview | bytes | None = None) -> bytes:
        """The message; `octets` become its last field, a `uint8[]`, and are copied just once."""
        if octets is None:
            return bytes(self._out)
        self.uint32s(len(octets))
        return b"".join((self._out, octets))

    def _align(self, alignment: int) -> None:
        self._out += bytes(-(len(self._out) - _PREFIX_BYTES) % alignment)
