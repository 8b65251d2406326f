"""RF-DETR-Seg, as the package `rfdetr` exports it.

    dets    `[B, Q, 4]`     centre x, centre y, width, height as shares of the network's width and height
    labels  `[B, Q, C]`     class logits, each class by itself (a sigmoid, no softmax)
    masks   `[B, Q, h, w]`  mask logits over the whole picture

The result is the best of all pairs of a query and a class, so that one query may be found as several classes. Nothing
is suppressed: queries are trained not to find the same object twice.

Published checkpoints have 91 columns, COCO's category numbers 0 to 90 (class table `coco91`). Checkpoints trained on
other data have one column more than classes, the last, which means nothing: give the table of the classes alone.
"""

from __future__ import annotations

import numpy as np

from ...geometry import ResizeSpec
from ..export import Export, Port
from ..graph import GraphBuilder, Value
from ..head import HeadOptions, InstanceHead, corners_of_centres, finite, take_rows
from . import IMAGENET, Match, image_input, is_float, sizes_of


class RfDetr:
    """See the module."""

    name = "rfdetr"
    expects = (
        "three float outputs for the same queries Q: boxes [B, Q, 4], class logits [B, Q, classes] and mask logits "
        "[B, Q, h, w] (RF-DETR-Seg)"
    )

    def recognise(self, export: Export) -> Match | None:
        """By the three outputs, whatever their names and order."""
        image = image_input(export)
        outputs = sorted((port for port in export.outputs if is_float(port)), key=lambda port: port.rank)
        if image is None or [port.rank for port in outputs] != [3, 3, 4] or len(export.outputs) != 3:
            return None
        boxes, classes = _boxes_first(outputs[0], outputs[1])
        masks = outputs[2]
        queries, columns = sizes_of(classes)
        if min(*sizes_of(classes), *sizes_of(masks)) < 1 or sizes_of(boxes) != (queries, 4):
            return None
        _, height, width = sizes_of(masks)
        _, network_height, network_width = sizes_of(image)
        # The package's models of keypoints have an output of four axes, too.
        spans = abs(height * network_width - width * network_height) <= max(network_height, network_width)
        if sizes_of(masks)[0] != queries or not spans:
            return None
        return Match(
            image,
            {"boxes": boxes, "classes": classes, "masks": masks},
            columns,
            IMAGENET,
            ResizeSpec("stretch"),
            f"{queries} queries, {columns} columns of classes, masks {width} x {height}",
            spare_classes=1,
        )

    def write_head(self, graph: GraphBuilder, match: Match, options: HeadOptions) -> InstanceHead:
        """The best pairs of query and class."""
        boxes, classes, masks = (graph.value(match.outputs[key].name) for key in ("boxes", "classes", "masks"))
        queries, columns = sizes_of(match.outputs["classes"])
        _, height, width = sizes_of(match.outputs["masks"])
        _, network_height, network_width = sizes_of(match.image)
        rows = min(options.max_instances, queries * match.class_count)

        usable = finite(boxes, 1, 2) & finite(classes, 1, 2) & finite(masks, 1, 2, 3)
        if match.class_count < columns:
            classes, _ = classes.split(2, match.class_count, columns - match.class_count)
        logits, places = classes.reshape(0, queries * match.class_count).top(rows)
        count = graph.constant(match.class_count, np.int64)
        query = graph.node("Div", places, count)
        corners = corners_of_centres(take_rows(boxes, query).transpose(0, 2, 1))
        limits = (network_width, network_height) * 2
        return InstanceHead(
            boxes=graph.concat(1, *map(_within, corners, limits)).transpose(0, 2, 1),
            scores=usable.unsqueeze(1).where(graph.node("Sigmoid", logits), float("nan")),
            # By way of float32: integers of 64 and 32 bits are the same to OpenVINO, which then has two names for them.
            labels=(places - query * count).cast(np.float32).cast(np.int32),
            masks=take_rows(masks, query),
            max_instances=rows,
            mask_height=height,
            mask_width=width,
        )


def family() -> RfDetr:
    """What `known_families` asks for."""
    return RfDetr()


def _boxes_first(one: Port, other: Port) -> tuple[Port, Port]:
    """Which of two outputs are the boxes.

    Three classes and the spare column are four, too; then names decide, and without them the exporter's order.
    """
    if sizes_of(one)[1] == sizes_of(other)[1] and any(word in one.name for word in ("labels", "logits")):
        return other, one
    return (one, other) if sizes_of(one)[1] == 4 else (other, one)


def _within(corner: Value, limit: int) -> Value:
    """A coordinate as a share of the picture's side, in pixels of it."""
    return (corner * float(limit)).maximum(0.0).minimum(float(limit))
