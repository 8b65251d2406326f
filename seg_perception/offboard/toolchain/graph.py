"""Writes ONNX nodes as formulas.

    graph = GraphBuilder(model.graph, "head")
    overlap = (right.minimum(right_of_other) - left.maximum(left_of_other)).relu()

A `Value` is the name of a tensor in a graph under construction. Numbers in a formula become float32 constants, so
formulas are for float32 tensors; other constants are made with `GraphBuilder.constant`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor of the graph that `graph` writes.

    Attributes:
        graph: the builder of the graph.
        name: of the tensor.
    """

    graph: GraphBuilder
    name: str

    def __add__(self, other: Value | float) -> Value:
        return self.graph.node("Add", self, other)

    def __sub__(self, other: Value | float) -> Value:
        return self.graph.node("Sub", self, other)

    def __mul__(self, other: Value | float) -> Value:
        return self.graph.node("Mul", self, other)

    def __matmul__(self, other: Value) -> Value:
        return self.graph.node("MatMul", self, other)

    def __lt__(self, other: Value | float) -> Value:
        return self.graph.node("Less", self, other)

    def __gt__(self, other: Value | float) -> Value:
        return self.graph.node("Greater", self, other)

    def __and__(self, other: Value) -> Value:
        return self.graph.node("And", self, other)

    def __or__(self, other: Value) -> Value:
        return self.graph.node("Or", self, other)

    def equals(self, other: Value | float) -> Value:
        """Element by element; `==` stays the comparison of names."""
        return self.graph.node("Equal", self, other)

    def minimum(self, other: Value | float) -> Value:
        """Element by element."""
        return self.graph.node("Min", self, other)

    def maximum(self, other: Value | float) -> Value:
        """Element by element."""
        return self.graph.node("Max", self, other)

    def relu(self) -> Value:
        """Negative elements become 0."""
        return self.graph.node("Relu", self)

    def abs(self) -> Value:
        """Without sign."""
        return self.graph.node("Abs", self)

    def cast(self, dtype: DTypeLike) -> Value:
        """Converted to a NumPy `dtype`."""
        return self.graph.node("Cast", self, to=int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))

    def reshape(self, *shape: int) -> Value:
        """In ONNX's terms: 0 keeps the dimension at that place, -1 is what remains."""
        return self.graph.node("Reshape", self, self.graph.constant(shape, np.int64))

    def expand(self, *shape: int) -> Value:
        """Repeated along axes of size 1 to broadcast with `shape`; 1 keeps a dimension."""
        return self.graph.node("Expand", self, self.graph.constant(shape, np.int64))

    def unsqueeze(self, *axes: int) -> Value:
        """With new axes of size 1 at these places of the result."""
        return self.graph.node("Unsqueeze", self, self.graph.constant(axes, np.int64))

    def transpose(self, *order: int) -> Value:
        """With its axes in this order."""
        return self.graph.node("Transpose", self, perm=order)

    def split(self, axis: int, *sizes: int) -> tuple[Value, ...]:
        """In parts of these sizes along `axis`."""
        return self.graph.nodes("Split", len(sizes), self, self.graph.constant(sizes, np.int64), axis=axis)

    def max(self, axis: int) -> Value:
        """The largest along `axis`, which disappears."""
        # ReduceMax takes its axes as an attribute up to opset 17 and as an input from opset 18 on.
        return self.graph.node("ReduceMax", self, self.graph.constant([axis], np.int64), keepdims=0)

    def sum(self, *axes: int, keep: bool = False) -> Value:
        """Sums along `axes`, which disappear unless `keep`."""
        return self.graph.node("ReduceSum", self, self.graph.constant(axes, np.int64), keepdims=int(keep))

    def argmax(self, axis: int) -> Value:
        """int64 index of the first largest along `axis`, which disappears."""
        return self.graph.node("ArgMax", self, axis=axis, keepdims=0)

    def top(self, count: int) -> tuple[Value, Value]:
        """The `count` largest along the last axis, descending, and their int64 indices."""
        values, indices = self.graph.nodes("TopK", 2, self, self.graph.constant([count], np.int64))
        return values, indices

    def pick(self, indices: Value, axis: int) -> Value:
        """Element by element: ONNX's GatherElements; shapes are equal but for `axis`."""
        return self.graph.node("GatherElements", self, indices, axis=axis)

    def where(self, chosen: Value | float, otherwise: Value | float) -> Value:
        """This condition's choice between two tensors."""
        return self.graph.node("Where", self, chosen, otherwise)


class GraphBuilder:
    """Appends nodes with unique names to a graph.

    Args:
        graph: the graph to write to; what it already has stays as it is.
        scope: first part of every new name, so that people and later passes can tell who wrote a node.
    """

    def __init__(self, graph: onnx.GraphProto, scope: str) -> None:
        self._graph = graph
        self._scope = scope
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._taken = {node.name for node in graph.node}
        self._taken.update(output for node in graph.node for output in node.output)
        self._taken.update(tensor.name for tensor in (*graph.initializer, *graph.input))

    def value(self, name: str) -> Value:
        """The tensor of this name that the graph already has."""
        return Value(self, name)

    def constant(self, values: ArrayLike, dtype: DTypeLike = np.float32) -> Value:
        """An initializer; equal ones are written once."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._unique("constant")
            self._graph.initializer.append(numpy_helper.from_array(array, name))
            self._constants[key] = Value(self, name)
        return self._constants[key]

    def node(self, operator: str, *inputs: Value | float, **attributes: Any) -> Value:
        """Append a node with one output."""
        return self.nodes(operator, 1, *inputs, **attributes)[0]

    def nodes(self, operator: str, outputs: int, *inputs: Value | float, **attributes: Any) -> tuple[Value, ...]:
        """Append a node with several outputs."""
        name = self._unique(operator)
        values = [item if isinstance(item, Value) else self.constant(item) for item in inputs]
        results = [f"{name}/{place}" for place in range(outputs)] if outputs > 1 else [name]
        self._graph.node.append(
            helper.make_node(operator, [value.name for value in values], results, name=name, **attributes)
        )
        return tuple(Value(self, result) for result in results)

    def concat(self, axis: int, *values: Value) -> Value:
        """Tensors one after the other along `axis`."""
        return self.node("Concat", *values, axis=axis)

    def publish(self, value: Value, name: str, dtype: DTypeLike, shape: Sequence[int | str]) -> None:
        """Make `value` an output of the graph; a text in `shape` is a dynamic axis.

        The tensor is renamed, so `value` must not be used any more. An Identity node would leave OpenVINO with both
        names, of which its `any_name` may be the other.
        """
        rename_tensors(self._graph, {value.name: name})
        element = int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        self._graph.output.append(helper.make_tensor_value_info(name, element, list(shape)))

    def _unique(self, kind: str) -> str:
        while True:
            self._count += 1
            name = f"{self._scope}/{kind}_{self._count}"
            if name not in self._taken:
                self._taken.add(name)
                return name


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors other names wherever they occur, in graphs within nodes, too."""
    for node in (inner for outer in graph.node for inner in with_inner(outer)):
        for field in (node.input, node.output):
            for place, name in enumerate(field):
                field[place] = names.get(name, name)
    for named in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        named.name = names.get(named.name, named.name)


def with_inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A node and those of the graphs in its attributes, which may use tensors of the graph around them."""
    yield node
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inner in graph.node:
                yield from with_inner(inner)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put nodes behind those whose outputs they read, and leave them where they are if they already do.

    ONNX demands this order; converters to float16 are known to leave their casts at the end.
    """
    places = {output: place for place, node in enumerate(graph.node) for output in node.output}
    needs = [
        {places[name] for inner in with_inner(node) for name in inner.input if name in places} for node in graph.node
    ]
    order: dict[int, None] = {}
    waiting = list(reversed(range(len(needs))))
    while waiting:
        place = waiting[-1]
        missing = sorted(needs[place] - order.keys() - {place}, reverse=True)
        needs[place] = set()  # What is in a circle cannot be sorted; the checker says so.
        if missing:
            waiting.extend(missing)
        else:
            order.setdefault(waiting.pop())
    if list(order) != list(range(len(order))):
        nodes = [graph.node[place] for place in order]
        del graph.node[:]
        graph.node.extend(nodes)


def element_name(element: int) -> str:
    """Return how an ONNX element type is called, in lower case: `float`, `uint8`, ..."""
    return str(TensorProto.DataType.Name(element)).lower()
