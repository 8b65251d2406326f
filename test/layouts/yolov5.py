"""YOLOv5-seg and YOLOv7-seg: positions first, objectness apart from the class scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from colour_model import NAMES, PROTOTYPES, STRIDE, colour_model
from onnx import TensorProto, helper

from seg_perception.offboard.toolchain.graph import GraphBuilder


def export(path: Path) -> None:
    """Write `output0` `[1, N, 5 + 4 + 32]` and `output1` `[1, 32, 48, 80]`."""
    onnx.save(yolov5(), path)


def yolov5(names: Sequence[str] = NAMES, raw: bool = False) -> onnx.ModelProto:
    """The raw export; an image with a pixel of `FAULT_COLOUR` makes its predictions NaN.

    Args:
        names: the class names.
        raw: whether it also has the network's own output of a stride, as older exporters left it.
    """
    model = colour_model(names=names, fault="predictions", opset=19)
    graph = GraphBuilder(model.graph, "yolov5")
    boxes, scores, coefficients = graph.value("output0").split(1, 4, len(names), PROTOTYPES)
    # Half of the truth in either, so that neither alone gives the score.
    objectness = scores.max(1).unsqueeze(1) * 0.5 + 0.5
    scores = graph.node("Div", scores, objectness)
    columns = 5 + len(names) + PROTOTYPES
    rows = graph.concat(1, boxes, objectness, scores, coefficients).transpose(0, 2, 1)
    positions = 320 // STRIDE * (192 // STRIDE)
    prototypes = model.graph.output[1]
    del model.graph.output[:]
    if raw:
        planes = rows.reshape(0, 1, 192 // STRIDE, 320 // STRIDE, columns)
        graph.publish(planes, "onnx::Sigmoid_1", np.float32, (1, 1, 192 // STRIDE, 320 // STRIDE, columns))
    graph.publish(rows, "predictions", np.float32, (1, positions, columns))
    model.graph.output.append(prototypes)
    helper.set_model_props(model, {"names": repr(list(names))})
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    return model
