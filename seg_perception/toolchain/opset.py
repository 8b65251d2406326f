"""Models of any opset in the contract's.

ONNX's converter knows most of the way. Downwards, from opset 20 on, it lacks four operators, which exporters do write:
ConstantOfShape has not changed but for new element types, GridSample calls its modes otherwise, and Gelu and
GroupNormalization are formulas of older operators.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
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
    if version == OPSET:
        return copy
    if version > OPSET:
        _expand(copy.graph)
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


def _expand(graph: onnx.GraphProto) -> None:
    """Write operators as what they stand for."""
    types = {value.name: value.type.tensor_type for value in (*graph.input, *graph.output, *graph.value_info)}
    types.update({tensor.name: helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type for tensor in graph.initializer})
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _expand(attribute.g)
        if node.domain == "" and node.op_type == "Gelu":
            nodes.extend(_gelu(node, types[node.input[0]].elem_type))
        elif node.domain == "" and node.op_type == "GroupNormalization":
            nodes.extend(_group_normalization(node, types[node.input[0]]))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
