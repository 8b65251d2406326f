"""Questions to the ROS graph, whose answer may be that nobody can tell.

Names and QoS are validated where a ROS node makes a publisher, and nowhere else. rclpy raises on what another DDS
participant announces: ValueError for the name of a topic with a dash, OverflowError for a negative deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from rclpy.exceptions import NameValidationException
from rclpy.node import Node

if TYPE_CHECKING:
    # Not when it runs: Lyrical has it in rclpy.endpoint_info, and no longer here.
    from rclpy.topic_endpoint_info import TopicEndpointInfo

_Answer = TypeVar("_Answer")
_Other = TypeVar("_Other")
# With more image topics than these, suggestions are made from the first ones.
_MOST_TOPICS = 200


def known_or(unknown: _Other, ask: Callable[[], _Answer]) -> _Answer | _Other:
    """Return the answer, or `unknown` where rclpy refuses to give one."""
    try:
        return ask()
    # Its RCLError is a RuntimeError; names, types and values out of range raise one of the others.
    except (NameValidationException, ValueError, TypeError, OverflowError, RuntimeError):
        return unknown


def publishers(node: Node, topic: str) -> list[TopicEndpointInfo] | None:
    """Return all publishers on a topic, of whatever type; None when one of them is such that rclpy cannot tell."""
    return known_or(None, lambda: list(node.get_publishers_info_by_topic(topic)))


def count_publishers(node: Node, topic: str) -> int | None:
    """Return how many publishers a topic has; None when rclpy cannot tell."""
    return known_or(None, lambda: int(node.count_publishers(topic)))


def topics_of_others(node: Node, kinds: tuple[str, ...]) -> dict[str, str] | None:
    """Return names and types of the topics of some types that somebody else publishes; None when rclpy cannot tell.

    Names may be such that no ROS node can subscribe to them.
    """
    own = (node.get_name(), node.get_namespace())
    own_topics = f"{node.get_fully_qualified_name()}/"
    topics = known_or(None, node.get_topic_names_and_types)
    if topics is None:
        return None

    def others(name: str) -> bool:
        endpoints = publishers(node, name)
        if endpoints is None:
            return not name.startswith(own_topics)
        return any((endpoint.node_name, endpoint.node_namespace) != own for endpoint in endpoints)

    found = ((name, kind) for name, all_kinds in topics for kind in all_kinds if kind in kinds and others(name))
    return dict(islice(found, _MOST_TOPICS))
