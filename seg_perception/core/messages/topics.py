"""Names of topics that belong together, as image_transport has them."""

from __future__ import annotations

_COMPRESSED = "/compressed"


def compressed_below(topic: str) -> str:
    """The topic of the compressed transport."""
    return topic if topic.endswith(_COMPRESSED) else topic + _COMPRESSED


def raw_above(topic: str) -> str:
    """The topic of the images themselves, for one of a compressed transport."""
    return topic.removesuffix(_COMPRESSED)


def info_beside(topic: str) -> str:
    """The camera_info topic next to an image topic."""
    parent, slash, _ = raw_above(topic).rpartition("/")
    return f"{parent}{slash}camera_info"
