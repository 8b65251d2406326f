"""Everything that exists between configure and cleanup: the open model, the topics, and, while active, the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import nan
from time import monotonic

from rclpy.node import Node
from rclpy.timer import Timer

from seg_perception.core.errors import ConfigurationError, SegPerceptionError
from seg_perception.core.frame import Frame
from seg_perception.onboard.pipeline.overlay_panel import OverlayStats
from seg_perception.onboard.pipeline.segmenter import Segmenter

from .camera import Camera, WakeEvent
from .clocks import steady_clock
from .outputs import Outputs
from .parameters import Settings
from .statistics import LONGEST_LATENCY, SUPERSEDED, CameraStatistics, StageTimes
from .worker import Worker

# How often it is seen that frames come.
_LOOK_SECONDS = 1.0
# The worker is stuck when one step of its work takes longer than this, and than so many usual batches.
_STUCK_SECONDS, _STUCK_BATCHES = 2.0, 5.0


class Session:
    """A configured segmenter.

    Attributes:
        cameras: while active.
        stages: seconds per stage since the model was opened.
        leaked: whether a model is still at work that nobody waits for; the process must not end in the middle of it.
    """

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
        self.leaked = False
        self._node = node
        self._settings = settings
        self._statistics = statistics
        self._report = report
        self._fail = fail
        self._worker: Worker | None = None
        # Stopped, but still at work on the model that is open.
        self._stuck_worker: Worker | None = None
        self._wake_event = WakeEvent()
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
        """Human-readable facts about what runs here."""
        return self._segmenter.identity

    def activate(self) -> None:
        """Subscribe and begin to work.

        Raises:
            ConfigurationError: a topic cannot be subscribed to, or the model is still at work since it was stopped.
        """
        if not self._is_idle():
            raise ConfigurationError(
                f"activate: expected an idle model, got one that is still at it: {self.stuck(0.0)}; clean up and "
                "configure, which opens the model again"
            )
        self._wake_event = WakeEvent()
        try:
            for settings in self._settings.cameras:
                statistics = self._statistics[settings.name]
                self.cameras.append(Camera(self._node, settings, statistics, self._wake_event, self._report))
        except BaseException:
            self.deactivate()
            raise
        self._publish_labels()
        self._start_worker()
        self._timer = self._node.create_timer(_LOOK_SECONDS, self._look_after_cameras, clock=steady_clock())

    def deactivate(self, patience: float | None = None) -> None:
        """End the work and unsubscribe; without effect when not active.

        Args:
            patience: seconds to wait for frames in progress; None for as long as the watchdog waits.
        """
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._node.destroy_timer(timer)
        self._stop_worker(patience)
        while self.cameras:
            self.cameras.pop().destroy()

    def exchange(self, segmenter: Segmenter) -> None:
        """Go on with another model from the next frame on; the subscriptions and topics stay.

        Args:
            segmenter: opened and warmed up; this session closes it.

        Raises:
            Exception: something about the new model cannot be used; the old one goes on, and the new one is closed.
        """
        working = self._worker is not None
        self._stop_worker()
        ended = self._is_idle()
        before, stages = self._segmenter, self.stages
        if segmenter.spec.class_names == before.spec.class_names:
            # Tracks know classes by their place in the model.
            segmenter.trackers = before.trackers
        try:
            self._take_over(segmenter, StageTimes())
            if working:
                self._publish_labels()
        except Exception:
            self._take_over(before, stages)
            if working and ended:
                self._start_worker()
            segmenter.close()
            raise
        if working:
            self._start_worker()
        # A model that is still at work cannot be closed; it is left alone.
        self._stuck_worker = None
        if ended:
            before.close()
        else:
            self.leaked = True

    def _take_over(self, segmenter: Segmenter, stages: StageTimes) -> None:
        self._segmenter, self.stages = segmenter, stages
        self._set_options()
        for outputs in self._outputs.values():
            outputs.class_names = segmenter.spec.class_names

    def close(self, patience: float | None = None) -> bool:
        """Release everything.

        Args:
            patience: seconds to wait for frames in progress; None for as long as the watchdog waits.

        Returns:
            Whether everything is released; the model is not while it is at work.
        """
        self.deactivate(patience)
        for outputs in self._outputs.values():
            outputs.destroy()
        self._outputs.clear()
        if self._is_idle():
            self._segmenter.close()
        else:
            self.leaked = True
        return not self.leaked

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

    def _figures(self, frame: Frame) -> OverlayStats:
        """Return what is told on the overlay of a frame."""
        recent = self._statistics[frame.camera].recent()
        age = (self._now_ns() - frame.time_ns) / 1e9
        known = 0 <= age < LONGEST_LATENCY
        return OverlayStats(
            frame.camera, age if known else nan, recent.rate, recent.dropped, recent.seconds, frozenset({SUPERSEDED})
        )

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _start_worker(self) -> None:
        self._worker = Worker(
            [(camera, self._outputs[camera.settings.name]) for camera in self.cameras],
            self._segmenter,
            self._wake_event,
            now_ns=self._now_ns,
            wake_executor=self._wake_executor,
            report=self._report,
            fail=self._fail,
            stages=self.stages,
            batch_wait=self._settings.batch_wait,
        )
        self._worker.start()

    def _stop_worker(self, patience: float | None = None) -> None:
        worker, self._worker = self._worker, None
        if worker is not None and not worker.stop(self._stuck_seconds() if patience is None else patience):
            self._stuck_worker = worker
            self._node.get_logger().error(
                f"the worker does not end: {self.stuck(0.0)}; it is left alone, with the memory of its model"
            )

    def _is_idle(self) -> bool:
        """Return whether no worker that was stopped is still at work on the model that is open."""
        if self._stuck_worker is not None and self._stuck_worker.stop(0.0):
            self._stuck_worker = None
        return self._stuck_worker is None

    def _stuck_seconds(self) -> float:
        """Seconds after which one step of the worker's work has taken too long."""
        # Stages are told per frame; what a step works on is a batch.
        batch = sum(self.stages.medians().values()) * self._segmenter.backend.largest_batch
        return max(_STUCK_SECONDS, _STUCK_BATCHES * (batch or self._segmenter.warm_up_seconds))

    def stuck(self, limit: float | None = None) -> str:
        """Return what the worker has been at for too long, human-readable; empty while it is not.

        Args:
            limit: seconds that are too long; None for those of the watchdog.
        """
        worker = self._worker or self._stuck_worker
        activity = worker.activity if worker else None
        seconds = monotonic() - activity.since if activity else 0.0
        if activity is None or seconds <= (self._stuck_seconds() if limit is None else limit):
            return ""
        return f"{activity.what} for {seconds:.1f} s"

    def _look_after_cameras(self) -> None:
        """Say why no frames come from a camera, once per change, and when they come."""
        if self._worker is None and self._is_idle():
            # A reload failed while the model was stuck, and nobody served the cameras since.
            self._start_worker()
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
            self._outputs[camera.name].publish_labels(camera.options.select.lowest_threshold)

    def _wake_executor(self) -> None:
        executor = self._node.executor
        if executor is not None:
            executor.wake()
