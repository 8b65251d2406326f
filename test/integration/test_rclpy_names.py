"""Names of rclpy that are not public and that the node uses; where a distribution drops one, its test says what to do.

They are the same in Humble, Jazzy, Kilted and Lyrical (rclpy 10.0.10, whose sources were read).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.subscription import Subscription
from std_msgs.msg import Empty

ROS = Path(__file__).parents[2] / "seg_perception" / "onboard" / "ros"
# What to do when the name is gone.
REMEDIES = {
    "_parameter_overrides": (
        "start values of undeclared parameters: NodeParameters._overrides and Feed._overridden read them. "
        "Find where this rclpy keeps them; without, misspelt parameters are not reported and QoS overrides are undone"
    ),
    "_service_change_state": (
        "SegmenterNode._guard_transitions has it answer requests that rclpy raises on, up to Jazzy. "
        "Look for it in Node.services by its type; from Kilted on rclpy answers them by itself"
    ),
    "_state_machine": (
        "SegmenterNode.destroy_node drops it, and all _service_*, so that others see the node no more. "
        "See whether this rclpy's destroy_node does so by itself, and delete the loop"
    ),
    "_executor_event": (
        "GuardedExecutor.release resets it after a message that could not be taken. See in Executor._make_handler how "
        "this rclpy marks entities; without, the node stops for good after the first such message"
    ),
}


@pytest.fixture
def node() -> Iterator[LifecycleNode]:
    context = Context()
    rclpy.init(context=context)
    node = LifecycleNode("names", context=context, parameter_overrides=[Parameter("nobody.declares", value=3)])
    yield node
    node.destroy_node()
    context.shutdown()


def private_names(source: str) -> set[str]:
    """Private attributes of other objects, also those whose names are in quotes."""
    names = set()
    for part in ast.walk(ast.parse(source)):
        if isinstance(part, ast.Attribute) and getattr(part.value, "id", "") not in ("self", "cls"):
            names.add(part.attr)
        elif isinstance(part, (ast.Call, ast.Compare)):
            quoted = [*getattr(part, "args", ()), *getattr(part, "comparators", ())]
            names |= {each.value for each in quoted if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    return {name for name in names if re.fullmatch("_[a-z][a-z_]+", name)}


def test_each_private_name_has_its_remedy() -> None:
    used = set().union(*(private_names(path.read_text(encoding="utf-8")) for path in sorted(ROS.glob("*.py"))))
    # The prefix of the lifecycle's services, the suffix of Fast DDS's lock files, and os._exit.
    assert used - {"_service_", "_el", "_exit"} == set(REMEDIES)


def test_private_names_are_found() -> None:
    source = "entity._one\nself._own\ngetattr(node, '_two', None)\nname == '_three'\nnode.public\nx.__wrapped__"
    assert private_names(source) == {"_one", "_two", "_three"}


def test_parameter_overrides(node: Any) -> None:
    assert node._parameter_overrides["nobody.declares"].value == 3, REMEDIES["_parameter_overrides"]


def test_the_service_of_transitions(node: Any) -> None:
    remedy = REMEDIES["_service_change_state"]
    service = node._service_change_state
    assert service.srv_type is ChangeState, remedy
    assert service in node.services, remedy
    service.callback = print
    assert service.callback is print, remedy


def test_what_belongs_to_the_lifecycle(node: Any) -> None:
    assert "_state_machine" in vars(node), REMEDIES["_state_machine"]
    assert len([name for name in vars(node) if name.startswith("_service_")]) == 5, REMEDIES["_state_machine"]


def test_what_the_executor_reserves(node: Any) -> None:
    subscription = node.create_subscription(Empty, "names", lambda _: None, 1)
    for entity in (subscription, node._service_change_state, node.create_timer(60.0, lambda: None)):
        assert entity._executor_event is False, REMEDIES["_executor_event"]
        assert entity.callback_group.beginning_execution(entity), REMEDIES["_executor_event"]
        entity.callback_group.ending_execution(entity)


def test_a_message_can_be_taken_without_an_executor(node: Any) -> None:
    """Of a public property, but not documented: Feed.take does what rclpy.wait_for_message does."""
    subscription = node.create_subscription(Empty, "names", lambda _: None, 1, raw=True)
    assert isinstance(subscription, Subscription)
    with subscription.handle:
        assert subscription.handle.take_message(Empty, True) is None
