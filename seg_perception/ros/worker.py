"""The one thread that turns frames into published results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread
from time import perf_counter

from ..errors import FrameError, ModelOutputError
from ..frame import Frame
from ..instances import Segmentation
from ..pipeline.segmenter import Segmenter
from .camera import Camera, Doorbell
from .outputs import Outputs
from .statistics import MODEL_OUTPUT, TOO_OLD, StageTimes

# A safety net only: frames ring the doorbell.
_LOOK_AGAIN_SECONDS = 0.5


class Worker:
    """Serves cameras in turn, each with its newest frame."""

    def __init__(
        self,
        cameras: Sequence[tuple[Camera, Outputs]],
        segmenter: Segmenter,
        doorbell: Doorbell,
        *,
        now_ns: Callable[[], int],
        wake_executor: Callable[[], None],
        report: Callable[[str, str, str], None],
        fail: Callable[[BaseException], None],
        stages: StageTimes,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            cameras: where frames come from and results go to.
            segmenter: what is done with them; this thread alone uses it.
            doorbell: shared with the cameras.
            now_ns: the ROS clock.
            wake_executor: makes the executor look at its wait set again.
            report: told of a lost frame: camera, kind of fault, text.
            fail: told of an error that is no fault of a frame; the thread has ended then.
            stages: takes the seconds per stage.
        """
        self._cameras = list(cameras)
        self._segmenter = segmenter
        self._doorbell = doorbell
        self._now_ns = now_ns
        self._wake_executor = wake_executor
        self._report = report
        self._fail = fail
        self._stages = stages
        self._ended = False
        self._thread = Thread(target=self._run, name="segmenter_worker", daemon=True)

    def start(self) -> None:
        """Begin to serve the cameras."""
        self._thread.start()

    def stop(self) -> None:
        """End after the frame in progress, and wait for that."""
        with self._doorbell.rung:
            self._ended = True
            self._doorbell.open = False
            self._doorbell.rung.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended:
                if not self._serve_next():
                    self._wait()
        except BaseException as error:
            if not self._ended:
                self._fail(error)

    def _serve_next(self) -> bool:
        """Process the newest frame of the camera whose turn it is; false when no camera has one."""
        for index, (camera, outputs) in enumerate(self._cameras):
            serialized = camera.take()
            if serialized is not None:
                # Served cameras go to the end of the line, so a fast camera cannot starve a slow one.
                self._cameras.append(self._cameras.pop(index))
                self._serve(camera, outputs, serialized)
                return True
        return False

    def _wait(self) -> None:
        """Have the executor hand over the next frame of any camera."""
        with self._doorbell.rung:
            if self._ended:
                return
            self._doorbell.open = True
            self._wake_executor()
            self._doorbell.rung.wait_for(
                lambda: self._ended or any(camera.waiting() for camera, _ in self._cameras), _LOOK_AGAIN_SECONDS
            )
            self._doorbell.open = False

    def _serve(self, camera: Camera, outputs: Outputs, serialized: bytes) -> None:
        """Process one frame; its faults end here."""
        begin = perf_counter()
        try:
            frame = camera.frame(serialized)
            age = (self._now_ns() - frame.stamp_ns) / 1e9
            if 0 < camera.max_age < age:
                camera.statistics.dropped(TOO_OLD)
                self._report_age(camera, age)
                return
            read = perf_counter()
            segmentation = self._segmenter.segment([frame], outputs.wants_semantic_map())[0]
            done = perf_counter()
        except FrameError as error:
            self._lose(camera, error.kind, str(error))
        except ModelOutputError as error:
            self._lose(camera, MODEL_OUTPUT, str(error))
        else:
            calibrated = self._publish(camera, outputs, segmentation)
            camera.statistics.processed((self._now_ns() - frame.stamp_ns) / 1e9)
            self._stages.add({"read": read - begin, **segmentation.timings, "publish": perf_counter() - done})
            if not calibrated:
                self._report_calibration(camera, frame)

    def _publish(self, camera: Camera, outputs: Outputs, segmentation: Segmentation) -> bool:
        """Publish the results; false when the calibration does not fit."""
        try:
            return outputs.publish(segmentation, camera.take_info())
        except FrameError as error:
            # A picture for people that cannot be made; the results went out before it.
            self._report(camera.settings.name, f"publish {error.kind}", str(error))
            return True

    def _report_age(self, camera: Camera, age: float) -> None:
        text = (
            f"max_age: expected frames of at most {camera.max_age:g} s, got one of {age:.3f} s; it is dropped; if it "
            "is new, check that camera and node have the same clock (use_sim_time), else raise max_age"
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
        camera.statistics.dropped(kind, text)
        self._report(camera.settings.name, kind, text)
