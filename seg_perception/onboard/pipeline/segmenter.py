"""A frame comes in; the backend finds, selects and paints; a tracker decides on ids; a segmentation goes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import ClassTable
from seg_perception.core.contract import ModelSpec
from seg_perception.core.errors import ModelOutputError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Detections, Segmentation
from seg_perception.onboard.backend.base import Backend, Job, Selected
from seg_perception.onboard.backend.host.select import IgnoreMask, instances_of, select_rows

from .options import SegmenterOptions
from .selection import Selection
from .trackers import Trackers


@dataclass(frozen=True, slots=True)
class Begun:
    """Frames in flight.

    Attributes:
        frames: one of each of several cameras.
        options: of each frame, those in force when it began.
        job: the backend's.
    """

    frames: Sequence[Frame]
    options: Sequence[SegmenterOptions]
    job: Job


class Segmenter:
    """Frames in, segmentations out.

    Attributes:
        options: of cameras that have none of their own; may be replaced at any time.
        camera_options: by camera name; may be replaced at any time.
        trackers: of the cameras.
        table: sorts the model's classes into road groups.
        backend: runs the model.
        warm_up_seconds: duration of one batch at the end of `warm_up`.
    """

    def __init__(
        self,
        backend: Backend,
        table: ClassTable,
        options: SegmenterOptions | None = None,
        ignore_masks: Mapping[str, IgnoreMask] | None = None,
    ) -> None:
        """Take a backend, which `close` closes, options for all cameras, and ignore masks by camera name."""
        self.options = options or SegmenterOptions()
        self.camera_options: Mapping[str, SegmenterOptions] = {}
        self.trackers = Trackers()
        self.table = table
        self.backend = backend
        self.warm_up_seconds = 0.0
        self._groups = table.groups(backend.spec.class_names)
        self._ignore_masks = dict(ignore_masks or {})
        self._selection = Selection(backend.spec, self._groups, self._ignore_masks)

    @property
    def spec(self) -> ModelSpec:
        """The model's description of itself."""
        return self.backend.spec

    @property
    def identity(self) -> dict[str, str]:
        """Human-readable facts about what runs here."""
        return self.backend.identity

    def segment(self, frames: Sequence[Frame], semantic: bool = False) -> list[Segmentation]:
        """Process one frame of each of several cameras; `semantic` asks for semantic maps, too.

        Raises:
            FrameError: a frame cannot be decoded.
            ModelOutputError: the model produced NaN or infinity.
        """
        return _without_faults(self.end(self.begin(frames, semantic)))

    def begin(self, frames: Sequence[Frame], semantic: bool = False) -> Begun:
        """Start the first half of `segment`; the backend works on the frames while the caller goes on.

        Raises:
            FrameError: a frame cannot be decoded.
        """
        options = [self.camera_options.get(frame.camera, self.options) for frame in frames]
        selection = [self._selection.of(*each) for each in zip(frames, options, strict=True)]
        return Begun(frames, options, self.backend.start(frames, selection, semantic))

    def end(self, begun: Begun) -> list[Segmentation | ModelOutputError]:
        """Do the second half of `segment`, and return the result of each frame, or the fault of the model in it."""
        ids, seconds = None, {}
        if any(options.tracking is not None for options in begun.options):
            found = zip(begun.frames, begun.job.detections(), begun.options, strict=True)
            begin = perf_counter()
            ids = [self._ids(*each) for each in found]
            seconds = {"select": (perf_counter() - begin) / len(ids)}
        selected = zip(begun.frames, begun.job.painted(ids), begun.options, strict=True)
        return [self._segmentation(*each, seconds) for each in selected]

    def warm_up(self, runs: int = 2) -> None:
        """Run grey images through, so that the first camera frames do not pay for memory and kernels."""
        grey = np.full((self.spec.network_height, self.spec.network_width, 3), 114, np.uint8)
        batches = [[Frame.from_bgr(grey)] * count for count in range(1, self.backend.largest_batch + 1)]
        for frames in [*batches, *([Frame.from_bgr(grey, camera=camera)] for camera in self._ignore_masks)]:
            for _ in range(runs):
                begin = perf_counter()
                in_flight = [self.begin(frames) for _ in range(self.backend.depth)]
                while in_flight:
                    _without_faults(self.end(in_flight.pop(0)))
                self.warm_up_seconds = (perf_counter() - begin) / self.backend.depth

    def close(self) -> None:
        """Release the model."""
        self.backend.close()

    def _ids(self, frame: Frame, found: Detections | ModelOutputError, options: SegmenterOptions) -> NDArray[np.uint16]:
        """The id of each row of the detections, uint16 `[K]`, by the tracker or by score."""
        if isinstance(found, ModelOutputError):
            return np.zeros(self.spec.max_instances, np.uint16)
        if options.tracking is None:
            return select_rows(found, self._selection.of(frame, options))
        return self.trackers.ids(frame, found, self._groups, options, self._ignore_masks.get(frame.camera))

    def _segmentation(
        self,
        frame: Frame,
        selected: Selected | ModelOutputError,
        options: SegmenterOptions,
        seconds: Mapping[str, float],
    ) -> Segmentation | ModelOutputError:
        """Return what is published for a frame, with the objects that it lacks if the tracker is to fill them in."""
        if isinstance(selected, ModelOutputError):
            return selected
        instances = instances_of(selected.detections, selected.ids, self._groups)
        areas = selected.painted.areas[instances.rows]
        if options.tracking is not None and options.tracking.coast:
            expected = self.trackers.coasted(frame)
            instances, areas = instances.joined(expected), np.append(areas, np.zeros(len(expected), np.int64))
        timings = {**selected.timings, **seconds}
        return Segmentation(frame, instances, selected.painted, areas, timings, selected.semantic_map)


def _without_faults(results: Sequence[Segmentation | ModelOutputError]) -> list[Segmentation]:
    """Return the results of a batch, or raise the first fault in it."""
    for result in results:
        if isinstance(result, ModelOutputError):
            raise result
    return [result for result in results if isinstance(result, Segmentation)]
