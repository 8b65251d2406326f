"""The backend of every CPU: letterbox, run, paint. Runners differ only in `run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import ModelSpec
from seg_perception.core.encodings.raw import view
from seg_perception.core.frame import Frame
from seg_perception.core.geometry import ResizeGeometry
from seg_perception.core.instances import Detections, InstanceMap
from seg_perception.core.share import find_model

from ..base import Backend, ModelOutputs, Runner, RunOptions, check_detections
from ..registry import open_model
from .cells import at_output
from .components import Components, check_class_map
from .letterbox import letterbox
from .paint import paint


@dataclass(frozen=True, slots=True)
class _HostMasks:
    """Masks of one frame in the runner's output: which `detect` made them, and where.

    Attributes:
        outputs: of the whole batch.
        index: of the frame in it.
        components: the instances, for a model with a class map only.
    """

    outputs: ModelOutputs
    index: int
    components: Components | None = None


class HostBackend:
    """A `Backend` made of a `Runner` and the host's letterbox, components and paint."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._images = np.empty((0, 0, 0, 3), np.uint8)
        self._latest: ModelOutputs | None = None

    @property
    def spec(self) -> ModelSpec:
        """What the model says of itself."""
        return self._runner.spec

    @property
    def identity(self) -> dict[str, str]:
        """What runs here, for people."""
        return self._runner.identity

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Run the model on frames, one per camera; see `Backend.detect`."""
        spec = self.spec
        shape = (len(frames), spec.network_height, spec.network_width, 3)
        if self._images.shape != shape:
            self._images = np.empty(shape, np.uint8)
        begin = perf_counter()
        views = [view(frame) for frame in frames]
        decoded = perf_counter()
        geometries = [
            ResizeGeometry.fit(spec.resize, frame.width, frame.height, spec.network_width, spec.network_height)
            for frame in frames
        ]
        for (image, order), geometry, out in zip(views, geometries, self._images, strict=True):
            letterbox(image, order, geometry, spec.resize.pad_value, out)
        boxed = perf_counter()
        outputs = self._latest = self._runner.run(self._images)
        done = perf_counter()
        timings = {"decode": decoded - begin, "letterbox": boxed - decoded, "model": done - boxed}
        share = {stage: seconds / len(frames) for stage, seconds in timings.items()}
        found = _instances if spec.max_instances else _components
        return [found(spec, outputs, index, geometry, share) for index, geometry in enumerate(geometries)]

    def paint(self, detections: Detections, numbers: NDArray[np.uint16], output_size: tuple[int, int]) -> InstanceMap:
        """Paint the masks of the last `detect`; see `Backend.paint`."""
        handle = self._handle(detections)
        if handle.components is not None:
            return handle.components.paint(numbers, detections.geometry, output_size)
        return paint(
            handle.outputs.masks[handle.index],
            detections.boxes_network,
            numbers,
            detections.geometry,
            output_size,
            self.spec.mask_frame,
        )

    def class_map(self, detections: Detections, output_size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """The class of each pixel; see `Backend.class_map`."""
        handle = self._handle(detections)
        if handle.outputs.class_map is None:
            return None
        return at_output(handle.outputs.class_map[handle.index], detections.geometry, output_size)

    def close(self) -> None:
        """Release the model."""
        self._latest = None
        self._runner.close()

    def _handle(self, detections: Detections) -> _HostMasks:
        handle = detections.masks
        if not isinstance(handle, _HostMasks) or handle.outputs is not self._latest:
            raise ValueError("masks: expected detections of this backend's last detect, got older or foreign ones")
        return handle


def open_backend(path: Path, backend: str = "", options: RunOptions | None = None) -> Backend:
    """Open a canonical model or an engine as a `Backend`; see `backend.registry.open_model` for the errors.

    Args:
        path: of its file, or what else `find_model` takes.
        backend: its name; empty for the one that goes with the file's suffix.
        options: how it runs.
    """
    opened = open_model(find_model(str(path)), backend, options)
    return opened if isinstance(opened, Backend) else HostBackend(opened)


def _instances(
    spec: ModelSpec, outputs: ModelOutputs, index: int, geometry: ResizeGeometry, timings: dict[str, float]
) -> Detections:
    """Return what a model found in one frame of its batch."""
    boxes, scores, labels = outputs.boxes[index], outputs.scores[index], outputs.labels[index]
    classes = len(spec.class_names)
    check_detections(boxes, scores, labels, classes)
    if outputs.class_map is not None:
        check_class_map(outputs.class_map[index], classes)
    return Detections(boxes, scores, labels, geometry, _HostMasks(outputs, index), timings)


def _components(
    spec: ModelSpec, outputs: ModelOutputs, index: int, geometry: ResizeGeometry, timings: dict[str, float]
) -> Detections:
    """The components of the class map of one frame, for a model that has nothing else."""
    begin = perf_counter()
    if outputs.class_map is None:
        raise ValueError("model outputs: expected instances or a class map, got neither")
    check_class_map(outputs.class_map[index], len(spec.class_names))
    found = Components.of(outputs.class_map[index], spec.things, geometry)
    scores = np.ones(len(found.labels), np.float32)
    timings = {**timings, "components": perf_counter() - begin}
    return Detections(found.boxes_network, scores, found.labels, geometry, _HostMasks(outputs, index, found), timings)
