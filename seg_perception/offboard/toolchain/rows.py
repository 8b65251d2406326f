"""Exports whose outputs are the finished detections, as mmdeploy writes them.

dets    `[B, K, 5]`     x1, y1, x2, y2 in network pixels, score
labels  `[B, K]`        integers
masks   `[B, K, h, w]`  probabilities over the whole image, or over each box
"""

from __future__ import annotations

import numpy as np
import onnx

from .evidence import operators_behind
from .export import Export, Port
from .families import MASK_CELL, Match, is_float, logits_behind, sizes_of
from .formulas import GraphBuilder, Value
from .head import HeadOptions, InstanceHead, best_rows, finite, logits_of_pixels, take_rows

_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
# Keys of masks: probabilities over the image; logits over it; probabilities over boxes, as fine as they are.
_KINDS = ("masks", "logits", "boxed")


def detection_rows(export: Export) -> dict[str, Port] | None:
    """Return the outputs by the names in the module's description; None for a model with others."""
    floats = {port.rank: port for port in export.outputs if is_float(port)}
    labels = [port for port in export.outputs if port.rank == 2 and port.element in _INTEGERS]
    if len(export.outputs) != 3 or set(floats) != {3, 4} or len(labels) != 1 or sizes_of(floats[3])[1] not in (0, 5):
        return None
    return {"dets": floats[3], "labels": labels[0], "masks": floats[4]}


def with_logits(export: Export, rows: dict[str, Port]) -> dict[str, Port]:
    """Return the rows with the masks' `logits` in place of `masks` where a sigmoid made them and can be cut off."""
    logits = logits_behind(export, rows["masks"])
    if logits is None or min(sizes_of(logits)[1:]) < 1:
        return rows
    return {**{key: rows[key] for key in ("dets", "labels")}, "logits": logits}


def spans_image(masks: Port, image: Port) -> bool:
    """Return whether masks are as large as the image."""
    return sizes_of(masks)[1:] == sizes_of(image)[1:]


def is_proportional(masks: Port, image: Port) -> bool:
    """Return whether masks are the image scaled down by a whole number, or of a size that is not known."""
    _, height, width = sizes_of(masks)
    _, image_height, image_width = sizes_of(image)
    if min(height, width) < 1:
        return True
    return image_height % height == 0 and image_width % width == 0 and image_height // height == image_width // width


def has_regions(export: Export, boxes: Port) -> bool:
    """Return whether the network cuts features out for regions of the image, as two-stage models do."""
    return any("RoiAlign" in operator for operator in operators_behind(export, boxes.name))


def rows_head(graph: GraphBuilder, match: Match, options: HeadOptions) -> InstanceHead:
    """Write the best K of the rows that the export gives, padded where it gives fewer."""
    values = {key: graph.value(port.name) for key, port in match.outputs.items()}
    values["labels"] = values["labels"].cast(np.float32)
    key = next(kind for kind in _KINDS if kind in match.outputs)
    usable = finite(values["dets"], 1, 2) & finite(values[key], 1, 2, 3)
    given = sizes_of(match.outputs["dets"])[0]
    count = min(options.max_instances, given or options.max_instances)
    parts = ((values["dets"], 3), (values["labels"], 2), (values[key], 4))
    # There may be no rows at all, which not every operator takes.
    dets, labels, masks = (value if given else _padded(graph, value, rank, count) for value, rank in parts)
    height, width = sizes_of(match.outputs[key])[1:]
    if key == "masks":
        masks, height, width = logits_of_pixels(masks, MASK_CELL), height // MASK_CELL, width // MASK_CELL
    if key == "boxed":
        # As in `families.maskrcnn`: probabilities are interpolated.
        masks = masks - 0.5
    boxes, scores = dets.split(2, 4, 1)
    scores = scores.reshape(0, -1)
    rows = best_rows(scores, count)
    return InstanceHead(
        boxes=take_rows(boxes, rows.indices) * rows.used.unsqueeze(2),
        scores=usable.unsqueeze(1).where(rows.of(scores), float("nan")),
        labels=rows.of(labels).cast(np.int32),
        masks=take_rows(masks, rows.indices) * rows.used.unsqueeze(2, 3),
        mask_frame="box" if key == "boxed" else "frame",
        max_instances=count,
        mask_height=height,
        mask_width=width,
    )


def _padded(graph: GraphBuilder, value: Value, rank: int, count: int) -> Value:
    """With `count` more rows of 0 along axis 1, so that there are enough."""
    pads = np.zeros((2, rank), np.int64)
    pads[1, 1] = count
    return graph.node("Pad", value, graph.constant(pads.ravel(), np.int64))
