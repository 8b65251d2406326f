"""Flags that only the neighbours of a frame give: objects of a single frame, and gaps in tracks.

Each frame is checked when some frames after it are known, so its flags come late by `REACH` frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .records import Box, QaFlag, box_of

# Frames before and after one that are looked at.
REACH = 5
# Frames a track must be missing before and after to be called a flicker.
_QUIET = 2


@dataclass(frozen=True, slots=True)
class TrackedObservation:
    """One instance in one frame, as far as its neighbours in time need it.

    Attributes:
        track: its id.
        group: the name of its road group.
        box: in camera pixels.
    """

    track: int
    group: str
    box: Box


# By track id.
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
    """Return what the frames around one show; each is given by its track ids, in the order of time."""
    both_sides = min(len(before), len(after)) >= _QUIET
    flicker = [
        QaFlag("flicker", 1.0, f"{seen.group} of track {track} is seen in this frame only", seen.box)
        for track, seen in here.items()
        if both_sides and not any(track in tracks for tracks in (*before, *after))
    ]
    return flicker + _gaps(here, before, after)


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
