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

from seg_perception.core.contract import INPUT_NAME

from ..canonical import prune
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

    One frame's tensors are in memory at a time; the calibrators keep histograms only.

    Args:
        network: the float32 canonical model.
        tensors: whose ranges are wanted.
        inputs: uint8 `[B, H, W, 3]` each, letterboxed, at least one.
        methods: those that are wanted; the fewer the faster.

    Returns:
        By method and tensor the largest magnitude that the scale should hold.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "network.onnx")
        source.write_bytes(_ending_in(network.model, tensors).SerializeToString())
        calibrators = _calibrators(source, tensors, methods)
        for image in inputs:
            # The calibrators print a line at every step.
            with redirect_stdout(io.StringIO()):
                for calibrator in calibrators.values():
                    calibrator.collect_data(_Feed({INPUT_NAME: image}))
        with redirect_stdout(io.StringIO()):
            return dict(_limits(calibrators, tensors, methods))


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


def _calibrators(source: Path, tensors: Sequence[str], methods: Sequence[str]) -> dict[str, Any]:
    """Those that the methods need, ready to collect; all percentiles come from one."""
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        MIN_MAX: (MinMaxCalibrater, {}),
        ENTROPY: (EntropyCalibrater, {"num_bins": _ENTROPY_BINS, "num_quantized_bins": _ENTROPY_STEPS}),
        _PERCENTILE: (PercentileCalibrater, {"num_bins": _PERCENTILE_BINS}),
    }
    wanted = {_PERCENTILE if method in PERCENTILES else method for method in methods}
    calibrators: dict[str, Any] = {}
    shared = None
    for kind, (calibrater, options) in kinds.items():
        if kind not in wanted:
            continue
        augmented = str(source.with_name(f"{kind}.onnx"))
        calibrator = calibrater(source, symmetric=True, augmented_model_path=augmented, **options)
        infos = {value.name: value for value in calibrator.model.graph.output}
        # Of itself a calibrator takes every tensor of the graph.
        calibrator.select_tensors_to_calibrate = lambda model, infos=infos: (set(tensors), infos)
        calibrator.augment_graph()
        if kind == MIN_MAX:
            calibrator.create_inference_session()
        elif shared is None:
            calibrator.create_inference_session()
            shared = calibrator.infer_session = _LastRun(calibrator.infer_session)
        else:
            calibrator.infer_session = shared
        calibrators[kind] = calibrator
    return calibrators


def _limits(
    calibrators: Mapping[str, Any], tensors: Sequence[str], methods: Sequence[str]
) -> Iterator[tuple[str, dict[str, float]]]:
    for method in methods:
        calibrator = calibrators[_PERCENTILE if method in PERCENTILES else method]
        if method in PERCENTILES:
            calibrator.collector.percentile = PERCENTILES[method]
        yield method, _largest(calibrator.compute_data(), tensors)


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
