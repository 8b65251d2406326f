"""Between the segmenter and an accelerator, which selects and paints by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import ModelSpec
from seg_perception.core.errors import ModelOutputError
from seg_perception.core.frame import Frame
from seg_perception.core.geometry import ResizeGeometry
from seg_perception.core.instances import Segmentation
from seg_perception.onboard.backend.base import Choice, Chosen
from seg_perception.onboard.backend.host.select import IgnoreMask, class_thresholds, numbered

from .options import SegmenterOptions


class Choices:
    """Options as the plain numbers that an accelerator takes."""

    def __init__(self, spec: ModelSpec, groups: NDArray[np.int32], ignore_masks: Mapping[str, IgnoreMask]) -> None:
        """Take what stays the same.

        Args:
            spec: the model.
            groups: int32 `[C]`, road group of each class.
            ignore_masks: by camera name.
        """
        self._spec = spec
        self._groups = groups
        self._ignore_masks = ignore_masks
        self._thresholds: dict[str, tuple[SegmenterOptions, NDArray[np.float32]]] = {}

    def of(self, frames: Sequence[Frame], options: Sequence[SegmenterOptions]) -> list[Choice]:
        """Return what is kept in each frame, by its own options."""
        return [self._of(*each) for each in zip(frames, options, strict=True)]

    def _of(self, frame: Frame, options: SegmenterOptions) -> Choice:
        known = self._thresholds.get(frame.camera)
        if known is None or known[0] is not options:
            known = (options, class_thresholds(options.select, self._groups))
            self._thresholds[frame.camera] = known
        network = (self._spec.network_width, self._spec.network_height)
        ignore = self._ignore_masks.get(frame.camera)
        return Choice(
            known[1],
            self._groups,
            options.select.group_iou,
            options.min_pixels,
            options.output_size.of(ResizeGeometry.fit(self._spec.resize, frame.width, frame.height, *network)),
            ignore.sums if ignore is not None else None,
        )


def segmentation(
    frame: Frame, chosen: Chosen | ModelOutputError, groups: NDArray[np.int32]
) -> Segmentation | ModelOutputError:
    """Return what is published for a frame; `groups` int32 `[C]` is the road group of each class."""
    if isinstance(chosen, ModelOutputError):
        return chosen
    instances = numbered(chosen.detections, chosen.numbers, groups)
    areas = chosen.painted.areas[instances.rows]
    return Segmentation(frame, instances, chosen.painted, areas, chosen.detections.timings, chosen.semantic_map)
