"""How large the tensors of a network become on calibration frames, by the histograms of ONNX Runtime's calibrators."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import HistogramCollector

from seg_perception.core.contract import INPUT_NAME

from ..graph import ending_in
from .emulation import exact_session
from .layers import Network

MIN_MAX = "minmax"
ENTROPY = "entropy"
PERCENTILES = {"percentile 99.999": 99.999, "percentile 99.99": 99.99}
METHODS = (MIN_MAX, ENTROPY, *PERCENTILES)
_PERCENTILE = "percentile"
# The histograms of the percentiles and of the entropy. ONNX Runtime's default of 128 for the entropy leaves it no
# choice: with as many bins as quantized steps there is one candidate, the largest value.
_PERCENTILE_BINS, _ENTROPY_BINS, _ENTROPY_STEPS = 2048, 512, 128


def calibrate(
    network: Network, tensors: Sequence[str], inputs: Iterable[NDArray[np.uint8]], methods: Sequence[str] = METHODS
) -> dict[str, dict[str, float]]:
    """Run frames through the network and find the range of tensors by each method.

    One frame's tensors are in memory at a time; what is kept of them is histograms.

    Args:
        network: the float32 canonical model.
        tensors: whose ranges are wanted.
        inputs: uint8 `[B, H, W, 3]` each, letterboxed, at least one.
        methods: those that are wanted; the fewer the faster.

    Returns:
        By method and tensor the largest magnitude that the scale should hold.
    """
    session = exact_session(ending_in(network.model, tensors))
    collectors = _collectors(methods)
    largest = dict.fromkeys(tensors, 0.0)
    # The collectors print a line at every step.
    with redirect_stdout(io.StringIO()):
        for image in inputs:
            arrays = dict(zip(tensors, session.run(list(tensors), {INPUT_NAME: image}), strict=True))
            for name, array in arrays.items():
                largest[name] = max(largest[name], float(np.nanmax(np.abs(array), initial=0.0)))
            for collector in collectors.values():
                collector.collect(arrays)
        return {method: largest if method == MIN_MAX else _limits(collectors, method) for method in methods}


def _collectors(methods: Sequence[str]) -> dict[str, Any]:
    """The histograms that the methods need; all percentiles come from one."""
    bins = {ENTROPY: _ENTROPY_BINS, _PERCENTILE: _PERCENTILE_BINS}
    wanted = {_PERCENTILE if method in PERCENTILES else method for method in methods}
    return {
        kind: HistogramCollector(
            method=kind,
            symmetric=True,
            num_bins=count,
            num_quantized_bins=_ENTROPY_STEPS,
            percentile=100.0,
            scenario="same",
        )
        for kind, count in bins.items()
        if kind in wanted
    }


def _limits(collectors: Mapping[str, Any], method: str) -> dict[str, float]:
    collector = collectors[_PERCENTILE if method in PERCENTILES else method]
    collector.percentile = PERCENTILES.get(method, 100.0)
    ranges = collector.compute_collection_result()
    return {name: max(abs(float(low)), abs(float(high))) for name, (low, high, *_) in ranges.items()}
