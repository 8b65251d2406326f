"""Opening a model takes seconds to minutes; it is done by a thread, so that a node can still be ended meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Any

from ..instances import MAX_SEMANTIC_CLASSES
from ..pipeline.host import open_backend
from ..pipeline.segmenter import Segmenter
from ..pipeline.select import IgnoreMask
from ..sources.class_tables import resolve_class_table
from .parameters import DEFAULT_MODEL, Settings, default_model, model_path

# How often it is seen whether the node is to go on.
_LOOK_SECONDS = 0.05


class Opening:
    """A model that is being opened.

    Attributes:
        result: the model, or why there is none; None until then.
    """

    def __init__(self, log: Any, settings: Settings, done: Callable[[], None] = lambda: None) -> None:
        """Begin.

        Args:
            log: the node's logger.
            settings: all parameters.
            done: called by the thread when there is a result.
        """
        self.result: Segmenter | BaseException | None = None
        self._done = done
        self._ended = Event()
        # A daemon, because an interpreter that waited for it would end late.
        Thread(target=self._open, args=(log, settings), name="opening", daemon=True).start()

    def wait(self, running: Callable[[], bool]) -> Segmenter | None:
        """The model; None when the node is to end before it is open.

        Args:
            running: whether the node is to go on.

        Raises:
            SegPerceptionError: the model, the class table or an ignore mask cannot be used.
        """
        while running() and not self._ended.wait(_LOOK_SECONDS):
            pass
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result

    def ended(self, patience: float | None) -> bool:
        """Whether there is a result; it is waited for up to `patience` seconds, or until then."""
        return self._ended.wait(patience)

    def _open(self, log: Any, settings: Settings) -> None:
        try:
            self.result = open_segmenter(log, settings)
        except BaseException as error:
            self.result = error
        self._ended.set()
        self._done()


def open_segmenter(log: Any, settings: Settings) -> Segmenter:
    """Open the model that the parameters name, and warm it up.

    Args:
        log: the node's logger.
        settings: all parameters.

    Raises:
        SegPerceptionError: the model, the class table or an ignore mask cannot be used.
    """
    path, begin = model_path(settings.model), perf_counter()
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
        segmenter = Segmenter(backend, table, settings.options, masks)
        segmenter.camera_options = {camera.name: camera.options for camera in settings.cameras}
        segmenter.warm_up()
    except BaseException:
        backend.close()
        raise
    classes = len(backend.spec.class_names)
    if classes > MAX_SEMANTIC_CLASSES:
        log.warning(
            f"semantic_map has 8 bits: of the model's {classes} classes, those from number {MAX_SEMANTIC_CLASSES} on "
            "appear there as background; instance_map and detections have all"
        )
    return segmenter
