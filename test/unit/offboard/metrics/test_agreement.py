"""Agreement of two models: cases counted by hand, and properties that hold for any instances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.metrics.agreement import Agreement, AgreementBudget, AgreementRule, compare
from seg_perception.offboard.metrics.class_maps import ClassMapAgreement
from seg_perception.offboard.metrics.compact import CompactMask, FrameInstances, compact_iou
from seg_perception.offboard.metrics.masks import mask_iou

HEIGHT, WIDTH = 60, 80
CAR, BUS = 1, 5


def found(*rectangles: tuple[int, int, int, int, int, float]) -> FrameInstances:
    """Instances that fill their boxes: x1, y1, x2, y2, label, score."""
    table = np.array(rectangles, np.float64).reshape(-1, 6)
    masks = np.zeros((len(table), HEIGHT, WIDTH), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, table[:, :4].astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    return FrameInstances.of(table[:, :4], table[:, 5], table[:, 4].astype(int), masks)


def counts(reference: FrameInstances, tested: FrameInstances, **rule: float) -> tuple[int, int, int, int]:
    frame = compare(reference, tested, AgreementRule(**rule))
    return len(frame.pairs), len(frame.missed), len(frame.extra), len(frame.switched)


def test_what_is_moved_is_measured() -> None:
    frame = compare(found((10, 10, 30, 30, CAR, 0.9)), found((12, 10, 32, 30, CAR, 0.8)))
    assert frame.pairs.tolist() == [[0, 0]]
    np.testing.assert_allclose(frame.iou, [18 / 22])
    np.testing.assert_allclose(frame.box_difference, [2])
    np.testing.assert_allclose(frame.score_difference, [-0.1], atol=1e-6)
    assert frame.faults == 0
    assert frame.disagreement == pytest.approx(4 / 22)


def test_missed_extra_and_switched_instances_are_told_apart() -> None:
    reference = found((0, 0, 20, 20, CAR, 0.9), (30, 0, 50, 20, CAR, 0.8), (0, 30, 20, 50, CAR, 0.7))
    tested = found((0, 0, 20, 20, CAR, 0.9), (30, 0, 50, 20, BUS, 0.8), (60, 30, 80, 50, CAR, 0.7))
    frame = compare(reference, tested)
    assert frame.pairs.tolist() == [[0, 0]]
    assert frame.switched.tolist() == [[1, 1]]
    assert frame.missed.tolist() == [2]
    assert frame.extra.tolist() == [2]
    assert frame.disagreement == 3


def test_too_little_overlap_is_no_counterpart() -> None:
    assert counts(found((0, 0, 20, 20, CAR, 0.9)), found((10, 0, 30, 20, CAR, 0.9))) == (0, 1, 1, 0)
    assert counts(found((0, 0, 20, 20, CAR, 0.9)), found((10, 0, 30, 20, CAR, 0.9)), iou=0.3) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    ("reference", "tested", "expected"),
    [
        (0.251, 0.249, (1, 0, 0, 0)),  # the threshold disagrees, not the models
        (0.249, 0.251, (1, 0, 0, 0)),
        (0.251, 0.19, (0, 1, 0, 0)),
        (0.19, 0.251, (0, 0, 1, 0)),
        (0.249, 0.249, (0, 0, 0, 0)),  # neither reports it
        (0.249, 0.0, (0, 0, 0, 0)),
    ],
)
def test_an_instance_at_the_threshold(reference: float, tested: float, expected: tuple[int, ...]) -> None:
    box = (10, 10, 30, 30, CAR)
    assert counts(found((*box, reference)), found((*box, tested))) == expected


def test_an_instance_at_the_smallest_size() -> None:
    small, smaller, none = (0, 0, 4, 4, CAR, 0.9), (0, 0, 3, 4, CAR, 0.9), (10, 10, 10, 10, CAR, 0.9)
    assert counts(found(small), found(smaller)) == (1, 0, 0, 0)
    assert counts(found(smaller), found()) == (0, 0, 0, 0)
    assert counts(found(small), found()) == (0, 1, 0, 0)
    assert counts(found(none), found()) == (0, 0, 0, 0)


def test_a_doubtful_instance_does_not_take_the_counterpart_of_a_certain_one() -> None:
    reference = found((0, 0, 20, 20, CAR, 0.9), (2, 0, 22, 20, CAR, 0.22))
    assert counts(reference, found((2, 0, 22, 20, CAR, 0.9))) == (1, 0, 0, 0)
    frame = compare(reference, found((2, 0, 22, 20, CAR, 0.9)))
    assert frame.pairs.tolist() == [[0, 0]]


def test_the_best_overlap_is_taken_first() -> None:
    reference = found((0, 0, 20, 20, CAR, 0.9), (6, 0, 26, 20, CAR, 0.8))
    tested = found((5, 0, 25, 20, CAR, 0.9), (0, 0, 18, 20, CAR, 0.8))
    assert sorted(compare(reference, tested).pairs.tolist()) == [[0, 1], [1, 0]]


def test_frames_are_summed_up() -> None:
    same = compare(found((0, 0, 20, 20, CAR, 0.9)), found((0, 0, 20, 20, CAR, 0.7)))
    moved = compare(found((0, 0, 20, 20, CAR, 0.9), (40, 0, 60, 20, CAR, 0.9)), found((5, 0, 25, 20, CAR, 0.9)))
    total = Agreement.of([same, moved, compare(found(), found())])
    assert (total.frames, total.reference, total.tested, total.matched) == (3, 3, 2, 2)
    assert (total.missed, total.extra, total.switched) == (1, 0, 0)
    assert total.fault_share == pytest.approx(1 / 3)
    assert total.mean_iou == pytest.approx((1 + 15 / 25) / 2)
    assert total.iou_percentiles[3] == pytest.approx(0.8)
    assert total.box_difference_max == 5
    assert total.mean_box_difference == 2.5
    assert total.mean_score_difference == pytest.approx(-0.1)


def test_the_budget_names_what_is_over() -> None:
    box = (0, 0, 20, 20, CAR, 0.9)
    budget = AgreementBudget()
    assert budget.violations(Agreement.of([compare(found(box), found(box))])) == ()
    (over,) = budget.violations(Agreement.of([compare(found(box), found((1, 0, 21, 20, CAR, 0.9)))]))
    assert "at least 0.97, got 0.9048" in over
    box_over, missed = budget.violations(Agreement.of([compare(found(box), found())]))
    assert "nan" in box_over
    assert "at most 2 %" in missed
    assert "1 false negatives, 0 false positives, 0 class confusions" in missed


@pytest.mark.parametrize(("instances", "faults", "most", "fits"), [
    (16, 1, 0.02, True), (10, 1, 0.02, True), (16, 2, 0.02, False), (9, 1, 0.02, False), (16, 1, 0.0, False),
    (100, 2, 0.02, True), (100, 3, 0.02, False),
])  # fmt: skip
def test_one_fault_in_few_instances_is_no_proof(instances: int, faults: int, most: float, fits: bool) -> None:
    box = (0, 0, 20, 20, CAR, 0.9)
    parts = [compare(found(box), found(*[box] * (index >= faults))) for index in range(instances)]
    violations = AgreementBudget(max_faults=most).violations(Agreement.of(parts))
    assert (not violations) == fits
    assert fits or f"got {100 * faults / instances:.2f} %" in violations[0]


def test_two_models_that_find_nothing_prove_nothing() -> None:
    (reason,) = AgreementBudget().violations(Agreement.of([compare(found(), found())] * 4))
    assert "nothing to compare" in reason
    assert "4 frames" in reason


@pytest.mark.parametrize("options", [{"min_iou": float("nan")}, {"max_faults": float("nan")}, {"max_faults": -1.0}])
def test_a_budget_that_would_allow_everything_by_mistake_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="expected 0"):
        AgreementBudget(**options)


@pytest.mark.parametrize("options", [{"score": 1.5}, {"margin": -0.1}, {"iou": 2}, {"min_pixels": 0}])
def test_impossible_rules_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        AgreementRule(**options)


def test_frames_of_other_sizes_are_refused() -> None:
    other = FrameInstances.of(np.zeros((1, 4)), np.ones(1), np.zeros(1, int), np.ones((1, 30, 30), bool))
    with pytest.raises(ValueError, match="one image size"):
        compare(found((0, 0, 20, 20, 0, 0.9)), other)
    with pytest.raises(ValueError, match="expected shapes for 1 masks"):
        FrameInstances(np.zeros((1, 4), np.float32), np.zeros(2, np.float32), np.zeros(1, np.int32), other.masks)


def test_class_maps_are_compared_pixel_by_pixel() -> None:
    reference = np.array([[0, 0, 1, 1], [2, 2, 255, 255]], np.uint8)
    tested = np.array([[0, 1, 1, 1], [2, 255, 255, 0]], np.uint8)
    agreement = ClassMapAgreement.of(reference, tested)
    assert agreement.pixels == 7  # of 8, one has no class in either
    assert agreement.share == pytest.approx(4 / 7)
    assert agreement.iou() == pytest.approx({0: 1 / 3, 1: 2 / 3, 2: 1 / 2})
    same = ClassMapAgreement.of(reference, reference)
    assert (same.share, set(same.iou().values())) == (1.0, {1.0})
    both = ClassMapAgreement.sum([agreement, same])
    assert (both.pixels, both.share) == (13, pytest.approx(10 / 13))
    assert np.isnan(ClassMapAgreement.sum([]).share)
    with pytest.raises(ValueError, match="one size"):
        ClassMapAgreement.of(reference, tested[:1])


rectangle = st.tuples(
    st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 1),
    st.sampled_from([0.1, 0.21, 0.24, 0.25, 0.5, 0.9]),
)  # fmt: skip


@st.composite
def frames(draw: st.DrawFn) -> FrameInstances:
    drawn = draw(st.lists(rectangle, max_size=6))
    ordered = [(min(a, c), min(b, d), max(a, c), max(b, d), label, score) for a, b, c, d, label, score in drawn]
    return found(*ordered)


@given(frames(), frames())
def test_exchanging_the_models_exchanges_missed_and_extra(first: FrameInstances, second: FrameInstances) -> None:
    there, back = compare(first, second), compare(second, first)
    assert sorted(there.pairs.tolist()) == sorted(back.pairs[:, ::-1].tolist())
    assert sorted(there.switched.tolist()) == sorted(back.switched[:, ::-1].tolist())
    assert there.missed.tolist() == back.extra.tolist()
    assert there.extra.tolist() == back.missed.tolist()
    assert there.disagreement == pytest.approx(back.disagreement)
    np.testing.assert_allclose(sorted(there.score_difference), sorted(-back.score_difference), atol=1e-7)


@given(frames())
def test_a_model_agrees_with_itself(instances: FrameInstances) -> None:
    frame = compare(instances, instances)
    assert frame.faults == 0
    assert len(frame.pairs) == frame.reference == frame.tested
    np.testing.assert_array_equal(frame.iou, 1.0)


@given(frames(), frames())
def test_every_certain_instance_is_accounted_for_once(first: FrameInstances, second: FrameInstances) -> None:
    rule = AgreementRule()
    frame = compare(first, second, rule)
    for side, instances, left in ((0, first, frame.missed), (1, second, frame.extra)):
        rows = [*frame.pairs[:, side].tolist(), *frame.switched[:, side].tolist(), *left.tolist()]
        assert len(rows) == len(set(rows))
        certain = np.flatnonzero((instances.scores >= rule.score) & (instances.areas() >= rule.min_pixels))
        assert set(certain.tolist()) <= set(rows)
    assert (frame.iou >= rule.iou).all()


seeds = st.integers(0, 1 << 30)


@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 20), st.integers(1, 20), seeds)
def test_compact_masks_overlap_as_the_masks_do(first: int, second: int, height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = (random.random((count, height, width)) < random.random((count, 1, 1)) ** 3 for count in (first, second))
    small_a, small_b = [CompactMask.of(mask) for mask in a], [CompactMask.of(mask) for mask in b]
    np.testing.assert_allclose(compact_iou(small_a, small_b), mask_iou(a, b))
    for mask, small in zip(a, small_a, strict=True):
        np.testing.assert_array_equal(small.full(), mask)
        assert small.area == mask.sum()
