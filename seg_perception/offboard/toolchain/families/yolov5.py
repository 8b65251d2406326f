"""YOLOv5-seg and YOLOv7-seg, as their repositories export them.

    predictions  `[B, N, 5 + C + P]`  centre x, centre y, width, height in network pixels; objectness and C class scores
                                      after their sigmoid; P mask coefficients
    prototypes   `[B, P, h, w]`

A position's class is its best one, its score objectness times class score. Older exports have the network's outputs of
each stride, `[B, anchors, h, w, 5 + C + P]`, besides; nothing needs them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seg_perception.core.geometry import ResizeSpec

from ..dense import dense_evidence, dense_reading, in_pixels, units_of
from ..evidence import operators_behind
from ..export import Export
from ..graph import GraphBuilder
from ..head import HeadOptions, InstanceHead, corners_of_centres, report_faults
from ..prototypes import Candidates, prototype_instances
from . import Match, PixelSpec, image_input, is_float, sizes_of

_SORTED = ("TopK", "NonMaxSuppression")


class YoloV5:
    """See the module."""

    name = "yolov5"
    expects = (
        "two float outputs: predictions [B, N, 5 + classes + P] for N positions, and "
        "prototypes [B, P, h, w] (YOLOv5-seg, YOLOv7-seg)"
    )

    def recognise(self, export: Export) -> Match | None:
        """By the outputs of rank 3 and 4, whatever their names and order."""
        image = image_input(export)
        floats = {rank: [port for port in export.outputs if is_float(port) and port.rank == rank] for rank in (3, 4, 5)}
        if image is None or sum(map(len, floats.values())) != len(export.outputs):
            return None
        if len(floats[3]) != 1 or len(floats[4]) != 1:
            return None
        predictions, prototypes = floats[3][0], floats[4][0]
        if min(*sizes_of(predictions), *sizes_of(prototypes)) < 1:
            return None
        positions, columns = sizes_of(predictions)
        coefficients, height, width = sizes_of(prototypes)
        classes = columns - 5 - coefficients
        if classes < 1:
            return None
        evidence, against = dense_evidence(export, image, classes, positions, columns, anchors=3)
        # With a single class, these are as many columns as the rows of a model with a sort in it have.
        if classes == 1 and not operators_behind(export, predictions.name).isdisjoint(_SORTED):
            against = (*against, "its rows are sorted, as those of a model end to end")
        return Match(
            image,
            {"predictions": predictions, "prototypes": prototypes},
            classes,
            PixelSpec(),
            ResizeSpec("letterbox", pad_value=114),
            f"{classes} classes, {positions} positions, {coefficients} prototypes of {width} x {height}",
            reading=dense_reading("objectness times class score, both after their sigmoid"),
            evidence=evidence,
            against=against,
            probe=units_of(export, lambda values: values[..., :2]),
        )

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> InstanceHead:
        """Candidates, suppression, then masks of the rows that remain."""
        positions, columns = sizes_of(match.outputs["predictions"])
        count, height, width = sizes_of(match.outputs["prototypes"])
        parts = (4, 1, columns - 5 - count, count)
        candidates = min(options.nms_candidates, positions)

        predictions = graph.value(match.outputs["predictions"].name)
        _, objectness, classes, _ = predictions.split(2, *parts)
        scores, places = (classes.max(2) * objectness.reshape(0, positions)).top(candidates)
        rows = predictions.pick(places.unsqueeze(2).expand(1, 1, columns), 1)
        boxes, _, classes, coefficients = rows.transpose(0, 2, 1).split(1, *parts)
        labels = classes.argmax(1).cast(np.float32)
        boxes = in_pixels(graph, match, boxes, 1)
        found = Candidates(scores, labels, places, corners_of_centres(boxes), coefficients, candidates)
        prototypes = graph.value(match.outputs["prototypes"].name)
        head = prototype_instances(graph, found, prototypes, (count, height, width), options)
        return replace(head, scores=report_faults(graph, head.scores, predictions))


def family() -> YoloV5:
    """Return what `known_families` asks for."""
    return YoloV5()
