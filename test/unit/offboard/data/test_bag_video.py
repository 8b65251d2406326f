"""Bags of compressed video: packets become frames, from the first key frame on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from video_packets import grey, packets

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import BackendUnavailable
from seg_perception.core.messages.images import COMPRESSED_IMAGE
from seg_perception.offboard.data.bags.source import BagImages
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
    (PACKET, "hevc", "libx265"), (VIDEO, "vp9", "libvpx-vp9"), (VIDEO, "av1", "libsvtav1"),
    (COMPRESSED_IMAGE, "h264", "libx264"), (PACKET, "h264;yuv420p;bgr8;bgr8", "libx264"),
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
    # The next key frame ends the damage; images in between would be made of the wrong reference.
    assert [frame.stamp_ns % SECOND for frame in frames] == [0, 1, 2, 3, 4, 5, 6, 10, 11]
    assert [str(failure).split(": ")[1][:17] for failure in source.failures] == [
        f"drive_{index:06d} on /" for index in (7, 8, 9)
    ]


def test_a_stream_that_changes_codec_and_size(tmp_path: Path):
    path, types = tmp_path / "drive", STORE.types
    first, second = packets("libx264", 6), packets("libx265", 6, size=(96, 64))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/front/video", VIDEO, typestore=STORE)
        coded = [("h264", data) for _, data in first] + [("h265", data) for _, data in second[1:]]
        for place, (format_, data) in enumerate(coded):
            stamp = types["builtin_interfaces/msg/Time"](100, place)
            octets = np.frombuffer(data, np.uint8)
            packet = types[VIDEO](stamp, "front", octets, format_)
            writer.write(topic, place * SECOND, STORE.serialize_cdr(packet, VIDEO))
    source = BagImages(path)
    frames = [(frame.stamp_ns % SECOND, frame.width) for _, frame in source]
    # The key frame of the second video is missing, and the next one is its sixth.
    assert frames == [(0, 64), (1, 64), (2, 64), (3, 64), (4, 64), (5, 64), (10, 96)]
    assert [str(failure) for failure in source.failures] == [
        f"{path}: /front/video: 4 packets of hevc come before the first key frame and cannot be decoded"
    ]


def test_without_pyav_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bag = write(tmp_path / "drive", VIDEO, "h264", [(0, b"\x00\x00\x00\x01\x65")])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BackendUnavailable, match=r"front: images are packets of h264; .* pip install av"):
        list(BagImages(bag))


def test_a_still_image_needs_no_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    png = cv2.imencode(".png", np.full((48, 64, 3), 9, np.uint8))[1].tobytes()
    source = BagImages(write(tmp_path / "drive", COMPRESSED_IMAGE, "png", [(0, png)]))
    assert len(list(source)) == 1
