"""A D-FINE-seg of four classes that finds coloured rectangles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from colour_model import MASK_STRIDE, NAMES
from colour_queries import ROWS, colour_queries
from layouts._imagenet import take_normalised
from layouts.rfdetr import shares_of

from seg_perception.offboard.toolchain.head import logits_of


def export(path: Path) -> None:
    """Write `[1, 3, 192, 320]` to `logits` `[1, 100, 4]`, `boxes` `[1, 100, 4]` and `masks` `[1, 100, 48, 80]`."""
    found = colour_queries()
    take_normalised(found.model.graph, (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
    boxes, logits = found.graph.concat(2, *shares_of(found, 320, 192)), logits_of(found.class_scores())
    model = found.finished(
        logits=(logits, np.float32, (1, ROWS, len(NAMES))),
        boxes=(boxes, np.float32, (1, ROWS, 4)),
        masks=(found.masks, np.float32, (1, ROWS, 192 // MASK_STRIDE, 320 // MASK_STRIDE)),
    )
    onnx.save(model, path)
