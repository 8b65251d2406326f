"""Bags of compressed video: packets become frames, from the first key frame on."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import BackendUnavailable
from seg_perception.core.messages.images import COMPRESSED_IMAGE, CompressedImageMessage
from seg_perception.offboard.data.bags.source import BagImages
from seg_perception.offboard.data.bags.video import video_codec
from seg_perception.offboard.replay.inputs import BagRecording, Range

STORE = get_typestore(Stores.ROS2_JAZZY)
VIDEO, PACKET = "foxglove_msgs/msg/CompressedVideo", "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
DEFINITIONS = {
    VIDEO: "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
    PACKET: "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
    "bool is_bigendian\nuint8[] data\n",
}
for name, definition in DEFINITIONS.items():
    STORE.register(get_types_from_msg(definition, name))
SECOND = 10**9
# Frames between two key frames.
GROUP = 5


def grey(index: int) -> int:
    return 20 + 10 * index


def packets(codec: str, count: int, b_frames: int = 0) -> list[tuple[int, bytes]]:
    """Flat images, each brighter than the one before, as packets: number of the image, and its bytes."""
    av = pytest.importorskip("av")
    try:
        context = av.CodecContext.create(codec, "w")
    except Exception:
        pytest.skip(f"this FFmpeg does not write {codec}")
    context.width, context.height, context.pix_fmt = 64, 48, "yuv420p"
    context.time_base, context.gop_size, context.max_b_frames = Fraction(1, 10), GROUP, b_frames
    if codec == "libx264":
        context.options = {"preset": "ultrafast", "x264-params": f"keyint={GROUP}:scenecut=0:bframes={b_frames}"}
    else:
        context.options = {"preset": "ultrafast", "x265-params": f"keyint={GROUP}:scenecut=0:bframes=0:log-level=none"}
    coded = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey(index), np.uint8), format="bgr24")
        frame.pts = index
        coded += context.encode(frame)
    coded += context.encode(None)
    return [(packet.pts, bytes(packet)) for packet in coded]


def message(kind: str, format_: str, index: int, data: bytes) -> Any:
    types = STORE.types
    stamp = types["builtin_interfaces/msg/Time"](100, index)
    header = types["std_msgs/msg/Header"](stamp, "front")
    octets = np.frombuffer(data, np.uint8)
    if kind == VIDEO:
        return types[kind](stamp, "front", octets, format_)
    if kind == PACKET:
        return types[kind](header, 64, 48, format_, index, 0, False, octets)
    return types[kind](header, format_, octets)


def write(path: Path, kind: str, format_: str, coded: list[tuple[int, bytes]]) -> Path:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/front/video", kind, typestore=STORE)
        for place, (index, data) in enumerate(coded):
            writer.write(topic, place * SECOND, STORE.serialize_cdr(message(kind, format_, index, data), kind))
    return path


@pytest.mark.parametrize(("kind", "format_", "codec"), [
    (VIDEO, "h264", "libx264"), (VIDEO, "h265", "libx265"), (PACKET, "h264_nvenc", "libx264"),
    (PACKET, "hevc", "libx265"), (COMPRESSED_IMAGE, "h264", "libx264"), (PACKET, "h264;yuv420p;bgr8;bgr8", "libx264"),
])  # fmt: skip
def test_every_packet_becomes_its_frame(tmp_path: Path, kind: str, format_: str, codec: str):
    source = BagImages(write(tmp_path / "drive", kind, format_, packets(codec, 12)))
    frames = dict(source)
    assert source.failures == []
    assert len(frames) == len(source) == 12
    for index, (name, frame) in enumerate(frames.items()):
        assert (name, frame.stamp_ns, frame.frame_id) == (f"drive_{index:06d}", 100 * SECOND + index, "front")
        assert abs(float(to_bgr(frame).mean()) - grey(index)) < 4


def test_frames_that_the_decoder_reorders_keep_their_stamps(tmp_path: Path):
    source = BagImages(write(tmp_path / "drive", VIDEO, "h264", packets("libx264", 12, b_frames=2)))
    frames = [frame for _, frame in source]
    assert source.failures == []
    assert sorted(frame.stamp_ns % SECOND for frame in frames) == list(range(12))
    for frame in frames:
        assert abs(float(to_bgr(frame).mean()) - grey(frame.stamp_ns % SECOND)) < 4


def test_a_part_begins_at_a_key_frame_and_says_what_is_lost_before(tmp_path: Path):
    bag = write(tmp_path / "drive", VIDEO, "h264", packets("libx264", 12))
    recording = BagRecording(bag, part=Range(2, 7), copy=True)
    shots = list(recording.shots())
    assert [shot.frame.stamp_ns % SECOND for shot in shots if shot.frame] == [5, 6, 7, 8]
    # Copied are all of them.
    assert [shot.time_ns // SECOND for shot in shots if shot.copy] == [2, 3, 4, 5, 6, 7, 8]
    assert recording.failures == [
        "/front/video: 3 packets of h264 come before the first key frame and cannot be decoded"
    ]


def test_packets_that_are_damaged_are_counted_and_the_rest_goes_on(tmp_path: Path):
    coded = packets("libx264", 12)
    coded[7] = (7, coded[7][1][:5] + bytes(20))
    source = BagImages(write(tmp_path / "drive", VIDEO, "h264", coded))
    frames = [frame for _, frame in source]
    # The next key frame ends the damage.
    assert [frame.stamp_ns % SECOND for frame in frames][-2:] == [10, 11]
    assert len(frames) + len(source.failures) == 12
    assert source.failures


def test_without_pyav_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bag = write(tmp_path / "drive", VIDEO, "h264", [(0, b"\x00\x00\x00\x01\x65")])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BackendUnavailable, match=r"front: images are packets of h264, .* pip install av"):
        list(BagImages(bag))


@pytest.mark.parametrize(("format_", "start", "expected"), [
    ("jpeg", b"\xff\xd8\xff\xe0", None), ("bgr8; jpeg compressed bgr8", b"\xff\xd8\xff\xe0", None),
    ("h264", b"\xff\xd8\xff\xe0", None), ("H.265", b"\x00\x00\x00\x01", "hevc"),
    ("libx264", b"\x00\x00\x00\x01", "h264"), ("libsvtav1", b"\x12\x00\x0a\x0a", "av1"),
    ("", b"\x00\x00\x00\x01", None),
])  # fmt: skip
def test_videos_are_told_from_still_images(format_: str, start: bytes, expected: str | None):
    data = np.frombuffer(start, np.uint8)
    assert video_codec(CompressedImageMessage(0, "", format_, data)) == expected


def test_a_still_image_needs_no_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    png = cv2.imencode(".png", np.full((48, 64, 3), 9, np.uint8))[1].tobytes()
    source = BagImages(write(tmp_path / "drive", COMPRESSED_IMAGE, "png", [(0, png)]))
    assert len(list(source)) == 1
