"""A bare RTPS participant on this machine that announces whatever it is told, also what no ROS node would.

ROS validates names and QoS where a publisher is made, and nowhere else: what another DDS participant announces reaches
the graph of every node as it is. Wire format: OMG DDSI-RTPS 2.3, sections 9.4 (submessages) and 9.6 (discovery data).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading

_VERSION, _VENDOR = bytes((2, 3)), bytes((1, 15))
_PARTICIPANT = bytes((0, 0, 1, 0xC1))
_SPDP_WRITER, _SPDP_READER = bytes((0, 1, 0, 0xC2)), bytes((0, 1, 0, 0xC7))
_SEDP_WRITER, _SEDP_READER = bytes((0, 0, 3, 0xC2)), bytes((0, 0, 3, 0xC7))
_DATA, _HEARTBEAT, _INFO_TS = 0x15, 0x07, 0x09
_WITH_DATA = 0x05
# Participant announcer and detector, publication and subscription announcers and detectors.
_BUILTIN_ENDPOINTS = 0x3F
# Announcements are repeated, as the listeners may not have met this participant when the first ones come.
_PERIOD_SECONDS = 0.2
_MOST_PARTICIPANTS = 12

DEADLINE, LIVELINESS, LIFESPAN, HISTORY, DURABILITY = 0x23, 0x1B, 0x2B, 0x40, 0x1D
IMAGE = "sensor_msgs::msg::dds_::Image_"


def parameter(number: int, value: bytes) -> bytes:
    """One entry of a parameter list."""
    padded = value + bytes(-len(value) % 4)
    return struct.pack("<HH", number, len(padded)) + padded


def duration(seconds: int, fraction: int = 0) -> bytes:
    """A DDS duration, which may be negative or out of range: seconds int32, fraction uint32."""
    return struct.pack("<iI", seconds, fraction)


def _string(text: str | bytes) -> bytes:
    data = (text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text) + b"\0"
    return struct.pack("<I", len(data)) + data


def _submessage(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("<BBH", kind, flags, len(body)) + body


def _data(reader: bytes, writer: bytes, number: int, parameters: bytes) -> bytes:
    header = struct.pack("<HH", 0, 16) + reader + writer + struct.pack("<iI", 0, number)
    payload = b"\x00\x03\x00\x00" + parameters + parameter(1, b"")
    return _submessage(_DATA, _WITH_DATA, header + payload)


class Announcer:
    """Announces publishers to the ROS nodes of a domain on this machine until it is closed.

    Args:
        domain: number of the DDS domain.
        host: first four bytes of a participant's GUID on this machine; nodes whose discovery is limited to this machine
            ignore participants with others. `host_id` tells it.
    """

    def __init__(self, domain: int, host: bytes) -> None:
        self._prefix = host[:4] + os.urandom(8)
        self._base = 7400 + 250 * domain
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._announced: list[bytes] = []
        self._beats = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def publisher(self, topic: str | bytes, kind: str | bytes = IMAGE, extra: bytes = b"") -> None:
        """Announce a best-effort publisher.

        Args:
            topic: DDS name of the topic, such as `rt/image_raw`.
            kind: DDS name of the type.
            extra: further parameters, such as a deadline.
        """
        with self._lock:
            number = len(self._announced) + 1
            guid = self._prefix + bytes((0, 1, number, 3))
            parameters = parameter(0x5A, guid) + parameter(0x70, guid) + parameter(0x50, self._prefix + _PARTICIPANT)
            parameters += parameter(0x05, _string(topic)) + parameter(0x07, _string(kind))
            parameters += parameter(0x1A, struct.pack("<I", 1) + duration(0, 0)) + extra
            self._announced.append(_data(_SEDP_READER, _SEDP_WRITER, number, parameters))

    def close(self) -> None:
        """Leave; the nodes forget this participant at once."""
        self._ended.set()
        self._thread.join(5)
        # Disposed and unregistered.
        status = parameter(0x70, self._prefix + _PARTICIPANT) + parameter(0x71, bytes((0, 0, 0, 3))) + parameter(1, b"")
        header = struct.pack("<HH", 0, 16) + _SPDP_READER + _SPDP_WRITER + struct.pack("<iI", 0, 2)
        self._send(_submessage(_DATA, 0x03, header + status))
        self._socket.close()

    def __enter__(self) -> Announcer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            self._announce()
            if self._ended.wait(_PERIOD_SECONDS):
                return

    def _announce(self) -> None:
        self._send(_data(_SPDP_READER, _SPDP_WRITER, 1, self._participant()))
        with self._lock:
            announced = list(self._announced)
        for data in announced:
            self._send(data)
        if announced:
            self._beats += 1
            body = _SEDP_READER + _SEDP_WRITER + struct.pack("<iIiIi", 0, 1, 0, len(announced), self._beats)
            self._send(_submessage(_HEARTBEAT, 0x01, body))

    def _participant(self) -> bytes:
        port = self._socket.getsockname()[1]
        locator = struct.pack("<iI", 1, port) + bytes(12) + bytes((127, 0, 0, 1))
        return b"".join(
            (
                parameter(0x15, _VERSION + bytes(2)),
                parameter(0x16, _VENDOR + bytes(2)),
                parameter(0x50, self._prefix + _PARTICIPANT),
                parameter(0x32, locator),
                parameter(0x31, locator),
                parameter(0x02, duration(20)),
                parameter(0x58, struct.pack("<I", _BUILTIN_ENDPOINTS)),
            )
        )

    def _send(self, submessage: bytes) -> None:
        message = b"RTPS" + _VERSION + _VENDOR + self._prefix + submessage
        for participant in range(_MOST_PARTICIPANTS):
            # A port at which nobody listens may answer with an error on the next call.
            with contextlib.suppress(OSError):
                self._socket.sendto(message, ("127.0.0.1", self._base + 10 + 2 * participant))


def host_id(gid: object) -> bytes:
    """Return what the participants of this machine have in common, from the GID of any endpoint on it."""
    return bytes(bytearray(gid))[:4]  # type: ignore[call-overload]
