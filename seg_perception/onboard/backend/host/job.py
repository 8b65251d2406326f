"""What a runner makes of a batch, and what becomes of it on the host: selection, maps, masks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import NO_CLASS, ModelSpec
from seg_perception.core.errors import ModelOutputError
from seg_perception.core.geometry import ResizeGeometry
from seg_perception.core.instances import MAX_SEMANTIC_CLASSES, Detections, InstanceMap

from ..base import Selected, SelectionParams, check_detections
from .cells import at_output
from .components import Components, check_class_map
from .paint import paint
from .runner import ModelOutputs
from .select import renumbered, select_rows

# The value of each class of a class map.
_VALUES = np.arange(1, 257).astype(np.uint8)
_VALUES[NO_CLASS] = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What the model found in one frame.

    Attributes:
        detections: copies; they last longer than the masks.
        outputs: of the whole batch, whose memory lasts as long as this does.
        index: of the frame in it.
        mask_frame: `frame` or `box`, what a mask grid spans.
        components: the instances, for a model with a class map only.
    """

    detections: Detections
    outputs: ModelOutputs
    index: int
    mask_frame: str
    components: Components | None = None

    @classmethod
    def of(
        cls, spec: ModelSpec, outputs: ModelOutputs, index: int, geometry: ResizeGeometry, timings: dict[str, float]
    ) -> Found | ModelOutputError:
        """Check and take one frame of a batch; the fault of the model in it, if there is one."""
        try:
            if outputs.class_map is not None:
                check_class_map(outputs.class_map[index], len(spec.class_names))
            if not spec.max_instances:
                return cls._components(spec, outputs, index, geometry, timings)
            boxes, scores, labels = outputs.boxes[index], outputs.scores[index], outputs.labels[index]
            check_detections(boxes, scores, labels, len(spec.class_names))
        except ModelOutputError as error:
            # The traceback would keep the outputs.
            return error.with_traceback(None)
        detections = Detections(boxes.copy(), scores.copy(), labels.copy(), geometry, timings)
        return cls(detections, outputs, index, spec.mask_frame)

    @classmethod
    def _components(
        cls, spec: ModelSpec, outputs: ModelOutputs, index: int, geometry: ResizeGeometry, timings: dict[str, float]
    ) -> Found:
        """Find the components of a class map, for a model that has nothing else."""
        if outputs.class_map is None:
            raise ValueError("model outputs: expected instances or a class map, got neither")
        begin = perf_counter()
        found = Components.of(outputs.class_map[index], spec.things, geometry)
        scores = np.ones(len(found.labels), np.float32)
        timings = {**timings, "components": perf_counter() - begin}
        detections = Detections(found.boxes_network, scores, found.labels, geometry, timings)
        return cls(detections, outputs, index, spec.mask_frame, found)

    def paint(self, ids: NDArray[np.uint16], size: tuple[int, int]) -> InstanceMap:
        """Paint the rows with an id.

        Args:
            ids: uint16 `[K]`, the pixel value of each row; 0 leaves a row out.
            size: height and width of the map; it shows the whole camera image.

        Raises:
            ModelOutputError: a mask that is needed has NaN or infinity.
        """
        found = self.detections
        if self.components is not None:
            return self.components.paint(ids, found.geometry, size)
        masks = self.outputs.masks[self.index]
        return paint(masks, found.boxes_network, ids, found.geometry, size, self.mask_frame)

    def class_map(self, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return the class of each pixel; see `Job.class_map`."""
        if self.outputs.class_map is None:
            return None
        return at_output(self.outputs.class_map[self.index], self.detections.geometry, size)

    def selected(
        self, params: SelectionParams, ids: NDArray[np.uint16] | None, semantic: bool
    ) -> Selected | ModelOutputError:
        """Select unless ids are given, and paint; see `Job.painted`."""
        begin = perf_counter()
        if ids is None:
            ids = select_rows(self.detections, params)
        chosen = perf_counter()
        try:
            painted = self.paint(ids, params.map_size)
            small = (ids > 0) & (painted.areas < params.min_pixels)
            if small.any():
                # Painted again without them, so that their pixels fall to the instances behind.
                ids = np.where(small, 0, ids).astype(np.uint16) if params.tracked else renumbered((ids > 0) & ~small)
                painted = self.paint(ids, params.map_size)
        except ModelOutputError as error:
            return error.with_traceback(None)
        done = perf_counter()
        timings = {**self.detections.timings, "select": chosen - begin, "paint": done - chosen}
        classes = None
        if semantic:
            labels = self.detections.labels
            classes = semantic_map(self.class_map(params.map_size), ids, labels, painted.pixels)
            timings["semantic"] = perf_counter() - done
        return Selected(self.detections, ids, painted, classes, timings)


class HostJob:
    """See `Job`. Masks are freed with it."""

    def __init__(
        self,
        found: Future[list[Found | ModelOutputError]],
        selection: Sequence[SelectionParams] | None,
        semantic: bool,
    ) -> None:
        """Take the result to come, and what is to be made of it."""
        self._found = found
        self._selection = selection
        self._semantic = semantic

    def detections(self) -> list[Detections | ModelOutputError]:
        """Wait for the runner; see `Job.detections`."""
        return [each if isinstance(each, ModelOutputError) else each.detections for each in self._found.result()]

    def painted(self, ids: Sequence[NDArray[np.uint16]] | None = None) -> list[Selected | ModelOutputError]:
        """Select unless ids are given, and paint, in the caller's thread; see `Job.painted`."""
        selection = self._selection
        if selection is None or (ids is None and any(params.tracked for params in selection)):
            raise ValueError("job: expected one that was started with a selection, and ids where that is tracked")
        found = self._found.result()
        given = ids if ids is not None else [None] * len(found)
        return [
            each if isinstance(each, ModelOutputError) else each.selected(params, own, self._semantic)
            for each, params, own in zip(found, selection, given, strict=True)
        ]

    def mask(self, frame: int, row: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Paint one mask; see `Job.mask`."""
        found = self._frame(frame)
        ids = np.zeros(len(found.detections.scores), np.uint16)
        ids[row] = 1
        return found.paint(ids, size).pixels > 0

    def class_map(self, frame: int, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return the class of each pixel; see `Job.class_map`."""
        return self._frame(frame).class_map(size)

    def _frame(self, index: int) -> Found:
        found = self._found.result()[index]
        if isinstance(found, ModelOutputError):
            raise found
        return found


def semantic_map(
    class_map: NDArray[np.uint8] | None, ids: NDArray[np.uint16], labels: NDArray[np.int32], pixels: NDArray[np.uint16]
) -> NDArray[np.uint8]:
    """Return class index + 1 per pixel; 0 is background.

    Args:
        class_map: uint8 `[height, width]`, as `Job.class_map` returns it.
        ids: uint16 `[K]`, pixel value of each row of the detections; 0 for those that were not painted.
        labels: int32 `[K]`, class of each row.
        pixels: uint16 `[height, width]`, the instance map.

    Returns:
        uint8 `[height, width]`.
    """
    values = np.zeros(int(ids.max(initial=0)) + 1, np.uint8)
    values[ids] = np.where(labels < MAX_SEMANTIC_CLASSES, labels + 1, 0)
    values[0] = 0
    things: NDArray[np.uint8] = values[pixels]
    if class_map is None:
        return things
    return np.where(things > 0, things, np.take(_VALUES, class_map))
