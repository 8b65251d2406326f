"""The packets of one camera's video: counted, decoded in their order, given up when there are too many."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from threading import Event

import pytest
from video_packets import GROUP, grey, packets, units

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.messages.cdr import CdrWriter
from seg_perception.core.messages.images import (
    COMPRESSED_IMAGE,
    COMPRESSED_VIDEO,
    FFMPEG_PACKET,
    write_compressed_image,
)
from seg_perception.onboard.ros.statistics import CameraSnapshot, CameraStatistics
from seg_perception.onboard.ros.video import QUEUE, DecodedImage, VideoStream


def still_or_video(index: int, described: str, data: bytes) -> bytes:
    return write_compressed_image(index, "front", described, data)


def foxglove(index: int, described: str, data: bytes) -> bytes:
    writer = CdrWriter()
    writer.header(index, "front")
    writer.uint32s(len(data))
    writer.raw(data)
    writer.text(described)
    return writer.finish()


def ffmpeg(index: int, described: str, data: bytes) -> bytes:
    writer = CdrWriter()
    writer.header(index, "front")
    writer.uint32s(64, 48)
    writer.text(described)
    writer.raw(struct.pack("<Q", index), 8)
    writer.uint8(0)
    writer.uint8(0)
    return writer.finish(data)


class Receiver:
    """Takes what a stream hands over."""

    def __init__(self, kind: str = COMPRESSED_IMAGE, max_pixels: int = 1 << 20) -> None:
        self.images: list[DecodedImage] = []
        self.faults: list[tuple[str, str]] = []
        self.free = Event()
        self.free.set()
        self.statistics = CameraStatistics()
        self.stream = VideoStream("front", kind, self.statistics, max_pixels, self._take, self._report)

    def _take(self, image: DecodedImage) -> None:
        self.free.wait(20)
        self.images.append(image)

    def _report(self, camera: str, kind: str, text: str) -> None:
        self.faults.append((kind, text))

    def wait(self, received: int) -> CameraSnapshot:
        end = time.monotonic() + 20
        while (counted := self.statistics.snapshot()).received < received or not self._settled(counted):
            assert time.monotonic() < end, counted
            time.sleep(0.005)
        return counted

    def _settled(self, counted: CameraSnapshot) -> bool:
        return len(self.images) + sum(counted.dropped.values()) >= counted.received

    def stamps(self) -> list[int]:
        return [image.stamp_ns for image in self.images]


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(*arguments: object) -> Receiver:
        made.append(Receiver(*arguments))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for receiver in made:
        receiver.free.set()
        receiver.stream.close()


@pytest.mark.parametrize(("kind", "write", "described"), [
    (COMPRESSED_IMAGE, still_or_video, "h264"), (COMPRESSED_VIDEO, foxglove, "h264"),
    (FFMPEG_PACKET, ffmpeg, "h264_nvenc"), (FFMPEG_PACKET, ffmpeg, "libx264;nv12;bgr8;bgr8"),
])  # fmt: skip
def test_packets_of_every_type(
    receive: Callable[..., Receiver], kind: str, write: Callable[[int, str, bytes], bytes], described: str
) -> None:
    receiver = receive(kind)
    for index, data in packets("libx264", 7):
        receiver.stream.receive(write(index, described, data), 0)
    receiver.wait(7)
    assert receiver.stamps() == list(range(7))
    for index, image in enumerate(receiver.images):
        frame = image.frame("front")
        assert (frame.frame_id, frame.camera) == ("front", "front")
        assert abs(float(to_bgr(frame).mean()) - grey(index)) < 4
    assert receiver.stream.text == "h264 64 x 48"
    assert receiver.stream.waits == ""


def test_what_follows_a_lost_packet_is_not_decoded_up_to_the_next_key_frame(receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    coded = packets("libx264", 12)
    for index, data in coded[:2]:
        receiver.stream.receive(still_or_video(index, "h264", data), 0)
    receiver.wait(2)
    receiver.stream.receive(still_or_video(3, "h264", coded[3][1]), 1)
    counted = receiver.wait(4)
    assert (counted.dropped["lost"], counted.dropped["no_key_frame"]) == (1, 1)
    assert "1 packets of h264" in receiver.stream.waits
    for index, data in coded[4:]:
        receiver.stream.receive(still_or_video(index, "h264", data), 0)
    counted = receiver.wait(12)
    assert receiver.stamps() == [0, 1, *range(GROUP, 12)]
    assert (counted.dropped["lost"], counted.dropped["no_key_frame"], counted.faults) == (1, 2, 0)


def test_parameter_sets_of_their_own_are_no_frames(receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    first, *rest = packets("libx264", 3)
    for data in (*units(first[1]), *(data for _, data in rest)):
        receiver.stream.receive(still_or_video(7, "h264", data), 0)
    assert receiver.wait(3).received == 3
    assert len(receiver.images) == 3


def test_packets_that_come_faster_than_they_are_decoded_are_counted(receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    coded = packets("libx264", 2 * GROUP)
    receiver.free.clear()
    count = QUEUE + 2 * GROUP
    for number in range(count):
        receiver.stream.receive(still_or_video(number, "h264", coded[number % len(coded)][1]), 0)
    receiver.free.set()
    counted = receiver.wait(count)
    assert counted.received == count
    assert counted.dropped["overrun"] == QUEUE
    assert [kind for kind, _ in receiver.faults] == ["overrun"]
    assert "slower than the stream" in receiver.faults[0][1]
    assert len(receiver.images) + counted.dropped.get("no_key_frame", 0) == count - QUEUE


def test_images_that_are_too_large_name_the_parameter(receive: Callable[..., Receiver]) -> None:
    receiver = receive(COMPRESSED_IMAGE, 64 * 48 - 1)
    coded = packets("libx264", 2 * GROUP)
    for index, data in coded:
        receiver.stream.receive(still_or_video(index, "h264", data), 0)
    counted = receiver.wait(2 * GROUP)
    assert (counted.dropped["size"], counted.dropped["no_key_frame"]) == (2, 2 * GROUP - 2)
    assert "cameras.front.max_image_size" in counted.last_fault
    receiver.stream.max_pixels = 64 * 48
    receiver.stream.receive(still_or_video(0, "h264", coded[0][1]), 0)
    receiver.wait(2 * GROUP + 1)
    assert receiver.stamps() == [0]


@pytest.mark.parametrize(("message", "kind"), [
    (b"", "message"), (still_or_video(0, "jpeg", b"\xff\xd8\xff\xe0"), "encoding"),
    (still_or_video(0, "vp8", bytes(9)), "encoding"), (still_or_video(0, "h264", b"\0\0\0\x09\x65"), "compressed"),
    (still_or_video(0, "h264", b""), "compressed"),
])  # fmt: skip
def test_messages_that_are_no_packets_are_counted_by_their_fault(
    receive: Callable[..., Receiver], message: bytes, kind: str
) -> None:
    receiver = receive()
    receiver.stream.receive(message, 0)
    counted = receiver.wait(1)
    assert counted.dropped[kind] == 1
    assert counted.faults == 1
    for index, data in packets("libx264", 2):
        receiver.stream.receive(still_or_video(index, "h264", data), 0)
    receiver.wait(3)
    assert receiver.stamps() == [0, 1]
