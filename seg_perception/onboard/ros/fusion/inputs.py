"""The topics that fusion reads: the segmenter's results, points or depth images, and /tf."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection2DArray

from seg_perception.core.errors import FrameError
from seg_perception.core.messages.calibration import CAMERA_INFO
from seg_perception.core.messages.detections import DETECTIONS
from seg_perception.core.messages.images import COMPRESSED_IMAGE, IMAGE
from seg_perception.core.messages.point_clouds import POINT_CLOUD, PointCloud
from seg_perception.core.messages.transforms import read_transforms
from seg_perception.onboard.fusion.depth import DepthImage
from seg_perception.onboard.fusion.fuser import READERS
from seg_perception.onboard.fusion.transforms import TransformBuffer
from seg_perception.onboard.fusion.views import ViewJoiner

from ..graph import count_publishers
from ..statistics import SUPERSEDED, CameraStatistics
from ..subscription import CameraSubscription
from .scheme import LIDAR, FusionCamera, FusionSettings

# Results wait for one another, and points for them.
_RESULTS_DEPTH, _POINTS_DEPTH, _TF_DEPTH = 10, 2, 100
_MOST_PENDING = 8
# An input without a message for so long is told of.
SILENT_SECONDS = 2.0

Report = Callable[[str, str, str], None]


class Topic:
    """One subscription, and when its last message came."""

    def __init__(
        self, node: Node, kind: type, name: str, take: Callable[[bytes], None], report: Report, part: str, depth: int
    ) -> None:
        """Subscribe.

        Args:
            node: the owner.
            kind: type of the messages.
            name: of the topic.
            take: takes each serialized message; its FrameError is reported and counted here.
            report: told of a message that cannot be used: part, kind of fault, text.
            part: whose topic it is.
            depth: how many messages wait.

        Raises:
            ConfigurationError: the topic cannot be subscribed to.
        """
        self.refused = 0
        self.last_fault = ""
        # Of the last message; of the subscription before the first one.
        self._last = monotonic()
        self._node, self._take, self._report, self._part = node, take, report, part
        group = MutuallyExclusiveCallbackGroup()
        self._subscription = CameraSubscription(node, kind, name, self._receive, group, raw=True, depth=depth)
        self.name = self._subscription.topic

    def follow(self) -> None:
        """Ask for what the publishers offer."""
        self._subscription.follow()

    def absence(self) -> str:
        """Return why nothing comes, for people; empty while something does."""
        silent = monotonic() - self._last
        if silent < SILENT_SECONDS:
            return ""
        publishers = count_publishers(self._node, self.name)
        if publishers == 0:
            return f"no publisher on {self.name}"
        return f"nothing came on {self.name} for {silent:.0f} s"

    def destroy(self) -> None:
        """Unsubscribe."""
        self._subscription.destroy()

    def _receive(self, serialized: bytes) -> None:
        self._last = monotonic()
        try:
            self._take(serialized)
        except FrameError as error:
            self.refused += 1
            self.last_fault = str(error)
            self._report(self._part, error.kind, f"{self.name}: {error}")


class CameraResults:
    """What a segmenter says of one camera, joined by stamp."""

    def __init__(self, node: Node, camera: FusionCamera, report: Report, done: Callable[[], None]) -> None:
        """Subscribe; `done` is called after each message."""
        self.name = camera.name
        self.joiner = ViewJoiner(camera.name, rectified=camera.rectified, frame_id=camera.frame_id)
        self._done = done
        self.topics: list[Topic] = []
        part = f"camera {camera.name}"
        try:
            for kind, read, name in (
                (Image, IMAGE, f"{camera.results}/instance_map"),
                (Detection2DArray, DETECTIONS, f"{camera.results}/detections"),
                (CameraInfo, CAMERA_INFO, camera.info_topic),
            ):
                take = partial(self._take, read)
                self.topics.append(Topic(node, kind, name, take, report, part, _RESULTS_DEPTH))
        except BaseException:
            self.destroy()
            raise

    def absence(self) -> str:
        """Return why no results come, for people; empty while they do."""
        silent = [text for text in (topic.absence() for topic in self.topics) if text]
        return "; ".join(silent) or (self.joiner.lacking if not self.joiner.joined else "")

    def destroy(self) -> None:
        """Unsubscribe."""
        while self.topics:
            self.topics.pop().destroy()

    def _take(self, kind: str, serialized: bytes) -> None:
        self.joiner.take(kind, serialized)
        self._done()


@dataclass(frozen=True, slots=True)
class Pending:
    """Points that wait for results and transforms; `arrived` is on the monotonic clock."""

    points: PointCloud | DepthImage
    arrived: float


class PointSource:
    """A lidar, or the depth image of one camera.

    Attributes:
        part: `points`, or `camera NAME`.
        cameras: whose results label its points.
        pending: what has not been fused yet, the oldest first.
        statistics: of its messages.
    """

    def __init__(
        self,
        node: Node,
        part: str,
        settings: FusionSettings,
        cameras: list[CameraResults],
        statistics: CameraStatistics,
        report: Report,
        done: Callable[[], None],
    ) -> None:
        """Subscribe; `done` is called after each message.

        Args:
            node: the owner.
            part: how it is called.
            settings: all parameters.
            cameras: all for a lidar, one for a depth image.
            statistics: of its messages.
            report: told of a message that cannot be used.
            done: called after each message.
        """
        self.cameras = cameras
        self.pending: deque[Pending] = deque()
        self.statistics = statistics
        self.part = part
        self._report, self._done = report, done
        kind, read, name = PointCloud2, POINT_CLOUD, settings.points_topic
        if settings.source != LIDAR:
            kind, read, name = _depth_input(next(each for each in settings.cameras if each.name == cameras[0].name))
        self._read = READERS[read]
        self.topic = Topic(node, kind, name, self._take, report, self.part, _POINTS_DEPTH)

    def destroy(self) -> None:
        """Unsubscribe."""
        self.topic.destroy()

    def drop(self, cause: str, text: str) -> None:
        """Give up the oldest pending points."""
        self.pending.popleft()
        self.statistics.dropped(cause, text)
        if cause != SUPERSEDED:
            self._report(self.part, cause, text)

    def _take(self, serialized: bytes) -> None:
        self.statistics.taken()
        try:
            points = self._read(serialized)
        except FrameError as error:
            self.statistics.dropped(error.kind, str(error))
            raise
        self.pending.append(Pending(points, monotonic()))
        if len(self.pending) > _MOST_PENDING:
            self.drop(SUPERSEDED, "")
        self._done()


def _depth_input(camera: FusionCamera) -> tuple[type, str, str]:
    """Class, name of the type, and topic."""
    if camera.depth_transport == "raw":
        return Image, IMAGE, camera.depth_topic
    suffix = "/compressedDepth"
    name = camera.depth_topic if camera.depth_topic.endswith(suffix) else camera.depth_topic + suffix
    return CompressedImage, COMPRESSED_IMAGE, name


class Transforms:
    """Keeps a buffer filled from /tf and /tf_static."""

    def __init__(self, node: Node, report: Report, done: Callable[[], None]) -> None:
        """Subscribe; `done` is called after each message."""
        self.buffer = TransformBuffer()
        self._node, self._report, self._done = node, report, done
        latched = QoSProfile(depth=_TF_DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions: Iterable[Any] = [
            node.create_subscription(TFMessage, "/tf", self._moving, QoSProfile(depth=_TF_DEPTH), raw=True),
            node.create_subscription(TFMessage, "/tf_static", self._static, latched, raw=True),
        ]

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _moving(self, serialized: bytes) -> None:
        self._add(serialized, static=False)

    def _static(self, serialized: bytes) -> None:
        self._add(serialized, static=True)

    def _add(self, serialized: bytes, *, static: bool) -> None:
        try:
            self.buffer.add(read_transforms(serialized), static=static)
        except FrameError as error:
            self._report("tf", error.kind, str(error))
        self._done()
