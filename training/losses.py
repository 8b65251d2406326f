"""What the network is told: classes, boxes and masks of the positions that answer for an object."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .assign import Assignment, assign, iou
from .data import IGNORED, Batch
from .network import PROTOTYPE_STRIDE, RawOutputs

CLASS_WEIGHT, BOX_WEIGHT, MASK_WEIGHT = 1.0, 4.0, 3.0
# Masks cost most of the time: of each image so many positions, drawn by chance, are told about theirs.
_MASKS = 20
# Masks are told at so many points a side of the object's box.
_GRID = 28


@dataclass(frozen=True, slots=True)
class Losses:
    """Parts of the loss, each a scalar."""

    classes: Tensor
    boxes: Tensor
    masks: Tensor

    def total(self) -> Tensor:
        """What is minimised."""
        return CLASS_WEIGHT * self.classes + BOX_WEIGHT * self.boxes + MASK_WEIGHT * self.masks

    def numbers(self) -> dict[str, float]:
        """For the record."""
        return {"classes": self.classes.item(), "boxes": self.boxes.item(), "masks": self.masks.item()}


def losses(raw: RawOutputs, batch: Batch) -> Losses:
    """Compare what the network says with what is there."""
    corners, logits = raw.corners(), raw.classes.float()
    found = assign(logits.detach().sigmoid(), corners.detach(), raw.centres, batch.boxes, batch.labels)
    weight = found.target.sum().clamp(min=1.0)
    boxes = batch.boxes[found.image, found.object]
    mine = corners[found.image, :, found.position]
    return Losses(
        _class_loss(raw, logits, batch, found) / weight,
        ((1 - generalised_iou(mine, boxes)) * found.target).sum() / weight,
        _mask_loss(raw, batch, found),
    )


def _class_loss(raw: RawOutputs, logits: Tensor, batch: Batch, found: Assignment) -> Tensor:
    """Binary cross entropy of every position, but of those that answer for nothing only what is known there."""
    wanted = torch.zeros_like(logits)
    wanted[found.image, batch.labels[found.image, found.object], found.position] = found.target
    column, row = raw.centres.long()
    bits = 1 << torch.arange(logits.shape[1], device=logits.device)
    counted = ((batch.unknown[:, None, row, column] & bits[:, None]) == 0).float()
    counted *= (batch.maps[:, None, row, column] != IGNORED).float()
    counted[found.image, :, found.position] = 1.0
    # Quality focal loss: what is nearly right already says little.
    distance = (logits.detach().sigmoid() - wanted).abs().square()
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (entropy * distance * counted).sum()


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """Of boxes `[P, 4]`, x1 y1 x2 y2 (Rezatofighi et al., 2019): IoU less the empty share of the box around both."""
    low = torch.minimum(first[:, :2], second[:, :2])
    high = torch.maximum(first[:, 2:], second[:, 2:])
    around = (high - low).prod(1)
    overlap = iou(first[:, :, None], second[:, :, None])[:, 0]
    areas = [(each[:, 2:] - each[:, :2]).clamp(min=0).prod(1) for each in (first, second)]
    # union = both areas less what they share; shared = IoU * union
    union = (areas[0] + areas[1]) / (1 + overlap)
    return overlap - (around - union) / around.clamp(min=1e-6)


def _mask_loss(raw: RawOutputs, batch: Batch, found: Assignment) -> Tensor:
    """Cross entropy and overlap (Dice) at points in the object's box, each object alike whatever its size."""
    parts = []
    for image in range(len(batch.images)):
        mine = torch.nonzero(found.image == image)[:, 0]
        if not len(mine):
            continue
        mine = mine[torch.randperm(len(mine), device=mine.device)[:_MASKS]]
        row = found.object[mine]
        points = points_in(batch.boxes[image, row])
        coefficients = raw.coefficients[image, :, found.position[mine]].T.float()
        logits = logits_at(coefficients, raw.prototypes[image].float(), points)
        x, y = points.long().unbind(2)
        height, width = batch.maps.shape[1:]
        inside = batch.maps[image, y.clamp(0, height - 1), x.clamp(0, width - 1)] == (row + 1)[:, None]
        parts.append(_of_points(logits, inside.float()))
    return torch.cat(parts).mean() if parts else raw.prototypes.sum() * 0


def points_in(boxes: Tensor) -> Tensor:
    """Points in boxes and a prototype cell around them: one by chance in each field of a grid.

    Args:
        boxes: float `[n, 4]`, x1 y1 x2 y2 in network pixels.

    Returns:
        float `[n, _GRID ** 2, 2]`, x and y.
    """
    steps = torch.arange(_GRID, device=boxes.device)
    fields = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(1, -1, 2)
    shares = (fields + torch.rand(len(boxes), _GRID**2, 2, device=boxes.device)) / _GRID
    low, high = boxes[:, None, :2] - PROTOTYPE_STRIDE, boxes[:, None, 2:] + PROTOTYPE_STRIDE
    return low + shares * (high - low)


def logits_at(coefficients: Tensor, prototypes: Tensor, points: Tensor) -> Tensor:
    """Mask logits between the cells, as the node sees them when it enlarges masks: bilinear.

    Args:
        coefficients: float `[n, P]`.
        prototypes: float `[P, h, w]`.
        points: float `[n, m, 2]`, x and y in network pixels.

    Returns:
        float `[n, m]`.
    """
    size = torch.tensor([prototypes.shape[2], prototypes.shape[1]], device=points.device) * PROTOTYPE_STRIDE
    grid = (points / size * 2 - 1)[None]
    sampled = functional.grid_sample(prototypes[None], grid, padding_mode="border", align_corners=False)[0]
    return torch.einsum("np,pnm->nm", coefficients, sampled)


def _of_points(logits: Tensor, inside: Tensor) -> Tensor:
    """Loss of each mask, `[n]`, from its logits and the truth at points, `[n, m]`."""
    entropy = functional.binary_cross_entropy_with_logits(logits, inside, reduction="none").mean(1)
    shares = logits.sigmoid()
    return entropy + 1 - (2 * (shares * inside).sum(1) + 1) / (shares.square().sum(1) + inside.sum(1) + 1)
