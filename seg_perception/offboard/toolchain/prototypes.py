"""The head of dense networks whose masks are combinations of prototypes, behind each family's own decoding.

Shapes: B batch, K0 candidates, P prototypes of h x w.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .formulas import GraphBuilder, Value
from .head import HeadOptions, InstanceHead, masks_of_prototypes, surviving_rows, take


@dataclass(frozen=True, slots=True)
class Candidates:
    """The best of a dense output, before suppression.

    Attributes:
        scores: float32 `[B, K0]`.
        labels: float32 `[B, K0]`.
        places: int64 `[B, K0]`, where in the network's output each lies; each different.
        corners: x1, y1, x2, y2 in network pixels, each float32 `[B, 1, K0]`.
        coefficients: float32 `[B, P, K0]`.
        count: K0.
    """

    scores: Value
    labels: Value
    places: Value
    corners: tuple[Value, Value, Value, Value]
    coefficients: Value
    count: int


def prototype_instances(
    graph: GraphBuilder, found: Candidates, prototypes: Value, sizes: tuple[int, int, int], options: HeadOptions
) -> InstanceHead:
    """Suppress among candidates and make the masks of those that remain.

    Args:
        graph: where to write.
        found: the candidates.
        prototypes: float32 `[B, P, h, w]`.
        sizes: P, h and w.
        options: the user's.
    """
    count, height, width = sizes
    instances = min(options.max_instances, found.count)
    chosen = surviving_rows(graph, found.scores, found.places, found.labels, found.corners, found.count, options)
    used = chosen.used.unsqueeze(1)
    boxes = take(graph.concat(1, *found.corners), chosen.indices, 4) * used
    coefficients = take(found.coefficients, chosen.indices, count) * used
    return InstanceHead(
        boxes=boxes.transpose(0, 2, 1),
        scores=chosen.of(found.scores),
        labels=chosen.of(found.labels).cast(np.int32),
        masks=masks_of_prototypes(coefficients, prototypes, (instances, count, height, width)),
        max_instances=instances,
        mask_height=height,
        mask_width=width,
        nms_candidates=found.count,
    )
