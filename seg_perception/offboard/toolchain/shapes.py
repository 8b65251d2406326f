"""Shapes of a raw model's tensors, also where its exporter computes them with nodes."""

from __future__ import annotations

import onnx

from seg_perception.core.errors import ModelError

from .precision.shapes import inferred_types


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with all shapes that can be inferred.

    Where ONNX's own inference leaves an axis of an output open that is not the batch, the nodes are gone through one
    by one, for two batch sizes: what differs between them follows the batch, everything else is fixed.
    """
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            # How some exporters write an open axis. ONNX's inference ends the process at a Slice of such a length.
            if axis.dim_value < 0:
                axis.Clear()
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
    shared = onnx.TypeProto()
    shared.CopyFrom(first)
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
