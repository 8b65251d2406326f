"""Everything that exists between configure and cleanup: the open model, the topics, and, while active, the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter

from rclpy.node import Node

from ..pipeline.host import open_backend
from ..pipeline.segmenter import Segmenter
from ..pipeline.select import IgnoreMask
from ..pipeline.semantic import MAX_SEMANTIC_CLASSES
from ..sources.class_tables import resolve_class_table
from .camera import Camera, Doorbell
from .outputs import Outputs
from .parameters import DEFAULT_MODEL, Settings, default_model, model_path
from .statistics import CameraStatistics, StageTimes
from .worker import Worker


class Session:
    """A configured segmenter."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        statistics: Mapping[str, CameraStatistics],
        *,
        report: Callable[[str, str, str], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        """Open the model, warm it up and create the output topics.

        Args:
            node: owner of the topics.
            settings: all parameters.
            statistics: by camera name.
            report: told of a lost frame: camera, kind of fault, text.
            fail: told of an error that ended the worker.

        Raises:
            SegPerceptionError: the model, the class table or an ignore mask cannot be used.
        """
        self.stages = StageTimes()
        self.cameras: list[Camera] = []
        self._node = node
        self._settings = settings
        self._statistics = statistics
        self._report = report
        self._fail = fail
        self._worker: Worker | None = None
        self._segmenter = _open(node, settings)
        self._outputs: dict[str, Outputs] = {}
        try:
            self._segmenter.warm_up()
            names = self._segmenter.spec.class_names
            if len(names) > MAX_SEMANTIC_CLASSES:
                node.get_logger().warning(
                    f"semantic_map has 8 bits: of the model's {len(names)} classes, those from number "
                    f"{MAX_SEMANTIC_CLASSES} on appear there as background; instance_map and detections have all"
                )
            for camera in settings.cameras:
                namespace = "~" if len(settings.cameras) == 1 else f"~/{camera.name}"
                self._outputs[camera.name] = Outputs(node, namespace, names)
        except BaseException:
            self.close()
            raise

    @property
    def identity(self) -> dict[str, str]:
        """What runs here, for people."""
        return self._segmenter.identity

    def activate(self) -> None:
        """Subscribe and begin to work."""
        doorbell = Doorbell()
        for settings in self._settings.cameras:
            self.cameras.append(Camera(self._node, settings, self._statistics[settings.name], doorbell))
        self._publish_labels()
        self._worker = Worker(
            [(camera, self._outputs[camera.settings.name]) for camera in self.cameras],
            self._segmenter,
            doorbell,
            now_ns=lambda: int(self._node.get_clock().now().nanoseconds),
            wake_executor=self._wake_executor,
            report=self._report,
            fail=self._fail,
            stages=self.stages,
        )
        self._worker.start()

    def deactivate(self) -> None:
        """End the work and unsubscribe; without effect when not active."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
        while self.cameras:
            self.cameras.pop().destroy()

    def close(self) -> None:
        """Release everything."""
        self.deactivate()
        for outputs in self._outputs.values():
            outputs.destroy()
        self._outputs.clear()
        self._segmenter.close()

    def apply(self, settings: Settings) -> None:
        """Take over the parameters that may change at any time; from the next frame on."""
        self._settings = settings
        self._segmenter.options = settings.options
        for camera, changed in zip(self.cameras, settings.cameras, strict=False):
            camera.max_age = changed.max_age
        if self.cameras:
            self._publish_labels()

    def _publish_labels(self) -> None:
        select = self._settings.options.select
        thresholds = select.thresholds() if select.keep_other else select.thresholds()[:-1]
        for outputs in self._outputs.values():
            outputs.publish_labels(float(thresholds.min()))

    def _wake_executor(self) -> None:
        executor = self._node.executor
        if executor is not None:
            executor.wake()


def _open(node: Node, settings: Settings) -> Segmenter:
    log, path, begin = node.get_logger(), model_path(settings.model), perf_counter()
    log.info(
        f"opening model {path} (backend {settings.backend or 'by suffix'}, device {settings.run.device or 'default'})"
    )
    if path.resolve() == default_model().resolve():
        log.warning(
            f"model: {DEFAULT_MODEL} comes with the package and has only ever seen rendered streets: it is to start "
            "with, not to drive with; name your own with parameter `model`"
        )
    backend = open_backend(path, settings.backend, settings.run)
    try:
        table = resolve_class_table(settings.classes, backend.spec.class_names)
        masks = {
            camera.name: IgnoreMask.load(Path(camera.ignore_mask).expanduser())
            for camera in settings.cameras
            if camera.ignore_mask
        }
        log.info(f"model open after {perf_counter() - begin:.1f} s, class table {table.name!r}; warming up")
        return Segmenter(backend, table, settings.options, masks)
    except BaseException:
        backend.close()
        raise
