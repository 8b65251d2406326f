"""Models of any opset in the contract's.

ONNX's converter knows most of the way. It lacks four operators, which exporters do write: ConstantOfShape of opset 20
has not changed but for new element types, GridSample of opset 20 calls its modes otherwise, and Gelu (opset 20) and
GroupNormalization (18, withdrawn, and 21) are formulas of older operators.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper, version_converter

from ..contract import OPSET
from ..errors import ModelError
from .graph import with_inner

# Nodes of another domain are left alone by the converter.
_ASIDE = "seg_perception.aside"
_GRID_SAMPLE_MODES = {b"linear": b"bilinear", b"cubic": b"bicubic"}


def in_contract_opset(model: onnx.ModelProto, origin: str) -> onnx.ModelProto:
    """A copy of a model in `contract.OPSET`.

    Args:
        model: with inferred shapes.
        origin: the file, for the message.

    Raises:
        ModelError: it cannot be converted.
    """
    versions = {item.domain: item.version for item in model.opset_import}
    version = versions.get("", versions.get("ai.onnx", OPSET))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _expand(copy.graph, version)
    if version == OPSET:
        return copy
    if version > OPSET:
        _set_aside(copy)
    try:
        converted: onnx.ModelProto = version_converter.convert_version(copy, OPSET)
    except (RuntimeError, ValueError, version_converter.ConvertError) as error:
        raise ModelError(
            f"{origin}: opset {version} cannot be converted to {OPSET} ({str(error).splitlines()[0]}); "
            f"export the model again with opset {OPSET}"
        ) from error
    _put_back(converted)
    return converted


def _set_aside(model: onnx.ModelProto) -> None:
    """Hide the operators from the converter that it would refuse."""
    for node in (inner for outer in model.graph.node for inner in with_inner(outer)):
        if node.op_type == "GridSample" and node.domain == "":
            for attribute in node.attribute:
                if attribute.name == "mode":
                    attribute.s = _GRID_SAMPLE_MODES.get(attribute.s, attribute.s)
        if node.op_type in ("GridSample", "ConstantOfShape") and node.domain == "":
            node.domain = _ASIDE
    model.opset_import.append(helper.make_opsetid(_ASIDE, 1))


def _put_back(model: onnx.ModelProto) -> None:
    for node in (inner for outer in model.graph.node for inner in with_inner(outer)):
        if node.domain == _ASIDE:
            node.domain = ""
    imports = [item for item in model.opset_import if item.domain != _ASIDE]
    del model.opset_import[:]
    model.opset_import.extend(imports)


def _expand(graph: onnx.GraphProto, version: int) -> None:
    """Write Gelu and GroupNormalization as the formulas that they stand for in an opset."""
    elements = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _expand(attribute.g, version)
        # Inner graphs use tensors of those around them; what ONNX knows nothing of is taken for float32.
        writer = _Writer(graph, node, helper.tensor_dtype_to_np_dtype(elements.get(node.input[0]) or 1))
        if node.op_type == "Gelu" and not node.domain:
            _gelu(writer, node)
        elif node.op_type == "GroupNormalization" and not node.domain:
            _group_normalization(writer, node, by_group=version < 21)
        else:
            graph.node.append(node)


class _Writer:
    """Appends the nodes of a formula in place of a node."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto, dtype: np.dtype[Any]) -> None:
        self._graph = graph
        self._name = node.output[0]
        self._dtype = dtype
        self._count = 0

    def __call__(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or self._next()
        self._graph.node.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def number(self, values: ArrayLike) -> str:
        """A constant of the type that the node computes in."""
        return self._constant(np.asarray(values, self._dtype))

    def integers(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64))

    def _constant(self, array: NDArray[Any]) -> str:
        return self("Constant", value=numpy_helper.from_array(array))

    def _next(self) -> str:
        self._count += 1
        return f"{self._name}/formula_{self._count}"


def _gelu(write: _Writer, node: onnx.NodeProto) -> None:
    """Half of x times (1 + erf(x / sqrt 2)), or what approximates that with tanh."""
    x = node.input[0]
    if any(attribute.name == "approximate" and attribute.s == b"tanh" for attribute in node.attribute):
        cubed = write("Mul", write("Mul", x, x), write("Mul", x, write.number(0.044715)))
        inner = write("Mul", write("Add", x, cubed), write.number(math.sqrt(2 / math.pi)))
        bent = write("Tanh", inner)
    else:
        bent = write("Erf", write("Mul", x, write.number(math.sqrt(0.5))))
    half = write("Mul", x, write.number(0.5))
    write("Mul", half, write("Add", bent, write.number(1.0)), output=node.output[0])


def _group_normalization(write: _Writer, node: onnx.NodeProto, by_group: bool) -> None:
    """Instance normalisation of groups of channels in a row; scale and bias are one for each group or channel."""
    x, scale, bias = node.input[:3]
    own = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    groups = int(own["num_groups"])
    values = write("Reshape", x, write.integers(0, groups, -1))
    ones, zeros = write.number(np.ones(groups)), write.number(np.zeros(groups))
    values = write("InstanceNormalization", values, ones, zeros, epsilon=float(own.get("epsilon", 1e-5)))
    if not by_group:
        # In three axes, as the number of those behind the channels may be any.
        values = write("Reshape", values, write("Concat", write("Shape", x, end=2), write.integers(-1), axis=0))
    factors, terms = (write("Unsqueeze", value, write.integers(1)) for value in (scale, bias))
    scaled = write("Add", write("Mul", values, factors), terms)
    write("Reshape", scaled, write("Shape", x), output=node.output[0])
