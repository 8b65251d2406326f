"""What only the neighbours of a frame show: flicker, gaps and breaks of tracks.

Each frame is looked at when some frames after it are known, so its concerns come late by `REACH` frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from seg_perception.core.boxes import box_iou

from .records import Box, QaFlag, box_of

# Frames before and after one that are looked at.
REACH = 5
# Frames a track must be missing before and after to be called a flicker.
_QUIET = 2
# Boxes of one object in two frames that follow each other overlap by this IoU.
_SAME_PLACE = 0.3
# A mask that changes its share of its box by this factor, and back, flickers.
_JUMP = 1.5


@dataclass(frozen=True, slots=True)
class TrackedObservation:
    """One instance in one frame, as far as its neighbours in time need it.

    Attributes:
        track: its number.
        kind: the name of its class.
        group: the name of its road group.
        box: in camera pixels.
        fill: visible pixels per pixel of its box.
    """

    track: int
    kind: str
    group: str
    box: Box
    fill: float


# By track number.
Tracks = dict[int, TrackedObservation]


@dataclass(frozen=True, slots=True)
class _Moment:
    key: int
    tracks: Tracks


class Window:
    """The last frames of one camera; frames come in their order, all of them."""

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque()
        # How many of the moments were looked at.
        self._done = 0

    def push(self, key: int, tracks: Sequence[TrackedObservation]) -> Iterator[tuple[int, list[QaFlag]]]:
        """Take the next frame; yield the keys of frames that are now known from both sides, with their concerns."""
        self._moments.append(_Moment(key, {observation.track: observation for observation in tracks}))
        if len(self._moments) - self._done > REACH:
            yield self._look()

    def flush(self) -> Iterator[tuple[int, list[QaFlag]]]:
        """The rest, at the end of the recording."""
        while self._done < len(self._moments):
            yield self._look()

    def _look(self) -> tuple[int, list[QaFlag]]:
        moments = list(self._moments)
        here, before, after = moments[self._done], moments[: self._done], moments[self._done + 1 :]
        self._done += 1
        if self._done > REACH:
            self._moments.popleft()
            self._done -= 1
        return here.key, flags_of(here.tracks, [each.tracks for each in before], [each.tracks for each in after])


def flags_of(here: Tracks, before: Sequence[Tracks], after: Sequence[Tracks]) -> list[QaFlag]:
    """Return what the frames around one show; each is given by its tracks' numbers, in the order of time."""
    found = []
    for track, sight in here.items():
        found += _flicker(sight, before, after, track)
        found += _changes(sight, before, after, track)
    return found + _gaps(here, before, after) + _breaks(here, before, after)


def _flicker(
    sight: TrackedObservation, before: Sequence[Tracks], after: Sequence[Tracks], track: int
) -> list[QaFlag]:
    if min(len(before), len(after)) < _QUIET or any(track in each for each in (*before, *after)):
        return []
    return [QaFlag("flicker", 1.0, f"{sight.group} of track {track} is seen in this frame only", sight.box)]


def _changes(
    sight: TrackedObservation, before: Sequence[Tracks], after: Sequence[Tracks], track: int
) -> list[QaFlag]:
    """A class or a mask that differs from those of the same track around it."""
    found = []
    others = [each[track] for each in (*before, *after) if track in each]
    kinds = [each.kind for each in others]
    usual = max(dict.fromkeys(kinds), key=kinds.count, default=sight.kind)
    if usual != sight.kind and kinds.count(usual) > kinds.count(sight.kind) + 1:
        words = f"track {track} is a {sight.kind} here, in {kinds.count(usual)} frames around a {usual}"
        found.append(QaFlag("class_change", 0.8, words, sight.box))
    last, following = before[-1].get(track) if before else None, after[0].get(track) if after else None
    if last and following and min(last.fill, following.fill) > 0:
        steady = max(last.fill, following.fill) / min(last.fill, following.fill) < _JUMP**0.5
        ratio = sight.fill / median((last.fill, following.fill))
        if steady and not 1 / _JUMP <= ratio <= _JUMP:
            words = f"the mask of {sight.group} {track} has {100 * ratio:.0f} % of its size in the frames next to it"
            found.append(QaFlag("mask_jump", 1 - min(ratio, 1 / max(ratio, 1e-9)), words, sight.box))
    return found


def _gaps(here: Tracks, before: Sequence[Tracks], after: Sequence[Tracks]) -> list[QaFlag]:
    """Tracks that are seen before and after a frame but not in it, with boxes between those of the two sightings."""
    found = []
    last = {track: (age, sight) for age, each in _apart(before) for track, sight in each.items()}
    following = {track: (age, sight) for age, each in _apart(after[::-1]) for track, sight in each.items()}
    for track in last.keys() & following.keys() - here.keys():
        (ago, sight), (ahead, again) = last[track], following[track]
        place = (np.array(sight.box) * ahead + np.array(again.box) * ago) / (ago + ahead)
        words = f"{sight.group} {track} is seen before and after, but not here"
        found.append(QaFlag("gap", 1.0, words, box_of(place)))
    return sorted(found, key=lambda each: each.words)


def _apart(moments: Sequence[Tracks]) -> Iterator[tuple[int, Tracks]]:
    """Moments with how many frames they are from one that follows them; the nearest comes last."""
    return zip(range(len(moments), 0, -1), moments, strict=True)


def _breaks(here: Tracks, before: Sequence[Tracks], after: Sequence[Tracks]) -> list[QaFlag]:
    """Tracks that begin where another one of their group has just ended."""
    if not before:
        return []
    earlier, later = {track for each in before for track in each}, {track for each in (here, *after) for track in each}
    ended = [sight for track, sight in before[-1].items() if track not in later]
    begun = [sight for track, sight in here.items() if track not in earlier]
    if not ended or not begun:
        return []
    overlap = box_iou(np.array([each.box for each in ended]), np.array([each.box for each in begun]))
    return [
        QaFlag("track_break", 0.8, f"{new.group} {old.track} ends where {new.track} begins", new.box)
        for row, old in enumerate(ended)
        for column, new in enumerate(begun)
        if old.group == new.group and overlap[row, column] >= _SAME_PLACE
    ]
