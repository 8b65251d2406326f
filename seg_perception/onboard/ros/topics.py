"""The names and message types of a camera's topics."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.validate_full_topic_name import validate_full_topic_name
from rclpy.validate_topic_name import validate_topic_name

from seg_perception.core.encodings.video import check_decoder
from seg_perception.core.errors import BackendUnavailable, ConfigurationError
from seg_perception.core.messages.topics import TRANSPORTS, VIDEO_TRANSPORTS, camera_info_topic, topic_of

from .parameters import CameraSettings, Settings


@dataclass(frozen=True, slots=True)
class CameraTopics:
    """Names to subscribe to: the images, and the calibration that belongs to them."""

    image: str
    info: str


def camera_topics(node: Node, settings: CameraSettings) -> CameraTopics:
    """Return where a camera's messages come from.

    The images of transports `compressed` and `ffmpeg` lie below the image topic and the calibration next to it, after
    remapping: whoever remaps `image_raw` takes the other two along. Each can be remapped by its own name all the same.

    Raises:
        ConfigurationError: the name cannot be one of a topic.
    """
    try:
        validate_topic_name(settings.topic)
        base = node.resolve_topic_name(settings.topic)
        image, resolved = (topic_of(name, settings.transport) for name in (settings.topic, base))
        image = settings.topic if resolved == base else _own_or(node, image, resolved)
        info = _own_or(node, camera_info_topic(settings.topic), camera_info_topic(base))
        for name in (image, info):
            validate_full_topic_name(node.resolve_topic_name(name))
    except (NameValidationException, ValueError, RuntimeError) as error:  # rclpy's RCLError is a RuntimeError
        text = " ".join(str(error).split())
        raise ConfigurationError(
            f"cameras.{settings.name}.topic: expected the name of an image topic, got {settings.topic!r}: {text}"
        ) from error
    return CameraTopics(image, info)


def check_topics(node: Node, settings: Settings) -> None:
    """See that each camera has an image topic of its own.

    Raises:
        ConfigurationError: a name is impossible, or two cameras read the same topic.
    """
    topics = [node.resolve_topic_name(camera_topics(node, camera).image) for camera in settings.cameras]
    if len(set(topics)) < len(topics):
        raise ConfigurationError(
            f"camera_names: expected a topic of its own for each camera, got {topics}; set cameras.NAME.topic"
        )


def message_type(settings: CameraSettings) -> type:
    """Return the type of a camera's image messages.

    Raises:
        ConfigurationError: its package is not installed, or PyAV is not and the transport is one of video.
    """
    parameter = f"cameras.{settings.name}.transport: {settings.transport}"
    package, _, name = TRANSPORTS[settings.transport].split("/")
    try:
        kind: type = getattr(import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"{parameter} needs the messages of the ROS package {package}, which cannot be loaded ({error}); "
            f"apt install ros-$ROS_DISTRO-{package.replace('_', '-')}, and source the ROS distribution again"
        ) from error
    if settings.transport in VIDEO_TRANSPORTS:
        try:
            check_decoder()
        except BackendUnavailable as error:
            raise ConfigurationError(f"{parameter}: {error}") from error
    return kind


def _own_or(node: Node, own: str, derived: str) -> str:
    """The name `own` if there is a remapping for it, else `derived`."""
    remapped = node.resolve_topic_name(own) != node.resolve_topic_name(own, only_expand=True)
    return own if remapped else derived
