"""A panoptic Mask2Former that finds coloured rectangles on a road."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from colour_model import MASK_STRIDE, NAMES
from colour_queries import ROWS, colour_queries
from layouts._imagenet import take_normalised

from seg_perception.core.classes import ClassTable
from seg_perception.offboard.toolchain.prepare import PrepareOptions

CLASSES = (*NAMES, "road")
OPTIONS = PrepareOptions(classes=ClassTable("scene", CLASSES, {}, frozenset({"road"})))
# Boxes are those of the masks, a cell wider.
BOXES = 2.0 * MASK_STRIDE
_ALMOST_NEVER = 1e-6


def export(path: Path) -> None:
    """Write `[1, 3, 192, 320]` to class logits `[1, 101, 6]` and mask logits `[1, 101, 48, 80]`."""
    onnx.save(mask2former(), path)


def mask2former(
    width: int = 320, height: int = 192, batch: int | None = 1, ending: str = "", road: bool = True
) -> onnx.ModelProto:
    """The raw export.

    Args:
        width, height: of the network input.
        batch: fixed, or None for a dynamic batch axis.
        ending: nothing, "Resize" (masks as large as the input), "Sigmoid" (which are no logits), "States" (inner states
            of the network come out as well, as of the bare model).
        road: whether the last query finds what is left over by the others.
    """
    found = colour_queries(width, height, batch, "pixel_values")
    graph = found.graph
    take_normalised(found.model.graph)
    scores, masks = found.class_scores(), found.masks
    rows, columns = ROWS, len(NAMES)
    if road:
        # What no mask claims; a row and a column more.
        masks = graph.concat(1, masks, masks.max(1).unsqueeze(1) * -1.0)
        scores = graph.node("Pad", scores, graph.constant([0, 0, 0, 0, 1, 1], np.int64))
        rows, columns = rows + 1, columns + 1
        scores = scores + graph.constant(0.9 * np.outer(np.eye(rows)[-1], np.eye(columns)[-1])[None])
    nothing = graph.constant(1.0) - scores.max(2).unsqueeze(2)
    states = graph.concat(2, scores, nothing).maximum(_ALMOST_NEVER)
    classes = graph.node("Log", states)
    scale = 1 if ending == "Resize" else MASK_STRIDE
    fine = masks
    if ending == "Resize":
        scales = graph.constant([1, 1, MASK_STRIDE, MASK_STRIDE])
        fine = graph.node("Resize", masks, graph.node("Identity", graph.constant([])), scales, mode="linear")
    if ending == "Sigmoid":
        fine = graph.node("Sigmoid", masks)
    first = "batch" if batch is None else batch
    more = {}
    if ending == "States":
        fine = masks + 0.0
        more = {
            "encoder": (masks, np.float32, (first, rows, height // scale, width // scale)),
            "decoder": (states.transpose(0, 1, 2), np.float32, (first, rows, columns + 1)),
        }
    model = found.finished(
        class_queries_logits=(classes, np.float32, (first, rows, columns + 1)),
        masks_queries_logits=(fine, np.float32, (first, rows, height // scale, width // scale)),
        **more,
    )
    del model.metadata_props[:]
    return model
