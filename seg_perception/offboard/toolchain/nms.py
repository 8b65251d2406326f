"""Non-maximum suppression as plain arithmetic of fixed shapes.

Candidates have an order: descending score, of equal scores the one that the network lists first (`order_of`).
`X[i, j]` is 1 where i comes before j, both are of one class and IoU(i, j) > t; then

    keep_0 = all ones        keep_n+1[j] = no i has keep_n[i] and X[i, j]        (`keep = (keep @ X) < 0.5`)

Greedy suppression is the fixed point of this map. How far n steps come: call a sequence of candidates in which each
may suppress the next (X = 1) a chain, the number of its links its length, and the length of the longest chain that
ends at a candidate that candidate's depth. Then

* after n steps every candidate of depth <= n is decided exactly as greedy suppression decides it (its predecessors
  are shallower and were right a step earlier; a candidate of depth 0 is right from the start). The result is
  exactly greedy when no chain is longer than n;
* keep_0 contains the greedy set and the map reverses inclusion, so after an even number of steps the kept set
  contains the greedy set, after an odd number it is contained in it. Beyond depth n, an even number of steps can
  only keep a duplicate that greedy suppression would remove, never lose an object (unless more than K are kept and
  duplicates take rows from the weakest); an odd number can only remove what greedy suppression would keep. That is
  why `HeadOptions` takes even numbers only.

The worst case is a chain without branches, a row of boxes each overlapping only its neighbours: greedy keeps every
second one; n steps keep every second one up to depth n and, beyond it, all (n even) or none (n odd). Real crowds
branch, and one kept box cuts many chains at once: on 52 photographs with YOLOv8n-seg (1024 candidates, t = 0.6) the
longest chain had 55 links, and 11 steps were exact everywhere.
"""

from __future__ import annotations

import numpy as np

from .graph import GraphBuilder, Value


def order_of(scores: Value, places: Value) -> Value:
    """Who comes before whom: by descending score, and of equal scores by ascending place.

    Runtimes sort equal scores as they like (float16 and INT8 networks have many), so the suppression does not rely
    on the order in which candidates come out of the sort.

    Args:
        scores: float32 `[B, K0]`.
        places: float32 `[B, K0]`, each different.

    Returns:
        bool `[B, K0, K0]`: whether the row comes before the column.
    """
    equal = _row(scores).equals(_column(scores)) & (_column(places) < _row(places))
    return (_column(scores) > _row(scores)) | equal


def kept_candidates(
    graph: GraphBuilder,
    corners: tuple[Value, Value, Value, Value],
    labels: Value,
    before: Value,
    count: int,
    iou: float,
    steps: int,
) -> Value:
    """Return which candidates survive.

    Args:
        graph: where to write.
        corners: x1, y1, x2, y2, each float32 `[B, K0]`, in any common unit.
        labels: float32 `[B, K0]`, class indices; only candidates of equal label meet.
        before: what `order_of` returns.
        count: K0.
        iou: t, candidates overlapping more than this do not both survive.
        steps: iterations, n above.

    Returns:
        float32 `[B, K0]`, 1 for a candidate that is kept and 0 for one that is not.
    """
    same_class = _row(labels).equals(_column(labels))
    suppresses = (_overlaps(corners, iou) & same_class & before).cast(np.float32)
    keep = graph.constant(np.ones((1, 1, count)))
    for _ in range(steps):
        keep = (keep @ suppresses < 0.5).cast(np.float32)
    return keep.reshape(-1, count)


def ranks(graph: GraphBuilder, before: Value, count: int) -> Value:
    """Return how many come before each candidate: float32 `[B, K0]`, the numbers 0 to K0 - 1 in some order."""
    return (graph.constant(np.ones((1, 1, count))) @ before.cast(np.float32)).reshape(-1, count)


def _overlaps(corners: tuple[Value, Value, Value, Value], iou: float) -> Value:
    """Return whether the IoU of row and column is above `iou`: bool `[B, K0, K0]`."""
    left, top, right, bottom = corners
    # IoU > t without a division: intersection * (1 + t) > t * (area + other area). A box that is empty or inside out
    # has no area and overlaps nothing.
    share = (right - left).relu() * (bottom - top).relu() * iou
    # One plane per axis of the image: a [K0, K0, 2] tensor would be several times as slow on CPUs.
    width = (_row(right).minimum(_column(right)) - _row(left).maximum(_column(left))).relu()
    height = (_row(bottom).minimum(_column(bottom)) - _row(top).maximum(_column(top))).relu()
    return width * height * (1.0 + iou) > _row(share) + _column(share)


def _row(value: Value) -> Value:
    """`[B, K0]` to `[B, 1, K0]`: the candidate that may be suppressed."""
    return value.unsqueeze(1)


def _column(value: Value) -> Value:
    """`[B, K0]` to `[B, K0, 1]`: the candidate that may suppress it."""
    return value.unsqueeze(2)
