"""Scales of symmetric INT8: `value = scale * q`, q from -127 (weights) or -128 (activations) to 127."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

LEVELS = 127
# Below this, float16 has too few digits for a scale; so small a scale is of a channel that is all but zero.
SMALLEST = 2.0**-20
# Shares of the largest weight at which the scale may clip.
_CLIPS = np.linspace(1.0, 0.6, 41)


def representable(scale: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scales rounded to what float16 holds, so that the float32 and the float16 graph quantize alike."""
    rounded: NDArray[np.float32] = np.maximum(scale, SMALLEST).astype(np.float16).astype(np.float32)
    return rounded


def weight_scales(weight: NDArray[np.floating], axis: int) -> NDArray[np.float32]:
    """The scale of each output channel with the least squared error of its weights.

    Args:
        weight: of any shape.
        axis: of the output channels, C of them.

    Returns:
        float32 `[C]`.
    """
    rows = np.moveaxis(np.asarray(weight, np.float32), axis, 0)
    rows = rows.reshape(len(rows), -1)
    largest = np.abs(rows).max(axis=1)
    best = representable(largest / LEVELS)
    least: NDArray[np.floating] = np.full(len(rows), np.inf)
    for clip in _CLIPS:
        scale = representable(largest * clip / LEVELS)
        rounded = np.clip(np.rint(rows / scale[:, None]), -LEVELS, LEVELS) * scale[:, None]
        error = np.square(rounded - rows).sum(axis=1)
        better = error < least
        best, least = np.where(better, scale, best), np.where(better, error, least)
    return best.astype(np.float32)


def quantized_weight(weight: NDArray[np.floating], scales: NDArray[np.float32], axis: int) -> NDArray[np.int8]:
    """The weights in steps of their channel's scale, int8 of the same shape, -127 to 127."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    steps = np.rint(np.asarray(weight, np.float32) / scales.reshape(shape))
    whole: NDArray[np.int8] = np.clip(steps, -LEVELS, LEVELS).astype(np.int8)
    return whole


def activation_scales(limits: Mapping[str, float], groups: Mapping[str, str]) -> dict[str, float]:
    """The scale of each tensor.

    Args:
        limits: largest magnitude that each tensor's scale should hold.
        groups: by tensor, which of them share a scale; it holds the largest of the group.
    """
    largest: dict[str, float] = {}
    for name, group in groups.items():
        largest[group] = max(largest.get(group, 0.0), limits[name])
    return {name: float(representable(np.array(largest[group] / LEVELS))) for name, group in groups.items()}
