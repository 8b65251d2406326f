"""From the options of a camera to what a backend selects by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import ModelSpec
from seg_perception.core.frame import Frame
from seg_perception.onboard.backend.base import SelectionParams
from seg_perception.onboard.backend.host.select import IgnoreMask, class_thresholds

from .options import SegmenterOptions


class Selection:
    """Turns the options of cameras into `SelectionParams`."""

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

    def of(self, frame: Frame, options: SegmenterOptions) -> SelectionParams:
        """Return what is kept in a frame."""
        known = self._thresholds.get(frame.camera)
        if known is None or known[0] is not options:
            known = (options, class_thresholds(options.select, self._groups))
            self._thresholds[frame.camera] = known
        ignore = self._ignore_masks.get(frame.camera)
        return SelectionParams(
            known[1],
            self._groups,
            options.select.group_iou,
            options.min_pixels,
            options.output_size.of(self._spec.geometry(frame.width, frame.height)),
            ignore.sums if ignore is not None else None,
            options.tracking is not None,
        )
