"""What the host's backend needs of a runtime: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import CLASS_MAP_OUTPUT, ModelSpec

Arrays = Sequence[NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """Outputs of a canonical model as host arrays.

    Attributes:
        boxes: float32 `[B, K, 4]`, x1 y1 x2 y2 in network pixels.
        scores: float32 `[B, K]`, descending.
        labels: int32 `[B, K]`.
        masks: float32 or float16 `[B, K, h, w]`, logits.
        class_map: uint8 `[B, h, w]`, or None.
        memory: what the arrays lie in. The runner may fill them again once this is dropped.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    masks: NDArray[np.floating]
    class_map: NDArray[np.uint8] | None = None
    memory: object = None

    @classmethod
    def from_arrays(cls, spec: ModelSpec, arrays: Arrays, memory: object = None) -> ModelOutputs:
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
        return cls(**named, memory=memory)


class Runner(Protocol):
    """Runs a canonical model on host arrays. One thread at a time uses it."""

    @property
    def spec(self) -> ModelSpec:
        """The model's description of itself."""

    @property
    def identity(self) -> dict[str, str]:
        """Human-readable facts; see `Backend.identity`."""

    def run(self, images: NDArray[np.uint8]) -> ModelOutputs:
        """Run the model.

        Args:
            images: uint8 `[B, H, W, 3]`, RGB, B at least 1; a model of another fixed batch is run in parts.
        """

    def close(self) -> None:
        """Release everything; calling it again does nothing."""


def run_in_parts(images: NDArray[np.uint8], batch: int, run: Callable[[NDArray[np.uint8]], Arrays]) -> Arrays:
    """Run `images` `[B, H, W, 3]` in parts of `batch`, the last one filled up by repeating its last image.

    Args:
        images: uint8, B at least 1.
        batch: images per run.
        run: takes `[batch, H, W, 3]`, gives the outputs; its arrays may be overwritten by the next call.

    Returns:
        The outputs with first axis B: those of `run` itself where one run is enough, else copies.
    """
    if len(images) == batch:
        return run(images)
    parts: list[list[NDArray[np.generic]]] = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        wanted = len(part)
        if wanted < batch:
            part = np.concatenate([part, np.repeat(part[-1:], batch - wanted, axis=0)])
        parts.append([array[:wanted].copy() for array in run(part)])
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
