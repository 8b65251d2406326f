"""SparseInst, as its own `convert_onnx.py` exports it.

    scores  `[B, Q, C]`     of each class, after their sigmoid, times an objectness
    masks   `[B, Q, H, W]`  probabilities, interpolated to the size of the image

The export normalises the image itself: it takes RGB from 0 to 255. It leaves out what the published code does behind
it, which the head therefore does: a query's class is its best one, its score is multiplied by the mean probability of
the inside of its mask, and inside is what has a probability above 0.45.

The sigmoid and the interpolation of the masks are cut off. Interpolated logits have their border elsewhere than
interpolated probabilities, by a fraction of a cell. Where an export hides the logits, the probabilities in the middle
of each 4 x 4 pixels are turned back.
"""

from __future__ import annotations

import math

import numpy as np

from seg_perception.core.geometry import ResizeSpec

from ..export import Export
from ..graph import GraphBuilder, Value
from ..head import HeadOptions, InstanceHead, best_rows, boxes_of_masks, finite, logits_of_pixels, take_rows
from . import MASK_CELL, Match, PixelSpec, by_rank, image_input, logits_behind, sizes_of

# From the published configuration; see the module.
_INSIDE = 0.45
_EPSILON = 1e-6


class SparseInst:
    """See the module."""

    name = "sparseinst"
    expects = (
        "two float outputs for the same queries Q, both behind a sigmoid: class scores [B, Q, classes] and mask "
        "probabilities [B, Q, H, W] (SparseInst)"
    )

    def recognise(self, export: Export) -> Match | None:
        """By the two outputs, whatever their names and order; that they are probabilities tells from Mask2Former."""
        image = image_input(export)
        outputs = by_rank(export)
        if image is None or set(outputs) != {3, 4}:
            return None
        scores, masks = outputs[3], outputs[4]
        queries, classes = sizes_of(scores)
        logits = logits_behind(export, masks)
        names = {port.name for port in outputs.values()}
        if sizes_of(masks)[0] != queries or min(queries, classes) < 1 or (logits is None and names != _NAMES):
            return None
        grid = logits or masks
        if min(sizes_of(grid)) < 1:
            return None
        _, height, width = sizes_of(grid)
        how = f"mask logits {width} x {height}" if logits else "mask probabilities, whose logits are not to be found"
        return Match(
            image,
            {"scores": scores, "logits" if logits else "masks": grid},
            classes,
            PixelSpec(std=(1.0, 1.0, 1.0)),
            ResizeSpec("letterbox", pad_value=114, anchor="top_left"),
            f"{queries} queries, {classes} classes, {how}",
            reading={
                "scores": "after their sigmoid, times the mask's mean",
                "boxes": "from each mask's support",
                "masks": "a sigmoid over the whole image, inside above 0.45",
            },
        )

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> InstanceHead:
        """The best queries."""
        logits, (height, width) = _mask_logits(graph, match)
        scores = graph.value(match.outputs["scores"].name)
        given = next(match.outputs[key] for key in ("logits", "masks") if key in match.outputs)
        usable = finite(scores, 1, 2) & finite(graph.value(given.name), 1, 2, 3)
        inside = graph.node("Sigmoid", logits)
        support = (inside > _INSIDE).cast(np.float32)
        certainty = graph.node("Div", (inside * support).sum(2, 3), support.sum(2, 3) + _EPSILON)

        count = min(options.max_instances, sizes_of(match.outputs["scores"])[0])
        best = scores.max(2) * certainty
        rows = best_rows(best, count)
        # 0 is the border of canonical masks.
        border = math.log(_INSIDE / (1.0 - _INSIDE))
        masks = (take_rows(logits, rows.indices) - border) * rows.used.unsqueeze(2, 3)
        _, network_height, network_width = sizes_of(match.image)
        return InstanceHead(
            boxes=boxes_of_masks(graph, masks, (height, width), (network_height, network_width)),
            scores=usable.unsqueeze(1).where(rows.of(best), float("nan")),
            labels=rows.of(scores.argmax(2).cast(np.float32)).cast(np.int32),
            masks=masks,
            max_instances=count,
            mask_height=height,
            mask_width=width,
        )


def family() -> SparseInst:
    """Return what `known_families` asks for."""
    return SparseInst()


_NAMES = {"scores", "masks"}


def _mask_logits(graph: GraphBuilder, match: Match) -> tuple[Value, tuple[int, int]]:
    """float32 `[B, Q, h, w]`, and h and w."""
    if "logits" in match.outputs:
        port = match.outputs["logits"]
        return graph.value(port.name), (sizes_of(port)[1], sizes_of(port)[2])
    port = match.outputs["masks"]
    logits = logits_of_pixels(graph.value(port.name), MASK_CELL)
    return logits, (sizes_of(port)[1] // MASK_CELL, sizes_of(port)[2] // MASK_CELL)
