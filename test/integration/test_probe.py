"""What looks at a running system, where a stranger announces and publishes what ROS forbids."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.exceptions import InvalidTopicNameException
from rclpy.qos import QoSProfile

from seg_perception.core.messages.images import COMPRESSED_IMAGE, write_compressed_image
from seg_perception.onboard.doctor.cameras import check_cameras
from seg_perception.onboard.doctor.graph import ImageStream, RosGraph
from seg_perception.onboard.ros import probe_cameras
from seg_perception.onboard.ros.graph import known_or
from seg_perception.onboard.ros.probe_diagnostics import MOST_CHARACTERS, MOST_STATUSES, MOST_VALUES, _spin, bounded

IMAGE = "sensor_msgs/msg/Image"
ODD = "/front-camera/image_raw"


def raising(error: Exception) -> Callable[..., Any]:
    def ask(*_: object) -> Any:
        raise error

    return ask


@pytest.mark.parametrize(
    "error",
    [
        InvalidTopicNameException(ODD, "must not contain dashes", 6),
        ValueError("Total nanoseconds value is not in the valid range"),
        TypeError("incompatible function arguments"),
        OverflowError("int too big"),
        RuntimeError("error not set"),
    ],
)
def test_a_question_that_rclpy_refuses_is_unknown(error: Exception) -> None:
    assert known_or(None, raising(error)) is None


def test_a_mistake_of_ours_is_no_unknown_answer() -> None:
    with pytest.raises(AttributeError):
        known_or(None, raising(AttributeError("count_publisher")))


def node(**changed: Callable[..., Any]) -> Any:
    """A node that sees a good topic and an odd one."""

    def count_publishers(name: str) -> int:
        if name == ODD:
            raise InvalidTopicNameException(name, "must not contain dashes", 6)
        return int(name == "/front/image_raw")

    return SimpleNamespace(
        **{
            "get_topic_names_and_types": lambda: [("/front/image_raw", [IMAGE]), (ODD, [IMAGE]), ("/gone", [IMAGE])],
            "count_publishers": count_publishers,
            "get_publishers_info_by_topic": lambda _: [],
            **changed,
        }
    )


def test_a_topic_of_a_name_that_ros_forbids_hides_no_other() -> None:
    assert probe_cameras.topic_types(node()) == ({"/front/image_raw": (IMAGE,)}, {ODD})
    assert probe_cameras.topic_types(node(get_topic_names_and_types=raising(RuntimeError("")))) == ({}, set())


def test_a_topic_that_cannot_be_subscribed_to_has_no_meter() -> None:
    odd = node(create_subscription=raising(InvalidTopicNameException(ODD, "must not contain dashes", 6)))
    assert probe_cameras._meters(odd, {ODD: (IMAGE,)}, [ODD, "/absent"]) == {}


def test_publishers_of_an_odd_qos_are_unknown_and_the_doctor_says_so() -> None:
    odd = node(get_publishers_info_by_topic=raising(ValueError("negative duration")))
    known, refused = probe_cameras.topic_types(odd)
    stream = probe_cameras._stream(odd, "/front/image_raw", known, None, SimpleNamespace(now=None))
    graph = RosGraph("rmw_fastrtps_cpp", known, 0, (stream,), 1.0, tuple(refused), ("/more\x1b[2J",))
    again = RosGraph.from_json(json.loads(json.dumps(graph.as_json())))
    assert again == graph
    told = {finding.check: finding for finding in check_cameras(again, "", ["/front/image_raw"], False)}
    assert "somebody announces a QoS, type or name" in told["/front/image_raw"].found
    assert f"1 topics are announced under names that ROS forbids, and nothing can be told of them: {ODD}" in (
        told["names"].found
    )
    assert "1 more image topics were not measured: /more\\x1b[2J" in told["others"].found


def test_policies_without_a_name_are_shown_as_they_are() -> None:
    qos = SimpleNamespace(reliability=77, durability=QoSProfile(depth=1).durability, depth=1)
    info = SimpleNamespace(node_namespace="/", node_name="n", qos_profile=qos)
    assert probe_cameras._publisher(info).reliability == "77"


def message(statuses: int, values: int, text: str) -> DiagnosticArray:
    pairs = [KeyValue(key=f"{number}{text}", value=text) for number in range(values)]
    return DiagnosticArray(status=[DiagnosticStatus(name=text, message=text, values=pairs)] * statuses)


def test_a_message_as_our_nodes_publish_it_is_passed_on_whole() -> None:
    told = bounded(message(2, 3, "x"))
    assert told["left_out"] == 0
    assert (
        told["status"]
        == [{"name": "x", "level": 0, "message": "x", "values": {f"{number}x": "x" for number in range(3)}}] * 2
    )


def test_a_message_without_end_is_cut_and_what_was_cut_is_counted() -> None:
    told = bounded(message(MOST_STATUSES + 2, 1, "y" * 10_000))
    assert (len(told["status"]), told["left_out"]) == (MOST_STATUSES, 2)
    assert told["status"][0]["message"] == "y" * MOST_CHARACTERS + f"... ({10_000 - MOST_CHARACTERS} more characters)"
    told = bounded(message(1, MOST_VALUES + 5, "z"))
    assert (len(told["status"][0]["values"]), told["left_out"]) == (MOST_VALUES, 5)


def test_a_message_that_cannot_be_read_is_counted_and_the_next_one_is_heard() -> None:
    told: list[Any] = []
    executor: Any = SimpleNamespace(spin_once=raising(RuntimeError("failed to take message")))
    _spin(executor, told.append)
    executor.spin_once = lambda: told.append("next")
    _spin(executor, told.append)
    assert told == [{"status": [], "left_out": 1}, "next"]


def test_a_packet_of_video_is_no_damaged_image() -> None:
    packet = write_compressed_image(5 * 10**9, "front", "h264", b"\0\0\0\x01\x41\x9a")
    meter: Any = SimpleNamespace(compressed=True, latest=packet)
    stream = probe_cameras._with_image(ImageStream("/front/video", COMPRESSED_IMAGE), meter, "/front/video")
    assert (stream.encoding, stream.frame_id, stream.stamp, stream.fault) == ("h264", "front", 5.0, "")
