"""Small graphs for the tests of precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seg_perception.core.contract import OPSET


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Mapping[str, int],
    constants: Mapping[str, Any],
    element: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A checked model.

    Args:
        nodes: of the graph.
        inputs: shapes of the inputs, which are of type `element`.
        outputs: ranks of the outputs; their types are inferred.
        constants: initializers.
        element: of the inputs.
    """
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    for value, (name, rank) in zip(model.graph.output, outputs.items(), strict=True):
        inferred = next(each for each in onnx.shape_inference.infer_shapes(model).graph.output if each.name == name)
        kind = inferred.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(name, kind, [None] * rank))
    onnx.checker.check_model(model, full_check=True)
    return model


def floats(*shape: int) -> NDArray[np.float32]:
    """Ones."""
    return np.ones(shape, np.float32)


def node_called(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The node of this name."""
    nodes: Iterable[onnx.NodeProto] = model.graph.node
    return next(node for node in nodes if node.name == name)


def elements(model: onnx.ModelProto) -> dict[str, int]:
    """ONNX element type of every tensor, as ONNX's own strict inference finds it."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    found = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}
