"""YOLOv8-seg, YOLOv9-seg, YOLO11-seg and YOLO12-seg as Ultralytics exports them, and YOLO26-seg with suppression.

    predictions  `[B, 4 + C + P, N]`  centre x, centre y, width, height in network pixels; C class scores after their
                                      sigmoid; P mask coefficients
    prototypes   `[B, P, h, w]`

A position's class is its best one. A mask's logits are its coefficients times the prototypes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seg_perception.core.geometry import ResizeSpec

from ..dense import dense_evidence, dense_reading, in_pixels, units_of
from ..export import Export
from ..graph import GraphBuilder
from ..head import HeadOptions, InstanceHead, corners_of_centres, report_faults, take
from ..prototypes import Candidates, prototype_instances
from . import Match, PixelSpec, by_rank, image_input, sizes_of


class YoloV8:
    """See the module."""

    name = "yolov8"
    expects = (
        "two float outputs: predictions [B, 4 + classes + P, N] for N positions, and "
        "prototypes [B, P, h, w] (YOLOv8-seg, YOLO11-seg; YOLO26-seg exported with suppression)"
    )

    def recognise(self, export: Export) -> Match | None:
        """By the outputs, whatever their names and order."""
        image, outputs = image_input(export), by_rank(export)
        if image is None or set(outputs) != {3, 4}:
            return None
        predictions, prototypes = outputs[3], outputs[4]
        if min(*sizes_of(predictions), *sizes_of(prototypes)) < 1:
            return None
        rows, positions = sizes_of(predictions)
        coefficients, height, width = sizes_of(prototypes)
        classes = rows - 4 - coefficients
        if classes < 1:
            return None
        evidence, against = dense_evidence(export, image, classes, positions, rows, anchors=1)
        return Match(
            image,
            {"predictions": predictions, "prototypes": prototypes},
            classes,
            PixelSpec(),
            ResizeSpec("letterbox", pad_value=114),
            f"{classes} classes, {positions} positions, {coefficients} prototypes of {width} x {height}",
            reading=dense_reading("class scores after their sigmoid"),
            evidence=evidence,
            against=against,
            probe=units_of(export, lambda values: values[:, :2]),
        )

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> InstanceHead:
        """Candidates, suppression, then masks of the rows that remain."""
        rows, positions = sizes_of(match.outputs["predictions"])
        count, height, width = sizes_of(match.outputs["prototypes"])
        candidates = min(options.nms_candidates, positions)

        predictions = graph.value(match.outputs["predictions"].name)
        _, classes, _ = predictions.split(1, 4, rows - 4 - count, count)
        scores, places = classes.max(1).top(candidates)
        boxes, classes, coefficients = take(predictions, places, rows).split(1, 4, rows - 4 - count, count)
        labels = classes.argmax(1).cast(np.float32)
        boxes = in_pixels(graph, match, boxes, 1)
        found = Candidates(scores, labels, places, corners_of_centres(boxes), coefficients, candidates)
        prototypes = graph.value(match.outputs["prototypes"].name)
        head = prototype_instances(graph, found, prototypes, (count, height, width), options)
        return replace(head, scores=report_faults(graph, head.scores, predictions))


def family() -> YoloV8:
    """Return what `known_families` asks for."""
    return YoloV8()
