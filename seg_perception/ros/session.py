"""Everything that exists between configure and cleanup: the open model, the topics, and, while active, the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import nan

from rclpy.node import Node
from rclpy.timer import Timer

from ..errors import SegPerceptionError
from ..frame import Frame
from ..pipeline.overlay_panel import Figures
from ..pipeline.segmenter import Segmenter
from .camera import Camera, Doorbell
from .clocks import steady_clock
from .outputs import Outputs
from .parameters import Settings
from .statistics import LONGEST_LATENCY, SUPERSEDED, CameraStatistics, StageTimes
from .worker import Worker

# How often it is seen that frames come.
_LOOK_SECONDS = 1.0


class Session:
    """A configured segmenter."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        segmenter: Segmenter,
        statistics: Mapping[str, CameraStatistics],
        *,
        report: Callable[[str, str, str], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        """Create the output topics.

        Args:
            node: owner of the topics.
            settings: all parameters.
            segmenter: opened and warmed up; the session closes it.
            statistics: by camera name.
            report: told of a lost frame: camera, kind of fault, text.
            fail: told of an error that ended the worker.
        """
        self.stages = StageTimes()
        self.cameras: list[Camera] = []
        self._node = node
        self._settings = settings
        self._statistics = statistics
        self._report = report
        self._fail = fail
        self._worker: Worker | None = None
        self._doorbell = Doorbell()
        self._timer: Timer | None = None
        self._segmenter = segmenter
        self._outputs: dict[str, Outputs] = {}
        try:
            for camera in settings.cameras:
                namespace = "~" if len(settings.cameras) == 1 else f"~/{camera.name}"
                self._outputs[camera.name] = Outputs(
                    node, namespace, self._segmenter.spec.class_names, settings.overlay, self._figures
                )
        except BaseException:
            self.close()
            raise

    @property
    def identity(self) -> dict[str, str]:
        """What runs here, for people."""
        return self._segmenter.identity

    def activate(self) -> None:
        """Subscribe and begin to work.

        Raises:
            ConfigurationError: a topic cannot be subscribed to.
        """
        self._doorbell = Doorbell()
        try:
            for settings in self._settings.cameras:
                statistics = self._statistics[settings.name]
                self.cameras.append(Camera(self._node, settings, statistics, self._doorbell))
        except BaseException:
            self.deactivate()
            raise
        self._publish_labels()
        self._start_worker()
        self._timer = self._node.create_timer(_LOOK_SECONDS, self._look_after_cameras, clock=steady_clock())

    def deactivate(self, patience: float | None = None) -> bool:
        """End the work and unsubscribe; without effect when not active.

        Args:
            patience: seconds to wait for frames in progress; None for as long as they take.

        Returns:
            Whether the work has ended.
        """
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._node.destroy_timer(timer)
        ended = self._stop_worker(patience)
        while self.cameras:
            self.cameras.pop().destroy()
        return ended

    def exchange(self, segmenter: Segmenter) -> None:
        """Go on with another model from the next frame on; the subscriptions and topics stay.

        Args:
            segmenter: opened and warmed up; this session closes it.
        """
        working = self._worker is not None
        self._stop_worker()
        before, self._segmenter = self._segmenter, segmenter
        if segmenter.spec.class_names == before.spec.class_names:
            # Tracks know classes by their place in the model.
            segmenter.trackers = before.trackers
        self._set_options()
        self.stages = StageTimes()
        for outputs in self._outputs.values():
            outputs.class_names = segmenter.spec.class_names
        if working:
            self._publish_labels()
            self._start_worker()
        before.close()

    def close(self, patience: float | None = None) -> bool:
        """Release everything.

        Args:
            patience: seconds to wait for frames in progress; None for as long as they take.

        Returns:
            Whether everything is released; the model is not while it is at work.
        """
        ended = self.deactivate(patience)
        for outputs in self._outputs.values():
            outputs.destroy()
        self._outputs.clear()
        if ended:
            self._segmenter.close()
        return ended

    def apply(self, settings: Settings) -> None:
        """Take over the parameters that may change at any time; from the next frame on."""
        self._settings = settings
        self._set_options()
        for camera, changed in zip(self.cameras, settings.cameras, strict=False):
            camera.apply(changed)
        if self.cameras:
            self._publish_labels()

    def _set_options(self) -> None:
        for outputs in self._outputs.values():
            outputs.style = self._settings.overlay
        if self._worker is not None:
            self._worker.batch_wait = self._settings.batch_wait
        # At once for all cameras.
        self._segmenter.camera_options = {camera.name: camera.options for camera in self._settings.cameras}

    def _figures(self, frame: Frame) -> Figures:
        """What is told on the overlay of a frame."""
        recent = self._statistics[frame.camera].recent()
        age = (self._now_ns() - frame.time_ns) / 1e9
        known = 0 <= age < LONGEST_LATENCY
        return Figures(
            frame.camera, age if known else nan, recent.rate, recent.dropped, recent.seconds, frozenset({SUPERSEDED})
        )

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _start_worker(self) -> None:
        self._worker = Worker(
            [(camera, self._outputs[camera.settings.name]) for camera in self.cameras],
            self._segmenter,
            self._doorbell,
            now_ns=self._now_ns,
            wake_executor=self._wake_executor,
            report=self._report,
            fail=self._fail,
            stages=self.stages,
            batch_wait=self._settings.batch_wait,
        )
        self._worker.start()

    def _stop_worker(self, patience: float | None = None) -> bool:
        worker, self._worker = self._worker, None
        return worker is None or worker.stop(patience)

    def _look_after_cameras(self) -> None:
        """Say why no frames come from a camera, once per change, and when they come."""
        for camera in self.cameras:
            name = camera.settings.name
            try:
                changed = camera.look_after()
            except SegPerceptionError as error:
                self._report(name, "subscription", str(error))
                continue
            if changed and camera.absence is not None:
                self._report(name, camera.absence.kind, f"no frames: {camera.absence.text}")
            elif changed and camera.settings.enabled:
                self._node.get_logger().info(f"camera {name}: frames come")

    def _publish_labels(self) -> None:
        for camera in self._settings.cameras:
            select = camera.options.select
            thresholds = select.thresholds() if select.keep_other else select.thresholds()[:-1]
            self._outputs[camera.name].publish_labels(float(thresholds.min()))

    def _wake_executor(self) -> None:
        executor = self._node.executor
        if executor is not None:
            executor.wake()
