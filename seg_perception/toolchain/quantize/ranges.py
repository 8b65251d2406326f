"""How large the tensors of a network become on calibration frames, by ONNX Runtime's calibrators."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization.calibrate import (
    CalibrationDataReader,
    EntropyCalibrater,
    MinMaxCalibrater,
    PercentileCalibrater,
)

from ...contract import INPUT_NAME
from ..canonical import prune
from .layers import Network

MIN_MAX = "minmax"
ENTROPY = "entropy"
PERCENTILES = {"percentile 99.999": 99.999, "percentile 99.99": 99.99}
METHODS = (MIN_MAX, ENTROPY, *PERCENTILES)
# The histograms of the percentiles and of the entropy. ONNX Runtime's default of 128 for the entropy leaves it no
# choice: with as many bins as quantized steps there is one candidate, the largest value.
_PERCENTILE_BINS, _ENTROPY_BINS, _ENTROPY_STEPS = 2048, 1024, 128


def calibrate(
    network: Network, tensors: Sequence[str], inputs: Iterable[NDArray[np.uint8]]
) -> dict[str, dict[str, float]]:
    """Run frames through the network and find the range of tensors by each method.

    One frame's tensors are in memory at a time; the calibrators keep histograms only.

    Args:
        network: the float32 canonical model.
        tensors: whose ranges are wanted.
        inputs: uint8 `[1, H, W, 3]` each, letterboxed, at least one.

    Returns:
        By method and tensor the largest magnitude that the scale should hold.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "network.onnx")
        source.write_bytes(_ending_in(network.model, tensors).SerializeToString())
        calibrators = _calibrators(source, tensors)
        for image in inputs:
            # The calibrators print a line at every step.
            with redirect_stdout(io.StringIO()):
                for calibrator in calibrators.values():
                    calibrator.collect_data(_Feed({INPUT_NAME: image}))
        with redirect_stdout(io.StringIO()):
            return dict(_limits(calibrators, tensors))


class _Feed(CalibrationDataReader):  # type: ignore[misc]
    """One frame, as the calibrators want it."""

    def __init__(self, feed: Mapping[str, NDArray[np.uint8]]) -> None:
        self._feeds = iter([feed])

    def get_next(self) -> Mapping[str, NDArray[np.uint8]] | None:
        return next(self._feeds, None)


class _LastRun:
    """A session that hands out its last result again: two calibrators look at the same tensors of the same frame."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._feed: Mapping[str, object] | None = None
        self._result: list[NDArray[Any]] = []
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

    def run(self, names: None, feed: Mapping[str, NDArray[np.uint8]]) -> list[NDArray[Any]]:
        if self._feed is None or self._feed[INPUT_NAME] is not feed[INPUT_NAME]:
            self._result, self._feed = self._session.run(names, feed), feed
        return self._result


def _calibrators(source: Path, tensors: Sequence[str]) -> dict[str, Any]:
    entropy = EntropyCalibrater(
        source, symmetric=True, num_bins=_ENTROPY_BINS, num_quantized_bins=_ENTROPY_STEPS,
        augmented_model_path=str(source.with_name("entropy.onnx")),
    )  # fmt: skip
    percentile = PercentileCalibrater(
        source, symmetric=True, num_bins=_PERCENTILE_BINS,
        augmented_model_path=str(source.with_name("percentile.onnx")),
    )  # fmt: skip
    minmax = MinMaxCalibrater(source, symmetric=True, augmented_model_path=str(source.with_name("minmax.onnx")))
    shared = None
    for calibrator in (entropy, percentile, minmax):
        infos = {value.name: value for value in calibrator.model.graph.output}
        # Of itself a calibrator takes every tensor of the graph.
        calibrator.select_tensors_to_calibrate = lambda model, infos=infos: (set(tensors), infos)
        calibrator.augment_graph()
        if calibrator is percentile:
            calibrator.infer_session = shared
        else:
            calibrator.create_inference_session()
        if calibrator is entropy:
            shared = calibrator.infer_session = _LastRun(calibrator.infer_session)
    return {ENTROPY: entropy, "percentile": percentile, MIN_MAX: minmax}


def _limits(calibrators: Mapping[str, Any], tensors: Sequence[str]) -> Iterator[tuple[str, dict[str, float]]]:
    for method in (MIN_MAX, ENTROPY):
        yield method, _largest(calibrators[method].compute_data(), tensors)
    collected = calibrators["percentile"]
    for method, share in PERCENTILES.items():
        collected.collector.percentile = share
        yield method, _largest(collected.compute_data(), tensors)


def _largest(ranges: Any, tensors: Sequence[str]) -> dict[str, float]:
    found = {name: ranges[name].range_value for name in tensors}
    return {name: max(abs(float(np.min(low))), abs(float(np.max(high)))) for name, (low, high) in found.items()}


def _ending_in(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """The part of a model that makes these tensors, as its outputs."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    prune(part.graph)
    return part
