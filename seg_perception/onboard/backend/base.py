"""What a backend is: frames in, a `Job` out, whatever computes.

A job is begun by `Backend.start`, which returns while the work goes on, and owns what belongs to its batch, masks
included, until it is dropped. The host's backend (host/backend.py) runs the model on threads of its own; that of a GPU
(tensorrt/cuda/backend.py) has its kernels select and paint, and the masks never come to the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import CLASS_MAP_OUTPUT, INPUT_NAME, NO_CLASS, ModelSpec
from seg_perception.core.errors import ConfigurationError, ModelError, ModelOutputError, NotCanonicalError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Detections, InstanceMap
from seg_perception.core.onnx_files import model_sha256
from seg_perception.core.text import message_text


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options for running a model.

    Attributes:
        device: the backend's name of the device (`CPU`, `GPU`, `NPU`, `cuda`); empty for its default.
        threads: CPU threads of each runner; 0 lets the backend choose.
        runners: how many batches a CPU works on at once, each with a copy of the model; 0 for the number that gives the
            most frames per second. More than one delays each result.
    """

    device: str = ""
    threads: int = 0
    runners: int = 1

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ConfigurationError(f"threads: expected 0 (the backend's choice) or more, got {self.threads}")
        if self.runners < 0:
            raise ConfigurationError(f"runners: expected 0 (the backend's choice) or more, got {self.runners}")


@dataclass(frozen=True, slots=True)
class SelectionParams:
    """Which instances of a frame are painted, and how large the map is.

    Attributes:
        thresholds: float32 `[C]`, lowest score of each of the model's classes; infinity for those never kept.
        groups: int32 `[C]`, road group of each class, or `classes.NO_GROUP`; the same for all frames of a batch.
        group_iou: of two instances of different classes in a group that overlap by more, the one with the lower score
            is dropped.
        min_pixels: instances with fewer visible pixels are left out, and their pixels fall to those behind.
        map_size: height and width of the instance map; it shows the whole camera image.
        ignore: float64 `[h + 1, w + 1]`, sums of the ignore mask (`IgnoreMask.sums`), or None. Pass the same array
            every time: a GPU keeps it.
        tracked: whether the instances and their ids will be given to `Job.painted`. The backend selects nothing then.
    """

    thresholds: NDArray[np.float32]
    groups: NDArray[np.int32]
    group_iou: float
    min_pixels: int
    map_size: tuple[int, int]
    ignore: NDArray[np.float64] | None = None
    tracked: bool = False


@dataclass(frozen=True, slots=True)
class Selected:
    """The result of one frame under its `SelectionParams`.

    Attributes:
        detections: all that the model found.
        ids: uint16 `[K]`, pixel value of each row; 0 for rows left out. 1..N by descending score, unless they were
            given.
        painted: the map, and the visible pixels of each row.
        semantic_map: uint8 `[height, width]`, class index + 1 of each pixel and 0 for none; None when not asked for.
        timings: seconds spent per stage.
    """

    detections: Detections
    ids: NDArray[np.uint16]
    painted: InstanceMap
    semantic_map: NDArray[np.uint8] | None
    timings: Mapping[str, float]


class Job(Protocol):
    """A batch of frames in flight or done. Results come in the order of the frames."""

    def detections(self) -> list[Detections | ModelOutputError]:
        """Wait for the model, and return what it found in each frame, or its fault in that frame.

        Raises:
            ModelError: the model cannot be run.
            DeviceError: the device failed.
        """

    def painted(self, ids: Sequence[NDArray[np.uint16]] | None = None) -> list[Selected | ModelOutputError]:
        """Wait for the maps of a batch that was started with a selection.

        Args:
            ids: for each frame uint16 `[K]`, the pixel value of each row, 0 for rows left out. None where the backend
                is to select, which needs `SelectionParams` that are not tracked. Given ids stay; rows with too few
                visible pixels get 0.

        Returns:
            The result of each frame, or the fault of the model in it: NaN or infinity in a mask that was painted, too.

        Raises:
            ModelError: the model cannot be run.
            DeviceError: the device failed.
        """

    def mask(self, frame: int, row: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Paint the whole mask of one row of the detections, whatever lies before it.

        Args:
            frame: index of the frame, one without a fault of the model.
            row: of its detections.
            size: height and width of the result; it shows the whole camera image.

        Returns:
            bool `[height, width]`.

        Raises:
            ModelOutputError: the mask has NaN or infinity.
        """

    def class_map(self, frame: int, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return the class of each pixel by the model's class map.

        Args:
            frame: index of the frame, one without a fault of the model.
            size: height and width of the result; it shows the whole camera image.

        Returns:
            uint8 `[height, width]`, index into the class names or `contract.NO_CLASS`; None for a model without a
            class map.
        """


class Backend(Protocol):
    """Finds instances in frames and paints them. One thread at a time uses a backend and its jobs."""

    @property
    def spec(self) -> ModelSpec:
        """The model's description of itself."""

    @property
    def identity(self) -> dict[str, str]:
        """Human-readable facts: backend, device, precision, threads, model file and its sha256."""

    @property
    def depth(self) -> int:
        """The number of jobs that may exist at once for full throughput. A GPU takes no more."""

    @property
    def largest_batch(self) -> int:
        """The number of frames that are worth starting together. A GPU takes no more."""

    def wait(self) -> None:
        """Wait until a job that is started now would not wait for others; the moment to take the freshest frames.

        A GPU copies a batch while it works on the one before, so there is nothing to wait for.
        """

    def start(
        self, frames: Sequence[Frame], selection: Sequence[SelectionParams] | None = None, semantic: bool = False
    ) -> Job:
        """Begin with one frame of each of several cameras, and return while the work goes on.

        Args:
            frames: at least one. Their pixels must stay as they are until the job's `detections` returns.
            selection: one for each frame; None where only detections, masks and class maps are wanted.
            semantic: whether `painted` gives semantic maps too.

        Raises:
            FrameError: a frame cannot be decoded.
            DeviceError: the device failed.
        """

    def close(self) -> None:
        """Release everything; calling it again does nothing."""


def check_detections(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int32], classes: int
) -> None:
    """Check the detections of one frame.

    Args:
        boxes: float32 `[K, 4]`.
        scores: float32 `[K]`.
        labels: int32 `[K]`.
        classes: how many there are.

    Raises:
        ModelOutputError: NaN, infinity, or a class that there is not.
    """
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise not_finite("scores and boxes")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ModelOutputError(
            f"model output: expected labels from 0 to {classes - 1}, got {labels.min()} to {labels.max()}; the model "
            "and its metadata do not fit: run `seg_perception prepare` again"
        )


def not_finite(what: str) -> ModelOutputError:
    """The error for outputs with NaN or infinity."""
    return ModelOutputError(
        f"model output: expected finite {what}, got NaN or infinity; the model is broken or overflows in its "
        "precision: check it with `seg_perception image` and rebuild it in f32"
    )


def unknown_class(found: object, classes: int) -> ModelOutputError:
    """The error for a class map with a class that there is not."""
    return ModelOutputError(
        f"model output: expected classes from 0 to {classes - 1} or {NO_CLASS} in the class map, got {found}; the "
        "model and its metadata do not fit: run `seg_perception prepare` again"
    )


def model_identity(path: Path, spec: ModelSpec) -> dict[str, str]:
    """The part of `identity` that is the same for every backend: file, its sha256, family, network size."""
    size = f"{spec.network_width}x{spec.network_height}"
    return {"model": str(path), "sha256": model_sha256(path), "family": spec.family, "network_size": size}


def check_signature(spec: ModelSpec, shapes: Mapping[str, Sequence[int | str | None]], origin: str) -> None:
    """Hold the inputs and outputs that a model really has against what its metadata promise.

    Args:
        spec: the metadata.
        shapes: shape of every input and output by name; a dynamic axis is -1, None or a name.
        origin: the model file, for the message.

    Raises:
        NotCanonicalError: a tensor is missing or has another shape.
    """
    instances, grid = spec.max_instances, (spec.mask_height, spec.mask_width)
    expected: dict[str, tuple[int, ...]] = {INPUT_NAME: (spec.network_height, spec.network_width, 3)}
    if instances:
        expected |= {"boxes": (instances, 4), "scores": (instances,), "labels": (instances,)}
        expected["masks"] = (instances, *grid)
    if spec.class_map:
        expected[CLASS_MAP_OUTPUT] = grid
    for name, shape in expected.items():
        found = shapes.get(name)
        if found is None or tuple(found[1:]) != shape:
            raise NotCanonicalError(
                f"{origin}: its metadata promise {name!r} of shape {('B', *shape)}, the model has "
                f"{tuple(found) if found is not None else 'no such tensor'}; run `seg_perception prepare` again"
            )


def run_error(runtime: str, error: Exception) -> ModelError:
    """Return the error of a model that was opened and cannot be run, which `runtime` says."""
    return ModelError(
        "model: it can be opened, but fails when it is run: it is damaged, or made for another version of the runtime; "
        f"prepare it again, or try another backend. {runtime} says: {message_text(error)}"
    )
