"""Assignment and losses against what they are meant to be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from training.assign import assign, iou
from training.data import IGNORED, Batch
from training.losses import generalised_iou, logits_at, losses, points_in
from training.network import PROTOTYPE_STRIDE, RawOutputs, positions

SIZE = 96
CENTRES, STRIDES = positions(SIZE, SIZE, torch.device("cpu"))
COUNT = CENTRES.shape[1]
# Two objects of 24 and 40 pixels, and one of 4 pixels that no position's centre lies in.
BOXES = torch.tensor([[[8.0, 8, 32, 32], [40, 40, 80, 80], [65, 5, 69, 9]]])
LABELS = torch.tensor([[0, 1, 2]])


def maps() -> Tensor:
    map_ = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    for number, (x1, y1, x2, y2) in enumerate(BOXES[0].int().tolist(), 1):
        map_[0, y1:y2, x1:x2] = number
    return map_


def batch(map_: Tensor | None = None, labels: Tensor = LABELS, unknown: Tensor | None = None) -> Batch:
    images = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    map_ = maps() if map_ is None else map_
    return Batch(images, map_, BOXES, labels, torch.zeros_like(map_) if unknown is None else unknown)


def perfect(confidence: float = 8.0) -> RawOutputs:
    """What a network would say that knows everything: the box and class of the object a position lies in."""
    distances, classes = torch.full((1, 4, COUNT), 0.5), torch.full((1, 4, COUNT), -confidence)
    coefficients = torch.zeros(1, 3, COUNT)
    for row, (box, label) in enumerate(zip(BOXES[0], LABELS[0], strict=True)):
        middle, half = (box[:2] + box[2:]) / 2, ((box[2:] - box[:2]) / 2).clamp(min=5)
        inside = ((CENTRES - middle[:, None]).abs() < half[:, None]).all(0)
        sides = torch.cat((CENTRES - box[:2, None], box[2:, None] - CENTRES)) / STRIDES
        distances[0, :, inside] = sides[:, inside]
        coefficients[0, row, inside] = 1.0
        # Ten positions at most answer for an object; the others inside are right to say nothing.
        classes[0, label, torch.nonzero(inside)[:10, 0]] = confidence
    masks = torch.stack([(maps()[0] == number).float() for number in (1, 2, 3)])
    shares = torch.nn.functional.avg_pool2d(masks[None], PROTOTYPE_STRIDE)
    return RawOutputs(distances, classes, coefficients, (shares - 0.5) * 40, CENTRES, STRIDES)


def test_every_object_gets_positions_of_its_own_however_small():
    raw = perfect()
    found = assign(raw.classes.sigmoid(), raw.corners(), CENTRES, BOXES, LABELS)
    assert set(found.object.tolist()) == {0, 1, 2}
    assert len(set(found.position.tolist())) == len(found.position)
    counts = torch.bincount(found.object)
    assert (counts <= 10).all()
    assert counts[1] > counts[2] >= 1
    assert torch.allclose(found.target[found.object < 2], torch.tensor(1.0), atol=1e-3)


def test_unused_rows_get_nothing():
    labels = torch.tensor([[0, -1, -1]])
    raw = perfect()
    found = assign(raw.classes.sigmoid(), raw.corners(), CENTRES, BOXES, labels)
    assert set(found.object.tolist()) == {0}


def test_a_network_that_knows_everything_has_almost_no_loss():
    known, unsure = losses(perfect(), batch()), losses(perfect(0.5), batch())
    assert known.boxes < 1e-3
    assert known.classes < 0.05 < unsure.classes
    assert known.masks < 0.2


def test_each_part_notices_its_own_mistakes():
    def changed(**changes: Tensor) -> RawOutputs:
        raw = perfect()
        kept = {name: getattr(raw, name) for name in raw.__slots__}
        return RawOutputs(**{**kept, **changes})

    right, raw = losses(perfect(), batch()), perfect()
    wide = losses(changed(distances=raw.distances * 1.3), batch())
    swapped = losses(changed(classes=raw.classes.roll(1, 1)), batch())
    inverted = losses(changed(prototypes=-raw.prototypes), batch())
    assert wide.boxes > right.boxes + 0.1
    assert swapped.classes > right.classes + 1
    assert inverted.masks > right.masks + 1


def test_a_position_in_an_ignored_region_may_say_what_it_likes():
    map_ = maps()
    map_[0, 8:32, 8:32] = IGNORED
    ignored = losses(perfect(), batch(map_, torch.tensor([[-1, 1, 2]])))
    wrong = losses(perfect(), batch(labels=torch.tensor([[-1, 1, 2]])))
    assert ignored.classes < 0.05 < wrong.classes


@pytest.mark.parametrize("group", range(4))
def test_where_a_group_is_not_labelled_the_network_may_say_that_it_is_there(group: int):
    nothing = torch.full((1, 3), -1)
    said = torch.full((1, 4, COUNT), -8.0)
    said[:, group] = 8.0
    raw = replace(perfect(), classes=said)
    empty = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    wrong = losses(raw, batch(empty, nothing))
    silent = losses(raw, batch(empty, nothing, torch.full_like(empty, 1 << group)))
    of_others = losses(raw, batch(empty, nothing, torch.full_like(empty, 15 - (1 << group))))
    assert silent.classes < 1e-3 < 1 < wrong.classes
    assert torch.isclose(of_others.classes, wrong.classes, rtol=1e-3)


def test_what_is_labelled_counts_even_where_its_group_is_not_labelled_completely():
    missed = replace(perfect(), classes=torch.full((1, 4, COUNT), -8.0))
    assert losses(missed, batch(unknown=torch.full_like(maps(), 15))).classes > 1


def test_images_without_objects_teach_that_there_are_none():
    empty = losses(perfect(), batch(torch.zeros(1, SIZE, SIZE, dtype=torch.uint8), torch.full((1, 3), -1)))
    assert empty.boxes == 0
    assert empty.masks == 0
    assert empty.classes > 1


def test_overlap_of_boxes():
    first = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    second = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10]])
    assert torch.allclose(iou(first[..., None], second[..., None])[:, 0], torch.tensor([1, 1 / 3, 0]), atol=1e-5)
    # Boxes apart: the empty third of the 30 x 10 box around both counts against them.
    assert torch.allclose(generalised_iou(first, second), torch.tensor([1, 1 / 3, -1 / 3]), atol=1e-5)


def test_points_lie_all_over_the_box_and_one_cell_around_it():
    points = points_in(torch.tensor([[10.0, 20, 50, 30]]))[0]
    assert points.min(0).values.tolist() == pytest.approx([6, 16], abs=2)
    assert points.max(0).values.tolist() == pytest.approx([54, 34], abs=2)
    assert points.std(0).tolist() == pytest.approx([48 / 12**0.5, 18 / 12**0.5], rel=0.05)


def test_logits_between_cells_are_those_of_the_enlarged_mask():
    torch.manual_seed(0)
    prototypes, coefficients = torch.randn(5, 12, 20), torch.randn(3, 5)
    masks = torch.einsum("np,phw->nhw", coefficients, prototypes)
    large = torch.nn.functional.interpolate(masks[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    y, x = torch.meshgrid(torch.arange(48), torch.arange(80), indexing="ij")
    middles = torch.stack((x, y), -1).reshape(1, -1, 2).expand(3, -1, 2) + 0.5
    assert torch.allclose(logits_at(coefficients, prototypes, middles).reshape(3, 48, 80), large, atol=1e-4)
