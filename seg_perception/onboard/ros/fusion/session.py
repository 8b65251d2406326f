"""What a configured fusion node has and does: topics, and the way from points and views to results."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic, perf_counter
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from seg_perception.core.errors import ConfigurationError, FrameError
from seg_perception.onboard.fusion.fuse import Fused
from seg_perception.onboard.fusion.fuser import Fuser

from ..clocks import steady_clock
from ..outputs import IMAGE_QOS, MESSAGE_QOS
from ..statistics import FAILURE, CameraStatistics, StageTimes
from .inputs import CameraResults, Pending, PointSource, Report, Transforms
from .markers import markers
from .scheme import LIDAR, FusionSettings

# How often pending points are looked at without a message, and publishers' offers.
_LOOK_SECONDS, _FOLLOW_SECONDS = 0.02, 1.0


class FusionOutputs:
    """The topics on which the results of one source go out."""

    def __init__(self, node: Node, namespace: str) -> None:
        """Create the publishers under `~` or `~/NAME`."""
        self._node = node
        self._points = node.create_publisher(PointCloud2, f"{namespace}/points", IMAGE_QOS)
        self._detections = node.create_publisher(Detection3DArray, f"{namespace}/detections_3d", MESSAGE_QOS)
        self._markers = node.create_publisher(MarkerArray, f"{namespace}/markers", MESSAGE_QOS)

    def publish(self, fused: Fused, *, all_points: bool) -> None:
        """Publish results; points and markers are made only while somebody subscribes to them."""
        self._detections.publish(fused.detections_message())
        if self._points.get_subscription_count():
            self._points.publish(fused.points_message(all_points=all_points))
        if self._markers.get_subscription_count():
            self._markers.publish(markers(fused))

    def destroy(self) -> None:
        """Remove the topics."""
        for publisher in (self._points, self._detections, self._markers):
            self._node.destroy_publisher(publisher)


class FusionSession:
    """The work of a configured node.

    Attributes:
        cameras: while active.
        sources: while active.
        unplaced, placed: how many instances had too few points, and how many were placed, by camera.
        compensation: what is done about the vehicle's motion, for people.
        stages: seconds per stage.
    """

    def __init__(
        self, node: Node, settings: FusionSettings, statistics: Mapping[str, CameraStatistics], report: Report
    ) -> None:
        """Create the output topics.

        Args:
            node: the owner.
            settings: all parameters.
            statistics: of the messages of each source, by its part.
            report: told of a fault: part, kind, text.

        Raises:
            ConfigurationError: a topic cannot be created.
        """
        self.cameras: list[CameraResults] = []
        self.sources: list[PointSource] = []
        self.unplaced = dict.fromkeys((camera.name for camera in settings.cameras), 0)
        self.placed = dict(self.unplaced)
        self.compensation = ""
        self.stages = StageTimes()
        self._node, self._settings, self._statistics, self._report = node, settings, statistics, report
        self._fusers: dict[str, Fuser] = {}
        self._transforms: Transforms | None = None
        self._timer: Any = None
        self._followed = 0.0
        self._outputs: dict[str, FusionOutputs] = {}
        parts = parts_of(settings)
        # With several sources there is one for each camera.
        namespaces = [f"~/{camera.name}" for camera in settings.cameras] if len(parts) > 1 else ["~"]
        try:
            for part, namespace in zip(parts, namespaces, strict=True):
                self._outputs[part] = FusionOutputs(node, namespace)
        except BaseException:
            self.close()
            raise

    def activate(self) -> None:
        """Subscribe and begin to work.

        Raises:
            ConfigurationError: a topic cannot be subscribed to.
        """
        settings = self._settings
        try:
            self._transforms = Transforms(self._node, self._report, self._work)
            self._transforms.buffer.tolerance = settings.transform_tolerance
            for camera in settings.cameras:
                self.cameras.append(CameraResults(self._node, camera, self._report, self._work))
            groups = [self.cameras] if settings.source == LIDAR else [[camera] for camera in self.cameras]
            for part, group in zip(parts_of(settings), groups, strict=True):
                source = PointSource(
                    self._node, part, settings, group, self._statistics[part], self._report, self._work
                )
                self.sources.append(source)
                joiners = [camera.joiner for camera in group]
                self._fusers[part] = Fuser(settings.fuser, self._transforms.buffer, joiners)
        except ConfigurationError:
            self.deactivate()
            raise
        self._timer = self._node.create_timer(_LOOK_SECONDS, self._look, clock=steady_clock())

    def deactivate(self) -> None:
        """Unsubscribe; without effect when not active."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._node.destroy_timer(timer)
        for parts in (self.sources, self.cameras):
            while parts:
                parts.pop().destroy()  # type: ignore[attr-defined]
        transforms, self._transforms = self._transforms, None
        if transforms is not None:
            transforms.destroy()
        self._fusers.clear()

    def apply(self, settings: FusionSettings) -> None:
        """Take changed parameters over; those that need new topics do not change while configured."""
        self._settings = settings
        for fuser in self._fusers.values():
            fuser.options = settings.fuser
        if self._transforms is not None:
            self._transforms.buffer.tolerance = settings.transform_tolerance

    def close(self) -> None:
        """Deactivate and remove the output topics."""
        self.deactivate()
        while self._outputs:
            self._outputs.popitem()[1].destroy()

    def _look(self) -> None:
        self._work()
        if monotonic() - self._followed > _FOLLOW_SECONDS:
            self._followed = monotonic()
            for topic in [source.topic for source in self.sources] + [t for c in self.cameras for t in c.topics]:
                topic.follow()

    def _work(self) -> None:
        """Fuse what can be fused, the oldest first."""
        for source in self.sources:
            # Before all is subscribed to, nothing is fused.
            while source.part in self._fusers and source.pending and self._fused_or_dropped(source, source.pending[0]):
                pass

    def _fused_or_dropped(self, source: PointSource, pending: Pending) -> bool:
        """Deal with the oldest points of a source; false when they are to wait."""
        fuser = self._fusers[source.part]
        begin = perf_counter()
        try:
            fused = fuser.fuse(pending.points, monotonic() - pending.arrived)
        except FrameError as error:
            source.drop(error.kind, str(error))
            return True
        except Exception as error:
            # Counted by the guard; the same points would raise again and again.
            source.drop(FAILURE, f"{type(error).__name__}: {error}")
            raise
        self.compensation = fuser.compensation
        if fused is None:
            return False
        self.stages.add({"fuse": perf_counter() - begin})
        source.pending.popleft()
        self._publish(source, fused)
        return True

    def _publish(self, source: PointSource, fused: Fused) -> None:
        begin = perf_counter()
        self._outputs[source.part].publish(fused, all_points=self._settings.fuser.all_points)
        self.stages.add({"publish": perf_counter() - begin})
        for camera, count in fused.unplaced.items():
            self.unplaced[camera] += count
        for each in fused.objects:
            name = each.identity.rpartition("/")[0] or fused.cameras[0]
            self.placed[name] += 1
        now_ns = self._node.get_clock().now().nanoseconds
        source.statistics.processed((now_ns - fused.cloud.stamp_ns) / 1e9)


def parts_of(settings: FusionSettings) -> list[str]:
    """Return the sources of points by the part that names them in logs and diagnostics."""
    if settings.source == LIDAR:
        return ["points"]
    return [f"camera {camera.name}" for camera in settings.cameras]
