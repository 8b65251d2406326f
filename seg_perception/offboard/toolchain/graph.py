"""The one view and the one editor of ONNX graphs.

`GraphView` answers what passes ask of a graph: which nodes compute and read a tensor, what is constant, which names are
free. The functions change graphs in place and in memory. Everything takes time in proportion to the graph. The graphs
within a node, such as the branches of an If, count as part of it: what they read, the node reads.

It works on ONNX's own messages, because nothing else is understood by ONNX's inference, checker, converter and inliner
and by the runtimes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seg_perception.core.contract import INPUT_NAME

Array = NDArray[Any]
Message = TypeVar("Message", onnx.ModelProto, onnx.NodeProto, onnx.TypeProto)
# What a Constant node may hold next to a tensor, and the type of it.
_PLAIN_CONSTANTS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


class GraphView:
    """A graph by the names of its tensors.

    Each map is made when it is first asked for, and shows the graph as it was then.

    Args:
        proto: the graph; never changed here.
    """

    def __init__(self, proto: onnx.GraphProto) -> None:
        self.proto = proto
        self._arrays: dict[str, Array | None] = {}

    @cached_property
    def nodes(self) -> dict[str, onnx.NodeProto]:
        """Nodes by name, in order; see `name_nodes`."""
        return {node.name: node for node in self.proto.node}

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that computes each tensor; inputs and initializers have none."""
        return {name: node for node in self.proto.node for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read each tensor, each once and in order."""
        consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.proto.node:
            for name in read_by(node):
                consumers.setdefault(name, []).append(node)
        return consumers

    @cached_property
    def declared(self) -> dict[str, onnx.ValueInfoProto]:
        """What the graph says of the types of its tensors."""
        return {value.name: value for value in (*self.proto.value_info, *self.proto.output, *self.proto.input)}

    @cached_property
    def constants(self) -> dict[str, onnx.TensorProto | onnx.NodeProto]:
        """Initializers and numeric Constant nodes by the name of their tensor; `array` has their values."""
        found: dict[str, onnx.TensorProto | onnx.NodeProto] = {
            node.output[0]: node for node in self.proto.node if _constant_attribute(node) is not None
        }
        found.update((tensor.name, tensor) for tensor in self.proto.initializer)
        return found

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that computes a tensor; None for an input, an initializer or no tensor at all."""
        return self.producers.get(name)

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor."""
        return self.consumers.get(name, [])

    def array(self, name: str) -> Array | None:
        """Return the values of a constant; None for any other tensor."""
        if name not in self._arrays:
            source = self.constants.get(name)
            if isinstance(source, onnx.NodeProto):
                self._arrays[name] = _array_of(_constant_attribute(source))
            else:
                self._arrays[name] = None if source is None else numpy_helper.to_array(source)
        return self._arrays[name]

    def ancestors(self, name: str) -> Iterator[onnx.NodeProto]:
        """Yield the nodes that a tensor depends on, nearest first."""
        seen: set[str] = set()
        for tensor in walk([name], lambda tensor: read_by(self.producers[tensor]) if tensor in self.producers else ()):
            node = self.producers.get(tensor)
            if node is not None and node.output[0] not in seen:
                seen.add(node.output[0])
                yield node

    def take(self, name: str) -> bool:
        """Reserve a name for a new node or tensor; return False where the graph has it already."""
        free = name not in self._taken
        self._taken.add(name)
        return free

    def free_name(self, name: str) -> str:
        """Reserve and return `name`, with underscores behind it where the graph has it already."""
        while not self.take(name):
            name += "_"
        return name

    @cached_property
    def _taken(self) -> set[str]:
        """Every name of a node or a tensor, in inner graphs, too."""
        taken: set[str] = set()
        for graph in with_inner_graphs(self.proto):
            taken.update(value.name for value in (*graph.input, *graph.output, *graph.initializer))
            for node in graph.node:
                taken.update((node.name, *node.input, *node.output))
        return taken


def walk(start: Iterable[str], step: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """Yield names and what `step` leads to from them, each once, nearest first."""
    waiting = deque(dict.fromkeys(start))
    seen = set(waiting)
    while waiting:
        name = waiting.popleft()
        yield name
        fresh = [other for other in dict.fromkeys(step(name)) if other not in seen]
        seen.update(fresh)
        waiting.extend(fresh)


def copy_of(message: Message) -> Message:
    """Return a deep copy."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in a node's attributes, which may use tensors of the graph around them."""
    for item in node.attribute:
        if item.type == onnx.AttributeProto.GRAPH or item.HasField("g"):
            yield item.g
        yield from item.graphs


def with_inner_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and those within its nodes."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from with_inner_graphs(inner)


def with_inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield a node and those of the graphs within it."""
    yield node
    for graph in inner_graphs(node):
        for inner in graph.node:
            yield from with_inner(inner)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph, each followed by those within it."""
    for node in graph.node:
        yield from with_inner(node)


def read_by(node: onnx.NodeProto) -> dict[str, None]:
    """Return the names that a node and the graphs within it read, each once; names of inner tensors among them."""
    names: dict[str, None] = dict.fromkeys(node.input)
    for graph in inner_graphs(node):
        for inner in graph.node:
            names.update(read_by(inner))
    names.pop("", None)
    return names


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of an attribute, texts as bytes; `default` where it is not written."""
    found = next((item for item in node.attribute if item.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Write an attribute, in place of the one of this name if there is one."""
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def element_name(element: int) -> str:
    """Return what an ONNX element type is called, in lower case: `float`, `uint8`, ..."""
    return str(TensorProto.DataType.Name(element)).lower()


def add_constant(graph: onnx.GraphProto, name: str, values: Array) -> str:
    """Append an initializer and return its name."""
    graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def set_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Put other nodes, among which may be the graph's own, in place of those that a graph has."""
    nodes = list(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give nodes without a name, or with another node's, one of their own."""
    taken: set[str] = set()
    for place, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{place}"
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors other names wherever they occur, in graphs within nodes, too."""
    for inner in with_inner_graphs(graph):
        for field in (field for node in inner.node for field in (node.input, node.output)):
            if not names.keys().isdisjoint(field):
                field[:] = [names.get(name, name) for name in field]
        for named in (*inner.input, *inner.output, *inner.initializer, *inner.value_info):
            if named.name in names:
                named.name = names[named.name]


def lift_constants(graph: onnx.GraphProto, keep: Callable[[onnx.NodeProto], bool]) -> None:
    """Turn Constant nodes that hold a tensor into initializers, but for those that `keep` names."""
    left = []
    for node in graph.node:
        value = None if keep(node) or node.op_type != "Constant" else attribute(node, "value")
        if value is None:
            left.append(node)
        else:
            graph.initializer.append(value)
            graph.initializer[-1].name = node.output[0]
    set_nodes(graph, left)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put nodes behind those whose outputs they read, and leave them where they are if they already do.

    ONNX demands this order; converters to float16 are known to leave their casts at the end. What is in a circle cannot
    be sorted; the checker says so.
    """
    places = {output: place for place, node in enumerate(graph.node) for output in node.output}
    needs = [[places[name] for name in read_by(node) if name in places] for node in graph.node]
    if all(max(before, default=-1) < place for place, before in enumerate(needs)):
        return
    order: list[int] = []
    entered, done = bytearray(len(needs)), bytearray(len(needs))
    for first in range(len(needs)):
        waiting = [first]
        while waiting:
            place = waiting[-1]
            if entered[place]:
                waiting.pop()
                if not done[place]:
                    done[place] = True
                    order.append(place)
                continue
            entered[place] = True
            waiting.extend(sorted((before for before in needs[place] if not entered[before]), reverse=True))
    nodes = list(graph.node)
    set_nodes(graph, [nodes[place] for place in order])


def prune(graph: onnx.GraphProto) -> None:
    """Drop nodes, initializers and inputs that no output of the graph depends on; the contract's input stays."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(read_by(node))
    set_nodes(graph, reversed(kept))
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    filled = {tensor.name for tensor in tensors}
    inputs = [value for value in graph.input if value.name == INPUT_NAME or value.name in needed - filled]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(tensors)
    graph.input.extend(inputs)


def ending_in(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """Return the part of a model that computes these float32 tensors, as its outputs."""
    part = copy_of(model)
    del part.graph.output[:]
    part.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    prune(part.graph)
    return part


def _constant_attribute(node: onnx.NodeProto) -> onnx.AttributeProto | None:
    """The attribute with the numbers of a Constant node; None for other nodes and for texts."""
    if node.op_type != "Constant" or node.domain or not node.attribute:
        return None
    item = node.attribute[0]
    return item if item.name == "value" or item.name in _PLAIN_CONSTANTS else None


def _array_of(item: onnx.AttributeProto | None) -> Array | None:
    if item is None:
        return None
    value = helper.get_attribute_value(item)
    return numpy_helper.to_array(value) if item.name == "value" else np.asarray(value, _PLAIN_CONSTANTS[item.name])
