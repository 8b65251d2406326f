"""A YOLACT that finds coloured rectangles: softmax with a background, boxes relative to priors, channels last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from colour_model import MASK_STRIDE, NAMES, PROTOTYPES, STRIDE, colour_model
from numpy.typing import NDArray
from onnx import TensorProto, helper

from seg_perception.offboard.toolchain.formulas import GraphBuilder, Value
from seg_perception.offboard.toolchain.graph import rename_tensors

MEAN, STD = (123.68, 116.78, 103.94), (58.40, 57.12, 57.38)
# A prior's sides, as multiples of a cell's.
SIDES = (4.0, 3.0)


def export(path: Path) -> None:
    """Write `[1, 3, 192, 320]` in YOLACT's normalisation to the five outputs of its layout."""
    onnx.save(yolact(), path)


def yolact(width: int = 320, height: int = 192, batch: int | None = 1) -> onnx.ModelProto:
    """The raw export.

    Args:
        width, height: of the network input, multiples of 8.
        batch: fixed, or None for a dynamic batch axis.
    """
    model = colour_model(width, height, batch, opset=19)
    del model.graph.output[:], model.graph.input[:]
    first = "batch" if batch is None else batch
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [first, 3, height, width])
    model.graph.input.append(image)
    body = list(model.graph.node)
    del model.graph.node[:]
    graph = GraphBuilder(model.graph, "yolact")
    std, mean = (graph.constant(np.reshape(values, (1, 3, 1, 1)) / 255) for values in (STD, MEAN))
    photo = graph.value("image") * std + mean
    model.graph.node.extend(body)
    rename_tensors(model.graph, {"images": photo.name})

    rows, columns = height // STRIDE, width // STRIDE
    boxes, scores, coefficients = graph.value("output0").split(1, 4, len(NAMES), PROTOTYPES)
    # Colour logits are positive and negative; prototypes are not, so each class has one for either side.
    planes, _ = graph.value("output1").split(1, len(NAMES), PROTOTYPES - len(NAMES))
    prototypes = graph.concat(1, planes.relu(), (planes * -1.0).relu())
    own, _ = coefficients.split(1, len(NAMES), PROTOTYPES - len(NAMES))
    priors = _priors(rows, columns)
    background = graph.constant(1.0) - scores.sum(1, keep=True)
    probabilities = graph.concat(1, background, scores).maximum(1e-7).transpose(0, 2, 1)
    outputs = {
        "loc": (_encoded(graph, boxes, priors, (width, height)), (first, rows * columns, 4)),
        "conf": (
            graph.node("Softmax", graph.node("Log", probabilities), axis=-1),
            (first, rows * columns, 1 + len(NAMES)),
        ),
        "mask": (
            graph.node("Tanh", graph.concat(1, own * 20.0, own * -20.0).transpose(0, 2, 1)),
            (first, rows * columns, 2 * len(NAMES)),
        ),
        "priors": (graph.constant(priors) * 1.0, (rows * columns, 4)),
        "proto": (
            prototypes.transpose(0, 2, 3, 1),
            (first, height // MASK_STRIDE, width // MASK_STRIDE, 2 * len(NAMES)),
        ),
    }
    for name, (value, shape) in outputs.items():
        graph.publish(value, name, np.float32, shape)
    onnx.checker.check_model(model, full_check=True)
    return model


def _priors(rows: int, columns: int) -> NDArray[np.float32]:
    """Centre and sides of a prior at each cell, float32 `[rows * columns, 4]`, shares of the photo."""
    y, x = np.mgrid[:rows, :columns].reshape(2, -1) + 0.5
    across, down = (np.full(rows * columns, side) for side in SIDES)
    return np.stack([x / columns, y / rows, across / columns, down / rows], 1).astype(np.float32)


def _encoded(graph: GraphBuilder, boxes: Value, priors: NDArray[np.float32], size: tuple[int, int]) -> Value:
    """SSD's offsets `[B, N, 4]` of boxes `[B, 4, N]`, rows centre x, centre y, width, height in pixels."""
    centre, side = (boxes.transpose(0, 2, 1) * graph.constant(1 / np.tile(size, 2))).split(2, 2, 2)
    shift = (centre - graph.constant(priors[:, :2])) * graph.constant(1 / (0.1 * priors[:, 2:]))
    growth = graph.node("Log", side.maximum(1e-3) * graph.constant(1 / priors[:, 2:])) * 5.0
    return graph.concat(2, shift, growth)
