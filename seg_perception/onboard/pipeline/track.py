"""Tracking: the instances of one camera, frame by frame, under their track ids."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.assignment import best_pairs
from seg_perception.core.classes import NO_GROUP
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.instances import Instances

from .tracking.motion import Motion
from .tracking.similarity import camera_shift, similarity

# IoU from which a detection may be that of a track; predictions are uncertain and small boxes overlap little.
_LOWEST_OVERLAP = 0.05
# Those left over are tried again with both boxes enlarged by this share of their sides.
_MARGIN = 0.5
# An instance of low confidence must be where the track is expected.
_LOWEST_DOUBTFUL_OVERLAP = 0.3
# Tracks that are not in view are forgotten beyond so many, the longest unseen first: bounds time and memory.
_MOST_UNSEEN = 1000
# Sightings before low-confidence instances continue a track, or it is filled in: false positives seldom come thrice.
_ESTABLISHED = 3
# Clocks are corrected, and cameras stamp frames unevenly, by this much at most; beyond, it is another time.
_CORRECTION_S = 0.5
_NANOSECONDS = 1e9
_OLDEST_S = 60.0
HIGHEST_ID = 0xFFFF


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """Options of a tracker.

    Attributes:
        max_age: seconds after which an object that is not seen loses its id.
        weak_share: instances that reach at least this share of their score threshold may continue a track that was seen
            in the frame before, and in some others; 1 for none.
        coast: seconds for which `Tracker.coasted` fills in an object that is not seen; 0 for never.

    Raises:
        ConfigurationError: one of them is impossible.
    """

    max_age: float = 2.0
    weak_share: float = 0.8
    coast: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.max_age <= _OLDEST_S:
            raise ConfigurationError(
                f"tracking max_age: expected more than 0 and at most {_OLDEST_S:g} seconds, got {self.max_age}"
            )
        if not 0 < self.weak_share <= 1:
            raise ConfigurationError(f"tracking weak_share: expected above 0, at most 1, got {self.weak_share}")
        if not 0 <= self.coast <= self.max_age:
            raise ConfigurationError(
                f"tracking coast: expected 0 to max_age, which is {self.max_age} seconds, got {self.coast}"
            )


@dataclass(frozen=True, slots=True)
class _Tracks:
    """Tracks, each with what was last seen of it; arrays of one length.

    Attributes:
        motion: where they are expected now.
        ids: uint16 `[T]`.
        seen_ns: int64 `[T]`, stamp of the frame they were last seen in.
        times_seen: int64 `[T]`.
        scores, labels, groups: as in `Instances`.
    """

    motion: Motion
    ids: NDArray[np.uint16]
    seen_ns: NDArray[np.int64]
    times_seen: NDArray[np.int64]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    groups: NDArray[np.int32]

    @classmethod
    def begin(cls, instances: Instances, stamp_ns: int) -> _Tracks:
        """Begin one track for each instance, under its id."""
        count = len(instances)
        return cls(
            Motion.begin(instances.boxes_camera.astype(np.float64)),
            instances.ids,
            np.full(count, stamp_ns, np.int64),
            np.ones(count, np.int64),
            instances.scores,
            instances.labels,
            instances.groups,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, keep: NDArray[np.bool_]) -> _Tracks:
        """Return the tracks for which `keep` `[T]` is true."""
        return _Tracks(
            self.motion.where(keep), self.ids[keep], self.seen_ns[keep], self.times_seen[keep],
            self.scores[keep], self.labels[keep], self.groups[keep],
        )  # fmt: skip

    def joined(self, other: _Tracks) -> _Tracks:
        """These, then others."""
        both = [
            np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("ids", "seen_ns", "times_seen", "scores", "labels", "groups")
        ]
        return _Tracks(self.motion.joined(other.motion), *both)

    def seen(self, rows: NDArray[np.int64], instances: Instances, stamp_ns: int) -> _Tracks:
        """The same after each of `rows` `[P]` was seen as the instance in its place."""
        result = _Tracks(
            self.motion.update(rows, instances.boxes_camera.astype(np.float64)), self.ids,
            self.seen_ns.copy(), self.times_seen.copy(), self.scores.copy(), self.labels.copy(), self.groups,
        )  # fmt: skip
        result.seen_ns[rows] = stamp_ns
        result.times_seen[rows] += 1
        result.scores[rows] = instances.scores
        result.labels[rows] = instances.labels
        return result


_NO_INSTANCES = Instances(
    np.zeros(0, np.int32), np.zeros(0, np.uint16), np.zeros((0, 4), np.float32),
    np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32),
)  # fmt: skip


class TrackIds:
    """Gives out the ids 1 to 65535 in turn, then 1 again, past those in use: each is reused as late as possible."""

    def __init__(self) -> None:
        self._last = 0

    def take(self, count: int, used: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Return the next free ids.

        Args:
            count: how many.
            used: uint16 `[T]`, ids that must not be given out.

        Returns:
            uint16 `[count]`, all different, none of them 0 or in `used`.

        Raises:
            ValueError: fewer than `count` are free.
        """
        # Among as many as there are wanted and used ids, enough are free.
        candidates = (self._last + np.arange(min(count + len(used), HIGHEST_ID))) % HIGHEST_ID + 1
        free = candidates[~np.isin(candidates, used)][:count]
        if len(free) < count:
            raise ValueError(f"track ids: expected at most {HIGHEST_ID - len(used)} new ones, asked for {count}")
        if count:
            self._last = int(free[-1])
        return free.astype(np.uint16)


class Tracker:
    """The tracks of one camera.

    Classes may flicker within a road group; a track never changes its group. Every frame is to be given to `update`,
    empty ones too: tracks age by stamps. If the stamps jump back, by more than a clock is corrected, the tracks end;
    ids go on, so that no id means something else than shortly before.
    """

    def __init__(self, options: TrackerOptions | None = None) -> None:
        """Begin without tracks; `options` may be replaced at any time and hold from the next frame on."""
        self.options = options or TrackerOptions()
        self._ids = TrackIds()
        self._tracks = _Tracks.begin(_NO_INSTANCES, 0)
        self._stamp_ns: int | None = None

    def __len__(self) -> int:
        """Return how many tracks there are, those out of view included."""
        return len(self._tracks)

    def reset(self) -> None:
        """End all tracks."""
        self._tracks = _Tracks.begin(_NO_INSTANCES, 0)
        self._stamp_ns = None

    def update(
        self, instances: Instances, stamp_ns: int, low_confidence: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint16]:
        """Return the track ids of the instances of the next frame.

        Args:
            instances: of one frame; the ids they have are not looked at.
            stamp_ns: of the frame.
            low_confidence: bool `[N]`, instances below their threshold, which are kept only where they continue a
                track; by default none.

        Returns:
            uint16 `[N]`: the id of each instance's track, unique; 0 for those of low confidence without one.
        """
        confident = np.ones(len(instances), bool) if low_confidence is None else ~low_confidence
        in_view = self._advance(stamp_ns)
        track = self._associate(instances, confident, in_view)
        old = np.flatnonzero(track >= 0)
        tracks = self._tracks.seen(track[old], instances.where(track >= 0), stamp_ns)
        ids = np.zeros(len(instances), np.uint16)
        ids[old] = tracks.ids[track[old]]
        new = confident & (track < 0)
        ids[new] = self._ids.take(np.count_nonzero(new), tracks.ids)
        self._tracks = _bounded(tracks.joined(_Tracks.begin(instances.with_ids(ids).where(new), stamp_ns)), stamp_ns)
        return ids

    def coasted(self, width: int, height: int) -> Instances:
        """Return objects that the last frame lacked, where they are expected, for `options.coast` seconds.

        They have boxes and no pixels; their `rows` are -1.

        Args:
            width, height: of the camera image; objects that have left it are not filled in.
        """
        tracks = self._tracks
        unseen = ((self._stamp_ns or 0) - tracks.seen_ns) / _NANOSECONDS
        tracks = tracks.where((unseen > 0) & (unseen <= self.options.coast) & (tracks.times_seen >= _ESTABLISHED))
        boxes = np.clip(tracks.motion.boxes, 0, (width, height, width, height)).astype(np.float32)
        rows = np.full(len(tracks), -1, np.int32)
        found = Instances(rows, tracks.ids, boxes, tracks.scores, tracks.labels, tracks.groups)
        return found.where(np.asarray((boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1), bool))

    def _advance(self, stamp_ns: int) -> NDArray[np.bool_]:
        """Move the tracks on to a frame, without those that are too old: bool `[T]`, seen in the frame before."""
        back = 0 if self._stamp_ns is None else self._stamp_ns - stamp_ns
        if back > _CORRECTION_S * _NANOSECONDS:
            self.reset()
        elif back > 0:
            self._tracks = replace(self._tracks, seen_ns=self._tracks.seen_ns - back)
        if self._stamp_ns is None or back > 0:
            self._stamp_ns = stamp_ns
        tracks = self._tracks.where(stamp_ns - self._tracks.seen_ns <= self.options.max_age * _NANOSECONDS)
        in_view = np.asarray(tracks.seen_ns == self._stamp_ns, bool)
        motion = tracks.motion.predict((stamp_ns - self._stamp_ns) / _NANOSECONDS, ~in_view)
        self._tracks = replace(tracks, motion=motion)
        self._stamp_ns = stamp_ns
        return in_view

    def _associate(
        self, instances: Instances, confident: NDArray[np.bool_], in_view: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """The track of each instance: int64 `[N]`, -1 for none; corrects the tracks for the camera's motion."""
        track = np.full(len(instances), -1, np.int64)
        if not len(instances) or not len(self._tracks):
            return track
        boxes = instances.boxes_camera.astype(np.float64)
        kin = _kinds(self._tracks.groups, self._tracks.labels)[:, None] == _kinds(instances.groups, instances.labels)
        motion = self._tracks.motion
        rows, columns = best_pairs(similarity(motion, boxes, kin & confident, _LOWEST_OVERLAP)).T
        shift = camera_shift(motion.boxes[rows], boxes[columns])
        if shift.any():
            motion = motion.moved(shift)
            self._tracks = replace(self._tracks, motion=motion)
            rows, columns = best_pairs(similarity(motion, boxes, kin & confident, _LOWEST_OVERLAP)).T
        track[columns] = rows
        free = np.ones(len(self._tracks), bool)
        sure = in_view & (self._tracks.times_seen >= _ESTABLISHED)
        for allowed, lowest, margin in (
            (confident, _LOWEST_OVERLAP, _MARGIN),
            (~confident & sure[:, None], _LOWEST_DOUBTFUL_OVERLAP, 0.0),
        ):
            free[track[track >= 0]] = False
            open_pairs = kin & allowed & free[:, None] & (track < 0)
            if open_pairs.any():
                rows, columns = best_pairs(similarity(motion, boxes, open_pairs, lowest, margin)).T
                track[columns] = rows
        return track


def _kinds(groups: NDArray[np.int32], labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return what a track cannot change: its road group, or the class where there is none; int32 `[N]`."""
    return np.where(groups == NO_GROUP, NO_GROUP - 1 - labels, groups).astype(np.int32)


def _bounded(tracks: _Tracks, stamp_ns: int) -> _Tracks:
    """Without the longest unseen of too many."""
    unseen = np.flatnonzero(tracks.seen_ns < stamp_ns)
    if len(unseen) <= _MOST_UNSEEN:
        return tracks
    keep = np.ones(len(tracks), bool)
    oldest_first = unseen[np.argsort(tracks.seen_ns[unseen], kind="stable")]
    keep[oldest_first[: len(unseen) - _MOST_UNSEEN]] = False
    return tracks.where(keep)
