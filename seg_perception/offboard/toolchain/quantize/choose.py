"""Which method finds the scales, and which layers hurt most: measured on a few of the calibration frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from .frames import CalibrationSet, Image
from .gate import Yardstick
from .insert import Scales, insert
from .layers import Layer, Network
from .progress import Progress
from .scales import weight_scales

_FEW = 8


def few_frames(frames: CalibrationSet) -> tuple[Image, ...]:
    """Some of the calibration frames, the same ones each time; their digests are as good as random numbers."""
    return tuple(sorted(frames.calibration, key=lambda each: each.digest)[:_FEW])


def scales_of_weights(network: Network, layers: Sequence[Layer]) -> dict[tuple[str, int], NDArray[np.float32]]:
    """By weight and axis the scales of the output channels."""
    keys = {(layer.weight, layer.axis) for layer in layers}
    return {key: weight_scales(numpy_helper.to_array(network.weights[key[0]]), key[1]) for key in sorted(keys)}


def distortion_by_method(
    network: Network, layers: Sequence[Layer], scales: Mapping[str, Scales], yardstick: Yardstick, progress: Progress
) -> dict[str, float]:
    """Return how far the model with all layers quantized is from the float one, by calibration method."""
    methods = progress(scales.items(), "calibration methods", len(scales))
    return {method: yardstick.distortion(insert(network, layers, found)) for method, found in methods}


def distortion_by_layer(
    network: Network, layers: Sequence[Layer], scales: Scales, yardstick: Yardstick, progress: Progress
) -> dict[str, float]:
    """Return how far the model with one layer alone quantized is from the float one, by the layer's name."""
    each = progress(layers, "layers alone", len(layers))
    return {layer.name: yardstick.distortion(insert(network, [layer], scales)) for layer in each}


def returned(
    layers: Sequence[Layer], harm: Mapping[str, float], shares: Mapping[str, float], part: float
) -> Iterator[tuple[Layer, ...]]:
    """The layers that are left in INT8 after returning more and more, those first that hurt most for their work.

    Args:
        layers: all that may be quantized.
        harm: distortion by layer.
        shares: of the multiply-accumulates, by layer.
        part: share that each step returns at least.
    """
    order = sorted(layers, key=lambda layer: -harm[layer.name] / max(shares[layer.name], 1e-9))
    gone: set[str] = set()
    share = 0.0
    for layer in order[:-1]:
        gone.add(layer.name)
        share += shares[layer.name]
        if share >= part:
            yield tuple(each for each in layers if each.name not in gone)
            share = 0.0
