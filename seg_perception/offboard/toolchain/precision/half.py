"""From a float32 graph to one in float16, correct in its types by construction.

Every node is in one of two precisions (`rules.float_nodes` chooses); where a tensor of one is read by a node of the
other, a Cast stands between them. Which inputs and outputs of an operator can be float16 is what ONNX's own schemas
say. Quantized graphs are converted alike: the scales of QuantizeLinear and DequantizeLinear become float16, and with
them what DequantizeLinear gives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.inliner import inline_local_functions

from seg_perception.core.errors import ModelError

from ..canonical import prune
from ..graph import with_inner
from .operators import EXACT, TAKES_ANY, half_slots
from .rules import SOFT, Keep, exact_in_half, float_nodes, touches_float, varying_floats
from .view import Array, GraphView, name_nodes

LARGEST_HALF = 65504.0
# Below it float16 has fewer than 11 digits, and none at all below 2^-25. Scales of quantization should not be smaller.
SMALLEST_NORMAL_HALF = 2.0**-14
# Contract outputs that may be float16.
_HALF_OUTPUTS = ("masks",)
_WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": -1}


@dataclass(frozen=True, slots=True)
class KeptLayer:
    """A node that computes in float32.

    Attributes:
        name, operator: of the node.
        reason: why.
    """

    name: str
    operator: str
    reason: str


@dataclass(frozen=True, slots=True)
class HalfReport:
    """What `to_half` did.

    Attributes:
        half: number of nodes with float16 tensors.
        kept: nodes that compute in float32, in order.
        casts: number of Cast nodes added.
        notes: what else a user should know, one line each.
    """

    half: int
    kept: tuple[KeptLayer, ...]
    casts: int
    notes: tuple[str, ...]

    def summary(self) -> str:
        """One line."""
        reasons = Counter(layer.reason for layer in self.kept)
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        return f"{self.half} nodes in float16, {len(self.kept)} in float32 ({why}), {self.casts} casts between them"


def to_half(model: onnx.ModelProto, keep: Keep | Collection[str] = ()) -> tuple[onnx.ModelProto, HalfReport]:
    """Convert a float32 graph, canonical or not, quantized or not.

    Inputs and outputs keep their types, but for `masks`, which becomes float16 where it is made in it.

    Args:
        model: stays as it is.
        keep: nodes to leave in float32 on top of those that need it: their names, or a predicate.

    Raises:
        ModelError: a weight or a scale has no float16 value, the error names the layer; a type is not known; or
            `keep` names a node that the model does not have.
    """
    half = onnx.ModelProto()
    half.CopyFrom(inline_local_functions(model) if model.functions else model)
    name_nodes(half.graph)
    view = GraphView(half)
    _check_types(view)
    conversion = _Conversion(half.graph, view, float_nodes(view, _predicate(keep, view)))
    conversion.run()
    prune(half.graph)
    try:
        onnx.checker.check_model(half, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the float16 model is not valid ONNX: {error}; please report this") from error
    return half, conversion.report()


class _Conversion:
    """Rewrites a graph in place, node by node.

    Args:
        graph: the graph.
        view: of it, as it still is.
        reasons: the nodes to leave in float32, and why.
    """

    def __init__(self, graph: onnx.GraphProto, view: GraphView, reasons: dict[str, str]) -> None:
        self._graph = graph
        self._view = view
        self._reasons = reasons
        self._nodes: list[onnx.NodeProto] = []
        # Tensors that are made in float16, and what each tensor is called in a type that is not its old one.
        self._half: set[str] = set()
        self._names: dict[tuple[str, int], str] = {}
        self._outputs = {value.name for value in graph.output}
        self._taken = {*view.typed, *view.nodes}
        self._half_nodes = 0
        self._casts = 0
        self._kept: list[KeptLayer] = []
        self._notes: list[str] = []

    def run(self) -> None:
        """Convert everything."""
        for node in self._view.nodes.values():
            if touches_float(node, self._view) and not (node.op_type == "Constant" and not node.domain):
                self._write(node, self._is_half(node))
            else:
                self._nodes.append(_copy(node))
        for value in self._graph.output:
            if value.name in self._half and value.name in _HALF_OUTPUTS:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
        del self._graph.value_info[:]
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def report(self) -> HalfReport:
        """Return what was done."""
        return HalfReport(self._half_nodes, tuple(self._kept), self._casts, tuple(self._notes))

    def _is_half(self, node: onnx.NodeProto) -> bool:
        reason = self._reasons.get(node.name)
        if reason is None:
            return True
        if reason not in SOFT or node.op_type not in EXACT:
            return False
        floats = varying_floats(node, self._view)
        constants = (name for name in node.input if name in self._view.constants and self._view.is_float(name))
        comes_half = bool(floats) and all(name in self._half for name in floats)
        return comes_half and all(exact_in_half(self._view.constants[name]) for name in constants)

    def _write(self, node: onnx.NodeProto, half: bool) -> None:
        written = _copy(node)
        taken, given = half_slots(node, self._view.opset) if half else ((), ())
        # Graphs within a node read tensors of this one; such nodes are never half.
        for inner in with_inner(written):
            for place, name in enumerate(inner.input):
                if self._view.is_float(name):
                    element = taken[place] if half else TensorProto.FLOAT
                    if node.op_type in TAKES_ANY:
                        element = TensorProto.FLOAT16 if name in self._half else TensorProto.FLOAT
                    inner.input[place] = self._as(name, element, node)
        if half:
            _produce_half(written)
        self._nodes.append(written)
        for place, name in enumerate(node.output):
            if self._view.is_float(name) and half and given[place] == TensorProto.FLOAT16:
                written.output[place] = self._made_in_half(name, node)
        if half:
            self._half_nodes += 1
        elif node.op_type not in EXACT:
            self._kept.append(KeptLayer(node.name, node.op_type, self._reasons[node.name]))

    def _made_in_half(self, name: str, node: onnx.NodeProto) -> str:
        """Return what a new float16 tensor is called, in place of the float32 tensor `name`."""
        self._half.add(name)
        if name not in self._outputs or name in _HALF_OUTPUTS:
            self._names[name, TensorProto.FLOAT16] = name
            return name
        self._names[name, TensorProto.FLOAT16] = self._free(f"{name}/float16")
        self._cast(name, TensorProto.FLOAT, name)
        return self._names[name, TensorProto.FLOAT16]

    def _as(self, name: str, element: int, reader: onnx.NodeProto) -> str:
        """Return what the tensor is called in this type; it is made if nobody needed it before."""
        if element == TensorProto.FLOAT and name not in self._half:
            return name
        if (name, element) not in self._names:
            if name in self._view.constants:
                self._names[name, element] = self._half_constant(name, reader)
            else:
                suffix = "float16" if element == TensorProto.FLOAT16 else "float32"
                self._cast(name, element, self._free(f"{name}/{suffix}"))
        return self._names[name, element]

    def _cast(self, name: str, element: int, result: str) -> None:
        source = self._names[name, TensorProto.FLOAT16] if name in self._half else name
        node_name = self._free(f"{result}/Cast")
        self._nodes.append(helper.make_node("Cast", [source], [result], name=node_name, to=element))
        self._names[name, element] = result
        self._casts += 1

    def _half_constant(self, name: str, reader: onnx.NodeProto) -> str:
        array = self._view.constants[name]
        half, note = rounded(array, name, reader)
        if note:
            self._notes.append(note)
        result = self._free(f"{name}/float16")
        self._graph.initializer.append(numpy_helper.from_array(half, result))
        return result

    def _free(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def rounded(array: Array, name: str, reader: onnx.NodeProto) -> tuple[NDArray[np.float16], str]:
    """A constant in float16, and what the user should know about it, or an empty text.

    Args:
        array: float32.
        name: of the constant.
        reader: the node it belongs to, for the messages.

    Raises:
        ModelError: a number is beyond float16, or a scale of quantization becomes 0.
    """
    layer = f"layer {reader.name!r} ({reader.op_type})"
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if np.any(np.isinf(half) & np.isfinite(array)):
        largest = float(np.abs(array[np.isfinite(array)]).max())
        raise ModelError(
            f"{layer}: its constant {name!r} has values up to {largest:.4g}, beyond float16's {LARGEST_HALF:.0f}; "
            f"keep the layer in float32 (--keep-float32 {reader.name})"
        )
    if reader.op_type in ("QuantizeLinear", "DequantizeLinear"):
        if np.any((half == 0) & (array != 0)):
            raise ModelError(
                f"{layer}: its scale {name!r} has values down to {float(np.abs(array).min()):.2g}, which are 0 in "
                f"float16; quantize with scales of at least {SMALLEST_NORMAL_HALF:.2g}"
            )
        return half, ""
    return half, _small_channels(array, name, layer, reader.op_type)


def _small_channels(array: Array, name: str, layer: str, operator: str) -> str:
    """A note about output channels all of whose weights are so small that float16 keeps few of their digits."""
    if operator not in _WEIGHTED or array.ndim < 2:
        return ""
    largest = np.abs(np.moveaxis(array, _WEIGHTED[operator], 0)).reshape(array.shape[_WEIGHTED[operator]], -1).max(1)
    small = int(np.count_nonzero((largest > 0) & (largest < SMALLEST_NORMAL_HALF)))
    if not small:
        return ""
    return (
        f"{layer}: all weights of {small} of its {len(largest)} channels ({name!r}) are below "
        f"{SMALLEST_NORMAL_HALF:.2g}, where float16 has fewer digits"
    )


def _produce_half(node: onnx.NodeProto) -> None:
    """Let a node whose type is in an attribute make float16."""
    for item in node.attribute:
        if node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.FLOAT:
            item.i = TensorProto.FLOAT16
        if node.op_type == "ConstantOfShape" and item.name == "value":
            item.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item.t).astype(np.float16)))
    if node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.float16))))


def _predicate(keep: Keep | Collection[str], view: GraphView) -> Keep:
    if callable(keep):
        return keep
    names = set(keep)
    unknown = sorted(names.difference(view.nodes))
    if unknown:
        raise ModelError(
            f"layers to keep in float32: the model has none called {', '.join(unknown)}; "
            "take the names from the message or the report that named them"
        )
    return lambda node: node.name in names


def _check_types(view: GraphView) -> None:
    """Refuse a graph with tensors that might or might not be float32."""
    for node in view.nodes.values():
        if any(name and name not in view.typed for name in node.output):
            raise ModelError(
                f"node {node.name!r} ({node.domain or 'ai.onnx'}.{node.op_type}): the types of its outputs are not "
                "known, so the graph cannot be converted to float16; use --precision fp32"
            )


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
