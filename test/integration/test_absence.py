"""Why no frames come, as read off the graph."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from seg_perception.core.text import is_printable
from seg_perception.onboard.ros.missing_camera import (
    INCOMPATIBLE,
    NO_PUBLISHER,
    SILENT,
    WRONG_TYPE,
    ExpectedTopic,
    MissingCameraDiagnosis,
    explain,
    near_matches,
)
from seg_perception.onboard.ros.subscription import all_latched, request_qos

IMAGE, COMPRESSED, CLOUD = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/PointCloud2"
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def publisher(kind: str = IMAGE, qos: QoSProfile = BEST_EFFORT) -> Any:
    return SimpleNamespace(node_name="driver", node_namespace="/front", topic_type=kind, qos_profile=qos)


def why(
    *publishers: Any,
    topic: str = "/front/image_rect",
    kind: str = IMAGE,
    qos: QoSProfile | None = None,
    others: dict[str, str] | None = None,
) -> MissingCameraDiagnosis:
    return explain(ExpectedTopic("front", topic, kind, qos or request_qos(False)), publishers, lambda: others or {})


@pytest.mark.parametrize(
    ("topic", "kind", "others", "told"),
    [
        ("/a/image_rect", IMAGE, {}, "nobody publishes images"),
        (
            "/a/image_rect",
            IMAGE,
            {"/b/depth": IMAGE, "/a/image_raw": IMAGE},
            "set cameras.front.topic: /a/image_raw, or remap -r /a/image_rect:=/a/image_raw; others: /b/depth",
        ),
        ("/a/image", IMAGE, {"/a/image/compressed": COMPRESSED}, "compressed: set cameras.front.transport: compressed"),
        ("/a/image/compressed", COMPRESSED, {"/a/image": IMAGE}, "/a/image: set cameras.front.transport: raw"),
        (
            "/a/image/compressed",
            COMPRESSED,
            {"/b/image/compressed": COMPRESSED},
            "set cameras.front.topic: /b/image, or remap -r /a/image/compressed:=/b/image/compressed",
        ),
        (
            "/a/image",
            IMAGE,
            {"/b/image/compressed": COMPRESSED},
            "set cameras.front.transport: compressed and cameras.front.topic: /b/image",
        ),
    ],
)
def test_without_a_publisher_the_nearest_topic_is_named(
    topic: str, kind: str, others: dict[str, str], told: str
) -> None:
    absence = why(topic=topic, kind=kind, others=others)
    assert absence.kind == NO_PUBLISHER
    assert told in absence.text


def test_near_matches_are_few_and_the_best_come_first() -> None:
    topics = {f"/{name}/image_raw": IMAGE for name in ("left", "right", "rear", "front")} | {"/depth": IMAGE}
    near = near_matches("/front/image_rect", topics)
    assert near[0] == "/front/image_raw"
    assert len(near) == 3
    assert "/depth" not in near


@pytest.mark.parametrize(
    ("topic", "wanted", "found", "told"),
    [
        ("/a/compressed", IMAGE, COMPRESSED, "set cameras.front.transport: compressed"),
        ("/a", IMAGE, COMPRESSED, "set cameras.front.transport: compressed and remap -r /a/compressed:=/a"),
        ("/a/compressed", COMPRESSED, IMAGE, "set cameras.front.transport: raw and cameras.front.topic: /a/compressed"),
        ("/a", IMAGE, CLOUD, "set cameras.front.topic to an image topic"),
    ],
)
def test_another_type_is_named_with_the_parameter_to_change(topic: str, wanted: str, found: str, told: str) -> None:
    absence = why(publisher(found), topic=topic, kind=wanted)
    assert absence.kind == WRONG_TYPE
    assert f"{topic} has {found} (of /front/driver), expected {wanted}; {told}" in absence.text
    assert why(publisher(found), publisher(wanted), topic=topic, kind=wanted).kind == SILENT


def test_qos_that_does_not_fit_is_named_with_the_policy() -> None:
    reliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
    absence = why(publisher(), qos=reliable)
    assert absence.kind == INCOMPATIBLE
    assert "/front/driver offers best effort, volatile" in absence.text
    assert "asks for reliable, volatile" in absence.text
    assert "qos_overrides./front/image_rect.subscription" in absence.text
    punctual = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, deadline=Duration(seconds=1))
    assert "deadline" in why(publisher(), qos=punctual).text
    assert why(publisher(), publisher(qos=reliable), qos=reliable).kind == SILENT


def test_a_publisher_that_says_nothing() -> None:
    absence = why(publisher())
    assert absence.kind == SILENT
    assert "/front/driver (best effort, volatile) publishes" in absence.text
    assert "config/fastdds.xml" in absence.text


def test_last_messages_are_asked_for_where_all_publishers_keep_theirs() -> None:
    assert all_latched([publisher(qos=LATCHED), publisher(qos=LATCHED)], IMAGE)
    assert not all_latched([publisher(qos=LATCHED), publisher()], IMAGE)
    assert all_latched([publisher(qos=LATCHED), publisher(CLOUD)], IMAGE)
    assert not all_latched([], IMAGE)
    for latched, offered in ((True, LATCHED), (False, LATCHED), (False, BEST_EFFORT)):
        assert why(publisher(qos=offered), qos=request_qos(latched, latched)).kind == SILENT, "it fits"


def test_names_and_types_of_strangers_are_escaped() -> None:
    odd = publisher("a\x1b[2J::b\n[FATAL] brakes")
    odd.node_name = "\x1b]0;owned\x07"
    text = why(odd).text
    assert is_printable(text)
    assert "/front/\\x1b]0;owned\\x07" in text
    assert "a\\x1b[2J::b\\x0a[FATAL] brakes" in text


def test_a_qos_that_ros_cannot_express_ends_nothing() -> None:
    def refused() -> None:
        raise ValueError("negative duration")

    qos: Any = SimpleNamespace(reliability=77, durability=object(), get_c_qos_profile=refused)
    absence = why(publisher(IMAGE, qos))
    assert absence.kind == INCOMPATIBLE
    assert "a QoS that ROS cannot express" in absence.text


@pytest.mark.parametrize(
    "name", ["/front-camera/image_raw", "/image_raw\n[FATAL] \x1b[2J", "/a b", "/1a", "/$(reboot)"]
)
def test_a_topic_that_ros_forbids_is_not_suggested(name: str) -> None:
    text = why(topic="/front/image_raw", others={name: IMAGE, "/rear/image_raw": IMAGE}).text
    assert "set cameras.front.topic: /rear/image_raw" in text
    assert name not in text
    text = why(topic="/front/image_raw", others={name: IMAGE}).text
    assert "only under names that ROS forbids" in text
    assert is_printable(text)


def test_a_flood_of_topics_and_publishers_gives_a_short_answer() -> None:
    others = {f"/flood{number}/{'x' * 150}": IMAGE for number in range(3000)} | {"/rear/image_raw": IMAGE}
    text = why(topic="/front/image_raw", others=others).text
    assert "set cameras.front.topic: /rear/image_raw" in text
    assert len(text) < 1000
    assert "and 92 more" in why(*[publisher()] * 100, topic="/a").text
