"""Types and shapes of all tensors of a graph, also where exporters compute shapes with nodes.

ONNX's own inference over a whole model loses the thread at the first Slice of a Shape; every later shape is unknown.
Node by node, with what is known evaluated on the way, it goes through.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

# Numbers that a shape may depend on are few; more elements than this are not followed.
_FEW = 1024
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
Types = dict[str, onnx.TypeProto]


def inferred_types(model: onnx.ModelProto, batch: int | None = None) -> Types:
    """The type, with the shape as far as it is known, of every tensor of the outermost graph.

    Args:
        model: the model.
        batch: size to assume for the first axis of inputs that leave it open; None leaves it open.

    Returns:
        By name; tensors whose type cannot be found are missing.
    """
    walk = _Walk(model, batch)
    for node in model.graph.node:
        walk.step(node)
    if all(name in walk.types for node in model.graph.node for name in node.output if name):
        return walk.types
    whole = onnx.shape_inference.infer_shapes(model).graph
    return {value.name: value.type for value in whole.value_info} | walk.types


class _Walk:
    def __init__(self, model: onnx.ModelProto, batch: int | None) -> None:
        graph = model.graph
        self._opsets = list(model.opset_import)
        self._versions = {item.domain: item.version for item in model.opset_import}
        self._ir_version = model.ir_version
        self._known: dict[str, onnx.TensorProto] = {}
        self.types: Types = {value.name: value.type for value in (*graph.value_info, *graph.output)}
        self.types.update((value.name, _with_batch(value.type, batch)) for value in graph.input)
        for tensor in graph.initializer:
            self.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            if _is_small(self.types[tensor.name]):
                self._known[tensor.name] = tensor

    def step(self, node: onnx.NodeProto) -> None:
        """Infer the outputs of the next node."""
        version = self._versions.get(node.domain)
        if version is None or not onnx.defs.has(node.op_type, version, node.domain):
            return
        inputs = [name for name in node.input if name]
        inner = any(item.HasField("g") for item in node.attribute)
        if not all(name in self.types for name in inputs):
            return
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        # Graphs within the node may use any tensor of this one.
        types = self.types if inner else {name: self.types[name] for name in inputs}
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, node, types, self._known, None, self._opsets, self._ir_version
            )
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError):
            return  # Here, too, knowledge is lost; what needs it says so, and the checker finds contradictions.
        self.types.update((name, found[name]) for name in node.output if name in found)
        if not inner and node.op_type != "DequantizeLinear":
            self._evaluate(node, inputs)

    def _evaluate(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        """Compute the node's outputs where they follow from the model alone."""
        outputs = [name for name in node.output if name]
        if not all(_is_small(self.types.get(name)) for name in outputs):
            return
        if node.op_type == "Shape":
            shape = _closed(self.types[inputs[0]])
            if shape is not None:
                start, end = (attribute(node, key) for key in ("start", "end"))
                self._learn(outputs[0], np.array(shape[start:end], np.int64))
            return
        if not all(name in self._known for name in inputs) or node.op_type in _RANDOM:
            return
        feeds = {name: numpy_helper.to_array(self._known[name]) for name in inputs}
        taken = [onnx.ValueInfoProto(name=name, type=self.types[name]) for name in feeds]
        given = [onnx.ValueInfoProto(name=name, type=self.types[name]) for name in outputs]
        graph = helper.make_graph([node], "alone", taken, given)
        alone = helper.make_model(graph, opset_imports=self._opsets, ir_version=self._ir_version)
        try:
            results = ReferenceEvaluator(alone).run(None, feeds)
        except (RuntimeError, ValueError, TypeError, NotImplementedError, IndexError):
            return  # What cannot be evaluated stays unknown.
        for name, array in zip(outputs, results, strict=True):
            self._learn(name, np.asarray(array))

    def _learn(self, name: str, array: NDArray[np.generic]) -> None:
        self._known[name] = numpy_helper.from_array(array)
        self.types[name] = helper.make_tensor_type_proto(self._known[name].data_type, array.shape)


def _with_batch(kind: onnx.TypeProto, batch: int | None) -> onnx.TypeProto:
    """An input's type with the first axis fixed if it is open and `batch` is given."""
    fixed = onnx.TypeProto()
    fixed.CopyFrom(kind)
    axes = fixed.tensor_type.shape.dim
    if batch is not None and axes and not axes[0].HasField("dim_value"):
        axes[0].dim_value = batch
    return fixed


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute, `default` where it is not written."""
    found = next((item for item in node.attribute if item.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def sizes(kind: onnx.TypeProto) -> tuple[int | None, ...] | None:
    """The axes of a tensor type, None for an open one; None as a whole for an unknown rank."""
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in kind.tensor_type.shape.dim)


def _closed(kind: onnx.TypeProto) -> tuple[int, ...] | None:
    """The sizes of a type without open axes."""
    shape = sizes(kind)
    known = tuple(size for size in shape or () if size is not None)
    return known if shape is not None and len(known) == len(shape) else None


def _is_small(kind: onnx.TypeProto | None) -> bool:
    shape = None if kind is None else _closed(kind)
    return shape is not None and math.prod(shape) <= _FEW
