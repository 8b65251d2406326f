"""Types and shapes of all tensors of a graph, also where exporters compute shapes with nodes.

ONNX's own inference over a whole model loses the thread at the first Slice of a Shape; every later shape is unknown.
Node by node, with what is known evaluated on the way, it goes through.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from seg_perception.core.errors import ModelError
from seg_perception.core.text import printable

from .graph import GraphView, attribute, copy_of, inner_graphs, read_by
from .survival import outcome_in_copy

# Numbers that a shape may depend on are few; more elements than this are not followed.
_FEW = 1024
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
Types = dict[str, onnx.TypeProto]
Shape = tuple[int | None, ...]


class TypedGraph(GraphView):
    """The outermost graph of a model with the types of its tensors.

    Args:
        model: in any opset; every node has a name of its own (see `name_nodes`).
        batch: size to assume for the first axis of inputs that leave it open; None leaves it open.

    Attributes:
        opset: of ONNX's own operators.
        outputs: of the graph.
        typed: tensors whose type is known, sequences and such, too.
        elements: ONNX element type of every tensor whose type is known; sequences and such have none.
        shapes: None for an unknown axis; no entry for an unknown rank.
    """

    def __init__(self, model: onnx.ModelProto, batch: int | None = None) -> None:
        super().__init__(model.graph)
        self.opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 1)
        self.outputs = tuple(value.name for value in model.graph.output)
        types = inferred_types(model, batch)
        self.typed = set(types)
        self.elements = {
            name: kind.tensor_type.elem_type for name, kind in types.items() if kind.HasField("tensor_type")
        }
        self.shapes: dict[str, Shape] = {
            name: shape for name, kind in types.items() if (shape := sizes(kind)) is not None
        }
        for name in self.constants:
            if (array := self.array(name)) is not None:
                self.elements[name] = int(helper.np_dtype_to_tensor_dtype(array.dtype))
                self.shapes[name] = array.shape

    def is_float(self, name: str) -> bool:
        """Return whether the tensor is float32."""
        return self.elements.get(name) == TensorProto.FLOAT

    def size(self, name: str) -> int | None:
        """Return the number of elements, if it is known."""
        shape = self.shapes.get(name)
        known = [size for size in shape or () if size is not None]
        return None if shape is None or len(known) != len(shape) else math.prod(known)


def with_shapes(model: onnx.ModelProto, origin: str = "model") -> onnx.ModelProto:
    """Return the model with all shapes that can be inferred.

    Where ONNX's own inference leaves an axis of an output open that is not the batch, the nodes are gone through one
    by one, for two batch sizes: what differs between them follows the batch, everything else is fixed.

    Args:
        model: of a stranger, maybe.
        origin: its file, for messages.

    Raises:
        ModelError: ONNX's inference would end the process.
    """
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            # How some exporters write an open axis. ONNX's inference ends the process at a Slice of such a length.
            if axis.dim_value < 0:
                axis.Clear()
    refuse_fatal(model, origin, _inferred)
    return _inferred(model)


def refuse_fatal(
    model: onnx.ModelProto, origin: str, infer: Callable[[onnx.ModelProto], object] | None = None
) -> None:
    """Refuse a model at which ONNX's inference ends the process, as at a Slice of an axis of negative length.

    Args:
        model: stays as it is.
        origin: its file, for messages.
        infer: what must not end the process; `inferred_types` for None.

    Raises:
        ModelError: it does; the message names the node.
    """
    ended, _ = outcome_in_copy(lambda _: (infer or inferred_types)(model))
    if not ended:
        return
    _, fault = outcome_in_copy(lambda say: _tell_nodes(model, say))
    raise ModelError(
        f"{origin}: the inference of its shapes ends the process ({ended}) {fault or 'before its first node'}; the "
        "model is damaged, or the size of its input does not suit it: export it again, for the size that you need, and "
        "see that `onnx.shape_inference.infer_shapes` takes it"
    )


def _tell_nodes(model: onnx.ModelProto, say: Callable[[str], None]) -> None:
    """Say at which node the inference is, up to the first one that makes a negative length."""
    walk = _Walk(model, None)
    for node in model.graph.node:
        title = f"node {printable(node.name or node.output[0])} ({printable(node.op_type)})"
        say(f"at {title}")
        walk.step(node)
        for shape in (sizes(walk.types[name]) for name in node.output if name in walk.types):
            if shape is not None and min((size for size in shape if size is not None), default=0) < 0:
                lengths = ", ".join("?" if size is None else str(size) for size in shape)
                say(f"behind {title}, which makes a tensor of [{lengths}], expected lengths of 0 or more")
                return
    say("behind its last node")


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    if all(_is_closed(value.type.tensor_type) for value in model.graph.output):
        return model
    try:
        first, second = (inferred_types(model, batch) for batch in (1, 2))
    except ModelError:
        return model
    outputs = {value.name for value in model.graph.output}
    known = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    before = {value.name: value.type for value in (*model.graph.value_info, *model.graph.output)}
    del model.graph.value_info[:]
    for name, kind in first.items():
        shared = _shared(kind, second.get(name, kind))
        if shared is None or name in known:
            continue
        _complete(shared.tensor_type, before.get(name, shared).tensor_type)
        if name in outputs:
            next(value for value in model.graph.output if value.name == name).type.CopyFrom(shared)
        else:
            model.graph.value_info.append(onnx.ValueInfoProto(name=name, type=shared))
    return model


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
        inner = list(inner_graphs(node))
        if not all(name in self.types for name in inputs):
            return
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        # Graphs within the node may use any tensor of this one, and hand it out as it is.
        outer = {**read_by(node), **{value.name: None for graph in inner for value in graph.output}}
        types = {name: self.types[name] for name in outer if name in self.types}
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
    fixed = copy_of(kind)
    axes = fixed.tensor_type.shape.dim
    if batch is not None and axes and not axes[0].HasField("dim_value"):
        axes[0].dim_value = batch
    return fixed


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


def _complete(tensor: onnx.TypeProto.Tensor, before: onnx.TypeProto.Tensor) -> None:
    """Add what ONNX's own inference or the exporter knew, as of what depends on the image, such as its objects."""
    if not before.HasField("shape"):
        return
    if not tensor.HasField("shape"):
        tensor.shape.CopyFrom(before.shape)
    elif len(tensor.shape.dim) == len(before.shape.dim):
        # The first may be the batch, which is open whatever was declared.
        for axis, declared in list(zip(tensor.shape.dim, before.shape.dim, strict=True))[1:]:
            if not axis.dim_value and declared.dim_value > 0:
                axis.dim_value = declared.dim_value


def _is_closed(tensor: onnx.TypeProto.Tensor) -> bool:
    return tensor.HasField("shape") and all(axis.dim_value > 0 for axis in tensor.shape.dim[1:])


def _shared(first: onnx.TypeProto, second: onnx.TypeProto) -> onnx.TypeProto | None:
    """The first type with those axes open that the second one has otherwise; None for what is no tensor."""
    if not first.HasField("tensor_type"):
        return None
    shared = copy_of(first)
    one, two = shared.tensor_type, second.tensor_type
    if not one.HasField("shape"):
        return shared
    if not two.HasField("shape") or len(two.shape.dim) != len(one.shape.dim):
        one.ClearField("shape")
        return shared
    for axis, other in zip(one.shape.dim, two.shape.dim, strict=True):
        if axis.dim_value != other.dim_value:
            axis.Clear()
    return shared
