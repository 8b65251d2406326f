"""Inputs as networks see them whose backbone was trained on ImageNet."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from seg_perception.offboard.toolchain.graph import rename_tensors

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def take_normalised(graph: onnx.GraphProto, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> None:
    """Let the input, RGB from 0 to 255, be normalised by a mean and a deviation, those of ImageNet unless given."""
    name = graph.input[0].name
    rename_tensors(graph, {name: f"{name}/pixels"})
    graph.input[0].name = name
    for kind, values in (("std", std), ("mean", mean)):
        array = np.reshape(np.array(values, np.float32), (1, 3, 1, 1))
        graph.initializer.append(numpy_helper.from_array(array, f"{name}/{kind}"))
    nodes = [
        helper.make_node("Mul", [name, f"{name}/std"], [f"{name}/scaled"], name=f"{name}/scaled"),
        helper.make_node("Add", [f"{name}/scaled", f"{name}/mean"], [f"{name}/pixels"], name=f"{name}/pixels"),
        *graph.node,
    ]
    del graph.node[:]
    graph.node.extend(nodes)
