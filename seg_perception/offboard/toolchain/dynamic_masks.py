"""Masks by dynamic convolution: each instance brings the weights of a small network that runs over shared features.

The network has three layers of 1 x 1 convolutions with a relu between them. It sees each cell's P features and where
the cell lies relative to the instance's position, in units of eight strides of the level that found it. Of B
images, K instances, h x w cells, layers D wide, an instance's G parameters are in this order

    D x (2 + P), D x D, 1 x D    weights of the layers, the relative x and y first
    D, D, 1                      their biases

as CondInst introduced them and RTMDet-Ins has them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .graph import GraphBuilder, Value


def layer_width(features: int, parameters: int) -> int | None:
    """D, given P and G; None where no D fits."""
    # G = D (P + 2) + D D + D + D + D + 1
    linear = features + 5
    width = (math.isqrt(linear**2 + 4 * max(parameters - 1, 0)) - linear) // 2
    return width if width > 0 and width * (width + linear) + 1 == parameters else None


@dataclass(frozen=True, slots=True)
class MaskShape:
    """How large everything is.

    Attributes:
        rows: K.
        features: P.
        width: D.
        grid: h and w.
        stride: of the features in pixels; cell (i, j) counts as pixel (i * stride, j * stride).
    """

    rows: int
    features: int
    width: int
    grid: tuple[int, int]
    stride: int


def dynamic_masks(graph: GraphBuilder, kernels: Value, origins: Value, features: Value, shape: MaskShape) -> Value:
    """Mask logits.

    Args:
        graph: where to write.
        kernels: float32 `[B, K, G]`.
        origins: float32 `[B, K, 3]`: x and y of the instance's position in network pixels, and how much a pixel's
            distance from there counts.
        features: float32 `[B, P, h, w]`.
        shape: K, P, D, h, w.

    Returns:
        float32 `[B, K, h, w]`.
    """
    rows, count, width, (height, across) = shape.rows, shape.features, shape.width, shape.grid
    cells = height * across
    sizes = (width * (2 + count), width * width, width, width, width, 1)
    first, second, third, *biases = kernels.split(2, *sizes)
    bias, second_bias, third_bias = (value.unsqueeze(3) for value in biases)

    # The first layer is linear, so neither the features nor the relative places are copied for every instance:
    # weight * (origin - cell) = weight * origin, a bias, less weight * cell, the same cells for all.
    origin, unit = origins.unsqueeze(2).split(3, 2, 1)
    place, look = first.reshape(0, rows, width, 2 + count).split(3, 2, count)
    place = place * unit
    bias = bias + (place * origin).sum(3, keep=True)
    y, x = np.mgrid[:height, :across].reshape(2, cells) * float(shape.stride)
    seen = look.reshape(0, rows * width, count) @ features.reshape(0, count, cells)
    seen = seen - place.reshape(0, rows * width, 2) @ graph.constant(np.stack([x, y]))
    layer = (seen.reshape(0, rows, width, cells) + bias).relu()
    layer = (second.reshape(0, rows, width, width) @ layer + second_bias).relu()
    logits = third.reshape(0, rows, 1, width) @ layer + third_bias
    return logits.reshape(0, rows, height, across)
