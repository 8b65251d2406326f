"""YOLO26-seg end to end (exported with `nms=False`), and others with a one-to-one head in the style of YOLOv10.

    rows        `[B, M, 6 + P]`  x1, y1, x2, y2 in network pixels; score; class index; P mask coefficients
    prototypes  `[B, P, h, w]`

The network needs no suppression: its rows are the best M of all positions. A mask's logits are its coefficients times
the prototypes.
"""

from __future__ import annotations

import numpy as np

from seg_perception.core.errors import ModelError
from seg_perception.core.geometry import ResizeSpec

from ..dense import dense_reading, in_pixels, units_of
from ..evidence import operators_behind
from ..export import Export
from ..graph import GraphBuilder
from ..head import LARGEST_TOP, HeadOptions, InstanceHead, best_rows, masks_of_prototypes, report_faults, take
from . import Match, PixelSpec, by_rank, image_input, sizes_of


class Yolo26:
    """See the module."""

    name = "yolo26"
    expects = (
        "two float outputs: sorted rows [B, M, 6 + P] (x1 y1 x2 y2 score class coefficients) and prototypes "
        "[B, P, h, w] (YOLO26-seg end to end)"
    )

    def recognise(self, export: Export) -> Match | None:
        """By the two outputs, and by the sort in the graph: one-class models of other families have the same shapes."""
        image, outputs = image_input(export), by_rank(export)
        if image is None or set(outputs) != {3, 4}:
            return None
        rows, prototypes = outputs[3], outputs[4]
        if min(*sizes_of(rows), *sizes_of(prototypes)) < 1:
            return None
        count, columns = sizes_of(rows)
        coefficients, height, width = sizes_of(prototypes)
        operators = operators_behind(export, rows.name)
        sorts = "TopK" in operators and "NonMaxSuppression" not in operators
        if columns != 6 + coefficients or count > LARGEST_TOP or not sorts:
            return None
        classes = _class_count(export)
        return Match(
            image,
            {"rows": rows, "prototypes": prototypes},
            classes,
            PixelSpec(),
            ResizeSpec("letterbox", pad_value=114),
            f"{classes or 'unknown'} classes, {count} rows, {coefficients} prototypes of {width} x {height}",
            reading=dense_reading("the rows' own, after their sigmoid", "x1, y1, x2, y2"),
            evidence=("rows out of a sort, of six columns more than prototypes",),
            probe=units_of(export, lambda values: values[..., 2:4]),
        )

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> InstanceHead:
        """The best rows, then their masks."""
        rows, columns = sizes_of(match.outputs["rows"])
        count, height, width = sizes_of(match.outputs["prototypes"])
        instances = min(options.max_instances, rows)

        table = graph.value(match.outputs["rows"].name).transpose(0, 2, 1)
        _, scores, _, _ = table.split(1, 4, 1, 1, count)
        scores = scores.reshape(0, rows)
        chosen = best_rows(scores, instances)
        best = take(table, chosen.indices, columns) * chosen.used.unsqueeze(1)
        boxes, _, labels, coefficients = best.split(1, 4, 1, 1, count)
        boxes = in_pixels(graph, match, boxes, 1)
        prototypes = graph.value(match.outputs["prototypes"].name)
        return InstanceHead(
            boxes=boxes.transpose(0, 2, 1),
            scores=report_faults(graph, chosen.of(scores), table),
            labels=labels.reshape(0, instances).cast(np.int32),
            masks=masks_of_prototypes(coefficients, prototypes, (instances, count, height, width)),
            max_instances=instances,
            mask_height=height,
            mask_width=width,
        )


def family() -> Yolo26:
    """Return what `known_families` asks for."""
    return Yolo26()


def _class_count(export: Export) -> int:
    """As many as the model has names; its outputs do not tell."""
    try:
        return len(export.class_names() or ())
    except ModelError:
        return 0
