"""What goes out, without a node."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from vision_msgs.msg import Detection2DArray, LabelInfo

from seg_perception.core.errors import FrameError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import InstanceMap, Instances, Segmentation
from seg_perception.core.messages.calibration import Calibration, Region
from seg_perception.core.messages.detections import write_detections, write_label_info
from seg_perception.core.messages.images import write_compressed_image, write_image
from seg_perception.onboard.pipeline.outputs import FrameMessages
from seg_perception.onboard.pipeline.overlay import OverlayStyle
from seg_perception.onboard.pipeline.overlay_panel import OverlayStats
from seg_perception.onboard.ros.outputs import Outputs


def segmentation(width: int = 1280, height: int = 720, count: int = 10, stamp_ns: int = 5) -> Segmentation:
    frame = Frame(np.zeros(width * height * 3, np.uint8), width, height, 3 * width, "bgr8", stamp_ns, "optical")
    numbers = np.arange(1, count + 1, dtype=np.uint16)
    pixels = np.arange(width * height, dtype=np.uint32).reshape(height, width) % (count + 1)
    instances = Instances(
        np.arange(count, dtype=np.int32),
        numbers,
        np.tile(np.array([[10, 20, 40, 80]], np.float32), (count, 1)),
        np.linspace(0.9, 0.3, count, dtype=np.float32),
        np.arange(count, dtype=np.int32) % 3,
        np.arange(count, dtype=np.int32) % 3 - 1,
    )
    areas = np.bincount(pixels.reshape(-1), minlength=count + 1)[1:]
    return Segmentation(frame, instances, InstanceMap(pixels.astype(np.uint16), areas), areas, {})


def received(kind: type, serialized: bytes | None) -> Any:
    """The message that rclpy makes of the bytes, which must be as many as rclpy would have written."""
    message = deserialize_message(serialized, kind)
    # It pads the end, and what it leaves between fields is not always zero.
    assert 0 <= len(serialize_message(message)) - len(serialized) < 4
    return message


names = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=["Cs"]), max_size=40)
stamps = st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1)


@given(stamps, names)
def test_headers_survive(stamp_ns: int, frame_id: str) -> None:
    for kind, serialized in (
        (Image, write_image(stamp_ns, frame_id, "mono8", np.zeros((1, 1), np.uint8))),
        (CompressedImage, write_compressed_image(stamp_ns, frame_id, "png", b"")),
    ):
        header = received(kind, serialized).header
        assert (header.stamp.sec * 10**9 + header.stamp.nanosec, header.frame_id) == (stamp_ns, frame_id)


def test_pixels_survive_whatever_their_layout() -> None:
    pixels = np.random.default_rng(1).integers(0, 2**16, (6, 10), np.uint16)
    for layout in (pixels, pixels[::2, ::3], np.asfortranarray(pixels), pixels.astype(">u2")):
        message = received(Image, write_image(5, "optical", "mono16", layout))
        assert (message.step, message.encoding) == (layout.shape[1] * 2, "mono16")
        np.testing.assert_array_equal(np.frombuffer(bytes(message.data), "<u2").reshape(layout.shape), layout)


def test_detections_name_group_and_class() -> None:
    found = segmentation(8, 8, 3)
    message = received(Detection2DArray, write_detections(found, ["person", "dog", "car"]))
    assert [detection.id for detection in message.detections] == ["1", "2", "3"]
    hypotheses = [[result.hypothesis for result in detection.results] for detection in message.detections]
    assert [[each.class_id for each in row] for row in hypotheses] == [
        ["other", "person"],
        ["pedestrian", "dog"],
        ["vehicle", "car"],
    ]
    scores = [[each.score for each in row] for row in hypotheses]
    assert scores == [[score, score] for score in found.instances.scores.astype(float)]
    assert {detection.results[0].pose.pose.orientation.w for detection in message.detections} == {1.0}
    box = message.detections[0].bbox
    assert (box.center.position.x, box.center.position.y, box.size_x, box.size_y) == (25, 50, 30, 60)


@given(names, st.lists(names, min_size=3, max_size=3), st.integers(0, 12))
def test_detections_are_laid_out_right_whatever_the_lengths(frame_id: str, classes: list[str], count: int) -> None:
    found = segmentation(4, 4, count)
    found = replace(found, frame=replace(found.frame, frame_id=frame_id))
    message = received(Detection2DArray, write_detections(found, classes))
    assert [detection.header.frame_id for detection in message.detections] == [frame_id] * count
    assert [detection.results[1].hypothesis.class_id for detection in message.detections] == [
        classes[index % 3] for index in range(count)
    ]
    assert message.header.stamp.nanosec == 5


eight_numbers = st.lists(st.integers(0, 2**32 - 1), min_size=8, max_size=8)


@given(names, names, st.lists(st.floats(allow_nan=False), max_size=14), eight_numbers, st.booleans())
def test_calibrations_are_read_and_written_as_rclpy_does(
    frame_id: str, model: str, coefficients: list[float], sizes: list[int], rectify: bool
) -> None:
    info = CameraInfo(height=sizes[0], width=sizes[1], distortion_model=model, d=coefficients)
    info.header.frame_id, info.header.stamp.sec = frame_id, -7
    info.k, info.r, info.p = np.arange(9.0), np.arange(9.0) / 7, np.arange(12.0) / 3
    info.binning_x, info.binning_y = sizes[2], sizes[3]
    info.roi = RegionOfInterest(
        x_offset=sizes[4], y_offset=sizes[5], height=sizes[6], width=sizes[7], do_rectify=rectify
    )
    assert received(CameraInfo, Calibration.read(bytes(serialize_message(info))).write()) == info


@given(st.data())
def test_a_damaged_calibration_does_no_more_than_raise_a_frame_error(data: st.DataObject) -> None:
    serialized = bytearray(serialize_message(CameraInfo(d=[0.1] * 5, distortion_model="plumb_bob")))
    for _ in range(data.draw(st.integers(0, 6))):
        serialized[data.draw(st.integers(0, len(serialized) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FrameError):
        Calibration.read(bytes(serialized[: data.draw(st.integers(0, len(serialized)))]))


sizes = st.integers(2, 60)


@given(sizes, sizes, sizes, sizes, st.integers(0, 3), st.integers(0, 3), st.integers(0, 9), st.integers(0, 9))
def test_a_point_lands_where_the_image_shows_it(
    width: int, height: int, out_width: int, out_height: int, bin_x: int, bin_y: int, left: int, top: int
) -> None:
    """A pixel of the full sensor through both calibrations: crop, bin and resize move it as K says."""
    full = (max(1, bin_x) * width, max(1, bin_y) * height)
    k = np.array([310.0, 1.5, 17.0, 0.0, 290.0, 11.0, 0.0, 0.0, 1.0])
    p = np.array([310.0, 0.0, 17.0, -40.0, 0.0, 290.0, 11.0, 3.0, 0.0, 0.0, 1.0, 0.0])
    region = Region(x_offset=left, y_offset=top, width=full[0], height=full[1])
    info = Calibration(
        0, "", full[1] + top + 5, full[0] + left + 3, "", np.zeros(0), k, np.zeros(9), p, bin_x, bin_y, region
    )
    assert info.describes(width, height)
    scaled = info.scaled((width, height), (out_width, out_height))
    assert (scaled.width, scaled.height, scaled.binning_x, scaled.roi.width) == (out_width, out_height, 0, 0)
    point = np.array([0.3, -0.2, 2.0])
    for before, after, columns in ((info.k, scaled.k, 3), (info.p, scaled.p, 4)):
        homogeneous = np.append(point, 1.0)[:columns]
        u, v, w = np.reshape(before, (3, columns)) @ homogeneous
        x = ((u / w - left + 0.5) / full[0]) * out_width - 0.5
        y = ((v / w - top + 0.5) / full[1]) * out_height - 0.5
        found = np.reshape(after, (3, columns)) @ homogeneous
        np.testing.assert_allclose(found[:2] / found[2], [x, y], atol=1e-9)


def test_labels_fit_eight_bits() -> None:
    message = received(LabelInfo, write_label_info(7, [str(n) for n in range(300)], 0.3))
    assert [entry.class_id for entry in message.class_map] == list(range(256))
    assert message.class_map[255].class_name == "254"
    assert message.threshold == pytest.approx(0.3)
    assert message.header.stamp.nanosec == 7


def test_a_calibration_is_sent_under_the_frames_header_and_for_its_size_only() -> None:
    found, empty = segmentation(64, 48), np.zeros(0)
    fitting = Calibration(1, "other", 48, 64, "", empty, np.eye(3).ravel(), np.zeros(9), np.zeros(12))
    messages = FrameMessages(found, ["a", "b", "c"], fitting)
    header = received(CameraInfo, messages.make("camera_info")).header
    assert (messages.calibrated, header.stamp.nanosec, header.frame_id) == (True, 5, "optical")
    for other in (replace(fitting, width=640), replace(fitting, width=0, height=0)):
        messages = FrameMessages(found, ["a", "b", "c"], other)
        assert (messages.calibrated, messages.make("camera_info")) == (False, None)


def test_an_overlay_can_be_read_again() -> None:
    message = received(CompressedImage, FrameMessages(segmentation(64, 48), ["a", "b", "c"]).make("overlay/compressed"))
    assert message.format == "bgr8; jpeg compressed bgr8"
    assert bytes(message.data[:3]) == b"\xff\xd8\xff"


class FakeNode:
    """Keeps what is published, by topic; `watched` are the topics with a subscriber."""

    def __init__(self, *watched: str) -> None:
        self.published: dict[str, list[Any]] = {}
        self._watched = watched

    def create_publisher(self, kind: type, topic: str, qos: Any) -> Any:
        watchers = int(topic.removeprefix("~/") in self._watched)
        messages = self.published.setdefault(topic.removeprefix("~/"), [])
        return SimpleNamespace(publish=messages.append, get_subscription_count=lambda: watchers)

    def topics(self) -> set[str]:
        return {topic for topic, messages in self.published.items() if messages}


def made_outputs(node: FakeNode) -> Outputs:
    return Outputs(node, "~", ["person", "dog", "car"], OverlayStyle(), lambda _: OverlayStats("front"))


ALWAYS = {"instance_map", "detections"}


@pytest.mark.parametrize("image", ["instance_map/color", "overlay", "overlay/compressed"])
def test_a_image_is_published_while_it_is_watched(image: str) -> None:
    node = FakeNode(image)
    made_outputs(node).publish(segmentation(64, 48, 3), None)
    assert node.topics() == ALWAYS | {image}


def test_a_semantic_map_is_asked_for_and_published_while_it_is_watched() -> None:
    found = segmentation(64, 48, 3)
    made = replace(found, semantic_map=np.zeros((48, 64), np.uint8))
    for watched in (True, False):
        node = FakeNode(*["semantic_map"] * watched)
        outputs = made_outputs(node)
        assert outputs.wants_semantic_map() == watched
        outputs.publish(found, None)
        assert node.topics() == ALWAYS
        outputs.publish(made, None)
        # Made all the same where another camera of the batch is watched.
        assert node.topics() == (ALWAYS | {"semantic_map"} if watched else ALWAYS)


def test_images_that_nobody_watches_are_not_made() -> None:
    found = segmentation(64, 48, 3)
    # No overlay can be drawn on a frame of this encoding, and nothing else looks at it.
    object.__setattr__(found.frame, "encoding", "plaid8")
    node = FakeNode()
    made_outputs(node).publish(found, None)
    assert node.topics() == ALWAYS
    for image in ("overlay", "overlay/compressed"):
        with pytest.raises((FrameError, KeyError)):
            made_outputs(FakeNode(image)).publish(found, None)
