"""Parts that the heads of several families share, and what a head hands back.

Shapes: B batch, N positions of a dense output, K0 candidates of the suppression, K rows of the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seg_perception.core.errors import ConfigurationError

from .graph import GraphBuilder, Value
from .nms import kept_candidates, order_of, ranks

# What TensorRT's TopK can sort.
LARGEST_TOP = 3840
# Small enough that a sum of any number of finite float32 values times this stays finite.
_TINY = 2.0**-100
_LARGE = 1e30


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """What the user decides about the rows of the result.

    Attributes:
        nms_iou: IoU above which the weaker of two of a class is removed.
        max_instances: K, at most.
        nms_candidates: K0, at most.
        nms_steps: iterations of the suppression; even, so that deeper chains keep duplicates rather than lose objects.
    """

    nms_iou: float = 0.6
    max_instances: int = 100
    nms_candidates: int = 1024
    nms_steps: int = 16

    def __post_init__(self) -> None:
        if not 0.0 < self.nms_iou < 1.0:
            raise ConfigurationError(f"--nms-iou: expected a number between 0 and 1, got {self.nms_iou:g}")
        for option, value in (("--max-instances", self.max_instances), ("--nms-candidates", self.nms_candidates)):
            if not 1 <= value <= LARGEST_TOP:
                raise ConfigurationError(f"{option}: expected 1 to {LARGEST_TOP} (TensorRT's limit), got {value}")
        if self.nms_steps < 2 or self.nms_steps % 2:
            raise ConfigurationError(
                f"--nms-steps: expected an even number of at least 2, got {self.nms_steps}; after an odd number of "
                "steps a long chain of overlapping objects could lose some of them"
            )


@dataclass(frozen=True, slots=True)
class InstanceHead:
    """The instance outputs that a family wrote, and what the spec says of them.

    Attributes:
        boxes: float32 `[B, K, 4]`, x1 y1 x2 y2 in network pixels.
        scores: float32 `[B, K]`, descending, 0 in unused rows, NaN in all rows of a frame with NaN or infinity.
        labels: int32 `[B, K]`.
        masks: float32 `[B, K, h, w]`, logits.
        max_instances: K.
        mask_height, mask_width: h and w.
        mask_frame: what the mask grid spans, see `contract.MASK_FRAMES`.
        nms_candidates: K0, or 0 for a head without suppression.
        class_map: uint8 `[B, h, w]` of a panoptic model, see `SemanticHead`; None for a model without one.
    """

    boxes: Value
    scores: Value
    labels: Value
    masks: Value
    max_instances: int
    mask_height: int
    mask_width: int
    mask_frame: str = "frame"
    nms_candidates: int = 0
    class_map: Value | None = None


@dataclass(frozen=True, slots=True)
class SemanticHead:
    """The output of a family whose models have a class map and no instances.

    Attributes:
        class_map: uint8 `[B, h, w]`, class index of each cell of the network input; `contract.NO_CLASS` for none, and
            `contract.FAULTY_CELL` throughout for a frame with NaN or infinity. Cast from float32: TensorRT has no
            other way to uint8.
        mask_height, mask_width: h and w.
    """

    class_map: Value
    mask_height: int
    mask_width: int


Head = InstanceHead | SemanticHead


@dataclass(frozen=True, slots=True)
class Rows:
    """Which candidates became the rows of the result, in order of descending score.

    Attributes:
        indices: int64 `[B, K]`, into the candidates; 0 or any other in unused rows.
        used: float32 `[B, K]`, 1 for a used row, 0 for an unused one.
    """

    indices: Value
    used: Value

    def of(self, values: Value) -> Value:
        """The rows of float32 `[B, K0]`: `[B, K]`, 0 where unused."""
        return values.pick(self.indices, 1) * self.used


def take(values: Value, indices: Value, rows: int) -> Value:
    """Columns of a matrix per image.

    Args:
        values: `[B, rows, N]`. Not the output of a Slice: OpenVINO 2026.4 merges a Slice from 0 on into the gather
            and then refuses the shapes.
        indices: int64 `[B, M]`.
        rows: number of rows.

    Returns:
        `[B, rows, M]`.
    """
    return values.pick(indices.unsqueeze(1).expand(1, rows, 1), 2)


def take_rows(values: Value, indices: Value) -> Value:
    """Whole rows per image, such as the masks of some queries.

    Args:
        values: `[B, N, ...]`.
        indices: int64 `[B, M]`.

    Returns:
        `[B, M, ...]`.
    """
    # Unlike `take`, it needs no index for every element: of masks, those would be twice as large as the masks.
    return values.graph.node("GatherND", values, indices.unsqueeze(2), batch_dims=1)


@dataclass(frozen=True, slots=True)
class Pairs:
    """The best pairs of a position and a class, where one position may be found as several classes.

    Attributes:
        scores: float32 `[B, K0]`, descending.
        labels: float32 `[B, K0]`.
        positions: int64 `[B, K0]`.
        places: int64 `[B, K0]`, a number of its own for each pair of the network's output.
        count: K0.
    """

    scores: Value
    labels: Value
    positions: Value
    places: Value
    count: int


def best_pairs(classes: Value, class_count: int, positions: int, candidates: int) -> Pairs:
    """Of all classes at all positions, the best.

    Args:
        classes: scores, float32 `[B, C, N]`. Not the output of a Slice, see `take`.
        class_count: C.
        positions: N.
        candidates: K0, at most.
    """
    # A pair among the best K0 has its position among the best K0: no need to sort them all.
    stage = min(candidates, positions)
    _, places = classes.max(1).top(stage)
    count = min(candidates, class_count * stage)
    scores, flat = take(classes, places, class_count).reshape(0, class_count * stage).top(count)
    labels = classes.graph.node("Div", flat, classes.graph.constant(stage, np.int64))
    chosen = places.pick(flat - labels * classes.graph.constant(stage, np.int64), 1)
    places = chosen * classes.graph.constant(class_count, np.int64) + labels
    return Pairs(scores, labels.cast(np.float32), chosen, places, count)


def corners_of_centres(boxes: Value) -> tuple[Value, Value, Value, Value]:
    """Boxes `[B, 4, M]` of rows centre x, centre y, width, height as x1, y1, x2, y2, each `[B, 1, M]`."""
    x, y, width, height = boxes.split(1, 1, 1, 1, 1)
    half_width, half_height = width * 0.5, height * 0.5
    return x - half_width, y - half_height, x + half_width, y + half_height


def surviving_rows(
    graph: GraphBuilder,
    scores: Value,
    places: Value,
    labels: Value,
    corners: tuple[Value, Value, Value, Value],
    candidates: int,
    options: HeadOptions,
) -> Rows:
    """Suppress among candidates and number those that survive.

    Args:
        graph: where to write.
        scores: float32 `[B, K0]`.
        places: int64 `[B, K0]`, where in the network's output each candidate lies; decides between equal scores.
        labels: float32 `[B, K0]`.
        corners: x1, y1, x2, y2, each float32 `[B, 1, K0]`.
        candidates: K0.
        options: IoU, steps and K.
    """
    flat = tuple(corner.reshape(0, candidates) for corner in corners)
    before = order_of(scores, places.cast(np.float32))
    keep = kept_candidates(
        graph,
        (flat[0], flat[1], flat[2], flat[3]),
        labels,
        before,
        candidates,
        options.nms_iou,
        options.nms_steps,
    )
    keep = keep * (scores > 0.0).cast(np.float32)
    # The best has K0, the next one less: all different, so that no runtime's treatment of equal keys matters.
    standing = graph.constant(float(candidates)) - ranks(graph, before, candidates)
    keys, indices = (keep * standing).top(min(options.max_instances, candidates))
    return Rows(indices, (keys > 0.5).cast(np.float32))


def best_rows(scores: Value, count: int) -> Rows:
    """The best candidates of a network that needs no suppression.

    Args:
        scores: float32 `[B, N]`; candidates of 0 are not used. N is at most `LARGEST_TOP`.
        count: K, at most N.
    """
    values, indices = scores.top(count)
    return Rows(indices, (values > 0.0).cast(np.float32))


def masks_of_prototypes(coefficients: Value, prototypes: Value, shape: tuple[int, int, int, int]) -> Value:
    """Mask logits as combinations of prototypes.

    Args:
        coefficients: float32 `[B, P, K]`.
        prototypes: float32 `[B, P, h, w]`.
        shape: K, P, h, w.

    Returns:
        float32 `[B, K, h, w]`.
    """
    rows, count, height, width = shape
    logits = coefficients.transpose(0, 2, 1) @ prototypes.reshape(0, count, height * width)
    return logits.reshape(0, rows, height, width)


def report_faults(graph: GraphBuilder, scores: Value, output: Value) -> Value:
    """Make NaN or infinity in the network visible to the host, which only sees the rows of the result.

    Without this, a NaN disappears: whether it wins or loses the sort is up to the runtime.

    Args:
        graph: where to write.
        scores: float32 `[B, K]`.
        output: float32 `[B, R, N]`, checked element by element.

    Returns:
        `scores`, all NaN for each image in whose `output` any element is NaN or infinite.
    """
    return finite(output, 1, 2).unsqueeze(1).where(scores, float("nan"))


def finite(values: Value, *axes: int) -> Value:
    """Return whether all elements along some axes are finite: bool, without those axes."""
    # The obvious `+ sum(values * 0)` invites a compiler to fold it away; this sum does depend on the elements. It is
    # NaN or infinite if any of them is, and otherwise below 2^28 times their number: finite ones raise no alarm.
    return (values * _TINY).sum(*axes).abs() < _LARGE


def logits_of(probabilities: Value) -> Value:
    """What a sigmoid would make them of, of any shape; beyond 1e-6 from 0 and 1 the distance no longer counts."""
    graph = probabilities.graph
    bounded = probabilities.maximum(1e-6).minimum(1.0 - 1e-6)
    return graph.node("Log", bounded) - graph.node("Log", graph.constant(1.0) - bounded)


def logits_of_pixels(probabilities: Value, cell: int) -> Value:
    """Logits on a grid of cells `[B, K, H / cell, W / cell]` of the probabilities of pixels `[B, K, H, W]`."""
    graph = probabilities.graph
    # The two by two pixels around the middle of a cell; all of the cell's would blur the masks.
    start, end = (graph.constant([place] * 2, np.int64) for place in (cell // 2 - 1, np.iinfo(np.int64).max))
    shifted = graph.node("Slice", probabilities, start, end, graph.constant([2, 3], np.int64))
    return logits_of(graph.node("AveragePool", shifted, kernel_shape=[2, 2], strides=[cell, cell]))


def boxes_of_masks(graph: GraphBuilder, masks: Value, grid: tuple[int, int], network: tuple[int, int]) -> Value:
    """Boxes of instances that come as masks alone: each mask's support, one cell wider on all sides.

    Between the centres of an inside and an outside cell, interpolated logits may stay positive almost up to the
    outside one; the wider box never cuts that off.

    Args:
        graph: where to write.
        masks: logits, float32 `[B, K, h, w]`.
        grid: h and w.
        network: height and width of the network input in pixels.

    Returns:
        float32 `[B, K, 4]`, x1 y1 x2 y2 in network pixels; 0 for a mask without a positive logit.
    """
    sides = []
    for axis, length, pixels in ((2, grid[1], network[1]), (3, grid[0], network[0])):
        present = (masks.max(axis) > 0.0).cast(np.float32)
        places = np.arange(length, dtype=np.float32)
        # The best of (length - place) is where the support starts, the best of (place + 1) where it ends.
        from_end = (present * graph.constant(length - places)).max(2)
        end = (present * graph.constant(places + 1)).max(2)
        some = (end > 0.5).cast(np.float32)
        start = (graph.constant(float(length - 1)) - from_end).relu()
        scale = pixels / length
        sides.append((start * some * scale, (end + 1.0).minimum(float(length)) * some * scale))
    (left, right), (top, bottom) = sides
    return graph.concat(2, *(side.unsqueeze(2) for side in (left, top, right, bottom)))
