"""Bags as others write them: ROS 1, Foxglove, odd metadata, and files that are made to do harm."""

from __future__ import annotations

import base64
import bz2
import json
import os
import sqlite3
import struct
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import lz4.frame
import numpy as np
import pytest
import zstandard
from google.protobuf import descriptor_pb2, timestamp_pb2
from mcap.reader import make_reader
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import SourceError
from seg_perception.core.messages.calibration import Calibration
from seg_perception.core.messages.images import COMPRESSED_IMAGE, IMAGE, write_image
from seg_perception.offboard.data.bags.convert import ros2_name
from seg_perception.offboard.data.bags.reader import Bag
from seg_perception.offboard.data.bags.source import BagImages
from seg_perception.offboard.data.published import read_published
from seg_perception.offboard.replay.inputs import BagRecording, Range

ONE, TWO = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_JAZZY)
SECOND = 10**9
PIXELS = np.random.default_rng(8).integers(0, 256, (6, 8, 3), np.uint8)
PNG = cv2.imencode(".png", PIXELS)[1].tobytes()
LIMITED = pytest.mark.parametrize("compression", [None, Writer1.CompressionFormat.BZ2, Writer1.CompressionFormat.LZ4])


def message(store: Any, kind: str, index: int) -> Any:
    stamp = store.types["builtin_interfaces/msg/Time"](sec=100 + index, nanosec=7)
    more = {"seq": 9} if store is ONE else {}
    header = store.types["std_msgs/msg/Header"](stamp=stamp, frame_id="front", **more)
    if kind == COMPRESSED_IMAGE:
        return store.types[kind](header=header, format="png", data=np.frombuffer(PNG, np.uint8))
    return store.types[kind](header, 6, 8, "bgr8", 0, 24, PIXELS.reshape(-1))


def info1(index: int) -> Any:
    types = ONE.types
    stamp = types["builtin_interfaces/msg/Time"](sec=100 + index, nanosec=7)
    header = types["std_msgs/msg/Header"](seq=1, stamp=stamp, frame_id="front")
    region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([5.0, 0, 3.5, 0, 5, 2.5, 0, 0, 1])
    return types["sensor_msgs/msg/CameraInfo"](
        header, 6, 8, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), np.arange(12.0), 0, 0, region
    )


def write1(path: Path, messages: Iterable[tuple[str, Any, int]], compression: Any = None) -> Path:
    writer = Writer1(path)
    if compression is not None:
        writer.set_compression(compression)
    with writer:
        topics: dict[str, Any] = {}
        for topic, each, time_ns in messages:
            kind = each.__msgtype__
            topics.setdefault(topic, None)
            if topics[topic] is None:
                topics[topic] = writer.add_connection(topic, kind, typestore=ONE)
            writer.write(topics[topic], time_ns, ONE.serialize_ros1(each, kind))
    return path


def stamps(source: Iterable[tuple[str, Any]]) -> list[int]:
    return [frame.stamp_ns // SECOND - 100 for _, frame in source]


# ROS 1


@LIMITED
@pytest.mark.parametrize("kind", [IMAGE, COMPRESSED_IMAGE])
def test_images_of_ros_1_come_back(tmp_path: Path, kind: str, compression: Any):
    each = [("/front/image_raw", message(ONE, kind, index), (100 + index) * SECOND) for index in range(4)]
    source = BagImages(write1(tmp_path / "drive.bag", each, compression))
    frames = [frame for _, frame in source]
    assert source.failures == []
    assert [(frame.stamp_ns, frame.frame_id) for frame in frames] == [
        ((100 + index) * SECOND + 7, "front") for index in range(4)
    ]
    for frame in frames:
        np.testing.assert_array_equal(to_bgr(frame), PIXELS)


def test_calibrations_and_own_types_of_ros_1_become_those_of_ros_2(tmp_path: Path):
    text = "Header header\ntime at\nstring[] names\nbool flag\nfloat64[2] pair\nown/Part[] parts\n" + "=" * 80
    text += "\nMSG: own/Part\nuint8 a\nint64 b\n"
    ONE.register({k: v for k, v in get_types_from_msg(text, "own/msg/Whole").items() if k not in ONE.types})
    types = ONE.types
    time = types["builtin_interfaces/msg/Time"](sec=3, nanosec=4)
    header = types["std_msgs/msg/Header"](seq=1, stamp=time, frame_id="odd")
    part = types["own/msg/Part"]
    own = types["own/msg/Whole"](header, time, ["x", "yz"], True, np.array([0.5, 2.0]), [part(1, -2), part(3, 4)])
    bag = write1(
        tmp_path / "drive.bag",
        [("/c/image_raw", message(ONE, IMAGE, 0), 5), ("/c/camera_info", info1(0), 6), ("/own", own, 7)],
    )
    with Bag(bag) as opened:
        found = {each.topic: each for each in opened.messages()}
        assert opened.faults == []
    np.testing.assert_array_equal(Calibration.read(found["/c/camera_info"].data).p, np.arange(12.0))
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register({k: v for k, v in get_types_from_msg(text, "own/msg/Whole").items() if k not in store.types})
    read: Any = store.deserialize_cdr(found["/own"].data, "own/msg/Whole")
    assert (read.at.sec, read.names, read.flag, read.header.frame_id) == (3, ["x", "yz"], True, "odd")
    assert read.pair.tolist() == [0.5, 2.0]
    assert [(each.a, each.b) for each in read.parts] == [(1, -2), (3, 4)]


def test_topics_of_ros_1_that_were_written_one_after_the_other_are_read_by_time(tmp_path: Path):
    each = [
        (f"/{name}/image_raw", message(ONE, IMAGE, index), (100 + index) * SECOND)
        for name in ("left", "right")
        for index in range(5)
    ]
    writer = write1(tmp_path / "drive.bag", each)
    assert [frame.camera for _, frame in BagImages(writer)] == ["left", "right"] * 5


@LIMITED
def test_a_ros_1_bag_without_index_is_read(tmp_path: Path, compression: Any):
    each = [("/front/image_raw", message(ONE, IMAGE, index), (100 + index) * SECOND) for index in range(4)]
    path = write1(tmp_path / "drive.bag", each, compression)
    data = bytearray(path.read_bytes())
    place = data.index(b"index_pos=") + len(b"index_pos=")
    (index,) = struct.unpack_from("<Q", data, place)
    # As the recorder leaves it while it works.
    data[place : place + 8] = bytes(8)
    path.write_bytes(data[:index])
    source = BagImages(path)
    assert stamps(source) == [0, 1, 2, 3]
    assert source.failures == []
    assert any("has no index" in note for note in BagRecording(path).notes)


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_of_a_ros_1_bag_that_was_cut_off_the_rest_is_read(tmp_path: Path, kept: float):
    pixels = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
    images = []
    for index in range(12):
        each = message(ONE, IMAGE, index)
        each.height, each.width, each.step, each.data = 300, 400, 1200, pixels.reshape(-1)
        images.append(("/front/image_raw", each, (100 + index) * SECOND))
    path = write1(tmp_path / "drive.bag", images)
    os.truncate(path, int(path.stat().st_size * kept))
    source = BagImages(path)
    found = stamps(source)
    assert found == list(range(len(found)))
    assert 12 * kept - 2 <= len(found) < 12
    assert any("early" in str(failure) for failure in source.failures)


def test_behind_damage_a_ros_1_bag_goes_on(tmp_path: Path):
    pixels = np.zeros((600, 800, 3), np.uint8)
    images = []
    for index in range(6):
        each = message(ONE, IMAGE, index)
        each.height, each.width, each.step, each.data = 600, 800, 2400, pixels.reshape(-1)
        images.append(("/front/image_raw", each, (100 + index) * SECOND))
    path = write1(tmp_path / "drive.bag", images)
    data = bytearray(path.read_bytes())
    chunks = [place for place in range(len(data)) if data.startswith(b"\x04\x00\x00\x00op=\x05", place)]
    data[chunks[2] - 30 : chunks[2] + 20] = bytes(50)
    place = data.index(b"index_pos=") + len(b"index_pos=")
    data[place : place + 8] = bytes(8)
    path.write_bytes(data)
    source = BagImages(path)
    assert stamps(source) == [0, 1, 3, 4, 5]
    assert any("damaged" in str(failure) for failure in source.failures)


def test_a_stamp_of_ros_1_that_ros_2_cannot_hold_is_named(tmp_path: Path):
    late = message(ONE, IMAGE, 0)
    # Written with the type of ROS 2, where ROS 1 has uint32.
    late.header.stamp.sec = -5
    path = write1(tmp_path / "drive.bag", [("/c/image_raw", late, 5), ("/c/image_raw", message(ONE, IMAGE, 1), 6)])
    source = BagImages(path)
    assert stamps(source) == [1]
    assert any("1 messages" in str(each) and "January 2038" in str(each) for each in source.failures)
    assert any("1 of 2 messages could be read" in str(each) for each in source.failures)


def test_bags_of_ros_1_before_2_0_are_told_to_be_converted(tmp_path: Path):
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V1.2\n" + bytes(100))
    with pytest.raises(SourceError, match=r"version 1\.2, expected 2\.0; convert it"):
        BagImages(tmp_path / "old.bag")


# Metadata that does not fit the files


def drive(path: Path, plugin: StoragePlugin = StoragePlugin.SQLITE3, mode: Any = None) -> Path:
    """Two cameras, four images each."""
    writer = Writer(path, version=9, storage_plugin=plugin)
    if mode is not None:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        topics = [writer.add_connection(f"/{name}/image_raw", IMAGE, typestore=TWO) for name in ("front", "rear")]
        for index in range(4):
            for topic in topics:
                data = TWO.serialize_cdr(message(TWO, IMAGE, index), IMAGE)
                writer.write(topic, (100 + index) * SECOND, data)
    return path


def edit(bag: Path, old: str, new: str) -> None:
    path = bag / "metadata.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
@pytest.mark.parametrize("offered", ["[]", "''", "[{history: 9}]", "'{'", "[{reliability: best_effort, depth: 3}]"])
def test_what_metadata_says_of_qos_loses_no_camera(tmp_path: Path, plugin: StoragePlugin, offered: str):
    bag = drive(tmp_path / "drive", plugin)
    edit(bag, "offered_qos_profiles: []", f"offered_qos_profiles: {offered}")
    source = BagImages(bag)
    assert [frame.camera for _, frame in source] == ["front", "rear"] * 4
    assert source.failures == []


def test_fewer_messages_than_metadata_counts_are_an_error_of_their_topic(tmp_path: Path):
    bag = drive(tmp_path / "drive")
    with closing(sqlite3.connect(bag / "drive.db3")) as database:
        database.execute("DELETE FROM messages WHERE topic_id = 2 AND timestamp > ?", (102 * SECOND,))
        database.commit()
    source = BagImages(bag)
    assert len(list(source)) == 7
    assert [str(failure) for failure in source.failures] == [
        f"{bag}: /rear/image_raw: metadata.yaml counts 4 messages, the files hold 3"
    ]
    for part in (Range(1, 1), Range(0, 2)):
        recording = BagRecording(bag, part=part)
        list(recording.shots())
        assert recording.failures == ["/rear/image_raw: metadata.yaml counts 4 messages, the files hold 3"]
    other = BagImages(bag, topics=["/front/image_raw"])
    assert len(list(other)) == 4
    assert other.failures == []


def test_fewer_messages_than_the_index_counts_are_an_error_of_their_topic(tmp_path: Path):
    path = mcap(tmp_path / "x.mcap", [camera(3), ("/rear/image_raw", *camera(2)[1:])], chunk_size=1)
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        # The last is of the rear camera.
        data[make_reader(file).get_summary().chunk_indexes[-1].chunk_start_offset + 70] ^= 255
    path.write_bytes(data)
    source = BagImages(path)
    assert [frame.camera for _, frame in source].count("rear") == 1
    assert any("/rear/image_raw: 1 of 2 messages could be read" in str(failure) for failure in source.failures)


def test_a_file_that_metadata_lists_and_that_is_gone_is_named(tmp_path: Path):
    bag = drive(tmp_path / "drive")
    edit(bag, "- drive.db3", "- drive.db3\n  - drive_1.db3")
    source = BagImages(bag)
    assert len(list(source)) == 8
    text = "metadata.yaml lists files that are not there: drive_1.db3"
    assert any(text in str(failure) for failure in source.failures)


def test_names_of_old_metadata_begin_with_a_folder_that_may_have_another_name_now(tmp_path: Path):
    bag = drive(tmp_path / "drive")
    edit(bag, "version: 9", "version: 2")
    edit(bag, "- drive.db3", "- once/drive.db3")
    source = BagImages(bag)
    assert len(list(source)) == 8
    assert source.failures == []


# MCAP files of others

# Topic, encoding, type, encoding and text of the schema, messages.
McapTopic = tuple[str, str, str, str, bytes, list[bytes]]


def mcap(path: Path, channels: Iterable[McapTopic], profile: str = "", **how: Any) -> Path:
    with path.open("wb") as file:
        writer = McapWriter(file, **how)
        writer.start(profile=profile)
        for topic, encoding, kind, schema, text, messages in channels:
            number = writer.register_channel(topic, encoding, writer.register_schema(kind, schema, text) if kind else 0)
            for index, data in enumerate(messages):
                writer.add_message(number, (100 + index) * SECOND, data, index)
        writer.finish()
    return path


def camera(count: int = 2) -> McapTopic:
    data = [bytes(TWO.serialize_cdr(message(TWO, IMAGE, index), IMAGE)) for index in range(count)]
    return "/front/image_raw", "cdr", IMAGE, "ros2msg", b"", data


@pytest.mark.parametrize("how", [
    {}, {"use_chunking": False}, {"index_types": IndexType.NONE}, {"use_statistics": False}, {"repeat_channels": False},
    {"use_summary_offsets": False}, {"compression": CompressionType.LZ4}, {"compression": CompressionType.NONE},
    {"chunk_size": 1}, {"index_types": IndexType.MESSAGE},
])  # fmt: skip
def test_whole_files_of_any_writer_are_whole(tmp_path: Path, how: dict[str, Any]):
    log = ("/log", "json", "log", "jsonschema", b"{}", [b"{}", b"{}"])
    bare = ("/bare", "", "", "", b"", [b"x"])
    path = mcap(tmp_path / "x.mcap", [log, camera(3), bare], **how)
    recording = BagRecording(path)
    assert [shot.frame.stamp_ns // SECOND for shot in recording.shots() if shot.frame] == [100, 101, 102]
    assert recording.failures == []
    assert recording.notes == (
        "topics of other kinds of messages, not read: /log (json log), /bare (unknown encoding)",
    )


def foxglove_schema(name: str, fields: list[tuple[str, int, int]]) -> bytes:
    """A FileDescriptorSet of a message with a timestamp and these fields: name, number, type."""
    files = descriptor_pb2.FileDescriptorSet()
    timestamp_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    file = files.file.add(name=f"foxglove/{name}.proto", package="foxglove", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    made = file.message_type.add(name=name)
    made.field.add(name="timestamp", number=1, type=11, label=1, type_name=".google.protobuf.Timestamp")
    for field, number, kind in fields:
        made.field.add(name=field, number=number, type=kind, label=1)
    return files.SerializeToString()


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def chunk(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def fixed(number: int, value: int) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<I", value)


def test_images_of_foxglove_in_protobuf_json_and_ros(tmp_path: Path):
    stamp = chunk(1, varint(1 << 3) + varint(100) + varint(2 << 3) + varint(7))
    raw = (
        stamp
        + chunk(7, b"front")
        + fixed(2, 8)
        + fixed(3, 6)
        + chunk(4, b"bgr8")
        + fixed(5, 24)
        + chunk(6, PIXELS.tobytes())
    )
    raw_schema = foxglove_schema(
        "RawImage",
        [("frame_id", 7, 9), ("width", 2, 7), ("height", 3, 7), ("encoding", 4, 9), ("step", 5, 7), ("data", 6, 12)],
    )
    packed = stamp + chunk(4, b"front") + chunk(2, PNG) + chunk(3, b"png")
    packed_schema = foxglove_schema("CompressedImage", [("frame_id", 4, 9), ("data", 2, 12), ("format", 3, 9)])
    time = {"sec": 100, "nsec": 7}
    text = base64.b64encode(PNG).decode()
    as_json = json.dumps({"timestamp": time, "frame_id": "front", "data": text, "format": "png"}).encode()
    raw_json = {"timestamp": time, "frame_id": "front", "width": 8, "height": 6, "encoding": "bgr8", "step": 24}
    raw_json["data"] = base64.b64encode(PIXELS.tobytes()).decode()
    store = get_typestore(Stores.ROS2_JAZZY)
    definition = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
    store.register(get_types_from_msg(definition, "foxglove_msgs/msg/CompressedImage"))
    made = store.types["foxglove_msgs/msg/CompressedImage"]
    ros = made(store.types["builtin_interfaces/msg/Time"](100, 7), "front", np.frombuffer(PNG, np.uint8), "png")
    ros_data = bytes(store.serialize_cdr(ros, "foxglove_msgs/msg/CompressedImage"))
    path = mcap(tmp_path / "x.mcap", [
        ("/a/image", "protobuf", "foxglove.RawImage", "protobuf", raw_schema, [raw]),
        ("/b/image", "protobuf", "foxglove.CompressedImage", "protobuf", packed_schema, [packed]),
        ("/c/image", "json", "foxglove.CompressedImage", "jsonschema", b"{}", [as_json]),
        ("/d/image", "json", "foxglove.RawImage", "jsonschema", b"{}", [json.dumps(raw_json).encode()]),
        ("/e/image", "cdr", "foxglove_msgs/msg/CompressedImage", "ros2msg", b"", [ros_data]),
    ])  # fmt: skip
    source = BagImages(path)
    frames = [frame for _, frame in source]
    assert source.failures == []
    assert [frame.camera for frame in frames] == list("abcde")
    for frame in frames:
        assert (frame.stamp_ns, frame.frame_id) == (100 * SECOND + 7, "front")
        np.testing.assert_array_equal(to_bgr(frame), PIXELS)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"timestamp": {}}', b"[" * 100_000])
def test_json_that_is_no_image_is_counted(tmp_path: Path, data: bytes):
    path = mcap(
        tmp_path / "x.mcap", [camera(1), ("/c/image", "json", "foxglove.CompressedImage", "jsonschema", b"", [data])]
    )
    source = BagImages(path)
    assert len(list(source)) == 1
    assert any("/c/image: 0 of 1 messages" in str(failure) for failure in source.failures)


def test_ros_1_in_mcap(tmp_path: Path):
    text = ONE.generate_msgdef(IMAGE, ros_version=1)[0].encode()
    data = bytes(ONE.serialize_ros1(message(ONE, IMAGE, 0), IMAGE))
    path = mcap(tmp_path / "x.mcap", [("/c/image_raw", "ros1", "sensor_msgs/Image", "ros1msg", text, [data])], "ros1")
    ((_, frame),) = BagImages(path)
    np.testing.assert_array_equal(to_bgr(frame), PIXELS)


@pytest.mark.parametrize(("name", "expected"), [
    ("sensor_msgs/Image", IMAGE), (IMAGE, IMAGE), ("sensor_msgs::msg::Image", IMAGE), ("foxglove.Log", "foxglove.Log"),
    ("a/srv/B", "a/srv/B"), ("", ""),
])  # fmt: skip
def test_types_have_one_name(name: str, expected: str):
    assert ros2_name(name) == expected


def test_what_a_bag_of_published_frames_lost_is_told(tmp_path: Path):
    bag = drive(tmp_path / "drive")
    with closing(sqlite3.connect(bag / "drive.db3")) as database:
        database.execute("DELETE FROM messages WHERE topic_id = 2")
        database.commit()
    faults: list[str] = []
    assert list(read_published(bag, "/front/image_raw", "/rear/image_raw", faults)) == []
    assert faults == ["/rear/image_raw: metadata.yaml counts 4 messages, the files hold 0"]


# Files that are made to do harm


def record(code: int, body: bytes) -> bytes:
    return struct.pack("<BQ", code, len(body)) + body


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def hostile_mcap(path: Path, kind: str, packed: bytes, size: int) -> Path:
    """A good message, then a chunk, then another good message."""
    good = write_image(100 * SECOND, "cam", "bgr8", PIXELS)
    head = record(3, struct.pack("<H", 1) + text(IMAGE) + text("ros2msg") + bytes(4))
    head += record(4, struct.pack("<HH", 1, 1) + text("/front/image_raw") + text("cdr") + bytes(4))
    one = record(5, struct.pack("<HIQQ", 1, 0, 5, 5) + good)
    bad = record(6, struct.pack("<QQQI", 5, 5, size, 0) + text(kind) + struct.pack("<Q", len(packed)) + packed)
    path.write_bytes(
        b"\x89MCAP0\r\n" + record(1, text("ros2") + text("x")) + head + one + bad + one + record(15, bytes(4))
    )
    return path


def zeros(size: int) -> bytes:
    packer = zstandard.ZstdCompressor(level=3).compressobj(size=size)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize(("kind", "size"), [("zstd", 1 << 30), ("lz4", 1 << 62), ("", 1 << 40)])
def test_a_chunk_that_claims_too_much_is_left_out_and_named(tmp_path: Path, kind: str, size: int):
    path = hostile_mcap(tmp_path / "x.mcap", kind, lz4.frame.compress(b"x") if kind == "lz4" else b"x", size)
    source = BagImages(path)
    assert len(list(source)) == 2
    assert any("left out" in str(failure) and "more than the" in str(failure) for failure in source.failures)


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_a_chunk_that_unpacks_to_more_than_it_says_is_stopped(tmp_path: Path, kind: str):
    packed = zeros(64 << 20) if kind == "zstd" else lz4.frame.compress(bytes(64 << 20))
    source = BagImages(hostile_mcap(tmp_path / "x.mcap", kind, packed, 100))
    assert len(list(source)) >= 1
    assert any("more than 100 bytes" in str(failure) for failure in source.failures)


def test_a_chunk_of_nothing_but_zeros_is_no_million_of_records(tmp_path: Path):
    path = hostile_mcap(tmp_path / "x.mcap", "zstd", zeros(200 << 20), 200 << 20)
    source = BagImages(path)
    assert len(list(source)) == 2
    assert any("no record begins there" in str(failure) for failure in source.failures)


def test_a_file_of_damaged_chunks_is_given_up(tmp_path: Path):
    path = hostile_mcap(tmp_path / "x.mcap", "zstd", b"x", 1)
    data = path.read_bytes()
    bad = record(6, struct.pack("<QQQI", 5, 5, 1, 0) + text("zstd") + struct.pack("<Q", 1) + b"x")
    path.write_bytes(data[:-13] + 3000 * bad)
    source = BagImages(path)
    assert len(list(source)) == 2
    assert 900 < len(source.failures) < 1100


@pytest.mark.parametrize("kind", ["bz2", "lz4"])
def test_a_chunk_of_ros_1_that_unpacks_to_more_than_it_says_is_stopped(tmp_path: Path, kind: str):
    format_ = {"bz2": Writer1.CompressionFormat.BZ2, "lz4": Writer1.CompressionFormat.LZ4}[kind]
    path = write1(tmp_path / "x.bag", [("/c/image_raw", message(ONE, IMAGE, 0), 5)], format_)
    data = path.read_bytes()
    bomb = bz2.compress(bytes(32 << 20)) if kind == "bz2" else lz4.frame.compress(bytes(32 << 20))
    # The header of a chunk begins with its `op` as rosbags writes it; the length of the data follows the header.
    start = data.index(b"\x04\x00\x00\x00op=\x05") - 4
    place = start + 4 + struct.unpack_from("<I", data, start)[0]
    (length,) = struct.unpack_from("<I", data, place)
    index = data.index(b"index_pos=") + 10
    new = bytearray(data[:place] + struct.pack("<I", len(bomb)) + bomb + data[place + 4 + length :])
    new[index : index + 8] = struct.pack("<Q", struct.unpack_from("<Q", data, index)[0] + len(bomb) - length)
    path.write_bytes(new)
    source = BagImages(path)
    assert list(source) == []
    assert any("unpacks to more than" in str(failure) for failure in source.failures)


def sqlite(path: Path, *statements: Any) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT, "
            "offered_qos_profiles TEXT)"
        )
        database.execute(f"INSERT INTO topics VALUES(1, '/front/image_raw', '{IMAGE}', 'cdr', '')")
        for each in statements:
            database.execute(*each) if isinstance(each, tuple) else database.execute(each)
        database.commit()
    return path


TABLE = "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)"


@pytest.mark.parametrize("statement", [
    "CREATE VIEW messages AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
    "SELECT x AS id, 9 AS topic_id, x AS timestamp, x'00' AS data FROM c WHERE x < 0",
    "CREATE VIEW messages AS SELECT 1 AS id, 1 AS topic_id, 5 AS timestamp, zeroblob(950000000) AS data",
    "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, "
    "data BLOB GENERATED ALWAYS AS (zeroblob(950000000)))",
    "CREATE VIRTUAL TABLE messages USING fts5(id, topic_id, timestamp, data)",
])  # fmt: skip
def test_only_tables_are_read(tmp_path: Path, statement: str):
    with pytest.raises(SourceError, match="expected a table as rosbag2 writes it"):
        BagImages(sqlite(tmp_path / "x.db3", statement))


def test_rows_of_odd_kinds_are_counted(tmp_path: Path):
    good = write_image(100 * SECOND, "cam", "bgr8", PIXELS)
    insert = "INSERT INTO messages VALUES(?, ?, ?, ?)"
    rows = [("a", "b", "c", "d"), (2, 1, 1e308, good), (3, 1, -5, good), (4, 1, 2**63 - 1, good), (5, 1, 7, good)]
    table = "CREATE TABLE messages(id, topic_id, timestamp, data)"
    source = BagImages(sqlite(tmp_path / "x.db3", table, *((insert, row) for row in rows)))
    assert len(list(source)) == 2
    assert any("3 rows are damaged" in str(failure) for failure in source.failures)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["f.db3", "f.mcap", "f.mcap.zstd"])
def test_a_fifo_is_no_bag(tmp_path: Path, name: str):
    bag = tmp_path / "drive"
    bag.mkdir()
    os.mkfifo(bag / name)
    with pytest.raises(SourceError, match="expected a regular file"):
        BagImages(bag)
    os.mkfifo(tmp_path / "g.bag")
    with pytest.raises(SourceError, match="no regular file"):
        BagImages(tmp_path / "g.bag")


@pytest.mark.parametrize("name", ["../other/drive.db3", "/dev/zero", "link.db3"])
def test_metadata_leads_nowhere_else(tmp_path: Path, name: str):
    other, bag = drive(tmp_path / "other"), drive(tmp_path / "drive")
    (bag / "link.db3").symlink_to(other / "other.db3")
    (bag / "drive.db3").unlink()
    edit(bag, "- drive.db3", f"- {name}")
    with pytest.raises(SourceError, match="not opened"):
        BagImages(bag)


@pytest.mark.parametrize("content", [
    "!!python/object/apply:os.system ['touch OWNED']\n", "[" * 5000, "a: &a [x]\n", "",
    "rosbag2_bagfile_information: 7",
])  # fmt: skip
def test_odd_metadata_is_named_and_the_files_are_read(tmp_path: Path, content: str):
    bag = drive(tmp_path / "drive")
    (bag / "metadata.yaml").write_text(content)
    source = BagImages(bag)
    assert len(list(source)) == 8
    assert any("metadata.yaml: cannot be used" in str(failure) for failure in source.failures)


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags_with_metadata(tmp_path: Path, mode: CompressionMode):
    source = BagImages(drive(tmp_path / "drive", mode=mode))
    assert stamps(source) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert source.failures == []


def test_a_compressed_file_of_nothing_but_zeros_is_not_unpacked(tmp_path: Path):
    bag = tmp_path / "drive"
    bag.mkdir()
    (bag / "x.db3.zstd").write_bytes(zeros(64 << 20))
    with pytest.raises(SourceError, match=r"what it unpacks to is no \.db3 file"):
        BagImages(bag)


@pytest.mark.parametrize("content", [
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", b"/annex/objects/MD5E-s1--x.bag\n",
])  # fmt: skip
def test_pointers_are_told_from_bags(tmp_path: Path, content: bytes):
    (tmp_path / "x.bag").write_bytes(content)
    with pytest.raises(SourceError, match=r"pointer of Git LFS or git-annex .*`git lfs pull`"):
        BagImages(tmp_path / "x.bag")
