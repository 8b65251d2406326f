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
# Masks cost most of the time: of each picture so many positions, drawn by chance, are told about theirs.
_MASKS = 16


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
    boxes = batch.boxes[found.picture, found.object]
    mine = corners[found.picture, :, found.position]
    return Losses(
        _class_loss(raw, logits, batch, found) / weight,
        ((1 - generalised_iou(mine, boxes)) * found.target).sum() / weight,
        _mask_loss(raw, batch, found),
    )


def _class_loss(raw: RawOutputs, logits: Tensor, batch: Batch, found: Assignment) -> Tensor:
    """Binary cross entropy of every position but those in ignored regions that answer for nothing."""
    wanted = torch.zeros_like(logits)
    wanted[found.picture, batch.labels[found.picture, found.object], found.position] = found.target
    column, row = raw.centres.long()
    counted = (batch.maps[:, row, column] != IGNORED).float()
    counted[found.picture, found.position] = 1.0
    # Quality focal loss: what is nearly right already says little.
    distance = (logits.detach().sigmoid() - wanted).abs().square()
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (entropy * distance * counted[:, None]).sum()


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
    """Cross entropy within the object's box, and overlap (Dice), each object alike whatever its size."""
    parts = []
    for picture in range(len(batch.images)):
        mine = torch.nonzero(found.picture == picture)[:, 0]
        if not len(mine):
            continue
        mine = mine[torch.randperm(len(mine))[:_MASKS]]
        coefficients = raw.coefficients[picture, :, found.position[mine]].T.float()
        logits = torch.einsum("np,phw->nhw", coefficients, raw.prototypes[picture].float())
        wanted = cells(batch.maps[picture], found.object[mine] + 1)
        parts.append(_one_picture(logits, wanted, batch.boxes[picture, found.object[mine]]))
    return torch.cat(parts).mean() if parts else raw.prototypes.sum() * 0


def _one_picture(logits: Tensor, wanted: Tensor, boxes: Tensor) -> Tensor:
    """Loss of each mask, `[n]`; logits and shares `[n, h, w]`, boxes `[n, 4]` in network pixels."""
    height, width = logits.shape[1:]
    x1, y1, x2, y2 = (boxes / PROTOTYPE_STRIDE).T[:, :, None]
    columns, rows = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    # One cell more on each side: masks are cut there, not taught to end there.
    in_columns = (columns > x1 - 1) & (columns < x2 + 1)
    in_rows = (rows > y1 - 1) & (rows < y2 + 1)
    counted = (in_rows[:, :, None] & in_columns[:, None]).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    area = counted.sum((1, 2)).clamp(min=1.0)
    shares = logits.sigmoid() * counted
    dice = 1 - (2 * (shares * wanted).sum((1, 2)) + 1) / (shares.square().sum((1, 2)) + wanted.square().sum((1, 2)) + 1)
    return (entropy * counted).sum((1, 2)) / area + dice


def cells(map_: Tensor, numbers: Tensor) -> Tensor:
    """The share of each prototype cell that belongs to objects.

    Args:
        map_: uint8 `[H, W]`.
        numbers: int64 `[n]`.

    Returns:
        float `[n, H / 4, W / 4]`, from every second pixel.
    """
    seen = (map_[1::2, 1::2] == numbers[:, None, None].to(torch.uint8)).float()
    return functional.avg_pool2d(seen[None], PROTOTYPE_STRIDE // 2)[0]
