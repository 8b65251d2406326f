"""What a camera's transport needs on this machine: the type of its messages, and a decoder of video."""

from __future__ import annotations

from importlib import import_module

from seg_perception.core.encodings.video import check_decoder
from seg_perception.core.errors import BackendUnavailable, ConfigurationError
from seg_perception.core.messages.topics import TRANSPORTS, VIDEO_TRANSPORTS

from .parameters import CameraSettings


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
