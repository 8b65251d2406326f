"""Multiply-accumulates of a graph, layer by layer and by the type in which they are done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx

from ..graph import element_name
from .listing import uncounted
from .shapes import attribute
from .view import GraphView, Shape, name_nodes

# From the narrowest on; a layer in a wider one than the narrowest of its model was kept out of it.
_WIDTHS = ("int8", "float16", "float")
_NAMES = {"float": "float32"}


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One node that multiplies.

    Attributes:
        name: of the node.
        operator: its type.
        macs: multiply-accumulates for one image; 0 where shapes depend on the data.
        element: `float32`, `float16`, or `int8` for a node all of whose factors come from DequantizeLinear.
    """

    name: str
    operator: str
    macs: int
    element: str


@dataclass(frozen=True)
class PrecisionSummary:
    """What share of the work a model does in which type.

    Attributes:
        macs: multiply-accumulates per element type, for one image.
        kept: layers in a wider type than the narrowest that the model uses, most costly first.
        unknown: names of layers whose shapes depend on the data; they are not in `macs`.
    """

    macs: Mapping[str, int]
    kept: tuple[LayerCost, ...]
    unknown: tuple[str, ...] = ()

    @cached_property
    def total(self) -> int:
        """All multiply-accumulates."""
        return sum(self.macs.values())

    def share(self, element: str) -> float:
        """From 0 to 1, the part of the multiply-accumulates done in `element`; 0 for a model without any."""
        return self.macs.get(element, 0) / self.total if self.total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For a manifest, as JSON takes it."""
        return {
            "macs": dict(self.macs),
            "share": {element: round(self.share(element), 4) for element in self.macs},
            "kept": [{"name": layer.name, "element": layer.element, "macs": layer.macs} for layer in self.kept],
            "unknown": list(self.unknown),
        }

    def __str__(self) -> str:
        shares = ", ".join(f"{element} {self.share(element):.1%}" for element in self.macs)
        rest = f"; {uncounted(self.unknown)}" if self.unknown else ""
        return f"{self.total / 1e9:.2f} G multiply-accumulates: {shares or 'none'}{rest}"


def layer_costs(model: onnx.ModelProto) -> tuple[LayerCost, ...]:
    """Every Conv, ConvTranspose, MatMul, Gemm and Einsum of the outermost graph, in order; batch 1 where it is open."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    name_nodes(named.graph)
    view = GraphView(named, batch=1)
    return tuple(
        LayerCost(node.name, node.op_type, _macs(node, view) or 0, _element(node, view))
        for node in named.graph.node
        if node.op_type in _COUNTS and not node.domain
    )


def precision_summary(model: onnx.ModelProto) -> PrecisionSummary:
    """Add up `layer_costs`."""
    layers = layer_costs(model)
    macs = {element: sum(layer.macs for layer in layers if layer.element == element) for element in _elements(layers)}
    narrowest = next(iter(macs), "")
    kept = [layer for layer in layers if layer.element != narrowest]
    return PrecisionSummary(
        {element: count for element, count in macs.items() if count},
        tuple(sorted(kept, key=lambda layer: -layer.macs)),
        tuple(layer.name for layer in layers if not layer.macs),
    )


def _elements(layers: tuple[LayerCost, ...]) -> list[str]:
    """The element types that occur, narrowest first."""
    order = [_NAMES.get(name, name) for name in _WIDTHS]
    found = {layer.element for layer in layers}
    return [*(name for name in order if name in found), *sorted(found.difference(order))]


def _element(node: onnx.NodeProto, view: GraphView) -> str:
    factors = node.input if node.op_type == "Einsum" else node.input[:2]
    makers = [view.maker(name) for name in factors]
    if all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers):
        return "int8"
    name = element_name(view.elements.get(node.output[0], 0))
    return _NAMES.get(name, name)


def _macs(node: onnx.NodeProto, view: GraphView) -> int | None:
    shapes = [view.shapes.get(name) for name in node.input]
    output = view.shapes.get(node.output[0])
    counted: int | None = _COUNTS[node.op_type](node, shapes, output)
    return counted


def _product(*shapes: Shape | None) -> int | None:
    sizes = [size for shape in shapes for size in (shape if shape is not None else (None,))]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def _conv(_: onnx.NodeProto, shapes: list[Shape | None], output: Shape | None) -> int | None:
    # Each element of the output sums over the input channels of its group and the window.
    return _product(output, (shapes[1] or (None, None))[1:])


def _conv_transpose(_: onnx.NodeProto, shapes: list[Shape | None], __: Shape | None) -> int | None:
    # Each element of the input goes to the output channels of its group and the window.
    return _product(shapes[0], (shapes[1] or (None, None))[1:])


def _matmul(_: onnx.NodeProto, shapes: list[Shape | None], output: Shape | None) -> int | None:
    return _product(output, (shapes[0] or (None,))[-1:])


def _gemm(node: onnx.NodeProto, shapes: list[Shape | None], output: Shape | None) -> int | None:
    inner = 0 if attribute(node, "transA", 0) else 1
    return _product(output, (shapes[0] or (None, None))[inner : inner + 1])


def _einsum(node: onnx.NodeProto, shapes: list[Shape | None], _: Shape | None) -> int | None:
    equation = attribute(node, "equation", b"")
    terms = (equation.decode() if isinstance(equation, bytes) else "").replace(" ", "").split("->")[0].split(",")
    if "..." in "".join(terms) or len(terms) < 2:
        return None
    sizes: dict[str, int | None] = {}
    for term, shape in zip(terms, shapes, strict=True):
        sizes.update(zip(term, shape or (None,) * len(term), strict=True))
    return _product(tuple(sizes.values()))


_COUNTS: Mapping[str, Any] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
}
