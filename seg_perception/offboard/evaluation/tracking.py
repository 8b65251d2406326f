"""How well reported tracks follow true ones: HOTA, IDF1, switches and fragments.

HOTA: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 129, 2021. IDF1: Ristani
et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking", ECCV Workshops 2016. Switches and
fragments: Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR MOT Metrics", EURASIP
Journal on Image and Video Processing 2008.

The similarity of two objects may be the IoU of their boxes or of their masks: whoever makes the frames chooses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.assignment import best_pairs
from seg_perception.core.boxes import box_iou
from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.offboard.data.published import PublishedFrame

# HOTA is the mean over these; IDF1, switches and fragments are stated at one.
HOTA_SIMILARITIES = np.arange(1, 20) / 20
SIMILARITY = 0.5
# A similarity that was computed may miss its threshold by rounding.
_ROUNDING = 1e-9
ALL_GROUPS = "all"


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """What is there in one frame, and what was reported.

    Attributes:
        true: int64 `[N]`, the true objects' track numbers, unique in the frame.
        reported: int64 `[M]`, the reported ones.
        true_groups: int32 `[N]`, index into `ROAD_GROUPS`, or `NO_GROUP`.
        reported_groups: int32 `[M]`.
        similarity: float64 `[N, M]`, 0-1, of every true with every reported object; looked at within a group only.

    Raises:
        ValueError: shapes do not fit, or a number comes twice.
    """

    true: NDArray[np.int64]
    reported: NDArray[np.int64]
    true_groups: NDArray[np.int32]
    reported_groups: NDArray[np.int32]
    similarity: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = (len(self.true), len(self.reported))
        groups = (len(self.true_groups), len(self.reported_groups))
        if self.similarity.shape != shape or groups != shape:
            raise ValueError(
                f"similarity and groups: expected shapes {shape}, got {self.similarity.shape} and {groups}"
            )
        for name in ("true", "reported"):
            numbers = getattr(self, name)
            if len(np.unique(numbers)) != len(numbers):
                raise ValueError(f"{name}: expected each track number at most once in a frame, got {numbers.tolist()}")


def tracked_frame(true: PublishedFrame, reported: PublishedFrame, masks: bool = True) -> TrackedFrame:
    """Hold what was published for a frame against the truth in the same form.

    Args:
        true, reported: of the same stamp.
        masks: whether objects are compared by their pixels in the instance maps; else by their boxes.

    Raises:
        ValueError: the maps differ in size, or a number comes twice.
    """
    similarity = _map_iou(true, reported) if masks else box_iou(true.boxes_camera, reported.boxes_camera)
    return TrackedFrame(true.numbers, reported.numbers, true.groups, reported.groups, similarity)


def _map_iou(first: PublishedFrame, second: PublishedFrame) -> NDArray[np.float64]:
    """IoU of the pixels of every instance of one map with those of every one of another, float64 `[N, M]`."""
    if first.pixels.shape != second.pixels.shape:
        raise ValueError(f"instance maps: expected one size, got {first.pixels.shape} and {second.pixels.shape}")
    rows, columns = len(first.numbers) + 1, len(second.numbers) + 1
    code = _places(first)[first.pixels] * columns + _places(second)[second.pixels]
    shared = np.bincount(code.ravel(), minlength=rows * columns).reshape(rows, columns).astype(np.float64)
    either = shared.sum(axis=1)[1:, None] + shared.sum(axis=0)[1:] - shared[1:, 1:]
    iou: NDArray[np.float64] = np.divide(shared[1:, 1:], either, out=np.zeros_like(either), where=either > 0)
    return iou


def _places(frame: PublishedFrame) -> NDArray[np.int64]:
    """Place of each number among the frame's, from 1; 0 for those that are none of its: int64 `[65536]`."""
    places = np.zeros(1 << 16, np.int64)
    places[frame.numbers] = np.arange(1, len(frame.numbers) + 1)
    return places


@dataclass(frozen=True, slots=True)
class TrackingScores:
    """Tracking scores; NaN where there is nothing to follow and nothing was reported.

    Attributes:
        true, reported: objects, summed over frames.
        true_tracks, reported_tracks: different numbers.
        hota: 0-1, mean over `HOTA_SIMILARITIES`, as the next two.
        detection: DetA, 0-1: how well objects are found, whatever their number.
        association: AssA, 0-1: how well found objects keep their number.
        idf1: 0-1: share of all objects that have the right number under the best pairing of whole tracks.
        switches: times an object is found under another number than the last time.
        fragments: times an object is found again after it was there and not found.
    """

    true: int
    reported: int
    true_tracks: int
    reported_tracks: int
    hota: float
    detection: float
    association: float
    idf1: float
    switches: int
    fragments: int


def tracking_scores(sequences: Iterable[Sequence[TrackedFrame]]) -> dict[str, TrackingScores]:
    """Scores of each road group, and of all together under `ALL_GROUPS`.

    Args:
        sequences: each of frames in the order of time; the same number in two sequences means two tracks.
    """
    tables = [_Sequence.of(frames) for frames in sequences]
    scores = {name: _scores([table.group(group) for table in tables]) for group, name in enumerate(ROAD_GROUPS)}
    return {**scores, ALL_GROUPS: _scores(tables)}


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame whose tracks are indices 0, 1, ...: int64 `[N]`, int64 `[M]`, float64 `[N, M]`, 0 across groups."""

    true: NDArray[np.int64]
    reported: NDArray[np.int64]
    similarity: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Frames of one sequence with the road group of each object, by frame."""

    frames: list[_Frame]
    groups: list[tuple[NDArray[np.int32], NDArray[np.int32]]]

    @classmethod
    def of(cls, frames: Sequence[TrackedFrame]) -> _Sequence:
        groups = [(frame.true_groups, frame.reported_groups) for frame in frames]
        inner = [
            _Frame(frame.true, frame.reported, frame.similarity * (first[:, None] == second))
            for frame, (first, second) in zip(frames, groups, strict=True)
        ]
        return cls(_indexed(inner), groups)

    def group(self, group: int) -> _Sequence:
        """The objects of one road group."""
        frames, groups = [], []
        for frame, (first, second) in zip(self.frames, self.groups, strict=True):
            true, reported = first == group, second == group
            frames.append(_Frame(frame.true[true], frame.reported[reported], frame.similarity[np.ix_(true, reported)]))
            groups.append((first[true], second[reported]))
        return _Sequence(_indexed(frames), groups)

    def tracks(self) -> tuple[int, int]:
        """Return how many there are, true and reported."""
        return (
            max((int(frame.true.max(initial=-1)) for frame in self.frames), default=-1) + 1,
            max((int(frame.reported.max(initial=-1)) for frame in self.frames), default=-1) + 1,
        )


def _indexed(frames: list[_Frame]) -> list[_Frame]:
    """The frames with numbers of tracks replaced by 0, 1, ... in ascending order."""
    none = [np.zeros(0, np.int64)]
    true = np.unique(np.concatenate([*none, *(frame.true for frame in frames)]))
    reported = np.unique(np.concatenate([*none, *(frame.reported for frame in frames)]))
    return [
        _Frame(np.searchsorted(true, frame.true), np.searchsorted(reported, frame.reported), frame.similarity)
        for frame in frames
    ]


@dataclass(frozen=True, slots=True)
class _Counts:
    """Of one sequence; those of several add up.

    Attributes:
        totals: int64 `[7]`: true and reported objects, true and reported tracks, objects under the right number,
            switches, fragments.
        found: float64 `[A]`: pairs of objects at each of `HOTA_SIMILARITIES`.
        associated: float64 `[A]`: over these pairs, the sum of how well their tracks agree.
    """

    totals: NDArray[np.int64]
    found: NDArray[np.float64]
    associated: NDArray[np.float64]


def _scores(sequences: Sequence[_Sequence]) -> TrackingScores:
    counts = [_counts(sequence) for sequence in sequences]
    totals = np.sum([np.zeros(7, np.int64), *(each.totals for each in counts)], axis=0)
    true, reported, true_tracks, reported_tracks, right, switches, fragments = totals.tolist()
    found = np.sum([np.zeros(len(HOTA_SIMILARITIES)), *(each.found for each in counts)], axis=0)
    associated = np.sum([np.zeros(len(HOTA_SIMILARITIES)), *(each.associated for each in counts)], axis=0)
    either = true + reported
    with np.errstate(invalid="ignore"):
        detection = found / (either - found)
    association = associated / np.maximum(found, 1)
    return TrackingScores(
        true, reported, true_tracks, reported_tracks,
        float(np.mean(np.sqrt(detection * association))), float(np.mean(detection)), float(np.mean(association)),
        2 * right / either if either else float("nan"), switches, fragments,
    )  # fmt: skip


def _counts(sequence: _Sequence) -> _Counts:
    frames = sequence.frames
    tracks = sequence.tracks()
    true = sum(len(frame.true) for frame in frames)
    reported = sum(len(frame.reported) for frame in frames)
    found, associated = _higher_order(frames, tracks)
    totals = [true, reported, *tracks, _right(frames, tracks), *_changes(frames, tracks[0])]
    return _Counts(np.array(totals, np.int64), found, associated)


def _higher_order(frames: Sequence[_Frame], tracks: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """HOTA's pairs and how well their tracks agree, float64 `[A]` each."""
    alignment = _alignment(frames, tracks)
    codes, similarities = [np.zeros(0, np.int64)], [np.zeros(0)]
    for frame in frames:
        rows, columns = best_pairs(alignment[np.ix_(frame.true, frame.reported)] * frame.similarity).T
        codes.append(frame.true[rows] * tracks[1] + frame.reported[columns])
        similarities.append(frame.similarity[rows, columns])
    code, place = np.unique(np.concatenate(codes), return_inverse=True)
    enough = np.concatenate(similarities) >= HOTA_SIMILARITIES[:, None] - _ROUNDING
    together = np.array([np.bincount(place, each, len(code)) for each in enough]).reshape(len(enough), len(code))
    true_lengths, reported_lengths = _lengths(frames, tracks)
    true, reported = np.divmod(code, max(tracks[1], 1))
    agreement = together / (true_lengths[true] + reported_lengths[reported] - together)
    return together.sum(axis=1), (together * agreement).sum(axis=1)


def _alignment(frames: Sequence[_Frame], tracks: tuple[int, int]) -> NDArray[np.float64]:
    """Return how well each true track goes with each reported one over the whole sequence, float64 `[T, R]`, 0-1."""
    shared = np.zeros(tracks)
    for frame in frames:
        similarity = frame.similarity
        either = similarity.sum(axis=1)[:, None] + similarity.sum(axis=0) - similarity
        share = np.divide(similarity, either, out=np.zeros_like(similarity), where=either > 0)
        shared[np.ix_(frame.true, frame.reported)] += share
    true_lengths, reported_lengths = _lengths(frames, tracks)
    alignment: NDArray[np.float64] = shared / (true_lengths[:, None] + reported_lengths - shared)
    return alignment


def _lengths(frames: Sequence[_Frame], tracks: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """In how many frames each track is, float64 `[T]` and `[R]`."""
    true, reported = np.zeros(tracks[0]), np.zeros(tracks[1])
    for frame in frames:
        true[frame.true] += 1
        reported[frame.reported] += 1
    return true, reported


def _right(frames: Sequence[_Frame], tracks: tuple[int, int]) -> int:
    """IDTP: objects found by the one track that is paired with theirs for the whole sequence."""
    together = np.zeros(tracks)
    for frame in frames:
        together[np.ix_(frame.true, frame.reported)] += frame.similarity >= SIMILARITY - _ROUNDING
    pairs = best_pairs(together)
    return int(together[pairs[:, 0], pairs[:, 1]].sum())


def _changes(frames: Sequence[_Frame], tracks: int) -> tuple[int, int]:
    """Switches and fragments; objects keep the number they had in the frame before as long as it fits."""
    number_of, last_time = np.full(tracks, -1), np.full(tracks, -1)
    missed = np.zeros(tracks, bool)
    switches = fragments = 0
    for frame in frames:
        possible = frame.similarity >= SIMILARITY - _ROUNDING
        kept = last_time[frame.true][:, None] == frame.reported
        # A pair that stays outweighs any number of others, as no frame holds a thousand objects.
        pairs = best_pairs(np.where(possible, frame.similarity + 1000 * kept, 0))
        true, reported = frame.true[pairs[:, 0]], frame.reported[pairs[:, 1]]
        known = number_of[true] >= 0
        switches += int(np.count_nonzero(known & (number_of[true] != reported)))
        fragments += int(np.count_nonzero(known & missed[true]))
        missed[frame.true] = True
        missed[true] = False
        number_of[true] = reported
        last_time[:] = -1
        last_time[true] = reported
    return switches, fragments
