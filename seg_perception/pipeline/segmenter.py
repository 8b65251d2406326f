"""A picture comes in as a frame; the backend turns it into detections; they become numbered instances on one map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ..backend.base import Backend
from ..classes import ClassTable
from ..contract import ModelSpec
from ..errors import ConfigurationError
from ..frame import Frame
from ..instances import Detections, InstanceMap, Instances, Segmentation
from .output_size import OutputSize
from .select import IgnoreMask, SelectOptions, renumber, select
from .semantic import semantic_map


@dataclass(frozen=True, slots=True)
class SegmenterOptions:
    """Everything that may change between two frames.

    Attributes:
        select: which detections are kept.
        min_pixels: instances with fewer visible pixels of the instance map are neither published nor tracked.
        output_size: size of the instance map.
    """

    select: SelectOptions = field(default_factory=SelectOptions)
    min_pixels: int = 16
    output_size: OutputSize = field(default_factory=OutputSize)

    def __post_init__(self) -> None:
        if self.min_pixels < 0:
            raise ConfigurationError(f"min_pixels: expected 0 or more, got {self.min_pixels}")


class Segmenter:
    """Frames in, segmentations out.

    `options` may be replaced at any time; a frame is processed under one set of options.
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
        self._backend = backend
        self._groups = table.groups(backend.spec.class_names)
        self._ignore_masks = dict(ignore_masks or {})

    @property
    def spec(self) -> ModelSpec:
        """What the model says of itself."""
        return self._backend.spec

    @property
    def identity(self) -> dict[str, str]:
        """What runs here, for people."""
        return self._backend.identity

    def segment(self, frames: Sequence[Frame], semantic: bool = False) -> list[Segmentation]:
        """Process one frame of each of several cameras; `semantic` asks for semantic maps, too.

        Raises:
            FrameError: a frame cannot be decoded.
            ModelOutputError: the model produced NaN or infinity.
        """
        options, detected = self.options, self.detect(frames)
        return [self.finish(frame, found, options, semantic) for frame, found in zip(frames, detected, strict=True)]

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """The first half of `segment`: what the model found, before anything is left out."""
        return self._backend.detect(frames)

    def finish(
        self, frame: Frame, detections: Detections, options: SegmenterOptions, semantic: bool = False
    ) -> Segmentation:
        """The second half of `segment`: select, number and paint what the last `detect` found in a frame."""
        begin = perf_counter()
        kept = select(detections, self._groups, options.select, self._ignore_masks.get(frame.camera))
        selected = perf_counter()
        size = options.output_size.of(detections.geometry)
        instances, painted = kept, self._paint(detections, kept, size)
        visible = painted.areas[instances.rows] >= options.min_pixels
        if not visible.all():
            # Painted again without them, so that their pixels fall to the instances behind.
            instances = renumber(instances.where(visible))
            painted = self._paint(detections, instances, size)
        done = perf_counter()
        timings = {**detections.timings, "select": selected - begin, "paint": done - selected}
        classes = None
        if semantic:
            classes = semantic_map(self._backend.class_map(detections, size), instances, painted)
            timings["semantic"] = perf_counter() - done
        return Segmentation(frame, instances, painted, painted.areas[instances.rows], timings, classes)

    def mask(self, detections: Detections, row: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The whole mask of one row of the last `detect`, bool `[height, width]`, whatever lies before it."""
        numbers = np.zeros(len(detections.scores), np.uint16)
        numbers[row] = 1
        return self._backend.paint(detections, numbers, size).pixels > 0

    def class_map(self, detections: Detections, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """What the last `detect` says of each pixel, uint8 `[height, width]`; None for a model without a class map."""
        return self._backend.class_map(detections, size)

    def warm_up(self, runs: int = 2) -> None:
        """Run grey pictures through, so that the first camera frame does not pay for memory and kernels."""
        grey = np.full((self.spec.network_height, self.spec.network_width, 3), 114, np.uint8)
        for _ in range(runs):
            self.segment([Frame.from_bgr(grey)])

    def close(self) -> None:
        """Release the model."""
        self._backend.close()

    def _paint(self, detections: Detections, instances: Instances, size: tuple[int, int]) -> InstanceMap:
        numbers = np.zeros(len(detections.scores), np.uint16)
        numbers[instances.rows] = instances.numbers
        return self._backend.paint(detections, numbers, size)
