"""Every callback of the node is made to raise, and the node goes on."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from integration.harness import RELOAD_SECONDS, Client, wait_for
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from seg_perception.onboard.ros.guard import Guard, GuardedExecutor, spin
from seg_perception.onboard.ros.node import SegmenterNode

NAME = "guarded"


class Bombs:
    """Makes the callbacks that a guard wraps raise while they are armed.

    Attributes:
        wrapped: where each wrapped callback is, as the guard was told.
        armed: whether callbacks raise.
        burst: where callbacks have raised.
    """

    def __init__(self) -> None:
        self.wrapped: set[str] = set()
        self.armed = False
        self.burst: set[str] = set()

    def place(self, where: str, callback: Callable[..., Any]) -> Callable[..., Any]:
        self.wrapped.add(where)

        def burst() -> None:
            if self.armed:
                self.burst.add(where)
                raise RuntimeError(f"bomb in {where} \x1b[2J")

        if inspect.iscoroutinefunction(callback):

            @wraps(callback)
            async def awaited(*arguments: Any) -> Any:
                burst()
                return await callback(*arguments)

            return awaited

        @wraps(callback)
        def called(*arguments: Any) -> Any:
            burst()
            return callback(*arguments)

        return called


@pytest.fixture
def bombs(monkeypatch: pytest.MonkeyPatch) -> Bombs:
    bombs, wrap = Bombs(), Guard.wrap

    def mined(guard: Guard, where: str, callback: Callable[..., Any], *rest: Any) -> Callable[..., Any]:
        return wrap(guard, where, bombs.place(where, callback), *rest)

    monkeypatch.setattr(Guard, "wrap", mined)
    return bombs


@pytest.fixture
def node(client: Client, model: Path, bombs: Bombs) -> Iterator[SegmenterNode]:
    values = {"model": str(model), "autostart": True, "use_sim_time": True, "diagnostics_period": 0.1}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = SegmenterNode(parameter_overrides=overrides, cli_args=["--ros-args", "-r", f"__node:={NAME}"])
    executor = GuardedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=spin, args=(executor, node), daemon=True)
    thread.start()
    wait_for(lambda: state(client) == "active", "the node is active")
    yield node
    executor.shutdown()
    thread.join(30.0)
    assert not thread.is_alive()
    node.end(5.0)
    client.forget(f"/{NAME}")


def state(client: Client) -> str:
    return str(client.call(GetState, f"/{NAME}/get_state", GetState.Request()).current_state.label)


def test_every_callback_of_the_node_is_guarded(node: SegmenterNode, bombs: Bombs) -> None:
    entities: list[Any] = [*node.services, *node.subscriptions, *node.timers]
    unguarded = [entity for entity in entities if not hasattr(entity.callback, "__wrapped__")]
    assert not unguarded
    assert len(list(node.services)) >= 12
    assert {"subscription of /clock", "subscription of image_raw"} <= bombs.wrapped


def test_each_callback_may_raise_and_the_node_goes_on(node: SegmenterNode, bombs: Bombs, client: Client) -> None:
    clock = client.publisher(Clock, "/clock")
    images = client.publisher(Image, "/image_raw")
    wait_for(lambda: clock.get_subscription_count() and images.get_subscription_count(), "the node's subscriptions")
    bombs.armed = True
    for service in list(node.services):
        kind: Any = service.srv_type
        name = service.srv_name
        client.call(kind, node.resolve_service_name(name), kind.Request())
        assert any(name in where for where in bombs.burst), f"{name} did not raise"

    def all_raised() -> bool:
        clock.publish(Clock())
        images.publish(Image())
        time.sleep(0.02)
        raised = " ".join(bombs.burst)
        return all(part in raised for part in ("/clock", "image_raw", "Diagnostics.publish", "_look_after_cameras"))

    wait_for(all_raised, f"timers and subscriptions raise; raised: {bombs.burst}")
    bombs.armed = False
    count, last = node.guard.faults
    assert count >= len(bombs.burst)
    assert "\x1b" not in last
    assert state(client) == "active"
    answer = client.call(Trigger, f"/{NAME}/reload", Trigger.Request(), timeout=RELOAD_SECONDS)
    assert answer.success, answer.message


def test_services_that_raise_answer_with_a_failure(node: SegmenterNode, bombs: Bombs, client: Client) -> None:
    bombs.armed = True
    reload = client.call(Trigger, f"/{NAME}/reload", Trigger.Request())
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
    changed = client.call(ChangeState, f"/{NAME}/change_state", request)
    bombs.armed = False
    assert not reload.success
    assert "RuntimeError" in reload.message
    assert not changed.success
    assert state(client) == "active"


def test_an_error_of_the_executor_itself_is_survived(
    node: SegmenterNode, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, failures = SingleThreadedExecutor.wait_for_ready_callbacks, iter(range(50))

    def failing(executor: Any, *arguments: Any, **options: Any) -> Any:
        if node in executor.get_nodes() and next(failures, None) is not None:
            raise OSError("wait set")
        return original(executor, *arguments, **options)

    before = node.guard.faults[0]
    monkeypatch.setattr(SingleThreadedExecutor, "wait_for_ready_callbacks", failing)
    assert state(client) == "active"
    wait_for(lambda: node.guard.faults[0] - before == 50, "all errors are counted")
    assert state(client) == "active"


@pytest.mark.parametrize("what", ["service", "timer", "subscription"])
def test_what_cannot_be_taken_reserves_nothing_for_good(
    node: SegmenterNode, client: Client, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    original, failures = getattr(SingleThreadedExecutor, f"_take_{what}"), []
    clock = client.publisher(Clock, "/clock")

    def failing(executor: Any, entity: Any) -> Any:
        if node in executor.get_nodes() and len(failures) < 3:
            failures.append(entity)
            raise MemoryError("a request of 2 GB")
        return original(executor, entity)

    client.call(GetState, f"/{NAME}/get_state", GetState.Request())
    before, service = node.guard.faults[0], client.node.create_client(GetState, f"/{NAME}/get_state")
    monkeypatch.setattr(SingleThreadedExecutor, f"_take_{what}", failing)

    def failed() -> bool:
        service.call_async(GetState.Request())
        clock.publish(Clock())
        time.sleep(0.02)
        return node.guard.faults[0] - before == 3

    wait_for(failed, "all errors are counted")
    client.node.destroy_client(service)
    assert state(client) == "active"
    published = node._diagnostics._published
    wait_for(lambda: node._diagnostics._published > published, "diagnostics go on")
