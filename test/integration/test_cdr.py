"""Our reader of serialized images against rclpy's own serialization, and against damage."""

from __future__ import annotations

import array
import contextlib
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from seg_perception.core.errors import FrameError
from seg_perception.core.messages.images import ImageMessage, read_compressed_image, read_image
from seg_perception.core.messages.serialized import frame_from_compressed_image, frame_from_image

names = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=["Cs"]), max_size=40)
numbers = st.integers(0, 2**32 - 1)


@st.composite
def images(draw: st.DrawFn) -> Image:
    message = Image(encoding=draw(names), is_bigendian=draw(st.integers(0, 1)))
    message.height, message.width, message.step = draw(numbers), draw(numbers), draw(numbers)
    message.header.frame_id = draw(names)
    message.header.stamp.sec = draw(st.integers(-(2**31), 2**31 - 1))
    message.header.stamp.nanosec = draw(st.integers(0, 10**9 - 1))
    message.data = array.array("B", draw(st.binary(max_size=200)))
    return message


def assert_equal(read: ImageMessage, message: Image) -> None:
    assert read.stamp_ns == message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    assert read.frame_id == message.header.frame_id
    assert (read.height, read.width, read.step) == (message.height, message.width, message.step)
    assert read.encoding == message.encoding
    assert read.is_bigendian == bool(message.is_bigendian)
    assert read.data.tobytes() == bytes(message.data)


def big_endian(message: Image) -> bytes:
    """The message in the other byte order, written after the CDR specification."""
    text = [part.encode() + b"\x00" for part in (message.header.frame_id, message.encoding)]
    out = bytearray(struct.pack(">iI", message.header.stamp.sec, message.header.stamp.nanosec))
    out += struct.pack(">I", len(text[0])) + text[0]
    out += bytes(-len(out) % 4) + struct.pack(">II", message.height, message.width)
    out += struct.pack(">I", len(text[1])) + text[1] + bytes([message.is_bigendian])
    out += bytes(-len(out) % 4) + struct.pack(">II", message.step, len(message.data)) + bytes(message.data)
    return b"\x00\x00\x00\x00" + bytes(out)


@given(images())
def test_images_are_read_as_they_were_written(message: Image) -> None:
    assert_equal(read_image(serialize_message(message)), message)
    assert_equal(read_image(big_endian(message)), message)


@given(names, names, st.binary(max_size=300))
def test_compressed_images_are_read_as_they_were_written(frame_id: str, described: str, data: bytes) -> None:
    message = CompressedImage(format=described, data=data)
    message.header.frame_id = frame_id
    read = read_compressed_image(serialize_message(message))
    assert (read.frame_id, read.format, read.data.tobytes()) == (frame_id, described, data)


def test_pixels_are_not_copied() -> None:
    serialized = serialize_message(Image(height=2, width=2, step=6, encoding="bgr8", data=bytes(range(12))))
    frame = frame_from_image(serialized, "front")
    assert np.shares_memory(frame.data, np.frombuffer(serialized, np.uint8))
    assert frame.camera == "front"


@given(images(), st.data())
def test_damage_never_does_more_than_raise_a_frame_error(message: Image, data: st.DataObject) -> None:
    serialized = bytearray(serialize_message(message))
    for _ in range(data.draw(st.integers(0, 6))):
        serialized[data.draw(st.integers(0, len(serialized) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(serialized[: data.draw(st.integers(0, len(serialized)))])
    tracemalloc.start()
    try:
        for read in (frame_from_image, frame_from_compressed_image):
            with contextlib.suppress(FrameError):
                read(damaged, "front")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", range(60))
def test_every_truncation_is_told(length: int) -> None:
    serialized = serialize_message(Image(height=2, width=2, step=6, encoding="bgr8", data=bytes(12)))
    if length >= len(serialized):
        pytest.skip("the message is shorter")
    with pytest.raises(FrameError) as caught:
        read_image(serialized[:length])
    assert caught.value.kind == "message"


@pytest.mark.parametrize("nanoseconds", [10**9, 1_500_000_000, 2**32 - 1])
def test_a_stamp_that_could_not_be_published_unchanged_is_a_fault(nanoseconds: int) -> None:
    serialized = bytearray(serialize_message(Image(height=2, width=2, step=6, encoding="bgr8", data=bytes(12))))
    serialized[4:12] = struct.pack("<iI", 5, nanoseconds)
    for read in (read_image, read_compressed_image):
        with pytest.raises(FrameError, match="nanosec") as caught:
            read(bytes(serialized))
        assert caught.value.kind == "message"
