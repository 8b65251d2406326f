"""The one thread that turns frames into published results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Thread
from time import monotonic, perf_counter
from typing import NamedTuple

from seg_perception.core.errors import FrameError, ModelOutputError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Segmentation
from seg_perception.onboard.pipeline.segmenter import Begun, Segmenter

from .camera import Camera, Taken, WakeEvent
from .outputs import Outputs
from .statistics import FAILURE, MODEL_OUTPUT, TOO_OLD, StageTimes

# A safety net only: frames set the wake event.
_LOOK_AGAIN_SECONDS = 0.5


class Activity(NamedTuple):
    """What the worker is at, and since when, on the monotonic clock."""

    what: str
    since: float


@dataclass(frozen=True, slots=True)
class _Batch:
    """The newest frames of some cameras, in flight.

    Attributes:
        cameras: where each frame came from, and where its results go.
        read: seconds that taking and reading each took.
        begun: what the segmenter knows of them.
    """

    cameras: list[tuple[Camera, Outputs]]
    read: list[float]
    begun: Begun


class Worker:
    """Serves cameras in turn, each with its newest frame, as many at once as the segmenter gains from.

    With a backend of some depth, the results of a batch are published while the model works on the next one. Frames
    are taken when the model is free for them and no earlier, so that they are fresh.

    Attributes:
        batch_wait: seconds for which frames at hand may wait for those of other cameras, where several at once are a
            gain; may be changed at any time.
        activity: what it is at; None while it waits for frames. For the watchdog.
    """

    def __init__(
        self,
        cameras: Sequence[tuple[Camera, Outputs]],
        segmenter: Segmenter,
        wake_event: WakeEvent,
        *,
        now_ns: Callable[[], int],
        wake_executor: Callable[[], None],
        report: Callable[[str, str, str], None],
        fail: Callable[[BaseException], None],
        stages: StageTimes,
        batch_wait: float = 0.0,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            cameras: where frames come from and results go to.
            segmenter: what is done with them; this thread alone uses it.
            wake_event: shared with the cameras.
            now_ns: the ROS clock.
            wake_executor: makes the executor look at its wait set again.
            report: told of a lost frame: camera, kind of fault, text.
            fail: told of an error that is no fault of a frame; the thread has ended then.
            stages: takes the seconds per stage.
            batch_wait: in seconds.
        """
        self.batch_wait = batch_wait
        self.activity: Activity | None = None
        self._cameras = list(cameras)
        self._segmenter = segmenter
        self._backend = segmenter.backend
        self._wake_event = wake_event
        self._now_ns = now_ns
        self._wake_executor = wake_executor
        self._report = report
        self._fail = fail
        self._stages = stages
        # Cameras whose frames are in flight, one entry for each frame.
        self._in_hand: list[Camera] = []
        # Frames that were taken and have not begun.
        self._held: dict[Camera, Taken] = {}
        # Have begun and not ended, the oldest first.
        self._in_flight: deque[_Batch] = deque()
        self._ended = False
        # Nobody waits for it any more: what it still gets done is not published.
        self._abandoned = False
        self._thread = Thread(target=self._run, name="segmenter_worker", daemon=True)

    def start(self) -> None:
        """Begin to serve the cameras."""
        self._thread.start()

    def stop(self, patience: float | None = None) -> bool:
        """End after the frames in progress, and wait for that.

        Args:
            patience: how many seconds; None for as long as they take.

        Returns:
            Whether the thread has ended. One that has not is abandoned: it publishes nothing any more.
        """
        with self._wake_event.condition:
            self._ended = True
            self._wake_event.open = False
            self._wake_event.condition.notify_all()
        self._thread.join(patience)
        self._abandoned = self._thread.is_alive()
        return not self._abandoned

    def _run(self) -> None:
        try:
            while not self._ended:
                self._wait_for_others()
                self._wait_for_model()
                begun = self._begin_next()
                if not begun and not self._in_flight:
                    self._wait([camera for camera, _ in self._cameras], monotonic() + _LOOK_AGAIN_SECONDS)
                elif not begun or len(self._in_flight) == self._backend.depth:
                    self._finish(self._in_flight.popleft())
            self._finish_all()
        except BaseException as error:
            for camera in (*self._in_hand, *self._held):
                camera.statistics.dropped(FAILURE, f"{type(error).__name__}: {error}")
            if not self._ended:
                self._fail(error)
        finally:
            self.activity = None

    def _wait_for_others(self) -> None:
        """With some frames at hand, wait for those of other cameras that are due, where that is wanted and a gain."""
        if not self.batch_wait or self._backend.largest_batch == 1:
            return
        self._hold()
        until = monotonic() + self.batch_wait
        while self._held and len(self._held) < self._backend.largest_batch and not self._ended:
            now = monotonic()
            due = [camera for camera, _ in self._cameras if camera not in self._held and camera.due(now, until)]
            if now >= until or not due:
                return
            # Results wait for nobody.
            self._finish_all()
            self._wait(due, until)
            self._hold()

    def _hold(self) -> None:
        """Take what has come, up to a whole batch."""
        for camera, _ in self._cameras:
            if len(self._held) == self._backend.largest_batch:
                return
            if camera not in self._held and (taken := camera.take()) is not None:
                self._held[camera] = taken

    def _take(self, camera: Camera) -> Taken | None:
        """The newest frame of a camera, be it at hand or not."""
        held, taken = self._held.pop(camera, None), camera.take()
        if held is not None and taken is not None:
            camera.statistics.replaced()
        return taken or held

    def _wait_for_model(self) -> None:
        """Wait until the model is free for the next frames."""
        if self._in_flight:
            self._at("running the model on", self._in_flight[0].cameras)
            self._backend.wait()

    def _begin_next(self) -> bool:
        """Begin with the newest frames of the cameras whose turn it is; false when none has one that can be used."""
        frames: list[Frame] = []
        cameras: list[tuple[Camera, Outputs]] = []
        read: list[float] = []
        for camera, outputs in list(self._cameras):
            if self._ended:
                break
            begin = perf_counter()
            taken = self._take(camera)
            if taken is None:
                continue
            self.activity = Activity(f"reading a frame of camera {camera.settings.name}", monotonic())
            # Served cameras go to the end of the line, so a fast camera cannot starve a slow one.
            self._cameras.remove((camera, outputs))
            self._cameras.append((camera, outputs))
            frame = self._read(camera, taken)
            if frame is None:
                continue
            frames.append(frame)
            self._in_hand.append(camera)
            cameras.append((camera, outputs))
            read.append(perf_counter() - begin)
            if len(frames) == self._backend.largest_batch:
                break
        if not frames:
            return False
        semantic = any(outputs.wants_semantic_map() for _, outputs in cameras)
        self._at("running the model on", cameras)
        try:
            self._in_flight.append(_Batch(cameras, read, self._segmenter.begin(frames, semantic)))
        except FrameError as error:
            for camera, _ in cameras:
                self._lose(camera, error.kind, str(error))
            return False
        return True

    def _read(self, camera: Camera, taken: Taken) -> Frame | None:
        """The frame in a message; None, with the fault reported, when it cannot be used."""
        try:
            frame = camera.frame(taken)
        except FrameError as error:
            self._drop(camera, error.kind, str(error))
            return None
        for warning in frame.warnings:
            camera.statistics.warned(warning.kind)
            self._report(camera.settings.name, f"image {warning.kind}", warning.text)
        now_ns = self._now_ns()
        verdict = camera.judge(frame, taken, now_ns)
        if verdict.news:
            self._report(camera.settings.name, f"stamps {verdict.kind}", f"stamps: {verdict.news}")
        if verdict.too_old:
            camera.statistics.dropped(TOO_OLD)
            self._report_age(camera, verdict.age)
            return None
        if verdict.by_arrival:
            return replace(frame, arrival_ns=now_ns - int(verdict.age * 1e9))
        return frame

    def _wait(self, cameras: Sequence[Camera], until: float) -> None:
        """Have the executor hand over frames until one of some cameras has come, or a time on the monotonic clock."""
        self.activity = None
        with self._wake_event.condition:
            while not self._ended and not any(camera.waiting() for camera in cameras):
                left = until - monotonic()
                if left <= 0:
                    break
                # The frame of another camera has shut it.
                self._wake_event.open = True
                self._wake_executor()
                self._wake_event.condition.wait(left)
            if not self._ended:  # else it is another worker's
                self._wake_event.open = False

    def _finish_all(self) -> None:
        while self._in_flight:
            self._finish(self._in_flight.popleft())

    def _finish(self, batch: _Batch) -> None:
        """Publish the results of frames; their faults end here."""
        self._at("running the model on", batch.cameras)
        results = self._segmenter.end(batch.begun)
        self._stages.began(len(batch.cameras))
        for (camera, outputs), read, result in zip(batch.cameras, batch.read, results, strict=True):
            if self._abandoned:
                self._lose(camera, FAILURE, "a frame was not done in time, and its results are not published")
                continue
            if isinstance(result, ModelOutputError):
                self._lose(camera, MODEL_OUTPUT, str(result))
                continue
            done = perf_counter()
            self.activity = Activity(f"publishing results of camera {camera.settings.name}", monotonic())
            calibrated = self._publish(camera, outputs, result)
            self._in_hand.remove(camera)
            camera.statistics.processed(camera.latency(result.frame, self._now_ns()))
            self._stages.add({"read": read, **result.timings, "publish": perf_counter() - done})
            if not calibrated:
                self._report_calibration(camera, result.frame)

    def _at(self, what: str, cameras: Sequence[tuple[Camera, Outputs]]) -> None:
        names = ", ".join(camera.settings.name for camera, _ in cameras)
        self.activity = Activity(f"{what} frames of {names}", monotonic())

    def _publish(self, camera: Camera, outputs: Outputs, segmentation: Segmentation) -> bool:
        """Publish the results; false when the calibration does not fit."""
        calibration = None
        try:
            calibration = camera.take_info()
        except FrameError as error:
            self._report(camera.settings.name, "camera_info", str(error))
        try:
            return outputs.publish(segmentation, calibration)
        except FrameError as error:
            # An overlay that cannot be drawn; the results went out before it.
            self._report(camera.settings.name, f"publish {error.kind}", str(error))
            return True

    def _report_age(self, camera: Camera, age: float) -> None:
        limit = camera.settings.max_age
        text = (
            f"max_age: expected frames of at most {limit:g} s, got one of {age:.3f} s; it is dropped; if it is new, "
            "check that camera and node have the same clock (use_sim_time), else raise max_age"
        )
        self._report(camera.settings.name, TOO_OLD, text)

    def _report_calibration(self, camera: Camera, frame: Frame) -> None:
        info = camera.info
        size = f"{info.width} x {info.height}" if info else "nothing"
        text = (
            f"camera_info: expected a calibration for images of {frame.width} x {frame.height}, got one for {size}; "
            f"it is not published; check {camera.resolved_info_topic}"
        )
        self._report(camera.settings.name, "camera_info", text)

    def _lose(self, camera: Camera, kind: str, text: str) -> None:
        """Give up a frame that is in flight."""
        self._in_hand.remove(camera)
        self._drop(camera, kind, text)

    def _drop(self, camera: Camera, kind: str, text: str) -> None:
        """Give up a frame; another one of the camera may be in flight."""
        camera.statistics.dropped(kind, text)
        self._report(camera.settings.name, kind, text)
