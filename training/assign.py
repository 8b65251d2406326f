"""Which position answers for which object: task-aligned assignment (Feng et al., TOOD, 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Positions of one object, at most.
_POSITIONS = 10
# alignment = score ** _SCORE_POWER * IoU ** _IOU_POWER
_SCORE_POWER, _IOU_POWER = 0.5, 6.0
# A position may answer for an object if it lies in its box; boxes count as at least this many pixels wide and high,
# so that there is one in each.
_SMALLEST_BOX = 10.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who answers for what; P positions of the whole batch answer.

    Attributes:
        image, position: int64 `[P]`, where the answering positions are.
        object: int64 `[P]`, row of the object in its image.
        target: float `[P]`, the score the position should have: the better its box, the higher.
    """

    image: Tensor
    position: Tensor
    object: Tensor
    target: Tensor


@torch.no_grad()
def assign(scores: Tensor, corners: Tensor, centres: Tensor, boxes: Tensor, labels: Tensor) -> Assignment:
    """Choose the positions of each object.

    Args:
        scores: float `[B, C, N]`, 0 to 1.
        corners: float `[B, 4, N]`, predicted boxes in network pixels.
        centres: float `[2, N]`, of the positions.
        boxes: float `[B, M, 4]`, of the objects.
        labels: int64 `[B, M]`, -1 in unused rows.
    """
    used = labels >= 0
    inside = _inside(centres, boxes) & used[..., None]
    overlap = iou(boxes[..., None], corners[:, None]) * inside
    of_class = scores.gather(1, labels.clamp(min=0)[..., None].expand(-1, -1, scores.shape[2]))
    alignment = of_class.pow(_SCORE_POWER) * overlap.pow(_IOU_POWER)
    # Of objects whose predicted boxes are all far off, the positions nearest to the middle.
    alignment = torch.where(inside, alignment + 1e-9 / (1 + _away(centres, boxes)), torch.zeros_like(alignment))
    best, places = alignment.topk(_POSITIONS, 2)
    chosen = torch.zeros_like(alignment).scatter_(2, places, (best > 0).float())
    # A position that several objects want belongs to the one it fits best.
    winner = torch.where(chosen > 0, overlap + 1e-6, torch.zeros_like(overlap)).max(1)
    image, position = torch.nonzero(winner.values > 0, as_tuple=True)
    row = winner.indices[image, position]
    mine = alignment[image, row, position]
    return Assignment(image, position, row, _targets(mine, overlap[image, row, position], image, row, labels))


def _targets(alignment: Tensor, overlap: Tensor, image: Tensor, row: Tensor, labels: Tensor) -> Tensor:
    """Alignment, scaled so that the best position of an object is told the best IoU of its positions."""
    flat = image * labels.shape[1] + row
    nothing = torch.zeros(labels.numel(), device=labels.device)
    best = nothing.scatter_reduce(0, flat, alignment, "amax")
    nearest = nothing.scatter_reduce(0, flat, overlap, "amax")
    return alignment / best[flat].clamp(min=1e-12) * nearest[flat]


def _inside(centres: Tensor, boxes: Tensor) -> Tensor:
    """Whether positions lie in boxes, bool `[B, M, N]`."""
    half = ((boxes[..., 2:] - boxes[..., :2]) / 2).clamp(min=_SMALLEST_BOX / 2)
    return (_offsets(centres, boxes).abs() < half[:, :, None]).all(-1)


def _away(centres: Tensor, boxes: Tensor) -> Tensor:
    """How far positions are from the middle of boxes, in pixels, float `[B, M, N]`."""
    return _offsets(centres, boxes).square().sum(-1).sqrt()


def _offsets(centres: Tensor, boxes: Tensor) -> Tensor:
    """Of positions from the middle of boxes, float `[B, M, N, 2]`."""
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    return centres.T - middle[:, :, None]


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union; the last axis but one holds x1 y1 x2 y2, all others are broadcast."""
    low = torch.maximum(first[..., :2, :], second[..., :2, :])
    high = torch.minimum(first[..., 2:, :], second[..., 2:, :])
    shared = (high - low).clamp(min=0).prod(-2)
    return shared / (_area(first) + _area(second) - shared).clamp(min=1e-6)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:, :] - boxes[..., :2, :]).clamp(min=0).prod(-2)
