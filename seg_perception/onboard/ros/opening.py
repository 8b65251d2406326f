"""Opening a model takes seconds to minutes; it is done by a thread, so that a node can still be ended meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic, perf_counter
from typing import Any

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.instances import MAX_SEMANTIC_CLASSES
from seg_perception.core.text import printable
from seg_perception.onboard.backend.host.select import IgnoreMask
from seg_perception.onboard.pipeline.opening import ModelChoice, open_segmenter
from seg_perception.onboard.pipeline.segmenter import Segmenter
from seg_perception.onboard.pipeline.trial import is_tried, try_model

from .parameters import Settings, default_model, model_path
from .scheme import DEFAULT_MODEL

# How often it is seen whether the node is to go on.
_LOOK_SECONDS = 0.05


class Opening:
    """A model that is being opened.

    Attributes:
        result: the model, or why there is none; None until then.
        begun: when, on the monotonic clock.
    """

    def __init__(
        self, log: Any, settings: Settings, done: Callable[[], None] = lambda: None, *, trial: bool = False
    ) -> None:
        """Begin.

        Args:
            log: the node's logger.
            settings: all parameters.
            done: called by the thread when there is a result.
            trial: whether the model is tried in a process of its own before it is opened in this one.
        """
        self.result: Segmenter | BaseException | None = None
        self.begun = monotonic()
        self._limit = settings.open_timeout
        self._model = settings.model
        self._done = done
        self._ended = Event()
        self._lock = Lock()
        self._given_up = False
        # A daemon, because an interpreter that waited for it would end late.
        Thread(target=self._open, args=(log, settings, trial), name="opening", daemon=True).start()

    def wait(self, running: Callable[[], bool], meanwhile: Callable[[], None]) -> Segmenter | None:
        """The model; None when the node is to end before it is open.

        Args:
            running: whether the node is to go on.
            meanwhile: called again and again while the model is being opened.

        Raises:
            SegPerceptionError: the model, the class table or an ignore mask cannot be used, or opening it takes longer
                than the parameter `open_timeout`.
        """
        while running() and not self._ended.wait(_LOOK_SECONDS):
            if self.late():
                raise self.give_up()
            meanwhile()
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result

    def late(self) -> bool:
        """Return whether it takes longer than it may."""
        return monotonic() - self.begun > self._limit

    def give_up(self) -> ConfigurationError:
        """Close the model as soon as it is open, and return the error that says so."""
        with self._lock:
            self._given_up, result = True, self.result
        if isinstance(result, Segmenter):
            result.close()
        return ConfigurationError(
            f"model: expected {printable(self._model)} to be open within {self._limit:g} s (open_timeout); it is not, "
            "and is given up; what it holds is released when it ends; raise open_timeout if the model needs longer"
        )

    def ended(self, patience: float | None) -> bool:
        """Return whether there is a result; it is waited for up to `patience` seconds, or until then."""
        return self._ended.wait(patience)

    def _open(self, log: Any, settings: Settings, trial: bool) -> None:
        result: Segmenter | BaseException
        try:
            path = model_path(settings.model)
            if trial and is_tried(path):
                try_model(path, settings.backend, settings.run, limit=self._limit, running=lambda: not self._given_up)
            # What hung in the trial until it was given up would hang here, too.
            result = self.give_up() if self._given_up else open_by_settings(log, settings)
        except BaseException as error:
            result = error
        with self._lock:
            self.result = result
            given_up = self._given_up
        if given_up and isinstance(result, Segmenter):
            result.close()
        self._ended.set()
        self._done()


def open_by_settings(log: Any, settings: Settings) -> Segmenter:
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
    masks = {
        camera.name: IgnoreMask.load(Path(camera.ignore_mask).expanduser())
        for camera in settings.cameras
        if camera.ignore_mask
    }
    run = settings.run
    choice = ModelChoice(str(path), settings.backend, run.device, run.threads, settings.classes)
    segmenter = open_segmenter(choice, settings.options, masks)
    try:
        name = segmenter.table.name
        log.info(f"model open after {perf_counter() - begin:.1f} s, class table {name!r}; warming up")
        segmenter.camera_options = {camera.name: camera.options for camera in settings.cameras}
        segmenter.warm_up()
    except BaseException:
        segmenter.close()
        raise
    classes = len(segmenter.spec.class_names)
    if classes > MAX_SEMANTIC_CLASSES:
        log.warning(
            f"semantic_map has 8 bits: of the model's {classes} classes, those from number {MAX_SEMANTIC_CLASSES} on "
            "appear there as background; instance_map and detections have all"
        )
    return segmenter
