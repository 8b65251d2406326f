"""Forms of an exporter's graph that not all runtimes take, and what is written in their place."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .export import Export


def split_what_is_gathered(graph: onnx.GraphProto, export: Export) -> None:
    """Write a Slice from 0 on that GatherElements reads as a Split.

    OpenVINO 2026.4 merges the Slice into the gather and then refuses the shapes.

    Args:
        graph: in `contract.OPSET`, its tensors named as in the export.
        export: knows the shapes.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants.update((node.output[0], _value(node)) for node in graph.node if node.op_type == "Constant")
    gathered = {node.input[0] for node in graph.node if node.op_type == "GatherElements"}
    for node in graph.node:
        if node.op_type != "Slice" or node.output[0] not in gathered:
            continue
        starts, ends, *others = (_integers(constants.get(name)) for name in node.input[1:])
        port = export.port(node.input[0])
        axes = others[0] if others else [0]
        if starts != [0] or not ends or not axes or len(axes) != 1 or (others[1:] and others[1] != [1]):
            continue
        size = port.shape[axes[0]] if port is not None and port.shape is not None else None
        if size is not None and 0 < ends[0] < size:
            sizes = f"{node.output[0]}/sizes"
            graph.initializer.append(numpy_helper.from_array(np.array([ends[0], size - ends[0]], np.int64), sizes))
            split = helper.make_node(
                "Split", [node.input[0], sizes], [node.output[0], f"{node.output[0]}/rest"], node.name, axis=axes[0]
            )
            node.CopyFrom(split)


def in_single_precision(graph: onnx.GraphProto) -> None:
    """Compute in float32 what the exporter computes in float64.

    Mask2Former's reference points come out of `torch.onnx.export` in float64, which ONNX Runtime's GridSample and all
    of TensorRT refuse.

    Args:
        graph: without types of inner tensors (`value_info`).
    """
    for tensor in graph.initializer:
        _halve(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == onnx.TensorProto.DOUBLE:
                attribute.i = onnx.TensorProto.FLOAT
            if attribute.HasField("t"):
                _halve(attribute.t)
            if attribute.HasField("g"):
                del attribute.g.value_info[:]
                in_single_precision(attribute.g)
                for value in (*attribute.g.input, *attribute.g.output):
                    if value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE:
                        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def _halve(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == onnx.TensorProto.DOUBLE:
        largest = np.finfo(np.float32).max
        # Exporters write the largest number where they mean infinity.
        values = np.clip(numpy_helper.to_array(tensor), -largest, largest).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    return next((item.t for item in node.attribute if item.name == "value"), None)


def _integers(tensor: onnx.TensorProto | None) -> list[int] | None:
    return None if tensor is None else [int(value) for value in numpy_helper.to_array(tensor).ravel()]
