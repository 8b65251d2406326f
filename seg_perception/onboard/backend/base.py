"""What a backend is.

A `Backend` does the two things the pipeline needs, on whatever device it lives: `detect` and `paint`. A backend that
computes on the host only has to be a `Runner`, arrays in and arrays out; `pipeline.host` completes it with the host's
letterbox and paint, the same for all of them. An `Accelerator` is a backend next to the host: it works while the host
does something else, and can select and paint by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import CLASS_MAP_OUTPUT, INPUT_NAME, NO_CLASS, ModelSpec
from seg_perception.core.errors import ConfigurationError, ModelError, ModelOutputError, NotCanonicalError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Detections, InstanceMap
from seg_perception.core.onnx_files import model_sha256
from seg_perception.core.text import message_text


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """Outputs of a canonical model as host arrays. They belong to the runner and last until its next `run`.

    Attributes:
        boxes: float32 `[B, K, 4]`, x1 y1 x2 y2 in network pixels.
        scores: float32 `[B, K]`, descending.
        labels: int32 `[B, K]`.
        masks: float32 or float16 `[B, K, h, w]`, logits.
        class_map: uint8 `[B, h, w]`, or None.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    masks: NDArray[np.floating]
    class_map: NDArray[np.uint8] | None = None

    @classmethod
    def from_arrays(cls, spec: ModelSpec, arrays: Sequence[NDArray[np.generic]]) -> ModelOutputs:
        """Take the arrays in the order of `spec.output_names`; a model without instances has none of them (K = 0)."""
        named: dict[str, Any] = dict(zip(spec.output_names, arrays, strict=True))
        if not spec.max_instances:
            batch = len(named[CLASS_MAP_OUTPUT])
            named |= {
                "boxes": np.zeros((batch, 0, 4), np.float32),
                "scores": np.zeros((batch, 0), np.float32),
                "labels": np.zeros((batch, 0), np.int32),
                "masks": np.zeros((batch, 0, spec.mask_height, spec.mask_width), np.float32),
            }
        return cls(**named)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a model.

    Attributes:
        device: the backend's name of the device (`CPU`, `GPU`, `NPU`, `cuda`); empty for its default.
        threads: CPU threads; 0 lets the backend choose.
    """

    device: str = ""
    threads: int = 0

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ConfigurationError(f"threads: expected 0 (the backend's choice) or more, got {self.threads}")


@runtime_checkable
class Runner(Protocol):
    """Runs a canonical model on host arrays."""

    @property
    def spec(self) -> ModelSpec:
        """What the model says of itself."""

    @property
    def identity(self) -> dict[str, str]:
        """What runs here, for people: backend, device, precision, threads, model file and its sha256."""

    def run(self, images: NDArray[np.uint8]) -> ModelOutputs:
        """Run the model.

        Args:
            images: uint8 `[B, H, W, 3]`, RGB, B at least 1; a model of another fixed batch is run in parts.
        """

    def close(self) -> None:
        """Release everything; calling it again does nothing."""


@runtime_checkable
class Backend(Protocol):
    """Finds instances in frames and paints them."""

    @property
    def spec(self) -> ModelSpec:
        """What the model says of itself."""

    @property
    def identity(self) -> dict[str, str]:
        """What runs here, for people: backend, device, precision, threads, model file and its sha256."""

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Run the model on one frame of each of several cameras.

        Raises:
            FrameError: a frame cannot be decoded.
            ModelOutputError: the model produced NaN or infinity.
        """

    def paint(self, detections: Detections, numbers: NDArray[np.uint16], output_size: tuple[int, int]) -> InstanceMap:
        """Paint the masks of the last `detect`.

        Args:
            detections: one of those that the last `detect` returned.
            numbers: uint16 `[K]`, the pixel value for each row; 0 leaves a row out.
            output_size: height and width of the map; it shows the whole camera image.

        Raises:
            ModelOutputError: a mask that would be painted has NaN or infinity. A backend may pass over those where
                nothing would be seen of them.
        """

    def class_map(self, detections: Detections, output_size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """The class of each pixel, by the model's class map of the last `detect`.

        Args:
            detections: one of those that the last `detect` returned.
            output_size: height and width of the result; it shows the whole camera image.

        Returns:
            uint8 `[height, width]`, index into the class names or `contract.NO_CLASS`; None for a model without a
            class map.
        """

    def close(self) -> None:
        """Release everything; calling it again does nothing."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which instances of a frame are painted, and how large: what `pipeline.select` decides by, as plain numbers.

    Attributes:
        thresholds: float32 `[C]`, lowest score of each of the model's classes; infinity for those never kept.
        groups: int32 `[C]`, road group of each class, or `classes.NO_GROUP`; the same for all frames of a batch.
        group_iou: of two instances of different classes in a group that overlap by more, the weaker is dropped.
        min_pixels: instances with fewer visible pixels are left out, and their pixels fall to those behind.
        map_size: height and width of the instance map; it shows the whole camera image.
        ignore: float64 `[h + 1, w + 1]`, sums of the ignore mask as `pipeline.select.IgnoreMask` holds them, or None.
            The same array every time: it stays on the device.
    """

    thresholds: NDArray[np.float32]
    groups: NDArray[np.int32]
    group_iou: float
    min_pixels: int
    map_size: tuple[int, int]
    ignore: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The result of one frame under a `Choice`.

    Attributes:
        detections: all that the model found.
        numbers: uint16 `[K]`, pixel value of each row, 1..N by descending score; 0 for rows left out.
        painted: the map, and the visible pixels of each row.
        semantic_map: uint8 `[height, width]`, class index + 1 of each pixel and 0 for none; None when not asked for.
    """

    detections: Detections
    numbers: NDArray[np.uint16]
    painted: InstanceMap
    semantic_map: NDArray[np.uint8] | None


@runtime_checkable
class Accelerator(Backend, Protocol):
    """A backend next to the host. Up to `depth` batches may be in flight; each `start` ends the oldest one's life."""

    @property
    def depth(self) -> int:
        """How many batches may be in flight at once."""

    @property
    def largest_batch(self) -> int:
        """How many frames one `start` takes at most."""

    def start(self, frames: Sequence[Frame], choices: Sequence[Choice] | None = None, semantic: bool = False) -> object:
        """Begin with one frame of each of several cameras, and return while the device works.

        Args:
            frames: they may be overwritten once this returns.
            choices: one for each frame, for `chosen`; None where only `detections` is wanted.
            semantic: whether `chosen` gives semantic maps, too.

        Returns:
            A handle for `detections` or `chosen`.

        Raises:
            FrameError: a frame cannot be decoded.
            DeviceError: the device failed.
        """

    def detections(self, job: object) -> list[Detections | ModelOutputError]:
        """Wait for what was found in each frame, or the fault of the model in it; for the rest see `detect`."""

    def chosen(self, job: object) -> list[Chosen | ModelOutputError]:
        """Wait for the result of each frame, or the fault of the model in it.

        Raises:
            DeviceError: the device failed.
        """

    def painted(
        self, job: object, numbers: Sequence[NDArray[np.uint16]], choices: Sequence[Choice], semantic: bool = False
    ) -> list[Chosen | ModelOutputError]:
        """After `detections`: paint under given numbers, and wait for the result of each frame.

        Args:
            job: one of the last `depth`.
            numbers: for each frame uint16 `[K]`, the pixel value for each row; 0 leaves a row out.
            choices: for each frame; only `min_pixels` and `map_size` are looked at.
            semantic: whether semantic maps are made, too.

        Returns:
            As `chosen`; instances that are too small have the number 0, the others keep theirs.

        Raises:
            DeviceError: the device failed.
        """


def check_detections(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int32], classes: int
) -> None:
    """See that what a model says of a frame is usable.

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
