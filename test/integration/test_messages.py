"""What goes out, without a node."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from seg_perception.errors import FrameError
from seg_perception.frame import Frame
from seg_perception.instances import InstanceMap, Instances, Segmentation
from seg_perception.ros import messages
from seg_perception.ros.outputs import Outputs


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


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 10**9 - 1))
def test_headers_survive(seconds: int, nanoseconds: int) -> None:
    frame = Frame(np.zeros(3, np.uint8), 1, 1, 3, "bgr8", seconds * 10**9 + nanoseconds, "optical")
    header = messages.header_of(frame)
    assert (header.stamp.sec, header.stamp.nanosec, header.frame_id) == (seconds, nanoseconds, "optical")


def test_pixels_survive_whatever_their_layout() -> None:
    pixels = np.random.default_rng(1).integers(0, 2**16, (6, 10), np.uint16)
    header = messages.header_of(segmentation(4, 4).frame)
    for layout in (pixels, pixels[::2, ::3], np.asfortranarray(pixels), pixels.astype(">u2")):
        message = messages.image_message(header, "mono16", layout)
        assert message.step == layout.shape[1] * 2
        np.testing.assert_array_equal(np.frombuffer(bytes(message.data), "<u2").reshape(layout.shape), layout)


def test_detections_name_group_and_class() -> None:
    found = segmentation(8, 8, 3)
    message = messages.detections_message(messages.header_of(found.frame), found, ["person", "dog", "car"])
    assert [detection.id for detection in message.detections] == ["1", "2", "3"]
    names = [[result.hypothesis.class_id for result in detection.results] for detection in message.detections]
    assert names == [["other", "person"], ["pedestrian", "dog"], ["vehicle", "car"]]
    box = message.detections[0].bbox
    assert (box.center.position.x, box.center.position.y, box.size_x, box.size_y) == (25, 50, 30, 60)


sizes = st.integers(2, 60)


@given(sizes, sizes, sizes, sizes, st.integers(0, 3), st.integers(0, 3), st.integers(0, 9), st.integers(0, 9))
def test_a_point_lands_where_the_image_shows_it(
    width: int, height: int, out_width: int, out_height: int, bin_x: int, bin_y: int, left: int, top: int
) -> None:
    """A pixel of the full sensor through both calibrations: crop, bin and resize move it as K says."""
    info = CameraInfo(binning_x=bin_x, binning_y=bin_y)
    full = (max(1, bin_x) * width, max(1, bin_y) * height)
    info.roi = RegionOfInterest(x_offset=left, y_offset=top, width=full[0], height=full[1])
    info.width, info.height = full[0] + left + 3, full[1] + top + 5
    info.k = [310.0, 1.5, 17.0, 0.0, 290.0, 11.0, 0.0, 0.0, 1.0]
    info.p = [310.0, 0.0, 17.0, -40.0, 0.0, 290.0, 11.0, 3.0, 0.0, 0.0, 1.0, 0.0]
    frame = Frame(np.zeros(width * height * 3, np.uint8), width, height, 3 * width, "bgr8", 7, "optical")
    scaled = messages.camera_info_message(info, frame, out_width, out_height)
    assert (scaled.width, scaled.height, scaled.binning_x, scaled.roi.width) == (out_width, out_height, 0, 0)
    assert scaled.header.frame_id == "optical"
    point = np.array([0.3, -0.2, 2.0])
    for before, after, columns in ((info.k, scaled.k, 3), (info.p, scaled.p, 4)):
        homogeneous = np.append(point, 1.0)[:columns]
        u, v, w = np.reshape(before, (3, columns)) @ homogeneous
        x = ((u / w - left + 0.5) / full[0]) * out_width - 0.5
        y = ((v / w - top + 0.5) / full[1]) * out_height - 0.5
        found = np.reshape(after, (3, columns)) @ homogeneous
        np.testing.assert_allclose(found[:2] / found[2], [x, y], atol=1e-9)


def test_a_calibration_for_another_size_is_no_calibration() -> None:
    frame = segmentation(64, 48).frame
    assert messages.camera_info_message(CameraInfo(width=640, height=480), frame, 64, 48) is None
    assert messages.camera_info_message(CameraInfo(), frame, 64, 48) is None


def test_labels_fit_eight_bits() -> None:
    found = segmentation(4, 4)
    message = messages.label_info_message(messages.header_of(found.frame), [str(n) for n in range(300)], 0.3)
    assert [entry.class_id for entry in message.class_map] == list(range(256))
    assert message.class_map[255].class_name == "254"
    assert message.threshold == pytest.approx(0.3)


def test_jpeg_can_be_read_again() -> None:
    header = messages.header_of(segmentation(4, 4).frame)
    message = messages.jpeg_message(header, np.full((20, 30, 3), 90, np.uint8))
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


ALWAYS = {"instance_map", "detections"}


@pytest.mark.parametrize("picture", ["instance_map/color", "overlay", "overlay/compressed"])
def test_a_picture_is_published_while_it_is_watched(picture: str) -> None:
    node = FakeNode(picture)
    Outputs(node, "~", ["person", "dog", "car"]).publish(segmentation(64, 48, 3), None)
    assert node.topics() == ALWAYS | {picture}


def test_a_semantic_map_is_asked_for_and_published_while_it_is_watched() -> None:
    found = segmentation(64, 48, 3)
    made = replace(found, semantic_map=np.zeros((48, 64), np.uint8))
    for watched in (True, False):
        node = FakeNode(*["semantic_map"] * watched)
        outputs = Outputs(node, "~", ["person", "dog", "car"])
        assert outputs.wants_semantic_map() == watched
        outputs.publish(found, None)
        assert node.topics() == ALWAYS
        outputs.publish(made, None)
        # Made all the same where another camera of the batch is watched.
        assert node.topics() == (ALWAYS | {"semantic_map"} if watched else ALWAYS)


def test_pictures_that_nobody_watches_are_not_made() -> None:
    found = segmentation(64, 48, 3)
    # No overlay can be drawn on a frame of this encoding, and nothing else looks at it.
    object.__setattr__(found.frame, "encoding", "plaid8")
    node = FakeNode()
    Outputs(node, "~", ["person", "dog", "car"]).publish(found, None)
    assert node.topics() == ALWAYS
    for picture in ("overlay", "overlay/compressed"):
        with pytest.raises((FrameError, KeyError)):
            Outputs(FakeNode(picture), "~", ["person", "dog", "car"]).publish(found, None)
