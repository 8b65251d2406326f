"""HOTA, IDF1, switches and fragments, against cases that can be computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from seg_perception.core.assignment import best_pairs
from seg_perception.offboard.data.published import PublishedFrame
from seg_perception.offboard.evaluation.tracking import TrackedFrame, TrackingScores, tracked_frame, tracking_scores


def frame(true: Sequence[int], reported: Sequence[int], overlap: float = 1.0, group: int = 1) -> TrackedFrame:
    """The nth true object lies where the nth reported one is; a 0 stands for one that is not there."""
    similarity = overlap * np.eye(max(len(true), len(reported)))[: len(true), : len(reported)]
    there, seen = np.array(true, int) > 0, np.array(reported, int) > 0
    return TrackedFrame(
        np.array(true, np.int64)[there],
        np.array(reported, np.int64)[seen],
        np.full(there.sum(), group, np.int32),
        np.full(seen.sum(), group, np.int32),
        similarity[np.ix_(there, seen)],
    )


def overall(*sequences: list[TrackedFrame]) -> TrackingScores:
    return tracking_scores(sequences)["all"]


def test_whoever_reports_the_truth_is_perfect() -> None:
    scores = overall([frame([1, 2], [7, 9])] * 10)
    assert (scores.hota, scores.detection, scores.association, scores.idf1) == (1, 1, 1, 1)
    assert (scores.true, scores.reported, scores.true_tracks, scores.reported_tracks) == (20, 20, 2, 2)
    assert (scores.switches, scores.fragments) == (0, 0)


def test_a_number_that_changes_half_way() -> None:
    scores = overall([frame([1], [7])] * 5 + [frame([1], [8])] * 5)
    # Of 10 frames, each of the two tracks has 5.
    assert scores.association == pytest.approx(5 / 10)
    assert scores.hota == pytest.approx(np.sqrt(0.5))
    # 5 objects of 10 and of 10 have the right number.
    assert scores.idf1 == pytest.approx(2 * 5 / 20)
    assert (scores.switches, scores.fragments) == (1, 0)


def test_two_that_exchange_their_numbers() -> None:
    scores = overall([frame([1, 2], [7, 8])] * 5 + [frame([1, 2], [8, 7])] * 5)
    # A pair is together in 5 of the 15 frames that either of it is somewhere.
    assert scores.association == pytest.approx(5 / 15)
    assert scores.idf1 == pytest.approx(0.5)
    assert scores.switches == 2


def test_an_object_that_is_missed_for_a_while() -> None:
    scores = overall([frame([1], [7])] * 4 + [frame([1], [0])] * 2 + [frame([1], [7])] * 4)
    assert scores.detection == pytest.approx(8 / 10)
    assert scores.association == pytest.approx(8 / 10)
    assert scores.hota == pytest.approx(8 / 10)
    assert scores.idf1 == pytest.approx(2 * 8 / 18)
    assert (scores.switches, scores.fragments) == (0, 1)


def test_an_object_that_is_hidden_for_a_while_is_no_fragment() -> None:
    scores = overall([frame([1], [7])] * 4 + [frame([0], [0])] * 2 + [frame([1], [7])] * 4)
    assert (scores.hota, scores.fragments) == (1, 0)


def test_ghosts() -> None:
    scores = overall([frame([1, 0], [7, 8])] * 4)
    assert scores.detection == pytest.approx(4 / 8)
    assert scores.association == 1
    assert scores.idf1 == pytest.approx(2 * 4 / 12)


def test_how_well_objects_lie_counts_in_hota() -> None:
    scores = overall([frame([1], [7], overlap=0.6)] * 4)
    # 0.05, 0.10 ... 0.60 of 19 thresholds are reached.
    assert scores.hota == pytest.approx(12 / 19)
    assert scores.idf1 == 1
    assert overall([frame([1], [7], overlap=0.4)] * 4).idf1 == 0


def test_a_number_that_still_fits_is_no_switch() -> None:
    both = TrackedFrame(
        np.array([1]), np.array([7, 8]), np.zeros(1, np.int32), np.zeros(2, np.int32), np.array([[0.6, 0.9]])
    )
    assert overall([frame([1], [7], group=0), both]).switches == 0


def test_groups_are_kept_apart() -> None:
    wrong = TrackedFrame(
        np.array([1]), np.array([7]), np.array([0], np.int32), np.array([1], np.int32), np.ones((1, 1))
    )
    right = frame([2], [3], group=1)
    scores = tracking_scores([[wrong, right]])
    assert scores["all"].idf1 == pytest.approx(2 * 1 / 4)
    assert scores["pedestrian"].idf1 == 0
    assert scores["vehicle"].idf1 == pytest.approx(2 * 1 / 3)
    assert np.isnan(scores["traffic_light"].idf1)
    assert np.isnan(scores["traffic_light"].hota)


def test_a_number_in_another_sequence_is_another_track() -> None:
    scores = overall([frame([1], [7])] * 5, [frame([1], [8])] * 5)
    assert (scores.hota, scores.idf1, scores.switches) == (1, 1, 0)
    assert (scores.true_tracks, scores.reported_tracks) == (2, 2)


def test_nothing_at_all() -> None:
    assert np.isnan(overall([]).idf1)
    assert np.isnan(overall([frame([], [])]).hota)


def test_malformed_frames_are_refused() -> None:
    group = np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="at most once"):
        TrackedFrame(np.array([1, 1]), np.array([1, 2]), group, group, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="expected shapes"):
        TrackedFrame(np.array([1, 2]), np.array([1, 2]), group, group, np.zeros((2, 3)))


def published(pixels: list[list[int]], numbers: list[int], boxes: list[list[float]]) -> PublishedFrame:
    count = len(numbers)
    return PublishedFrame(
        5, np.array(pixels, np.uint16), np.array(numbers, np.int64), np.zeros(count, np.int32),
        np.ones(count, np.float32), np.array(boxes, np.float32).reshape(-1, 4),
    )  # fmt: skip


def test_published_frames_are_compared_by_pixels_or_boxes() -> None:
    true = published([[4, 4, 0, 9], [4, 4, 0, 0]], [4, 9], [[0, 0, 2, 2], [3, 0, 4, 1]])
    seen = published([[0, 500, 500, 0], [0, 500, 500, 7]], [500], [[0, 0, 2, 1]])
    masks = tracked_frame(true, seen)
    np.testing.assert_allclose(masks.similarity, [[2 / 6], [0]])
    np.testing.assert_allclose(tracked_frame(true, seen, masks=False).similarity, [[0.5], [0]])
    with pytest.raises(ValueError, match="one size"):
        tracked_frame(true, published([[0]], [], []))


GAINS = st.tuples(st.integers(0, 5), st.integers(0, 5)).flatmap(
    lambda shape: arrays.arrays(np.float64, shape, elements=st.sampled_from([-1.0, 0.0, 0.25, 0.3, 0.7, 1.0]))
)


@given(GAINS)
def test_no_other_pairs_gain_more(gains: np.ndarray) -> None:
    pairs = best_pairs(gains)
    assert (gains[pairs[:, 0], pairs[:, 1]] > 0).all()
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    short = gains if gains.shape[0] <= gains.shape[1] else gains.T
    most = max(
        sum(max(short[row, column], 0.0) for row, column in enumerate(columns))
        for columns in permutations(range(short.shape[1]), short.shape[0])
    )
    assert gains[pairs[:, 0], pairs[:, 1]].sum() == pytest.approx(most)
