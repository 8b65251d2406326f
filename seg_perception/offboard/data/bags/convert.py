"""Messages of ROS 1, Foxglove and ffmpeg_image_transport become those of ROS 2 that are read here.

Layouts: the ROS 1 wire format (little-endian, packed), and the message definitions of foxglove-sdk and
ffmpeg_image_transport_msgs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from seg_perception.core.errors import FrameError
from seg_perception.core.messages.calibration import CAMERA_INFO, Calibration
from seg_perception.core.messages.cdr import CdrReader, CdrWriter
from seg_perception.core.messages.images import (
    COMPRESSED_IMAGE,
    COMPRESSED_VIDEO,
    FFMPEG_PACKET,
    IMAGE,
    CompressedImageMessage,
    read_ffmpeg_packet,
    read_foxglove,
    write_compressed_image,
)

from .storage import MOST_BYTES, ZSTD_MAGIC, Channel, StorageError, error_text, unpack

Convert = Callable[[bytes], bytes]
_HEADER, _TIME = "std_msgs/msg/Header", "builtin_interfaces/msg/Time"
_MOST_DEFINITION_BYTES = 1 << 20
_SIZES = {
    "bool": 1, "byte": 1, "char": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4,
    "float32": 4, "int64": 8, "uint64": 8, "float64": 8,
}  # fmt: skip
# What rosbags calls an empty message's only byte, which ROS 1 does not send.
_EMPTY_MEMBER = "structure_needs_at_least_one_member"


def converter(channel: Channel) -> tuple[str, Convert] | None:
    """Return the type of ROS 2 that a channel's messages have, and what makes them so; None where nothing can."""
    if channel.encoding in ("protobuf", "json"):
        made = _FOXGLOVE.get(channel.kind)
        if made is None:
            return None
        kind, write = made
        read = _json if channel.encoding == "json" else _Protobuf(channel)
        return kind, lambda data: write(read(data))
    if channel.encoding not in ("cdr", "ros1"):
        return None
    kind = ros2_name(channel.kind)
    first: Convert = _as_it_is if channel.encoding == "cdr" else _Ros1(kind, channel.definition)
    special = _CDR.get(kind)
    if special is None:
        return kind, first
    kind, second = special
    return kind, lambda data: second(first(data))


def ros2_name(kind: str) -> str:
    """Return the name that ROS 2 has for a type: `sensor_msgs/Image` and `sensor_msgs::msg::Image` are one."""
    parts = [part for part in re.split("/|::", kind) if part]
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else "/".join(parts)


def _as_it_is(data: bytes) -> bytes:
    # Bags of compressed messages; no CDR begins like that.
    return bytes(unpack(data, "zstd")) if data[:4] == ZSTD_MAGIC else data


class _Ros1:
    """Makes CDR of messages of one type of ROS 1, field by field after its definition."""

    def __init__(self, kind: str, definition: bytes) -> None:
        self._kind = kind
        self._definition = definition
        self._types: Mapping[str, Any] = {}

    def __call__(self, data: bytes) -> bytes:
        if not self._types:
            self._types = _ros1_types(self._kind, self._definition)
        state = _Ros1Message(self._types, data)
        state.message(self._kind)
        if state.position != len(data):
            raise StorageError(f"has {len(data)} bytes, its definition of {self._kind} {state.position}")
        return bytes(state.out)


class _Ros1Message:
    """One message between both forms."""

    def __init__(self, types: Mapping[str, Any], data: bytes) -> None:
        self._types = types
        self._data = memoryview(data)
        self.position = 0
        self.out = bytearray(b"\x00\x01\x00\x00")

    def message(self, kind: str) -> None:
        """Take over the fields of a message."""
        if kind == _HEADER:
            # ROS 2 has no `seq`.
            self._take(4)
        if kind == _TIME and bytes(self._data[self.position + 3 : self.position + 4]) >= b"\x80":
            raise StorageError("has a time after January 2038, which no message of ROS 2 can hold")
        for name, description in self._types[kind][1]:
            if name == _EMPTY_MEMBER:
                self.out.append(0)
            else:
                self._field(description)

    def _field(self, description: Any) -> None:
        node, value = int(description[0]), description[1]
        if node == 1:
            self._base(value[0], 1)
        elif node == 2:
            self.message(value)
        else:
            element, count = value
            if node == 4:
                count = self._length()
            # Elements take at least a byte each, so that no length can ask for more than there is.
            if count > len(self._data) - self.position:
                raise StorageError(f"claims {count} elements in {len(self._data) - self.position} bytes")
            if int(element[0]) == 1:
                self._base(element[1][0], count)
            else:
                for _ in range(count):
                    self._field(element)

    def _base(self, name: str, count: int) -> None:
        if name == "string":
            for _ in range(count):
                text = self._take(int.from_bytes(self._take(4), "little"))
                self._align(4)
                self.out += (len(text) + 1).to_bytes(4, "little")
                self.out += text
                self.out.append(0)
        elif count:
            size = _SIZES[name]
            self._align(size)
            self.out += self._take(size * count)

    def _length(self) -> int:
        length = self._take(4)
        self._align(4)
        self.out += length
        return int.from_bytes(length, "little")

    def _take(self, length: int) -> memoryview:
        begin, self.position = self.position, self.position + length
        if self.position > len(self._data):
            raise StorageError(f"ends early: {self.position} bytes are needed, {len(self._data)} are there")
        if len(self.out) > MOST_BYTES:
            raise StorageError(f"becomes longer than {MOST_BYTES} bytes")
        return self._data[begin : self.position]

    def _align(self, size: int) -> None:
        self.out += bytes(-(len(self.out) - 4) % size)


def _ros1_types(kind: str, definition: bytes) -> Mapping[str, Any]:
    """Return the fields of a type and of those it is made of."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    base = get_typestore(Stores.LATEST).fielddefs
    if len(definition) > _MOST_DEFINITION_BYTES:
        raise StorageError(f"the definition of {kind} has {len(definition)} bytes")
    text = definition.decode("utf-8", "replace")
    # A definition without fields is one of an empty message only where there is nothing better.
    types = dict(get_types_from_msg(text, kind)) if text.strip() or kind not in base else {}
    for name in (_HEADER, _TIME, "builtin_interfaces/msg/Duration"):
        types[name] = base[name]
    return types if kind in types else {**base, **types}


class _Protobuf:
    """Reads messages of one type after the description that a channel has."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._made: Any = None

    def __call__(self, data: bytes) -> Any:
        if self._made is None:
            try:
                from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
            except ImportError as error:
                raise StorageError(f"needs the Python package protobuf ({error}): pip install protobuf") from error
            if len(self._channel.definition) > _MOST_DEFINITION_BYTES:
                raise StorageError(f"the definition of {self._channel.kind} is too long")
            pool = descriptor_pool.DescriptorPool()
            files = descriptor_pb2.FileDescriptorSet.FromString(self._channel.definition).file
            _add_files(pool, {file.name: file for file in files})
            self._made = message_factory.GetMessageClass(pool.FindMessageTypeByName(self._channel.kind))
        message = self._made.FromString(data)
        stamp = message.timestamp
        return _Message(message, stamp.seconds * 10**9 + stamp.nanos)


def _add_files(pool: Any, files: dict[str, Any]) -> None:
    """Add files to a pool, those that others need first."""
    waiting = list(files.values())
    known: set[str] = set()
    while waiting:
        ready = [file for file in waiting if all(name in known or name not in files for name in file.dependency)]
        if not ready:
            raise StorageError("its files need one another in a circle")
        for file in ready:
            pool.Add(file)
            known.add(file.name)
        waiting = [file for file in waiting if file.name not in known]


class _Message:
    """Fields of a message, whatever it was read from."""

    def __init__(self, fields: Any, stamp_ns: int) -> None:
        self.fields = fields
        self.stamp_ns = stamp_ns


def _json(data: bytes) -> _Message:
    values = json.loads(data)
    stamp = values["timestamp"]
    if isinstance(values.get("data"), str):
        values["data"] = base64.b64decode(values["data"], validate=True)
    return _Message(SimpleNamespace(**values), int(stamp["sec"]) * 10**9 + int(stamp["nsec"]))


def _compressed(message: _Message) -> bytes:
    fields = message.fields
    return write_compressed_image(message.stamp_ns, fields.frame_id, fields.format, fields.data)


def _raw(message: _Message) -> bytes:
    fields = message.fields
    writer = CdrWriter()
    writer.header(message.stamp_ns, fields.frame_id)
    writer.uint32s(fields.height, fields.width)
    writer.text(fields.encoding)
    writer.uint8(0)
    writer.uint32s(fields.step)
    return writer.finish(fields.data)


def _calibration(message: _Message) -> bytes:
    fields = message.fields
    d, k, r, p = (np.array(list(getattr(fields, name, [])), np.float64) for name in "DKRP")
    # proto3 sends no empty arrays; an identity is what calibrators write for a camera on its own.
    r = r if len(r) else np.eye(3).ravel()
    if (len(k), len(r), len(p)) != (9, 9, 12):
        raise StorageError(f"expected K, R and P of 9, 9 and 12 numbers, got {len(k)}, {len(r)} and {len(p)}")
    return Calibration(
        message.stamp_ns, fields.frame_id, fields.height, fields.width, fields.distortion_model, d, k, r, p
    ).write()


def _cdr_compressed(data: bytes) -> bytes:
    return _as_compressed_image(read_foxglove(data))


def _cdr_raw(data: bytes) -> bytes:
    reader = CdrReader(data)
    stamp_ns, frame_id = reader.header()
    width, height = reader.uint32("width"), reader.uint32("height")
    encoding, step = reader.text("encoding"), reader.uint32("step")
    fields = SimpleNamespace(
        frame_id=frame_id, width=width, height=height, encoding=encoding, step=step, data=reader.octets("data").data
    )
    return _raw(_Message(fields, stamp_ns))


def _cdr_packet(data: bytes) -> bytes:
    return _as_compressed_image(read_ffmpeg_packet(data))


def _as_compressed_image(message: CompressedImageMessage) -> bytes:
    return write_compressed_image(message.stamp_ns, message.frame_id, message.format, message.data.data)


_FOXGLOVE: dict[str, tuple[str, Callable[[_Message], bytes]]] = {
    "foxglove.CompressedImage": (COMPRESSED_IMAGE, _compressed),
    "foxglove.CompressedVideo": (COMPRESSED_IMAGE, _compressed),
    "foxglove.RawImage": (IMAGE, _raw),
    "foxglove.CameraCalibration": (CAMERA_INFO, _calibration),
}
_CDR: dict[str, tuple[str, Convert]] = {
    "foxglove_msgs/msg/CompressedImage": (COMPRESSED_IMAGE, _cdr_compressed),
    COMPRESSED_VIDEO: (COMPRESSED_IMAGE, _cdr_compressed),
    "foxglove_msgs/msg/RawImage": (IMAGE, _cdr_raw),
    FFMPEG_PACKET: (COMPRESSED_IMAGE, _cdr_packet),
}


def convert(function: Convert, data: bytes) -> bytes:
    """Convert a message.

    Raises:
        StorageError: it is none of that type.
    """
    try:
        return function(data)
    except (StorageError, FrameError) as error:
        raise StorageError(str(error)) from error
    # Whatever the parsers of definitions, JSON and protobuf raise for bytes that are no such message.
    except Exception as error:
        raise StorageError(error_text(error)) from error
