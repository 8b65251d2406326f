"""Why no frames come from a topic, read off the graph, and what to do about it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

from seg_perception.core.messages.topics import TRANSPORTS, base_of, raw_above, topic_of
from seg_perception.core.text import printable

from .graph import known_or
from .subscription import describe_qos

if TYPE_CHECKING:
    # Not when it runs: Lyrical has it in rclpy.endpoint_info, and no longer here.
    from rclpy.topic_endpoint_info import TopicEndpointInfo

NO_PUBLISHER, WRONG_TYPE, INCOMPATIBLE, SILENT = "no_publisher", "wrong_type", "incompatible_qos", "silent"
# The first of the transports that carry a type; still images are more usual than video.
_TRANSPORTS = {kind: name for name, kind in reversed(TRANSPORTS.items())}
_MOST_SUGGESTIONS, _MOST_NAMED, _MOST_COMPARED = 3, 8, 100
# What ROS allows for the full name of a topic.
_TOPIC_NAME = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)+")
PROFILE = (
    "large images need shared memory: check that the camera and this node use the profile config/fastdds.xml "
    "(its first lines say how)"
)


@dataclass(frozen=True, slots=True)
class ExpectedTopic:
    """What a camera subscribes to.

    Attributes:
        camera: its name.
        topic: full name of the topic.
        type_name: type of its messages.
        qos: what is asked of publishers.
        transport: parameter of the camera; empty for the usual one of this type.
    """

    camera: str
    topic: str
    type_name: str
    qos: QoSProfile
    transport: str = ""


@dataclass(frozen=True, slots=True)
class MissingCameraDiagnosis:
    """The reason why no frames come.

    Attributes:
        kind: one of the constants above.
        text: human-readable, with what to do.
    """

    kind: str
    text: str


def explain(
    expected: ExpectedTopic, publishers: Sequence[TopicEndpointInfo], image_topics: Callable[[], Mapping[str, str]]
) -> MissingCameraDiagnosis:
    """Say why nothing comes.

    Args:
        expected: the topic that is waited for.
        publishers: all that the topic has.
        image_topics: names and types of the images that others publish; asked only when it matters.
    """
    if not publishers:
        reason = f"no publisher on {expected.topic}; {_suggestion(expected, image_topics())}"
        return MissingCameraDiagnosis(NO_PUBLISHER, reason)
    fitting = [publisher for publisher in publishers if publisher.topic_type == expected.type_name]
    if not fitting:
        return MissingCameraDiagnosis(WRONG_TYPE, _wrong_type(expected, publishers[0]))
    reasons = [_incompatibility(publisher.qos_profile, expected.qos) for publisher in fitting]
    if all(reasons):
        return MissingCameraDiagnosis(INCOMPATIBLE, _incompatible(expected, fitting[0], reasons[0]))
    names = ", ".join(f"{_name(each)} ({_qos(each.qos_profile)})" for each in fitting[:_MOST_NAMED])
    if len(fitting) > _MOST_NAMED:
        names += f" and {len(fitting) - _MOST_NAMED} more"
    return MissingCameraDiagnosis(
        SILENT, f"{names} publishes on {expected.topic} and nothing comes; see that the camera runs; {PROFILE}"
    )


def near_matches(topic: str, image_topics: Mapping[str, str]) -> list[str]:
    """The topics whose names are most like that of `topic`, best first; the transport in a name does not count."""
    base = raw_above(topic)

    def similarity(name: str) -> float:
        return SequenceMatcher(None, base, raw_above(name), autojunk=False).ratio()

    # Each comparison takes time, and anybody may announce topics: those that end alike go first.
    end = base.rpartition("/")[2]
    compared = sorted(image_topics, key=lambda name: (not raw_above(name).endswith(end), name))
    return sorted(compared[:_MOST_COMPARED], key=lambda name: (-similarity(name), name))[:_MOST_SUGGESTIONS]


def _suggestion(expected: ExpectedTopic, image_topics: Mapping[str, str]) -> str:
    # Whoever speaks DDS may announce a topic by any name; one that ROS forbids cannot be subscribed to.
    usable = {name: kind for name, kind in image_topics.items() if _TOPIC_NAME.fullmatch(name)}
    near = near_matches(expected.topic, usable)
    odd = [printable(name) for name in image_topics if name not in usable]
    if not near and odd:
        return f"images are announced only under names that ROS forbids, such as {odd[0]} ({len(odd)} in all)"
    if not near:
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        return (
            "nobody publishes images: see that the camera runs, with this node's ROS_DOMAIN_ID "
            f"({domain}), RMW_IMPLEMENTATION and discovery range"
        )
    best = near[0]
    others = f"; others: {', '.join(near[1:])}" if near[1:] else ""
    return f"the nearest image topic is {best}: {_settings(expected, best, image_topics[best])}{others}"


def _settings(expected: ExpectedTopic, topic: str, type_of_topic: str) -> str:
    """Parameters, or the remapping, that lead to a topic."""
    name = f"cameras.{expected.camera}"
    if type_of_topic == expected.type_name:
        given = base_of(topic, expected.transport or _TRANSPORTS[type_of_topic])
        return f"set {name}.topic: {given}, or remap -r {expected.topic}:={topic}"
    transport = _TRANSPORTS[type_of_topic]
    given = base_of(topic, transport)
    text = f"set {name}.transport: {transport}"
    return text if given == raw_above(expected.topic) else f"{text} and {name}.topic: {given}"


def _wrong_type(expected: ExpectedTopic, publisher: TopicEndpointInfo) -> str:
    found = f"{printable(publisher.topic_type)} (of {_name(publisher)})"
    text = f"{expected.topic} has {found}, expected {expected.type_name}; "
    name = f"cameras.{expected.camera}"
    transport = _TRANSPORTS.get(publisher.topic_type)
    if transport is not None:
        change, below = f"{text}set {name}.transport: {transport}", topic_of(expected.topic, transport)
        if below != expected.topic:
            return f"{change} and remap -r {below}:={expected.topic}"
        return change if base_of(below, transport) != below else f"{change} and {name}.topic: {expected.topic}"
    return f"{text}set {name}.topic to an image topic, or have image_transport's `republish` make one"


def _incompatibility(offered: QoSProfile, requested: QoSProfile) -> str:
    """Return why a publisher does not serve a request; empty when it does."""
    checked = known_or(None, lambda: qos_check_compatible(offered, requested))
    if checked is None:
        return "it announces a QoS that ROS cannot express"
    compatibility, reason = checked
    return printable(str(reason).strip(" ;")) if compatibility == QoSCompatibility.ERROR else ""


def _incompatible(expected: ExpectedTopic, publisher: TopicEndpointInfo, reason: str) -> str:
    offered, asked = _qos(publisher.qos_profile), _qos(expected.qos)
    return (
        f"QoS: {_name(publisher)} offers {offered} on {expected.topic} and this node asks for {asked} ({reason}); take "
        f"the parameters qos_overrides.{expected.topic}.subscription.* back, or set them to what it offers"
    )


def _name(publisher: TopicEndpointInfo) -> str:
    return printable(f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}")


def _qos(profile: QoSProfile) -> str:
    try:
        return describe_qos(profile)
    except (AttributeError, ValueError):
        return "a QoS that ROS cannot express"
