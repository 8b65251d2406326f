"""Where a camera's images and calibration are looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import rclpy
from integration.harness import Client
from rclpy.node import Node

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.messages.topics import camera_info_topic, raw_above, topic_of
from seg_perception.onboard.ros.parameters import CameraSettings
from seg_perception.onboard.ros.topics import camera_topics


@pytest.fixture
def make_node(client: Client) -> Iterator[Callable[..., Node]]:
    """Makes nodes with remappings."""
    made: list[Node] = []

    def make(*remappings: str) -> Node:
        arguments = ["--ros-args", *(part for rule in remappings for part in ("-r", rule))]
        made.append(rclpy.create_node("remapped", cli_args=arguments, namespace="ns"))
        return made[-1]

    yield make
    for node in made:
        node.destroy_node()


def resolved(node: Node, topic: str, transport: str) -> tuple[str, str]:
    topics = camera_topics(node, CameraSettings("front", topic, transport, 0.0, ""))
    return node.resolve_topic_name(topics.image), node.resolve_topic_name(topics.info)


def test_names_beside_and_below() -> None:
    assert topic_of("a/image_raw", "raw") == "a/image_raw"
    assert topic_of("a/image_raw", "compressed") == "a/image_raw/compressed"
    assert topic_of("a/image_raw/compressed", "compressed") == "a/image_raw/compressed"
    assert topic_of("a/image_raw", "ffmpeg") == "a/image_raw/ffmpeg"
    assert topic_of("a/video", "foxglove") == topic_of("a/video", "video") == "a/video"
    assert [raw_above(f"a/b{end}") for end in ("", "/compressed", "/ffmpeg", "/foxglove")] == ["a/b"] * 4
    assert camera_info_topic("image_raw") == "camera_info"
    assert camera_info_topic("/a/image_raw") == "/a/camera_info"
    assert camera_info_topic("/a/image_raw/compressed") == "/a/camera_info"


@pytest.mark.parametrize(
    ("remappings", "topic", "transport", "image", "info"),
    [
        ((), "image_raw", "raw", "/ns/image_raw", "/ns/camera_info"),
        ((), "image_raw", "compressed", "/ns/image_raw/compressed", "/ns/camera_info"),
        ((), "/a/image_raw/compressed", "compressed", "/a/image_raw/compressed", "/a/camera_info"),
        (("image_raw:=/front/image",), "image_raw", "raw", "/front/image", "/front/camera_info"),
        (("image_raw:=/front/image",), "image_raw", "compressed", "/front/image/compressed", "/front/camera_info"),
        (("image_raw:=/front/image", "camera_info:=/calibration"), "image_raw", "raw", "/front/image", "/calibration"),
        (("image_raw/compressed:=/jpeg",), "image_raw", "compressed", "/jpeg", "/ns/camera_info"),
        ((), "/a/image_raw", "ffmpeg", "/a/image_raw/ffmpeg", "/a/camera_info"),
        ((), "/a/image_raw/foxglove", "foxglove", "/a/image_raw/foxglove", "/a/camera_info"),
        ((), "/a/h264", "video", "/a/h264", "/a/camera_info"),
        (("image_raw:=/c/compressed",), "image_raw", "compressed", "/c/compressed", "/camera_info"),
    ],
)
def test_remapping_the_images_takes_the_calibration_along(
    make_node: Callable[..., Node], remappings: tuple[str, ...], topic: str, transport: str, image: str, info: str
) -> None:
    assert resolved(make_node(*remappings), topic, transport) == (image, info)


@pytest.mark.parametrize("transport", ["raw", "compressed"])
@pytest.mark.parametrize("topic", ["my topic!", "", "/", "a//b", "a/", "{nothing}/image", "a/1b"])
def test_what_cannot_be_a_topic_is_told(make_node: Callable[..., Node], topic: str, transport: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cameras\.front\.topic"):
        resolved(make_node(), topic, transport)
