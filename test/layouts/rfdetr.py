"""An RF-DETR-Seg of four classes that finds coloured rectangles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from colour_model import MASK_STRIDE, NAMES
from colour_queries import ROWS, Queries, colour_queries
from layouts._imagenet import take_normalised

from seg_perception.offboard.toolchain.formulas import Value
from seg_perception.offboard.toolchain.head import logits_of


def export(path: Path) -> None:
    """Write `[1, 3, 192, 320]` to `dets` `[1, 100, 4]`, `labels` `[1, 100, 5]` and `masks` `[1, 100, 48, 80]`."""
    onnx.save(rfdetr(), path)


def rfdetr(width: int = 320, height: int = 192, batch: int | None = 1) -> onnx.ModelProto:
    """The raw export: of its five columns of classes the last one means nothing, yet is the best of them.

    Args:
        width, height: of the network input.
        batch: fixed, or None for a dynamic batch axis.
    """
    found = colour_queries(width, height, batch)
    take_normalised(found.model.graph)
    shares = shares_of(found, width, height)
    logits = logits_of(found.class_scores())
    spare = logits.max(2).unsqueeze(2) * 0.0 + 9.0
    first = "batch" if batch is None else batch
    return found.finished(
        dets=(found.graph.concat(2, *shares), np.float32, (first, ROWS, 4)),
        labels=(found.graph.concat(2, logits, spare), np.float32, (first, ROWS, len(NAMES) + 1)),
        masks=(found.masks, np.float32, (first, ROWS, height // MASK_STRIDE, width // MASK_STRIDE)),
    )


def shares_of(found: Queries, width: int, height: int) -> list[Value]:
    """Centre x, centre y, width and height of the boxes as shares of the network input."""
    left, top, right, bottom = found.boxes.split(2, 1, 1, 1, 1)
    return [
        (right + left) * (0.5 / width),
        (bottom + top) * (0.5 / height),
        (right - left) * (1 / width),
        (bottom - top) * (1 / height),
    ]
