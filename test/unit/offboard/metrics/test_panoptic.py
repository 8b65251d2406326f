"""Panoptic quality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.offboard.metrics.panoptic import PanopticCounts, SegmentOverlaps

NOBODY = np.zeros(0, bool)


def counts(true, reported, true_classes, reported_classes, crowd=None, void=None, classes=2) -> PanopticCounts:
    crowd = np.zeros(len(true_classes), bool) if crowd is None else np.array(crowd)
    overlaps = SegmentOverlaps.of(true, reported, (len(true_classes), len(reported_classes)), void)
    return PanopticCounts.of(overlaps, np.array(true_classes, int), np.array(reported_classes, int), crowd, classes)


def halves() -> np.ndarray:
    """Segment 0 on the left half, segment 1 on the upper right quarter."""
    pixels = np.zeros((10, 20), int)
    pixels[:, :10] = 1
    pixels[:5, 10:] = 2
    return pixels


def test_the_same_segments_are_perfect():
    found = counts(halves(), halves(), [0, 1], [0, 1])
    quality, segmentation, recognition = found.qualities()
    assert quality.tolist() == segmentation.tolist() == recognition.tolist() == [1.0, 1.0]


def test_a_segment_of_another_class_is_missed_and_extra():
    found = counts(halves(), halves(), [0, 1], [0, 0])
    assert found.matched.tolist() == [1, 0]
    assert found.extra.tolist() == [1, 0]
    assert found.missed.tolist() == [0, 1]
    quality, segmentation, recognition = found.qualities()
    assert quality.tolist() == [pytest.approx(1 / 1.5), 0.0]
    assert np.isnan(segmentation[1])
    assert recognition[0] == pytest.approx(1 / 1.5)


def test_half_is_not_enough_to_match():
    reported = np.zeros((10, 20), int)
    reported[:5, :10] = 1
    assert counts(halves(), reported, [0, 1], [0]).matched.sum() == 0
    reported[5, :1] = 1
    found = counts(halves(), reported, [0, 1], [0])
    assert found.matched.tolist() == [1, 0]
    assert found.iou[0] == pytest.approx(0.51)


def test_void_counts_neither_for_nor_against():
    void = np.zeros((10, 20), bool)
    void[5:, 10:] = True
    reported = halves()
    reported[5:, 10:] = 2  # half of the second segment on void: its IoU is 1 all the same
    found = counts(halves(), reported, [0, 1], [0, 1], void=void)
    assert found.iou.tolist() == [1.0, 1.0]
    reported = halves()
    reported[6:, 12:] = 3  # altogether on void: no mistake
    assert counts(halves(), reported, [0, 1], [0, 1, 1], void=void).extra.sum() == 0
    assert counts(halves(), reported, [0, 1], [0, 1, 1]).extra.tolist() == [0, 1]


def test_crowds_are_not_to_be_found_and_excuse_their_class_alone():
    reported = np.zeros((10, 20), int)
    reported[:4, 10:14], reported[:4, 15:19] = 1, 2
    found = counts(halves(), reported, [0, 1], [1, 0], crowd=[False, True])
    assert found.missed.tolist() == [1, 0]
    assert found.extra.tolist() == [1, 0]


def test_segments_without_a_pixel_or_a_class_are_not_judged():
    found = counts(halves(), halves(), [0, -1, 1], [0, -1, 1])
    assert (found.matched.tolist(), found.extra.tolist(), found.missed.tolist()) == ([1, 0], [0, 0], [0, 0])


@given(st.integers(0, 2**32 - 1))
def test_every_segment_is_matched_missed_or_extra_once(seed: int):
    random = np.random.default_rng(seed)
    true, reported = random.integers(0, 5, (2, 6, 8)) * (random.random((2, 6, 8)) > 0.3)
    labels = random.integers(0, 2, (2, 4))
    found = counts(true, reported, labels[0], labels[1])
    present = [np.isin(np.arange(1, 5), each) for each in (true, reported)]
    for label in range(2):
        assert found.matched[label] + found.missed[label] == ((labels[0] == label) & present[0]).sum()
        assert found.matched[label] + found.extra[label] == ((labels[1] == label) & present[1]).sum()
    total = PanopticCounts.sum([found, found], 2)
    assert np.allclose(total.qualities(), found.qualities(), equal_nan=True)


def test_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match="maps of one size"):
        counts(halves(), np.zeros((5, 5), int), [0, 1], [])
