"""Writes Q/DQ pairs and INT8 weights into the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from seg_perception.core.errors import ModelError

from ..canonical import prune
from .layers import Layer, Network
from .scales import activation_scales, quantized_weight

_SCOPE = "quantize"


@dataclass(frozen=True, slots=True)
class Scales:
    """What calibration found, for every layer that may be quantized.

    Attributes:
        limits: by tensor, the largest magnitude that its scale should hold.
        weights: by weight and axis, float32 `[C]`, the scale of each output channel.
    """

    limits: Mapping[str, float]
    weights: Mapping[tuple[str, int], NDArray[np.float32]]


def quantized_tensors(network: Network, layers: Sequence[Layer]) -> tuple[str, ...]:
    """The tensors that get a Q/DQ pair when these layers are quantized, each once, in a fixed order."""
    adders = network.residual_skips(layer.output for layer in layers)
    skips = [network.producer[add].input[place] for add, place in adders]
    return tuple(dict.fromkeys([*(layer.activation for layer in layers), *skips]))


def observed_tensors(network: Network, layers: Sequence[Layer]) -> tuple[str, ...]:
    """The tensors whose ranges any subset of these layers may need, each once, in a fixed order."""
    return tuple(dict.fromkeys(name for layer in layers for name in quantized_tensors(network, [layer])))


def insert(network: Network, layers: Sequence[Layer], scales: Scales) -> onnx.ModelProto:
    """A copy of the model in which these layers take quantized inputs and weights.

    Args:
        network: the float32 canonical model; stays as it is.
        layers: some of `network.layers`.
        scales: for all of their tensors.

    Raises:
        ModelError: the result is not valid.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    writer = _Writer(model, network)
    tensors = quantized_tensors(network, layers)
    steps = activation_scales(scales.limits, network.shared_scales(tensors))
    doubles = {name: writer.activation(name, steps[name]) for name in tensors}
    nodes = {name: node for node in model.graph.node for name in node.output}
    for add, place in network.residual_skips(layer.output for layer in layers):
        nodes[add].input[place] = doubles[nodes[add].input[place]]
    for layer in layers:
        node = nodes[layer.output]
        node.input[0] = doubles[layer.activation]
        node.input[1] = writer.weight(layer.weight, layer.axis, scales.weights[layer.weight, layer.axis])
    writer.finish()
    return model


class _Writer:
    """Adds pairs to a model; their nodes go right behind what they quantize."""

    def __init__(self, model: onnx.ModelProto, network: Network) -> None:
        self._model = model
        self._weights = network.weights
        self._behind: dict[str, list[onnx.NodeProto]] = {}
        self._first: list[onnx.NodeProto] = []
        self._written: dict[tuple[str, int], str] = {}
        self._zero = self._constant("zero", np.zeros((), np.int8))

    def activation(self, name: str, scale: float) -> str:
        """Quantize a tensor; returns the name of what it becomes."""
        step = self._constant(f"{name}/scale", np.array(scale, np.float32))
        whole, double = f"{_SCOPE}/{name}/int8", f"{_SCOPE}/{name}/float"
        self._behind[name] = [
            helper.make_node("QuantizeLinear", [name, step, self._zero], [whole], name=f"{_SCOPE}/{name}/Q"),
            helper.make_node("DequantizeLinear", [whole, step, self._zero], [double], name=f"{_SCOPE}/{name}/DQ"),
        ]
        return double

    def weight(self, name: str, axis: int, scales: NDArray[np.float32]) -> str:
        """Quantize a weight; returns the name of what it becomes. Layers may share one."""
        if (name, axis) not in self._written:
            whole = quantized_weight(numpy_helper.to_array(self._weights[name]), scales, axis)
            title = f"{name}/{axis}"
            inputs = [
                self._constant(f"{title}/int8", whole),
                self._constant(f"{title}/scales", scales),
                self._constant(f"{title}/zeros", np.zeros(len(scales), np.int8)),
            ]
            double = f"{_SCOPE}/{title}/float"
            node = helper.make_node("DequantizeLinear", inputs, [double], name=f"{_SCOPE}/{title}/DQ", axis=axis)
            self._first.append(node)
            self._written[name, axis] = double
        return self._written[name, axis]

    def finish(self) -> None:
        """Put the nodes where they belong and drop the float weights that nothing uses any more."""
        graph = self._model.graph
        nodes = [*self._first]
        for node in graph.node:
            nodes.append(node)
            nodes.extend(new for name in node.output for new in self._behind.get(name, ()))
        copies = [_copy(node) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
        del graph.value_info[:]
        prune(graph)
        try:
            onnx.checker.check_model(self._model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ModelError(f"the quantized model is not valid ONNX: {error}; please report this") from error

    def _constant(self, title: str, values: NDArray[np.generic]) -> str:
        name = f"{_SCOPE}/{title}"
        self._model.graph.initializer.append(numpy_helper.from_array(values, name))
        return name


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
