"""Frames out of bags: what was recorded comes back, and what cannot be read is said."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader
from numpy.typing import NDArray
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import SourceError
from seg_perception.core.messages.images import IMAGE
from seg_perception.offboard.data.bags.source import BagImages
from seg_perception.offboard.data.bags.types import message_store
from seg_perception.offboard.data.images import open_source
from seg_perception.offboard.replay.writer import BagWriter

TYPES = get_typestore(Stores.ROS2_HUMBLE)
PLUGINS = pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])


def images(count: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (6, 8, 3), np.uint8) for _ in range(count)]


def header(index: int):
    stamp = TYPES.types["builtin_interfaces/msg/Time"](sec=7, nanosec=index)
    return TYPES.types["std_msgs/msg/Header"](stamp=stamp, frame_id="front")


def image(index: int, photo: NDArray[np.uint8], encoding: str = "bgr8"):
    return TYPES.types["sensor_msgs/msg/Image"](
        header=header(index), height=6, width=8, encoding=encoding, is_bigendian=0, step=24, data=photo.reshape(-1)
    )


def large_image(index: int, photo: NDArray[np.uint8]):
    height, width, _ = photo.shape
    return TYPES.types["sensor_msgs/msg/Image"](
        header=header(index), height=height, width=width, encoding="bgr8", is_bigendian=0, step=3 * width,
        data=photo.reshape(-1),
    )  # fmt: skip


def compressed(index: int, data: bytes):
    kind = TYPES.types["sensor_msgs/msg/CompressedImage"]
    return kind(header=header(index), format="png", data=np.frombuffer(data, np.uint8))


def write_bag(path: Path, plugin: StoragePlugin, messages: list[Any]) -> Path:
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections: dict[str, Any] = {}
        for index, message in enumerate(messages):
            kind = message.__msgtype__
            if kind not in connections:
                connections[kind] = writer.add_connection(f"/topic{len(connections)}", kind, typestore=TYPES)
            writer.write(connections[kind], index, TYPES.serialize_cdr(message, kind))
    return path


@PLUGINS
def test_images_come_back_as_they_were_recorded(tmp_path: Path, plugin: StoragePlugin):
    raw, packed, swapped = images(3)
    png = cv2.imencode(".png", packed)[1].tobytes()
    messages = [image(0, raw), compressed(1, png), image(2, swapped, "rgb8")]
    source = open_source(write_bag(tmp_path / "drive", plugin, messages), camera="left")
    for _ in range(2):  # again, from the start
        names, frames = zip(*source, strict=True)
        assert names == ("drive_000000", "drive_000001", "drive_000002")
        for frame, expected in zip(frames, (raw, packed, swapped[..., ::-1]), strict=True):
            np.testing.assert_array_equal(to_bgr(frame), expected)
        assert [(frame.stamp_ns, frame.frame_id, frame.camera) for frame in frames] == [
            (7_000_000_000 + index, "front", "left") for index in range(3)
        ]
    assert len(source) == 3
    assert source.failures == []


def test_a_single_file_of_a_bag_is_one_too(tmp_path: Path):
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [image(0, images(1)[0])])
    (file,) = bag.glob("*.mcap")
    assert len(list(open_source(file))) == 1


def test_images_that_cannot_be_decoded_are_left_out_and_named(tmp_path: Path):
    good, depth = images(2)
    messages = [image(0, depth, "32FC1"), compressed(1, b"no image"), image(2, good)]
    source = open_source(write_bag(tmp_path / "drive", StoragePlugin.MCAP, messages))
    assert [name for name, _ in source] == ["drive_000002"]
    assert [str(failure).split(": ")[1] for failure in source.failures] == [
        "drive_000000 on /topic0",
        "drive_000001 on /topic1",
    ]


def test_a_bag_without_images_says_what_it_has(tmp_path: Path):
    text = TYPES.types["std_msgs/msg/String"](data="hello")
    bag = write_bag(tmp_path / "drive", StoragePlugin.SQLITE3, [text])
    with pytest.raises(
        SourceError, match=r"expected a topic of sensor_msgs/msg/Image .* /topic0 \(std_msgs/msg/String\)"
    ):
        open_source(bag)


def test_a_bag_of_which_nothing_is_left_says_so(tmp_path: Path):
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [image(0, images(1)[0])])
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:40])
    for path in (bag, file):
        with pytest.raises(SourceError, match="cannot be read as a bag"):
            open_source(path)


@PLUGINS
def test_of_a_bag_that_was_cut_off_and_lost_its_metadata_what_is_left_is_read(tmp_path: Path, plugin: StoragePlugin):
    # Large enough that some of it is on disk before the end: an mcap chunk has a megabyte.
    rng = np.random.default_rng(5)
    large = [rng.integers(0, 256, (400, 500, 3), np.uint8) for _ in range(12)]
    bag = write_bag(tmp_path / "drive", plugin, [large_image(index, each) for index, each in enumerate(large)])
    (bag / "metadata.yaml").unlink()
    (file,) = (each for each in bag.iterdir() if each.suffix in (".mcap", ".db3"))
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * 0.7)])
    source = open_source(bag)
    frames = [frame for _, frame in source]
    assert 3 <= len(frames) < 12
    for frame, expected in zip(frames, large, strict=False):
        np.testing.assert_array_equal(to_bgr(frame), expected)
    assert any("ends early" in str(each) or "damaged" in str(each) for each in source.failures)


@PLUGINS
def test_a_damaged_stretch_costs_only_what_lies_in_it(tmp_path: Path, plugin: StoragePlugin):
    rng = np.random.default_rng(6)
    large = [rng.integers(0, 256, (400, 500, 3), np.uint8) for _ in range(12)]
    bag = write_bag(tmp_path / "drive", plugin, [large_image(index, each) for index, each in enumerate(large)])
    (file,) = (each for each in bag.iterdir() if each.suffix in (".mcap", ".db3"))
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    # The lengths in a record's head and the pointers of a database's page.
    place = data.rindex(b"bgr8", 0, middle) - 80 if plugin == StoragePlugin.MCAP else middle // 4096 * 4096
    data[place : place + 4096] = bytes([255] * 4096)
    file.write_bytes(data)
    source = open_source(bag)
    frames = [frame for _, frame in source]
    assert 4 <= len(frames) < 12
    assert source.failures
    stamps = [frame.stamp_ns for frame in frames]
    assert stamps == sorted(set(stamps))


def test_behind_damage_reading_goes_on_with_the_next_chunk(tmp_path: Path):
    path = tmp_path / "drive.mcap"
    with BagWriter(path, {}) as writer:
        for index, each in enumerate(images(9)):
            data = TYPES.serialize_cdr(image(index, each), IMAGE)
            writer.write("/camera/image_raw", IMAGE, index, data)
    with path.open("rb") as file:
        chunks = make_reader(file).get_summary().chunk_indexes
    damaged = bytearray(path.read_bytes())
    # What is in the first ones, which alone tell the channel, and the heads of two more.
    for chunk in chunks[:-8]:
        damaged[chunk.chunk_start_offset + 60] ^= 255
    for chunk in chunks[-5:-3]:
        damaged[chunk.chunk_start_offset - 20 : chunk.chunk_start_offset + 20] = bytes([255] * 40)
    path.write_bytes(damaged)
    source = BagImages(path)
    assert [frame.stamp_ns - 7_000_000_000 for _, frame in source] == [1, 2, 3, 6, 7, 8]
    assert source.failures


def test_no_frame_comes_twice_where_times_are_in_disorder(tmp_path: Path):
    path, times = tmp_path / "drive.mcap", [5, 3, 4, 1, 0, 2, 9, 8, 7, 6]
    with BagWriter(path, {}) as writer:
        for time_ns, each in zip(times, images(10), strict=True):
            writer.write("/camera/image_raw", IMAGE, time_ns, TYPES.serialize_cdr(image(time_ns, each), IMAGE))
    with path.open("rb") as file:
        # That of the message recorded at 4.
        chunk = make_reader(file).get_summary().chunk_indexes[-8]
    data = bytearray(path.read_bytes())
    data[chunk.chunk_start_offset + 60] ^= 255
    path.write_bytes(data)
    stamps = [frame.stamp_ns - 7_000_000_000 for _, frame in BagImages(path)]
    assert sorted(stamps) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.FILE])
def test_a_compressed_bag_needs_no_metadata(tmp_path: Path, mode: CompressionMode):
    writer = Writer(tmp_path / "drive", version=9, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/camera/image_raw", IMAGE, typestore=TYPES)
        for index, each in enumerate(images(3)):
            writer.write(connection, index, TYPES.serialize_cdr(image(index, each), IMAGE))
    (tmp_path / "drive" / "metadata.yaml").unlink()
    assert [frame.stamp_ns - 7_000_000_000 for _, frame in open_source(tmp_path / "drive")] == [0, 1, 2]


def test_what_is_in_the_journal_of_a_recorder_that_died_is_read(tmp_path: Path):
    bag = write_bag(tmp_path / "drive", StoragePlugin.SQLITE3, [image(0, images(1)[0])])
    with closing(sqlite3.connect(bag / "drive.db3")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, 5, data FROM messages")
        database.commit()
        shutil.copytree(bag, tmp_path / "dead")
    assert len(list(open_source(tmp_path / "dead"))) == 2


def test_cameras_are_found_and_results_are_none(tmp_path: Path):
    photo = images(1)[0]
    png = cv2.imencode(".png", photo)[1].tobytes()
    recorded = {
        "/front/image_raw": image(0, photo),
        "/front/image_raw/compressed": compressed(1, png),
        "/rear/image_raw/compressed": compressed(2, png),
        "/image_raw": image(3, photo),
        "/front/depth/image_raw": image(7, photo),
        "/segmenter/instance_map": image(4, photo),
        "/segmenter/overlay/compressed": compressed(5, png),
        "/segmenter/detections": message_store().types["vision_msgs/msg/Detection2DArray"](header(6), []),
    }
    bag = tmp_path / "drive"
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for index, (topic, message) in enumerate(recorded.items()):
            kind = message.__msgtype__
            connection = writer.add_connection(topic, kind, typestore=message_store())
            writer.write(connection, index, message_store().serialize_cdr(message, kind))
    source = BagImages(bag)
    assert source.cameras == {
        "/front/image_raw": "front",
        "/rear/image_raw/compressed": "rear",
        "/image_raw": "camera",
    }
    assert [frame.camera for _, frame in source] == ["front", "rear", "camera"]
    assert [frame.camera for _, frame in BagImages(bag, topics=["/segmenter/instance_map"])] == ["segmenter"]
    with pytest.raises(SourceError, match=r"topic /segmenter/detections: expected .* got /segmenter/detections \("):
        BagImages(bag, topics=["/segmenter/detections"])
