"""Names of topics that belong together, as image_transport has them, and what a camera's transport carries."""

from __future__ import annotations

from .images import COMPRESSED_IMAGE, COMPRESSED_VIDEO, FFMPEG_PACKET, IMAGE

# Type of the messages, by transport. Those of video need every message in its order.
TRANSPORTS = {
    "raw": IMAGE,
    "compressed": COMPRESSED_IMAGE,
    "video": COMPRESSED_IMAGE,
    "foxglove": COMPRESSED_VIDEO,
    "ffmpeg": FFMPEG_PACKET,
}
VIDEO_TRANSPORTS = ("video", "foxglove", "ffmpeg")
# Transports whose topics lie below the images' own; topics of the others are named as they are.
_SUFFIXES = {"compressed": "/compressed", "ffmpeg": "/ffmpeg"}
# What plugins of image_transport call their topics.
_ENDS = (*_SUFFIXES.values(), "/foxglove")


def topic_of(topic: str, transport: str) -> str:
    """Return the topic of a transport, for that of the images or its own."""
    suffix = _SUFFIXES.get(transport, "")
    return topic if topic.endswith(suffix) else topic + suffix


def base_of(topic: str, transport: str) -> str:
    """Return the shortest name for which `topic_of` gives a topic."""
    return topic.removesuffix(_SUFFIXES.get(transport, ""))


def raw_above(topic: str) -> str:
    """Return the topic of the images themselves, for one of a transport."""
    return next((topic.removesuffix(end) for end in _ENDS if topic.endswith(end)), topic)


def camera_info_topic(topic: str) -> str:
    """Return the camera_info topic next to an image topic."""
    parent, slash, _ = raw_above(topic).rpartition("/")
    return f"{parent}{slash}camera_info"
