"""YOLOv8-seg and YOLO11-seg, as Ultralytics exports them.

    predictions  `[B, 4 + C + P, N]`  centre x, centre y, width, height in network pixels; C class scores after their
                                      sigmoid; P mask coefficients
    prototypes   `[B, P, h, w]`

A position's class is its best one. A mask's logits are its coefficients times the prototypes.
"""

from __future__ import annotations

import numpy as np

from ...geometry import ResizeSpec
from ..export import Export, Port
from ..graph import GraphBuilder
from ..head import (
    HeadOptions,
    InstanceHead,
    corners_of_centres,
    masks_of_prototypes,
    report_faults,
    surviving_rows,
    take,
)
from . import Match, PixelSpec, image_input, is_float


class YoloV8:
    """See the module."""

    name = "yolov8"
    expects = (
        "two float outputs: predictions [B, 4 + classes + P, N] with more positions N than rows, and "
        "prototypes [B, P, h, w] (YOLOv8-seg, YOLO11-seg)"
    )

    def recognise(self, export: Export) -> Match | None:
        """By the two outputs, whatever their names and order."""
        image = image_input(export)
        outputs = {port.rank: port for port in export.outputs if is_float(port)}
        if image is None or len(export.outputs) != 2 or set(outputs) != {3, 4}:
            return None
        predictions, prototypes = outputs[3], outputs[4]
        if min(*_sizes(predictions), *_sizes(prototypes)) < 1:
            return None
        rows, positions = _sizes(predictions)
        coefficients, height, width = _sizes(prototypes)
        classes = rows - 4 - coefficients
        if classes < 1 or positions <= rows:
            return None
        return Match(
            image,
            {"predictions": predictions, "prototypes": prototypes},
            classes,
            PixelSpec(),
            ResizeSpec("letterbox", pad_value=114),
            f"{classes} classes, {positions} positions, {coefficients} prototypes of {width} x {height}",
        )

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> InstanceHead:
        """Candidates, suppression, then coefficients and masks of the rows that remain."""
        rows, positions = _sizes(match.outputs["predictions"])
        count, height, width = _sizes(match.outputs["prototypes"])
        candidates = min(options.nms_candidates, positions)
        instances = min(options.max_instances, candidates)

        predictions = graph.value(match.outputs["predictions"].name)
        boxes, classes, coefficients = predictions.split(1, 4, rows - 4 - count, count)
        scores, places = classes.max(1).top(candidates)
        labels = take(classes, places, match.class_count).argmax(1).cast(np.float32)
        corners = corners_of_centres(take(boxes, places, 4))
        chosen = surviving_rows(graph, scores, places, labels, corners, candidates, options)

        used = chosen.used.unsqueeze(1)
        chosen_boxes = take(graph.concat(1, *corners), chosen.indices, 4) * used
        chosen_coefficients = take(coefficients, places.pick(chosen.indices, 1), count) * used
        prototypes = graph.value(match.outputs["prototypes"].name)
        return InstanceHead(
            boxes=chosen_boxes.transpose(0, 2, 1),
            scores=report_faults(graph, chosen.of(scores), predictions),
            labels=chosen.of(labels).cast(np.int32),
            masks=masks_of_prototypes(chosen_coefficients, prototypes, (instances, count, height, width)),
            max_instances=instances,
            mask_height=height,
            mask_width=width,
            nms_candidates=candidates,
        )


def family() -> YoloV8:
    """What `known_families` asks for."""
    return YoloV8()


def _sizes(port: Port) -> tuple[int, ...]:
    """The sizes behind the batch axis, 0 for an unknown one."""
    return tuple(0 if size is None else size for size in (port.shape or ())[1:])
