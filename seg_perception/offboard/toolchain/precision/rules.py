"""Which nodes of a graph must stay in float32 when the rest goes to float16, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import onnx
from onnx import TensorProto

from .operators import (
    CHEAP,
    COMPARISONS,
    DELICATE,
    ELEMENTWISE,
    EXACT,
    JOINS,
    MOVES,
    NEUTRAL,
    POSITIONS,
    PRODUCTS,
    REDUCTIONS,
    ROUNDING,
    SUMS,
    TYPED_BY_ATTRIBUTE,
    half_slots,
)
from .view import Array, GraphView

Keep = Callable[[onnx.NodeProto], bool]

ASKED = "asked for"
NO_HALF = "cannot be float16"
STAGE = "input stage or head"
POSITION = "makes positions, scores or decisions"
SENSITIVE = "sensitive operator"
CONSTANT = "a constant of it does not exist in float16"
NEIGHBOUR = "between float32 operators"
# Reasons for which an operator that is exact anyway may take float16 when that is what comes.
SOFT = (STAGE, POSITION, NEIGHBOUR)

# Our own GraphBuilder's; the canonical model's parts outside the network.
_STAGES = ("input/", "head/")
_MASKS = "masks"
# Sums of more terms than this are delicate.
_FEW_TERMS = 64
# float16 holds every whole number up to this.
_LARGEST_COUNT = 2048


def float_nodes(view: GraphView, keep: Keep) -> dict[str, str]:
    """The nodes that stay in float32, by name, with the reason.

    Args:
        view: of the float32 graph.
        keep: the caller's own choice, asked of every node.
    """
    reasons = {
        node.name: reason
        for node in view.nodes.values()
        if touches_float(node, view) and (reason := _own(node, view, keep))
    }
    released = {name for name in (*_counting(view), *_mask_nodes(view)) if reasons.get(name, STAGE) == STAGE}
    for name in released:
        reasons.pop(name, None)
    _trace_back(view, reasons, released)
    _grow(view, reasons)
    for node in view.nodes.values():
        if node.op_type in ("Cast", "ConstantOfShape") and node.name not in reasons:
            readers = view.readers.get(node.output[0], [])
            if _from_integers(node, view) or (readers and all(name in reasons for name in readers)):
                reasons[node.name] = NEIGHBOUR
    return reasons


def touches_float(node: onnx.NodeProto, view: GraphView) -> bool:
    """Return whether any input or output is float32."""
    return any(view.is_float(name) for name in (*node.input, *node.output))


def exact_in_half(array: Array) -> bool:
    """Return whether float16 holds exactly these numbers."""
    with np.errstate(over="ignore"):
        return bool(np.array_equal(array.astype(np.float16).astype(array.dtype), array, equal_nan=True))


def varying_floats(node: onnx.NodeProto, view: GraphView) -> list[str]:
    """The float32 inputs that are not constants."""
    return [name for name in node.input if view.is_float(name) and name not in view.constants]


def _own(node: onnx.NodeProto, view: GraphView, keep: Keep) -> str:
    """The reason that lies in the node itself; empty for none."""
    if keep(node):
        return ASKED
    inner = any(item.HasField("g") or item.graphs for item in node.attribute)
    if inner or node.domain not in ("", "ai.onnx") or node.op_type in TYPED_BY_ATTRIBUTE:
        return NO_HALF
    if not _can_be_half(node, view):
        return NO_HALF
    if node.name.startswith(_STAGES):
        return STAGE
    if node.op_type in DELICATE or (node.op_type in SUMS and _terms(node, view) > _FEW_TERMS):
        return SENSITIVE
    constants = [view.constants[name] for name in node.input if view.is_float(name) and name in view.constants]
    if node.op_type in ELEMENTWISE | MOVES and any(_vanishes(array) for array in constants):
        return CONSTANT
    return ""


def _can_be_half(node: onnx.NodeProto, view: GraphView) -> bool:
    """Return whether ONNX allows float16 for any of its float32 inputs and outputs."""
    slots = zip((*node.input, *node.output), sum(half_slots(node, view.opset), ()), strict=True)
    return any(view.is_float(name) and element == TensorProto.FLOAT16 for name, element in slots)


def _terms(node: onnx.NodeProto, view: GraphView) -> float:
    before, after = view.size(node.input[0]), view.size(node.output[0])
    return before / max(after, 1) if before is not None and after is not None else float("inf")


def _vanishes(array: Array) -> bool:
    """Return whether a number becomes 0 or infinite in float16."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return bool(np.any((half == 0) & (array != 0)) or np.any(np.isinf(half) & np.isfinite(array)))


def _from_integers(node: onnx.NodeProto, view: GraphView) -> bool:
    """Return whether it casts whole numbers, which may be larger than float16 holds exactly."""
    if node.op_type != "Cast" or not view.is_float(node.output[0]):
        return False
    kinds = (TensorProto.BOOL, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return view.elements.get(node.input[0]) not in kinds


def _mask_nodes(view: GraphView) -> Iterator[str]:
    """The nodes that make mask logits, back to the product they come from: scaling, and emptying unused rows."""
    name = _MASKS
    while (node := _origin(name, view)) is not None:
        factors = [each for each in varying_floats(node, view) if not _is_truth(each, view)]
        if node.op_type in PRODUCTS:
            yield node.name
        if node.op_type not in ("Add", "Div", "Mul", "Sub") or len(factors) != 1:
            return
        yield node.name
        name = factors[0]


def _origin(name: str, view: GraphView) -> onnx.NodeProto | None:
    """The node whose result, only moved about, the tensor is."""
    node = view.maker(name)
    while node is not None and node.op_type in MOVES - JOINS:
        node = view.maker(node.input[0])
    return node


def _counting(view: GraphView) -> Iterator[str]:
    """Matrix products of zeros and ones, what casts truth to their factors, and comparisons of their results.

    They are exact in float16, and some GPUs have no float32 matrix product (TensorRT-RTX on Turing).
    """
    for node in view.nodes.values():
        if node.op_type != "MatMul" or not all(_is_truth(name, view) for name in node.input):
            continue
        readers = [view.nodes[name] for name in view.readers.get(node.output[0], [])]
        comparing = [reader for reader in readers if _compares(reader, node.output[0], view)]
        terms = (view.shapes.get(node.input[0]) or (None,))[-1]
        # Whether a sum of non-negative numbers is 0 or at least 1 is right for any number of terms.
        if (terms is not None and terms <= _LARGEST_COUNT) or (readers and len(comparing) == len(readers)):
            yield node.name
            yield from (reader.name for reader in comparing)
            yield from (maker.name for name in node.input if (maker := view.maker(name)) is not None)


def _is_truth(name: str, view: GraphView) -> bool:
    """Return whether the tensor is made of zeros and ones."""
    if name in view.constants:
        return bool(np.isin(view.constants[name], (0, 1)).all())
    origin = _origin(name, view)
    return origin is not None and origin.op_type == "Cast" and view.elements.get(origin.input[0]) == TensorProto.BOOL


def _compares(node: onnx.NodeProto, name: str, view: GraphView) -> bool:
    """Return whether the node tells zero from one or more."""
    others = [view.constants.get(other) for other in node.input if other != name]
    return node.op_type in COMPARISONS and all(
        other is not None and other.size > 0 and bool(np.all((other > 0) & (other < 1))) and exact_in_half(other)
        for other in others
    )


def _trace_back(view: GraphView, reasons: dict[str, str], released: set[str]) -> None:
    """From positions, scores and decisions back through cheap operators to the last product that they come from.

    Exporters decode boxes within the graph: to network pixels, where float16 has steps of half a pixel.
    """
    waiting = [name for name in view.outputs if view.is_float(name) and name != _MASKS]
    waiting.extend(name for node in view.nodes.values() for name in _position_inputs(node, view, reasons))
    seen = set(released)
    while waiting:
        maker = view.maker(waiting.pop())
        if maker is None or maker.name in seen or not (maker.op_type in CHEAP or _is_expectation(maker, view)):
            continue
        seen.add(maker.name)
        reasons.setdefault(maker.name, POSITION)
        waiting.extend(varying_floats(maker, view))


def _position_inputs(node: onnx.NodeProto, view: GraphView, reasons: dict[str, str]) -> Iterable[str]:
    """The inputs from which to trace back; a node of the network that decides is added to the reasons."""
    floats = varying_floats(node, view)
    if node.op_type in POSITIONS:
        places = (place for place in POSITIONS[node.op_type] if place < len(node.input))
        return [node.input[place] for place in places if node.input[place] in floats]
    decides = not any(view.is_float(name) for name in node.output) and node.op_type not in NEUTRAL
    if node.name.startswith(_STAGES):
        # Its exact operators may as well be those of masks, which need no more than float16.
        return floats if node.name in reasons and (decides or node.op_type not in EXACT) else ()
    if floats and (decides or node.op_type in ROUNDING):
        reasons.setdefault(node.name, POSITION)
        return floats
    return ()


def _is_expectation(node: onnx.NodeProto, view: GraphView) -> bool:
    """Return whether a convolution weighs probabilities, as the last one of YOLOv8's distribution focal loss."""
    if node.op_type != "Conv" or (view.shapes.get(node.input[1]) or (None,))[0] != 1:
        return False
    origin = _origin(node.input[0], view)
    return origin is not None and origin.op_type == "Softmax"


def _grow(view: GraphView, reasons: dict[str, str]) -> None:
    """Keep together what belongs together: the small numbers within a normalisation must not pass through float16."""
    for node in view.nodes.values():
        if node.name in reasons or node.op_type not in ELEMENTWISE | REDUCTIONS or node.name.startswith(_STAGES):
            continue
        makers = [maker for name in varying_floats(node, view) if (maker := view.maker(name)) is not None]
        kept = [maker.name in reasons for maker in makers]
        readers = [reader for name in node.output for reader in view.readers.get(name, [])]
        divided = node.op_type == "Div" and (maker := view.maker(node.input[1])) is not None and maker.name in reasons
        inside = any(kept) and any(reasons.get(reader) == SENSITIVE for reader in readers)
        if (kept and all(kept)) or divided or inside:
            reasons[node.name] = NEIGHBOUR
