"""A graph as passes over precision want to see it: types, shapes, constants, who makes and who reads a tensor."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..graph import with_inner
from .shapes import inferred_types, sizes

Array = NDArray[Any]
Shape = tuple[int | None, ...]


class GraphView:
    """The outermost graph of a model, by names. Reads only; sees the graph as it was when made.

    Args:
        model: in any opset; every node has a name of its own (see `name_nodes`).
        batch: size to assume for the first axis of inputs that leave it open; None leaves it open.

    Attributes:
        opset: of ONNX's own operators.
        nodes: by name, in order.
        outputs: of the graph.
        typed: tensors whose type is known, sequences and such, too.
        elements: ONNX element type of every tensor whose type is known; sequences and such have none.
        shapes: None for an unknown axis; no entry for an unknown rank.
        constants: initializers and results of Constant nodes.
        makers: node name by output.
        readers: node names by input; a node reads what the graphs within it read.
    """

    def __init__(self, model: onnx.ModelProto, batch: int | None = None) -> None:
        self.opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 1)
        self.nodes = {node.name: node for node in model.graph.node}
        self.elements: dict[str, int] = {}
        self.shapes: dict[str, Shape] = {}
        self.outputs = tuple(value.name for value in model.graph.output)
        types = inferred_types(model, batch)
        self.typed = set(types)
        for name, kind in types.items():
            shape = sizes(kind)
            if kind.HasField("tensor_type"):
                self.elements[name] = kind.tensor_type.elem_type
            if shape is not None:
                self.shapes[name] = shape
        self.constants: dict[str, Array] = {}
        for tensor in model.graph.initializer:
            self._see_constant(tensor.name, numpy_helper.to_array(tensor))
        self.makers: dict[str, str] = {}
        self.readers: dict[str, list[str]] = defaultdict(list)
        for node in model.graph.node:
            self.makers.update((name, node.name) for name in node.output if name)
            for name in dict.fromkeys(name for inner in with_inner(node) for name in inner.input if name):
                self.readers[name].append(node.name)
            array = constant_of(node)
            if array is not None:
                self._see_constant(node.output[0], array)

    def is_float(self, name: str) -> bool:
        """Return whether the tensor is float32."""
        return self.elements.get(name) == TensorProto.FLOAT

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None for inputs and initializers."""
        return self.nodes.get(self.makers.get(name, ""))

    def size(self, name: str) -> int | None:
        """Number of elements, if known."""
        shape = self.shapes.get(name)
        sizes = [size for size in shape or () if size is not None]
        return None if shape is None or len(sizes) != len(shape) else int(np.prod(sizes, dtype=np.int64))

    def _see_constant(self, name: str, array: Array) -> None:
        self.constants[name] = array
        self.elements[name] = int(helper.np_dtype_to_tensor_dtype(array.dtype))
        self.shapes[name] = array.shape


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give nodes without a name, or with another node's, one of their own."""
    taken: set[str] = set()
    for place, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{place}"
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)


def constant_of(node: onnx.NodeProto) -> Array | None:
    """The numbers in a Constant node; None for other nodes and for texts."""
    if node.op_type != "Constant" or node.domain:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        return numpy_helper.to_array(attribute.t)
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if attribute.name not in kinds:
        return None
    return np.asarray(helper.get_attribute_value(attribute), kinds[attribute.name])
