"""A subscription that is read by hand, and whose QoS follows that of the publishers.

Best effort and volatile takes messages from publishers of any kind and never makes a camera wait for us. The one thing
it misses is what a transient-local publisher sent before we came, such as a test image that is published once. So
where all publishers of a topic are of that kind, transient local is asked for, with which goes reliable. Of a topic of
which every message counts, such as the packets of a video, a depth is kept, and reliable is asked for where all
publishers offer it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from seg_perception.core.errors import ConfigurationError

from .graph import publishers

if TYPE_CHECKING:
    # Not when it runs: Lyrical has it in rclpy.endpoint_info, and no longer here.
    from rclpy.topic_endpoint_info import TopicEndpointInfo

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # up to Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

# Not depth and history: the newest message is wanted, and nothing else.
_ADAPTED = (QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
_OVERRIDABLE = (QoSPolicyKind.DEADLINE, QoSPolicyKind.LIVELINESS, QoSPolicyKind.LIVELINESS_LEASE_DURATION)


class Fitting(NamedTuple):
    """What is asked of publishers: to send again what was lost, and to keep messages for those who come later."""

    reliable: bool
    latched: bool


class CameraSubscription:
    """Hands over the newest message of a topic."""

    def __init__(
        self,
        node: Node,
        kind: type,
        topic: str,
        callback: Callable[..., None],
        group: CallbackGroup,
        *,
        raw: bool = False,
        depth: int = 1,
    ) -> None:
        """Subscribe.

        Args:
            node: the owner.
            kind: type of the messages.
            topic: its name.
            callback: takes messages of the executor.
            group: decides whether the executor gets any.
            raw: whether messages stay serialized.
            depth: how many messages wait to be taken; with more than one, every message counts.

        Raises:
            ConfigurationError: the topic cannot be subscribed to, or its QoS overrides are none.
        """
        self.topic = str(node.resolve_topic_name(topic))
        self.type_name = type_name(kind)
        self._node = node
        self._arguments = (kind, topic, callback)
        self._options: dict[str, Any] = {"callback_group": group, "event_callbacks": _no_events(), "raw": raw}
        self._lock = Lock()
        self._depth = depth
        self._fitting = self._fit()
        self._subscription: Any = self._subscribe(self._fitting)

    @property
    def qos(self) -> QoSProfile:
        """The QoS that is requested of publishers."""
        qos: QoSProfile = self._subscription.qos_profile
        return qos

    def publishers(self) -> list[TopicEndpointInfo] | None:
        """All publishers on the topic, of whatever type; None when that cannot be known."""
        return publishers(self._node, self.topic)

    def follow(self) -> None:
        """Subscribe again if the publishers that are there now ask for it; called by the executor.

        Raises:
            ConfigurationError: that failed; the subscription stays as it was.
        """
        fitting = self._fit()
        if fitting == self._fitting or not self.publishers():
            return
        with self._lock:
            before = self._subscription
            self._subscription = self._subscribe(fitting)
            self._fitting = fitting
            self._node.destroy_subscription(before)
        self._node.get_logger().info(
            f"{self.topic}: asks for {describe_qos(self.qos)} from now on, as its publishers do"
        )

    def take(self) -> tuple[Any, Mapping[str, Any]] | None:
        """The newest message that has not been taken yet and what is known of it, without an executor."""
        with self._lock:
            subscription = self._subscription
            if subscription is None:
                return None
            # As rclpy.wait_for_message does it.
            with subscription.handle:
                taken: tuple[Any, Mapping[str, Any]] | None = subscription.handle.take_message(
                    subscription.msg_type, subscription.raw
                )
        return taken

    def destroy(self) -> None:
        """Unsubscribe; there is nothing to take any more."""
        with self._lock:
            subscription, self._subscription = self._subscription, None
        self._node.destroy_subscription(subscription)

    def _fit(self) -> Fitting:
        """Return what all publishers that are there now can serve."""
        if self._overridden():
            return Fitting(False, False)
        publishers = self.publishers() or ()
        latched = all_latched(publishers, self.type_name)
        return Fitting(latched or (self._depth > 1 and all_reliable(publishers, self.type_name)), latched)

    def _overridden(self) -> bool:
        """Return whether the user has said what to ask for."""
        # Not public in rclpy, the same from Humble on.
        given: Mapping[str, Any] = getattr(self._node, "_parameter_overrides", {})
        prefix = f"qos_overrides.{self.topic}.subscription"
        return f"{prefix}.reliability" in given or f"{prefix}.durability" in given

    def _subscribe(self, fitting: Fitting) -> Any:
        # The parameters of overrides keep the first values, so that they would undo what was adapted since.
        overrides = QoSOverridingOptions(_OVERRIDABLE if fitting.reliable else (*_ADAPTED, *_OVERRIDABLE))
        try:
            return self._node.create_subscription(
                *self._arguments, request_qos(*fitting, self._depth), qos_overriding_options=overrides, **self._options
            )
        except (ParameterException, RuntimeError) as error:  # rclpy's RCLError is a RuntimeError
            text = " ".join(str(error).split())
            raise ConfigurationError(
                f"subscription of {self.topic}: expected a topic of {self.type_name} and QoS overrides "
                f"(qos_overrides.{self.topic}.subscription.*) that rclpy knows, got: {text}"
            ) from error


def request_qos(reliable: bool, latched: bool = False, depth: int = 1) -> QoSProfile:
    """Return what is asked of publishers; a new profile each time, as rclpy writes overrides into it."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def all_latched(publishers: Sequence[TopicEndpointInfo], wanted_type: str) -> bool:
    """Return whether there are publishers of a type and all keep their last message for those who come later."""
    profiles = [publisher.qos_profile for publisher in publishers if publisher.topic_type == wanted_type]
    latched = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in profiles)
    return latched and all_reliable(publishers, wanted_type)


def all_reliable(publishers: Sequence[TopicEndpointInfo], wanted_type: str) -> bool:
    """Return whether there are publishers of a type and all send again what was lost."""
    profiles = [publisher.qos_profile for publisher in publishers if publisher.topic_type == wanted_type]
    return bool(profiles) and all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in profiles)


def type_name(kind: type) -> str:
    """Name of a message type as the graph has it, such as sensor_msgs/msg/Image."""
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"


def describe_qos(qos: QoSProfile) -> str:
    """Return what people compare first, such as `best effort, volatile`."""
    return ", ".join(policy.name.lower().replace("_", " ") for policy in (qos.reliability, qos.durability))


def _no_events() -> SubscriptionEventCallbacks:
    """No event handlers, not even rclpy's default ones.

    Fast DDS wakes the wait set of an event handler also for data that wait to be taken, so the executor would spin
    while a frame waits for the worker. What such events would tell is read off the graph instead.
    """
    return SubscriptionEventCallbacks(use_default_callbacks=False)
