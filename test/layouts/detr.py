"""A DETR with masks of four classes that finds coloured rectangles."""

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
    """Write `[1, 3, 192, 320]` to `logits` `[1, 100, 5]`, and `pred_boxes` and `pred_masks` as RF-DETR has them."""
    found = colour_queries()
    take_normalised(found.model.graph)
    logits = logits_of(found.class_scores())
    # No object is as likely as the best class is unlikely.
    nothing = logits.max(2).unsqueeze(2) * -1.0
    model = found.finished(
        logits=(found.graph.concat(2, logits, nothing), np.float32, (1, ROWS, len(NAMES) + 1)),
        pred_boxes=(found.graph.concat(2, *shares_of(found, 320, 192)), np.float32, (1, ROWS, 4)),
        pred_masks=(found.masks, np.float32, (1, ROWS, 192 // MASK_STRIDE, 320 // MASK_STRIDE)),
    )
    onnx.save(model, path)
