"""The colour model behind a small convolutional network, for whatever needs layers to quantize.

The network has what real ones have: a stem, a residual block, a concatenation of branches, a transposed convolution and
a last layer of few channels. Its weights are made so that image comes out as image went in, in float, so the
colour model behind it finds the same rectangles. With `outlier`, one layer of it takes a tensor with a channel so large
that INT8 steps are coarser than the colours are apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from colour_model import colour_model
from numpy.typing import NDArray
from onnx import helper, numpy_helper

CHANNELS = 16
INT8_LAYERS = ("first", "second", "branch", "join", "up")
FLOAT_LAYERS = ("stem", "wide", "narrow")


def conv_model(outlier: float = 0.0, **options: Any) -> onnx.ModelProto:
    """The raw export; see `colour_model` for the options.

    Args:
        outlier: value of a constant channel in the input of the layer `branch`; 0 for none.
        options: of `colour_model`.
    """
    model = colour_model(**options)
    image = model.graph.node[0].output[0]
    builder = _Convolutions(image, outlier)
    restored = builder.write()
    for node in model.graph.node[1:]:
        for place, name in enumerate(node.input):
            if name == image:
                node.input[place] = restored
    nodes = [model.graph.node[0], *builder.nodes, *model.graph.node[1:]]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    model.graph.initializer.extend(builder.weights)
    onnx.checker.check_model(model, full_check=True)
    return model


def save_canonical_conv_model(path: Path, **options: Any) -> Path:
    """Write the canonical model made from it; see `conv_model` for the options."""
    from seg_perception.offboard.toolchain.prepare import prepare

    source = path.with_suffix(".raw.onnx")
    source.write_bytes(conv_model(**options).SerializeToString())
    prepare(source, path)
    source.unlink()
    return path


class _Convolutions:
    """Writes the network and keeps the linear map from the image's three colours to where it is.

    Where Relu stands, all values are positive, so that it changes nothing.
    """

    def __init__(self, image: str, outlier: float) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._image, self._outlier = image, outlier
        self._rng = np.random.default_rng(5)

    def write(self) -> str:
        """Returns the name of the restored image."""
        mixed = self._mix(CHANNELS, 3)
        value = self._conv("stem", self._image, mixed)
        first = self._mix(CHANNELS, CHANNELS)
        inner = self._conv("first", value, first)
        second = self._mix(CHANNELS, CHANNELS)
        inner = self._conv("second", inner, second)
        value = self._node("Add", [value, inner], "residual")
        linear = mixed + second @ first @ mixed
        taken = self._with_outlier(value) if self._outlier else value
        # Negative values in what is concatenated: runtimes have been seen to take it for unsigned.
        branch = -self._mix(CHANNELS, CHANNELS)
        other = self._conv("branch", taken, np.pad(branch, ((0, 0), (0, int(bool(self._outlier))))), relu=False)
        value = self._node("Concat", [value, other], "concat", axis=1)
        linear = np.concatenate([linear, branch @ linear])
        join = self._mix(CHANNELS, 2 * CHANNELS) * np.repeat([1, -1], CHANNELS)
        value = self._conv("join", value, join)
        linear = join @ linear
        value = self._upsample(value)
        wide = self._mix(CHANNELS, CHANNELS)
        value = self._conv("wide", value, wide)
        last = np.linalg.pinv(wide @ linear)
        return self._conv("narrow", value, last, relu=False)

    def _mix(self, rows: int, columns: int) -> NDArray[np.float64]:
        weights = self._rng.uniform(0.0, 1.0, (rows, columns)) ** 4
        mixed: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
        return mixed

    def _conv(self, name: str, value: str, matrix: NDArray[np.float64], relu: bool = True) -> str:
        weight = self._constant(f"{name}.weight", matrix[:, :, None, None].astype(np.float32))
        bias = self._constant(f"{name}.bias", np.zeros(len(matrix), np.float32))
        value = self._node("Conv", [value, weight, bias], name)
        return self._node("Relu", [value], f"{name}.relu") if relu else value

    def _upsample(self, value: str) -> str:
        """Twice as large and back again: a transposed convolution that repeats pixels, then their mean."""
        identity = np.broadcast_to(np.eye(CHANNELS, dtype=np.float32)[:, :, None, None], (CHANNELS, CHANNELS, 2, 2))
        weight = self._constant("up.weight", identity)
        value = self._node("ConvTranspose", [value, weight], "up", strides=[2, 2], kernel_shape=[2, 2])
        return self._node("AveragePool", [value], "pool", kernel_shape=[2, 2], strides=[2, 2])

    def _with_outlier(self, value: str) -> str:
        """The same with one more channel, which is constant."""
        plane = self._node("ReduceSum", [value, self._constant("axes", np.array([1]))], "plane", keepdims=1)
        zero = self._node("Mul", [plane, self._constant("zero", np.array(0, np.float32))], "nothing")
        constant = self._node("Add", [zero, self._constant("large", np.array(self._outlier, np.float32))], "constant")
        return self._node("Concat", [value, constant], "with_outlier", axis=1)

    def _node(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}/out"], name=name, **attributes))
        return f"{name}/out"

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name
