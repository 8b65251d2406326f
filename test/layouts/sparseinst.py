"""A SparseInst that finds coloured rectangles: its own sigmoids, interpolation and input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from colour_model import MASK_STRIDE, NAMES
from colour_queries import ROWS, colour_queries

from seg_perception.offboard.toolchain.prepare import PrepareOptions

# Boxes are a cell wider than masks, and masks up to a cell wider than rectangles.
BOXES = 2.0 * MASK_STRIDE
# Without the sigmoid in sight, which a fault at the very end hides, it could be a Mask2Former as well.
OPTIONS = PrepareOptions(family="sparseinst")


def export(path: Path) -> None:
    """Write `input_image` `[1, 3, 192, 320]`, RGB, to `scores` `[1, 100, 4]` and `masks` of the input's size."""
    onnx.save(sparseinst(), path)


def sparseinst(width: int = 320, height: int = 192, batch: int | None = 1, hidden: bool = False) -> onnx.ModelProto:
    """The raw export.

    Args:
        width, height: of the network input.
        batch: fixed, or None for a dynamic batch axis.
        hidden: whether the masks are probabilities that no sigmoid made, at the size of the input all the same.
    """
    found = colour_queries(width, height, batch, "input_image")
    masks = found.graph.node("Sigmoid", found.masks)
    nothing = found.graph.node("Identity", found.graph.constant([], np.float32))
    scales = found.graph.constant([1, 1, MASK_STRIDE, MASK_STRIDE])
    masks = found.graph.node("Resize", masks, nothing, scales, mode="linear")
    if hidden:
        masks = masks * 1.0
    first = "batch" if batch is None else batch
    return found.finished(
        scores=(found.class_scores(), np.float32, (first, ROWS, len(NAMES))),
        masks=(masks, np.float32, (first, ROWS, height, width)),
    )
