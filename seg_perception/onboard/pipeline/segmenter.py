"""An image comes in as a frame; the backend turns it into detections; they become numbered instances on one map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import ClassTable
from seg_perception.core.contract import ModelSpec
from seg_perception.core.errors import ModelOutputError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Detections, InstanceMap, Instances, Segmentation
from seg_perception.onboard.backend.base import Accelerator, Backend, Chosen
from seg_perception.onboard.backend.host.select import IgnoreMask, renumber, select

from .accelerated import Choices, segmentation
from .options import SegmenterOptions
from .semantic import semantic_map
from .trackers import Trackers


@dataclass(frozen=True, slots=True)
class Begun:
    """Frames in flight.

    Attributes:
        frames: one of each of several cameras.
        options: those in force when they began, of each frame.
        semantic: whether semantic maps are made, too.
        tracked: whether the frames go through the trackers.
        job: the accelerator's; None for a backend on the host, which does all its work at the end.
    """

    frames: Sequence[Frame]
    options: Sequence[SegmenterOptions]
    semantic: bool
    tracked: bool
    job: object = None


class Segmenter:
    """Frames in, segmentations out.

    A frame is processed under one set of options.

    Attributes:
        options: of cameras that have none of their own; may be replaced at any time.
        camera_options: by camera name; may be replaced at any time.
        trackers: of the cameras.
        warm_up_seconds: what the last batch of `warm_up` took.
    """

    def __init__(
        self,
        backend: Backend,
        table: ClassTable,
        options: SegmenterOptions | None = None,
        ignore_masks: Mapping[str, IgnoreMask] | None = None,
    ) -> None:
        """Take what frames go through.

        Args:
            backend: runs the model; closed by `close`.
            table: sorts the model's classes into road groups.
            options: defaults for all.
            ignore_masks: by camera name.
        """
        self.options = options or SegmenterOptions()
        self.camera_options: Mapping[str, SegmenterOptions] = {}
        self.trackers = Trackers()
        self.warm_up_seconds = 0.0
        self._backend = backend
        self._groups = table.groups(backend.spec.class_names)
        self._ignore_masks = dict(ignore_masks or {})
        self._accelerator = backend if isinstance(backend, Accelerator) else None
        self._choices = Choices(backend.spec, self._groups, self._ignore_masks)

    @property
    def spec(self) -> ModelSpec:
        """What the model says of itself."""
        return self._backend.spec

    @property
    def identity(self) -> dict[str, str]:
        """What runs here, for people."""
        return self._backend.identity

    @property
    def depth(self) -> int:
        """How many batches may have begun and not ended."""
        return self._accelerator.depth if self._accelerator else 1

    @property
    def largest_batch(self) -> int:
        """How many frames are worth beginning at once: a backend on the host gains nothing from several."""
        return self._accelerator.largest_batch if self._accelerator else 1

    def segment(self, frames: Sequence[Frame], semantic: bool = False) -> list[Segmentation]:
        """Process one frame of each of several cameras; `semantic` asks for semantic maps, too.

        Raises:
            FrameError: a frame cannot be decoded.
            ModelOutputError: the model produced NaN or infinity.
        """
        results = []
        for result in self.end(self.begin(frames, semantic)):
            if isinstance(result, ModelOutputError):
                raise result
            results.append(result)
        return results

    def begin(self, frames: Sequence[Frame], semantic: bool = False) -> Begun:
        """The first half of `segment`: an accelerator works on the frames from now on, while the caller goes on.

        Raises:
            FrameError: a frame cannot be decoded.
        """
        own = self.camera_options
        options = [own.get(frame.camera, self.options) for frame in frames]
        # A tracker decides on the host which instances get which numbers.
        tracked = any(each.tracking is not None for each in options)
        job = None
        if self._accelerator is not None:
            choices = None if tracked else self._choices.of(frames, options)
            job = self._accelerator.start(frames, choices, semantic)
        return Begun(frames, options, semantic, tracked, job)

    def end(self, begun: Begun) -> list[Segmentation | ModelOutputError]:
        """The second half of `segment`: the result of each frame; the model's fault in one does not harm the others.

        Raises:
            FrameError: a frame cannot be decoded.
        """
        if self._accelerator is not None:
            chosen = self._tracked(begun) if begun.tracked else self._accelerator.chosen(begun.job)
            results = [segmentation(*each, self._groups) for each in zip(begun.frames, chosen, strict=True)]
            pairs = zip(results, begun.options, strict=True)
            return [each if isinstance(each, ModelOutputError) else self._filled(each, own) for each, own in pairs]
        try:
            found = zip(begun.frames, self.detect(begun.frames), begun.options, strict=True)
            return [self.finish(*each, begun.semantic) for each in found]
        except ModelOutputError as error:
            return [error] * len(begun.frames)

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Return what the model found, before anything is left out."""
        return self._backend.detect(frames)

    def finish(
        self, frame: Frame, detections: Detections, options: SegmenterOptions, semantic: bool = False
    ) -> Segmentation:
        """Select, number and paint what the last `detect` found in a frame."""
        begin = perf_counter()
        instances = self._kept(frame, detections, options)
        selected = perf_counter()
        size = options.output_size.of(detections.geometry)
        painted = self._paint(detections, instances, size)
        visible = painted.areas[instances.rows] >= options.min_pixels
        if not visible.all():
            # Painted again without them, so that their pixels fall to the instances behind.
            instances = instances.where(visible)
            if options.tracking is None:
                instances = renumber(instances)
            painted = self._paint(detections, instances, size)
        done = perf_counter()
        timings = {**detections.timings, "select": selected - begin, "paint": done - selected}
        classes = None
        if semantic:
            classes = semantic_map(self._backend.class_map(detections, size), instances, painted)
            timings["semantic"] = perf_counter() - done
        areas = painted.areas[instances.rows]
        return self._filled(Segmentation(frame, instances, painted, areas, timings, classes), options)

    def mask(self, detections: Detections, row: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The whole mask of one row of the last `detect`, bool `[height, width]`, whatever lies before it."""
        numbers = np.zeros(len(detections.scores), np.uint16)
        numbers[row] = 1
        return self._backend.paint(detections, numbers, size).pixels > 0

    def class_map(self, detections: Detections, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """What the last `detect` says of each pixel, uint8 `[height, width]`; None for a model without a class map."""
        return self._backend.class_map(detections, size)

    def warm_up(self, runs: int = 2) -> None:
        """Run grey images through, so that the first camera frames do not pay for memory and kernels."""
        grey = np.full((self.spec.network_height, self.spec.network_width, 3), 114, np.uint8)
        for count in range(1, self.largest_batch + 1):
            for _ in range(runs * self.depth):
                begin = perf_counter()
                self.segment([Frame.from_bgr(grey)] * count)
                self.warm_up_seconds = perf_counter() - begin
        for camera in self._ignore_masks:
            self.segment([Frame.from_bgr(grey, camera=camera)])

    def close(self) -> None:
        """Release the model."""
        self._backend.close()

    def _kept(self, frame: Frame, detections: Detections, options: SegmenterOptions) -> Instances:
        """The detections that are kept, numbered by the tracker or by score."""
        ignore = self._ignore_masks.get(frame.camera)
        if options.tracking is None:
            return select(detections, self._groups, options.select, ignore)
        return self.trackers.select(frame, detections, self._groups, options, ignore)

    def _tracked(self, begun: Begun) -> list[Chosen | ModelOutputError]:
        """Return what an accelerator makes of numbers that are decided here, while it works on the next frames."""
        if self._accelerator is None:
            raise RuntimeError("expected an accelerator, got a backend on the host")
        numbers: list[NDArray[np.uint16]] = []
        found = self._accelerator.detections(begun.job)
        for frame, each, options in zip(begun.frames, found, begun.options, strict=True):
            if isinstance(each, ModelOutputError):
                numbers.append(np.zeros(self.spec.max_instances, np.uint16))
            else:
                numbers.append(_numbers(each, self._kept(frame, each, options)))
        choices = self._choices.of(begun.frames, begun.options)
        painted = self._accelerator.painted(begun.job, numbers, choices, begun.semantic)
        pairs = zip(found, painted, strict=True)
        return [before if isinstance(before, ModelOutputError) else after for before, after in pairs]

    def _filled(self, result: Segmentation, options: SegmenterOptions) -> Segmentation:
        """With objects that the frame lacked, if the tracker is to fill them in."""
        if options.tracking is None or not options.tracking.coast:
            return result
        expected = self.trackers.coasted(result.frame)
        areas = np.append(result.areas, np.zeros(len(expected), np.int64))
        return replace(result, instances=result.instances.joined(expected), areas=areas)

    def _paint(self, detections: Detections, instances: Instances, size: tuple[int, int]) -> InstanceMap:
        return self._backend.paint(detections, _numbers(detections, instances), size)


def _numbers(detections: Detections, instances: Instances) -> NDArray[np.uint16]:
    """The number of each row of the detections, uint16 `[K]`; 0 for those that are no instances."""
    numbers = np.zeros(len(detections.scores), np.uint16)
    numbers[instances.rows] = instances.numbers
    return numbers
