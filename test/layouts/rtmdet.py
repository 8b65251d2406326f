"""An RTMDet-Ins that finds coloured rectangles: as the rows that mmdeploy's graphs end with, or as heads' outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from colour_model import MASK_STRIDE, NAMES, PROTOTYPES, STRIDE, colour_model
from colour_queries import ROWS, colour_queries

from seg_perception.core.classes import ClassTable
from seg_perception.offboard.toolchain.formulas import GraphBuilder, Value
from seg_perception.offboard.toolchain.graph import rename_tensors
from seg_perception.offboard.toolchain.head import corners_of_centres, logits_of
from seg_perception.offboard.toolchain.prepare import PrepareOptions

MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
OPTIONS = PrepareOptions(classes=ClassTable("colours", NAMES, {}))
# Of the dynamic convolution: a positive and a negative plane for each class.
WIDTH = 2 * len(NAMES)


def export(path: Path) -> None:
    """Write `input` `[1, 3, 192, 320]`, blue first and normalised, to `dets`, `labels` and `masks`."""
    onnx.save(rows(), path)


def rows(width: int = 320, height: int = 192, batch: int | None = 1, ending: str = "") -> onnx.ModelProto:
    """What mmdeploy's graph ends with, whatever found it.

    Args:
        width, height: of the network input.
        batch: fixed, or None for a dynamic batch axis.
        ending: "Open" for as many rows as there are, "Hidden" for masks that no sigmoid made.
    """
    found = colour_queries(width, height, batch, "colours")
    graph, first = found.graph, "batch" if batch is None else batch
    count: int | str = ROWS
    dets = graph.concat(2, found.boxes, found.scores.unsqueeze(2))
    labels, masks = found.labels.cast(np.int64), found.masks
    if ending == "Open":
        used = (found.scores > 0.0).cast(np.float32).sum(0, 1, keep=False).cast(np.int64)
        dets, labels, masks = (_first(graph, value, used) for value in (dets, labels, masks))
        count = "count"
    nothing, scales = graph.node("Identity", graph.constant([])), graph.constant([1, 1, MASK_STRIDE, MASK_STRIDE])
    masks = graph.node("Sigmoid", graph.node("Resize", masks, nothing, scales, mode="linear"))
    if ending == "Hidden":
        masks = masks * 1.0
    model = found.finished(
        dets=(dets, np.float32, (first, count, 5)),
        labels=(labels, np.int64, (first, count)),
        masks=(masks, np.float32, (first, count, height, width)),
    )
    return _blue_first(model, 1.0)


def heads(width: int = 320, height: int = 192, batch: int | None = 1) -> onnx.ModelProto:
    """What mmdet's own model gives: of two levels, of which only the finer one finds anything.

    Args:
        width, height: of the network input, multiples of 16.
        batch: fixed, or None for a dynamic batch axis.
    """
    model = colour_model(width, height, batch, opset=19)
    del model.graph.output[:], model.metadata_props[:]
    graph = GraphBuilder(model.graph, "rtmdet")
    boxes, scores, coefficients = graph.value("output0").split(1, 4, len(NAMES), PROTOTYPES)
    size = (height // STRIDE, width // STRIDE)
    own, _ = coefficients.reshape(0, PROTOTYPES, *size).split(1, len(NAMES), PROTOTYPES - len(NAMES))
    fine = {
        "classes": logits_of(scores.reshape(0, len(NAMES), *size)),
        "boxes": _distances(graph, boxes, size),
        "kernels": _kernels(graph, own),
    }
    coarse = {
        name: graph.node("AveragePool", value, kernel_shape=[2, 2], strides=[2, 2]) for name, value in fine.items()
    }
    coarse["classes"] = coarse["classes"] * 0.0 - 9.0
    coarse["boxes"] = coarse["boxes"].relu()
    planes, _ = graph.value("output1").split(1, len(NAMES), PROTOTYPES - len(NAMES))
    planes = _halved(planes)
    outputs = {f"{name}{place}": level[name] for name in fine for place, level in enumerate((fine, coarse))}
    outputs["features"] = graph.concat(1, planes.relu(), (planes * -1.0).relu())
    for name, value in outputs.items():
        graph.publish(value, name, np.float32, ())
        model.graph.output[-1].type.tensor_type.ClearField("shape")
    return _blue_first(onnx.shape_inference.infer_shapes(model), 1 / 255)


def _first(graph: GraphBuilder, value: Value, count: Value) -> Value:
    """Its first `count` rows, an int64 without axes."""
    places = graph.node("Range", graph.constant(0, np.int64), count, graph.constant(1, np.int64))
    return graph.node("Gather", value, places, axis=1)


def _halved(value: Value) -> Value:
    """Half as fine."""
    return value.graph.node("AveragePool", value, kernel_shape=[2, 2], strides=[2, 2])


def _distances(graph: GraphBuilder, boxes: Value, size: tuple[int, int]) -> Value:
    """To the sides from each position of the finer level `[B, 4, h, w]`, of boxes `[B, 4, N]` by centre and sides."""
    places = [np.reshape(place * float(STRIDE), (1, 1, -1)) for place in np.mgrid[: size[0], : size[1]][::-1]]
    x, y = (graph.constant(place) for place in places)
    left, top, right, bottom = corners_of_centres(boxes)
    return graph.concat(1, x - left, y - top, right - x, bottom - y).reshape(0, 4, *size).relu()


def _kernels(graph: GraphBuilder, own: Value) -> Value:
    """Two layers that pass the features on, and one that takes those of the class `[B, C, h, w]`."""
    first = np.concatenate([np.zeros((WIDTH, 2)), np.eye(WIDTH)], 1)
    passing = np.concatenate([first.ravel(), np.eye(WIDTH).ravel()]).reshape(1, -1, 1, 1)
    nothing = own.max(1).unsqueeze(1) * 0.0
    biases = graph.constant(np.zeros((1, 2 * WIDTH + 1, 1, 1)))
    return graph.concat(1, nothing + graph.constant(passing), own, own * -1.0, nothing + biases)


def _blue_first(model: onnx.ModelProto, scale: float) -> onnx.ModelProto:
    """With a normalised input, blue first, in place of one that is red first and counts to 255 times `scale`."""
    stage = onnx.GraphProto()
    graph = GraphBuilder(stage, "first")
    std, mean = (graph.constant(np.reshape(values, (1, 3, 1, 1)) * scale) for values in (STD, MEAN))
    channels = (graph.value("input") * std + mean).split(1, 1, 1, 1)
    rename_tensors(stage, {graph.concat(1, *reversed(channels)).name: "red_first"})
    rename_tensors(model.graph, {model.graph.input[0].name: "red_first"})
    nodes = [*stage.node, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(stage.initializer)
    model.graph.input[0].name = "input"
    onnx.checker.check_model(model, full_check=True)
    return model
