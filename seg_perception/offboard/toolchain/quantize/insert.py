"""Writes Q/DQ pairs and INT8 weights into the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from seg_perception.core.errors import ModelError

from ..graph import GraphView, add_constant, copy_of, prune, set_nodes
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
    skips = [network.producers[add].input[place] for add, place in adders]
    return tuple(dict.fromkeys([*(layer.activation for layer in layers), *skips]))


def observed_tensors(network: Network, layers: Sequence[Layer]) -> tuple[str, ...]:
    """The tensors whose ranges any subset of these layers may need, each once, in a fixed order."""
    return tuple(dict.fromkeys(name for layer in layers for name in quantized_tensors(network, [layer])))


def insert(network: Network, layers: Sequence[Layer], scales: Scales) -> onnx.ModelProto:
    """Return a copy of the model in which these layers take quantized inputs and weights.

    Args:
        network: the float32 canonical model; stays as it is.
        layers: some of `network.layers`.
        scales: for all of their tensors.

    Raises:
        ModelError: the result is not valid.
    """
    model = copy_of(network.model)
    graph, producers = model.graph, GraphView(model.graph).producers
    tensors = quantized_tensors(network, layers)
    steps = activation_scales(scales.limits, network.shared_scales(tensors))
    zero = add_constant(graph, f"{_SCOPE}/zero", np.zeros((), np.int8))
    pairs = {name: _pair(graph, name, steps[name], zero) for name in tensors}
    distinct = {(layer.weight, layer.axis): layer for layer in layers}
    weights = {key: _weight(graph, layer, network.weights[layer.weight], scales) for key, layer in distinct.items()}
    for add, place in network.residual_skips(layer.output for layer in layers):
        producers[add].input[place] = pairs[producers[add].input[place]][-1].output[0]
    for layer in layers:
        node = producers[layer.output]
        node.input[0] = pairs[layer.activation][-1].output[0]
        node.input[1] = weights[layer.weight, layer.axis].output[0]
    # A pair goes right behind what it quantizes.
    behind = (
        new for node in graph.node for new in (node, *(one for name in node.output for one in pairs.get(name, ())))
    )
    set_nodes(graph, [*weights.values(), *behind])
    del graph.value_info[:]
    prune(graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the quantized model is not valid ONNX: {error}; please report this") from error
    return model


def _pair(graph: onnx.GraphProto, name: str, scale: float, zero: str) -> list[onnx.NodeProto]:
    """The two nodes that quantize a tensor; their scale is added to the graph."""
    step = add_constant(graph, f"{_SCOPE}/{name}/scale", np.array(scale, np.float32))
    whole, double = f"{_SCOPE}/{name}/int8", f"{_SCOPE}/{name}/float"
    return [
        helper.make_node("QuantizeLinear", [name, step, zero], [whole], name=f"{_SCOPE}/{name}/Q"),
        helper.make_node("DequantizeLinear", [whole, step, zero], [double], name=f"{_SCOPE}/{name}/DQ"),
    ]


def _weight(graph: onnx.GraphProto, layer: Layer, tensor: onnx.TensorProto, scales: Scales) -> onnx.NodeProto:
    """The node that turns a weight in INT8, which is added to the graph, back into float."""
    title, steps = f"{_SCOPE}/{layer.weight}/{layer.axis}", scales.weights[layer.weight, layer.axis]
    inputs = [
        add_constant(graph, f"{title}/int8", quantized_weight(numpy_helper.to_array(tensor), steps, layer.axis)),
        add_constant(graph, f"{title}/scales", steps),
        add_constant(graph, f"{title}/zeros", np.zeros(len(steps), np.int8)),
    ]
    return helper.make_node("DequantizeLinear", inputs, [f"{title}/float"], name=f"{title}/DQ", axis=layer.axis)
