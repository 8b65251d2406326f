"""A Mask R-CNN that finds coloured rectangles: no batch axis, as many rows as were found, masks on boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from colour_model import NAMES
from colour_queries import Queries, colour_queries
from onnx import TensorProto, helper

from seg_perception.core.classes import ClassTable
from seg_perception.offboard.toolchain.formulas import Value
from seg_perception.offboard.toolchain.graph import rename_tensors
from seg_perception.offboard.toolchain.prepare import PrepareOptions

CLASSES = ("background", *NAMES)
OPTIONS = PrepareOptions(classes=ClassTable("maskrcnn", CLASSES, {}))
FIXED_BATCH = True
_SIDE = 28
_SCALE = 0.25


def export(path: Path) -> None:
    """Write `image` `[3, 192, 320]`, RGB from 0 to 1, to boxes, labels, scores and masks of N instances."""
    onnx.save(maskrcnn(), path)


def maskrcnn(width: int = 320, height: int = 192, pasted: bool = False, batch_axis: bool = False) -> onnx.ModelProto:
    """The raw export.

    Args:
        width, height: of the network input.
        pasted: whether masks are `[N, 1, height, width]` or `[N, 1, 28, 28]` on the boxes.
        batch_axis: whether the input is `[1, 3, height, width]`.
    """
    found = colour_queries(width, height, 1, "pixels")
    _take_unit_range(found.model, width, height, batch_axis)
    graph = found.graph
    scores = found.scores.reshape(-1)
    rows = graph.node("NonZero", (scores > 0.05).cast(np.float32)).reshape(-1)

    def only(values: Value) -> Value:
        return graph.node("Gather", values, rows, axis=0)

    boxes, labels = only(found.boxes.reshape(-1, 4)), only(found.labels.reshape(-1)).cast(np.int64)
    labels = graph.node("Add", labels, graph.constant(1, np.int64))
    probabilities = _on_boxes(found, rows, boxes, labels)
    place = labels.reshape(-1, 1)
    masks = graph.node("GatherND", probabilities, place, batch_dims=1).unsqueeze(1)
    if pasted:
        masks = _paste(masks, boxes, width, height)
    size = (height, width) if pasted else (_SIDE, _SIDE)
    return found.finished(
        boxes=(boxes, np.float32, ("n", 4)),
        labels=(labels, np.int64, ("n",)),
        scores=(only(scores), np.float32, ("n",)),
        masks=(masks, np.float32, ("n", 1, *size)),
    )


def _on_boxes(found: Queries, rows: Value, boxes: Value, labels: Value) -> Value:
    """Probabilities of every class on each box: `[N, 5, 28, 28]`."""
    graph = found.graph
    every = found.masks.transpose(1, 0, 2, 3)
    logits = graph.node(
        "RoiAlign", every, boxes, rows, output_height=_SIDE, output_width=_SIDE, spatial_scale=_SCALE, sampling_ratio=2
    )
    columns = graph.constant(np.arange(len(CLASSES)).reshape(1, -1, 1, 1), np.int64)
    own = labels.reshape(-1, 1, 1, 1).equals(columns)
    return graph.node("Sigmoid", own.where(logits, graph.constant(-8.0)))


def _paste(masks: Value, boxes: Value, width: int, height: int) -> Value:
    """`[N, 1, 28, 28]` on boxes to `[N, 1, height, width]`, 0 outside."""
    graph = masks.graph
    x1, y1, x2, y2 = (side.reshape(-1, 1, 1, 1) for side in boxes.split(1, 1, 1, 1, 1))
    places = []
    for start, end, length, shape in ((x1, x2, width, (1, 1, -1, 1)), (y1, y2, height, (1, -1, 1, 1))):
        centres = graph.constant((np.arange(length) + 0.5).reshape(shape))
        share = graph.node("Div", centres - start, end - start) * 2.0 - 1.0
        places.append(share.expand(1, height, width, 1))
    return graph.node("GridSample", masks, graph.concat(3, *places), align_corners=0, padding_mode="zeros")


def _take_unit_range(model: onnx.ModelProto, width: int, height: int, batch_axis: bool) -> None:
    """Let the input be RGB from 0 to 1, with or without a batch axis."""
    rename_tensors(model.graph, {"pixels": "found/pixels"})
    shape = [1] * batch_axis + [3, height, width]
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, shape))
    nodes = list(model.graph.node)
    model.graph.initializer.append(helper.make_tensor("found/white", TensorProto.FLOAT, [], [255.0]))
    model.graph.initializer.append(helper.make_tensor("found/shape", TensorProto.INT64, [4], [1, 3, height, width]))
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Mul", ["image", "found/white"], ["found/levels"], name="found/levels"))
    model.graph.node.append(
        helper.make_node("Reshape", ["found/levels", "found/shape"], ["found/pixels"], name="found/pixels")
    )
    model.graph.node.extend(nodes)
