"""Any opset from 7 to what the installed ONNX knows, converted to `contract.OPSET`.

Upwards ONNX's own converter is right but for one thing: until opset 10, Resize and Upsample place their samples as
later versions do with `asymmetric` coordinates. Downwards it gives up on most models. What came after opset 19 is
nearly all further element types for operators that exist, so there the number is changed and what is new is written
with older operators: those that ONNX defines as functions, such as Gelu, by their definitions. GroupNormalization (18,
withdrawn in 19, and 21) is an operator of no runtime in opset 19.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, version_converter
from onnx.inliner import inline_local_functions

from seg_perception.core.contract import OPSET
from seg_perception.core.errors import ModelError

from .formulas import GraphBuilder
from .graph import (
    GraphView,
    all_nodes,
    attribute,
    copy_of,
    set_attribute,
    set_nodes,
    sort_nodes,
    with_inner_graphs,
)

_INLINED = "seg_perception.inlined"
# From these versions on, Resize says where its samples lie, and scale and bias of a group normalisation belong to
# channels instead of groups.
_RESIZE_WITH_COORDINATES = 11
_NORMALIZATION_BY_CHANNEL = 21
_GRID_SAMPLE_MODES = {b"linear": "bilinear", b"cubic": "bicubic"}
# Of opset 19.
_IR_VERSION = 9
_FAILURES = (
    RuntimeError,
    ValueError,
    version_converter.ConvertError,
    onnx.shape_inference.InferenceError,
)


def in_contract_opset(model: onnx.ModelProto, origin: str) -> onnx.ModelProto:
    """A copy of a model in `contract.OPSET`.

    Args:
        model: with inferred shapes, which some conversions need.
        origin: the file, for messages.

    Raises:
        ModelError: it cannot be converted.
    """
    versions = {item.domain: item.version for item in model.opset_import}
    version = int(versions.get("", versions.get("ai.onnx", OPSET)))
    try:
        converted = version_converter.convert_version(model, OPSET) if version < OPSET else copy_of(model)
        _write_out_normalization(converted.graph, by_group=version < _NORMALIZATION_BY_CHANNEL)
        if version > OPSET:
            _downgrade(converted, version)
    except _FAILURES as error:
        raise ModelError(
            f"{origin}: opset {version} cannot be converted to {OPSET} ({str(error).strip().splitlines()[0]}); "
            f"export the model again with an opset of 17 to {OPSET}"
        ) from error
    if version < _RESIZE_WITH_COORDINATES:
        for node in all_nodes(converted.graph):
            if node.op_type == "Resize":
                set_attribute(node, "coordinate_transformation_mode", "asymmetric")
                set_attribute(node, "nearest_mode", "floor")
    return converted


def _downgrade(model: onnx.ModelProto, version: int) -> None:
    known = defs.onnx_opset_version()
    if version > known:
        raise ValueError(f"the installed onnx {onnx.__version__} knows opsets up to {known}")
    _write_out_functions(model, version)
    for node in all_nodes(model.graph):
        if _is_standard(node):
            if node.op_type == "GridSample":
                mode = attribute(node, "mode", b"linear")
                set_attribute(node, "mode", _GRID_SAMPLE_MODES.get(mode, mode.decode()))
            _drop_new_attributes(node, version)
    for item in model.opset_import:
        if item.domain in ("", "ai.onnx"):
            item.version = OPSET
    model.ir_version = min(model.ir_version, _IR_VERSION)
    onnx.shape_inference.infer_shapes(model, check_type=True)


def _write_out_functions(model: onnx.ModelProto, version: int) -> None:
    """Replace operators that came after the contract's opset by what ONNX says they are made of."""
    # A body may be made of such operators, too.
    while new := [node for node in all_nodes(model.graph) if _is_new(node)]:
        types = _types(model)
        for node in new:
            body = _body(node, version, types)
            body.name, body.domain = f"{node.op_type}_{len(model.functions)}", _INLINED
            del body.opset_import[:]
            body.opset_import.append(helper.make_opsetid("", version))
            model.functions.append(body)
            node.op_type, node.domain = body.name, _INLINED
        model.opset_import.append(helper.make_opsetid(_INLINED, 1))
        model.CopyFrom(onnx.shape_inference.infer_shapes(inline_local_functions(model)))
        kept = [item for item in model.opset_import if item.domain != _INLINED]
        del model.opset_import[:]
        model.opset_import.extend(kept)


def _is_new(node: onnx.NodeProto) -> bool:
    return _is_standard(node) and not defs.has(node.op_type, OPSET, "")


def _types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    types: dict[str, onnx.TypeProto] = {}
    for graph in with_inner_graphs(model.graph):
        types.update((value.name, value.type) for value in (*graph.value_info, *graph.input, *graph.output))
        for tensor in graph.initializer:
            types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return types


def _body(node: onnx.NodeProto, version: int, types: dict[str, onnx.TypeProto]) -> onnx.FunctionProto:
    # The stubs of onnx do not know what it says of functions.
    schema: Any = defs.get_schema(node.op_type, version, "")
    body = onnx.FunctionProto()
    if schema.has_function:
        body.CopyFrom(schema.function_body)
    elif schema.has_context_dependent_function:
        # What ONNX knows nothing of, as in some inner graphs, is taken for float32.
        unknown = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
        inputs = [types.get(name, unknown) if name else onnx.TypeProto() for name in node.input]
        texts = [item.SerializeToString() for item in inputs]
        body.ParseFromString(schema.get_context_dependent_function(node.SerializeToString(), texts))
    else:
        raise ValueError(f"node {node.name!r}: opset {OPSET} has no operator {node.op_type}")
    return body


def _drop_new_attributes(node: onnx.NodeProto, version: int) -> None:
    """Drop attributes that the contract's opset does not know, where they say what it does anyway.

    Raises:
        ValueError: they say something else.
    """
    old = defs.get_schema(node.op_type, OPSET, "").attributes
    new = defs.get_schema(node.op_type, version, "").attributes
    for place in reversed(range(len(node.attribute))):
        item = node.attribute[place]
        if item.name in new and item.name not in old:
            default = helper.get_attribute_value(new[item.name].default_value)
            if helper.get_attribute_value(item) != default:
                raise ValueError(f"node {node.name!r}: opset {OPSET} has no {item.name} in {node.op_type}")
            del node.attribute[place]


def _write_out_normalization(graph: onnx.GraphProto, by_group: bool) -> None:
    for inner in list(with_inner_graphs(graph)):
        norms = [node for node in inner.node if _normalizes(node)]
        if not norms:
            continue
        view, builder = GraphView(inner), GraphBuilder(inner, "opset")
        for node in norms:
            _group_normalization(builder, node, _dtype(view, node), by_group)
            inner.node[-1].output[0] = node.output[0]
        set_nodes(inner, [node for node in inner.node if not _normalizes(node)])
        sort_nodes(inner)


def _dtype(view: GraphView, node: onnx.NodeProto) -> np.dtype[Any]:
    """The type that a node computes in, float32 where nothing tells."""
    for name in node.input:
        constant = view.array(name)
        if constant is not None:
            return constant.dtype
        if name in view.declared and (element := view.declared[name].type.tensor_type.elem_type):
            return helper.tensor_dtype_to_np_dtype(element)
    return np.dtype(np.float32)


def _group_normalization(graph: GraphBuilder, node: onnx.NodeProto, dtype: np.dtype[Any], by_group: bool) -> None:
    """Instance normalisation of groups of channels in a row; scale and bias are one for each group or channel."""
    x, scale, bias = map(graph.value, node.input[:3])
    groups = int(attribute(node, "num_groups"))
    ones, zeros = (graph.constant(values, dtype) for values in (np.ones(groups), np.zeros(groups)))
    epsilon = float(attribute(node, "epsilon", 1e-5))
    values = graph.node("InstanceNormalization", x.reshape(0, groups, -1), ones, zeros, epsilon=epsilon)
    if not by_group:
        # In three axes, as the number of those behind the channels may be any.
        shape = graph.concat(0, graph.node("Shape", x, end=2), graph.constant([-1], np.int64))
        values = graph.node("Reshape", values, shape)
    scaled = values * scale.unsqueeze(1) + bias.unsqueeze(1)
    graph.node("Reshape", scaled, graph.node("Shape", x))


def _normalizes(node: onnx.NodeProto) -> bool:
    return node.op_type == "GroupNormalization" and _is_standard(node)


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")
