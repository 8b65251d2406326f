"""Forms of an exporter's graph that not all runtimes take, and what is written in their place."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .export import Export
from .graph import Array, GraphView, add_constant, all_nodes, with_inner_graphs


def split_what_is_gathered(graph: onnx.GraphProto, export: Export) -> None:
    """Write a Slice from 0 on that GatherElements reads as a Split.

    OpenVINO 2026.4 merges the Slice into the gather and then refuses the shapes.

    Args:
        graph: in `contract.OPSET`, its tensors named as in the export.
        export: knows the shapes.
    """
    view = GraphView(graph)
    gathered = {node.input[0] for node in graph.node if node.op_type == "GatherElements"}
    for node in graph.node:
        if node.op_type != "Slice" or node.output[0] not in gathered:
            continue
        starts, ends, *others = (_integers(view.array(name)) for name in node.input[1:])
        port = export.port(node.input[0])
        axes = others[0] if others else [0]
        if starts != [0] or not ends or not axes or len(axes) != 1 or (others[1:] and others[1] != [1]):
            continue
        size = port.shape[axes[0]] if port is not None and port.shape is not None else None
        if size is not None and 0 < ends[0] < size:
            sizes = add_constant(graph, f"{node.output[0]}/sizes", np.array([ends[0], size - ends[0]], np.int64))
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
    for inner in with_inner_graphs(graph):
        del inner.value_info[:]
        for tensor in inner.initializer:
            _halve(tensor)
        for value in (*inner.input, *inner.output):
            if inner is not graph and value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE:
                value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for item in (item for node in all_nodes(graph) for item in node.attribute):
        if item.name in ("to", "dtype") and item.i == onnx.TensorProto.DOUBLE:
            item.i = onnx.TensorProto.FLOAT
        if item.HasField("t"):
            _halve(item.t)


def _halve(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == onnx.TensorProto.DOUBLE:
        largest = np.finfo(np.float32).max
        # Exporters write the largest number where they mean infinity.
        values = np.clip(numpy_helper.to_array(tensor), -largest, largest).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _integers(array: Array | None) -> list[int] | None:
    return None if array is None else [int(value) for value in array.ravel()]
