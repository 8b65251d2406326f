"""Where coordinate frames are at a moment: the transforms of /tf, kept for some seconds and interpolated.

tf2's own buffer is C++ that PyPI has not, and answers one moment a call; a sweep of a lidar needs dozens.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import FrameError
from seg_perception.core.messages.transforms import StampedTransform

# For so long transforms are kept.
HISTORY_SECONDS = 10.0
# Deeper trees are a loop of frames.
_DEEPEST = 64


class TransformError(FrameError):
    """A transform is not known; kind `transform`.

    Attributes:
        early: whether it may become known in a moment, as what is known ends before that moment.
    """

    def __init__(self, message: str, *, early: bool = False) -> None:
        super().__init__("transform", message)
        self.early = early


@dataclass(frozen=True, slots=True)
class RigidTransform:
    """Takes points of one frame to another: p' = rotation p + translation.

    Attributes:
        rotation: float64 `[3, 3]`.
        translation: float64 `[3]`, metres.
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    @classmethod
    def identity(cls) -> RigidTransform:
        """Return the one that changes nothing."""
        return cls(np.eye(3), np.zeros(3))

    def __matmul__(self, inner: RigidTransform) -> RigidTransform:
        """Return what first does `inner` and then this."""
        return RigidTransform(self.rotation @ inner.rotation, self.rotation @ inner.translation + self.translation)

    def inverse(self) -> RigidTransform:
        """Return the way back."""
        return RigidTransform(self.rotation.T, -self.rotation.T @ self.translation)

    def points(self, xyz: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return points in the other frame, float32 `[N, 3]` to the same; one that changes nothing copies nothing."""
        if not len(xyz) or (not self.translation.any() and np.array_equal(self.rotation, np.eye(3))):
            return xyz
        # Twenty times as fast as a product of NumPy with so narrow a matrix.
        moved = cv2.transform(xyz[:, None], np.column_stack([self.rotation, self.translation]))
        return moved[:, 0]  # type: ignore[return-value]


@dataclass(slots=True)
class _Track:
    """What is known of a frame: its parent, and where in it at which moments, in order; one moment if it is static."""

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)
    places: list[StampedTransform] = field(default_factory=list)

    def add(self, place: StampedTransform) -> None:
        if self.static or (self.stamps and place.stamp_ns < self.stamps[-1] - HISTORY_SECONDS * 1e9):
            # A bag that begins again.
            self.stamps.clear()
            self.places.clear()
        at = bisect_right(self.stamps, place.stamp_ns)
        if at and self.stamps[at - 1] == place.stamp_ns:
            self.places[at - 1] = place
            return
        self.stamps.insert(at, place.stamp_ns)
        self.places.insert(at, place)
        old = bisect_left(self.stamps, self.stamps[-1] - int(HISTORY_SECONDS * 1e9))
        if old > 64:  # not one by one
            del self.stamps[:old], self.places[:old]

    def at(self, child: str, stamp_ns: int, tolerance_ns: int) -> RigidTransform:
        if self.static:
            return _rigid(self.places[0].translation, self.places[0].quaternion)
        begin, end = self.stamps[0], self.stamps[-1]
        if not begin - tolerance_ns <= stamp_ns <= end + tolerance_ns:
            early = stamp_ns > end
            apart = abs(stamp_ns - (end if early else begin)) / 1e9
            raise TransformError(
                f"tf: {self.parent!r} -> {child!r} is known "
                + (f"only until {apart:.3f} s before" if early else f"only from {apart:.3f} s after")
                + f" what is asked for, {stamp_ns / 1e9:.3f} s; check that it is published often enough and that all "
                "stamps are of one clock",
                early=early,
            )
        after = bisect_left(self.stamps, stamp_ns)
        if after in (0, len(self.stamps)):
            nearest = self.places[min(after, len(self.stamps) - 1)]
            return _rigid(nearest.translation, nearest.quaternion)
        first, second = self.places[after - 1], self.places[after]
        share = (stamp_ns - first.stamp_ns) / (second.stamp_ns - first.stamp_ns)
        place = first.translation + share * (second.translation - first.translation)
        return _rigid(place, _slerp(first.quaternion, second.quaternion, share))


class TransformBuffer:
    """Collects transforms and answers where a frame is in another one, at two moments if need be."""

    def __init__(self, tolerance: float = 0.0) -> None:
        """Begin without any.

        Args:
            tolerance: seconds for which the last transform still holds after its stamp, and the first before it.
        """
        self.tolerance = tolerance
        self._tracks: dict[str, _Track] = {}

    def add(self, transforms: Iterable[StampedTransform], *, static: bool) -> None:
        """Take what came on /tf, or on /tf_static.

        Raises:
            FrameError: kind `transform`, a frame is its own parent.
        """
        for each in transforms:
            if each.parent == each.child:
                raise FrameError("transform", f"tf: frame {each.child!r} is named as its own parent")
            track = self._tracks.get(each.child)
            if track is None or track.parent != each.parent or track.static != static:
                track = self._tracks[each.child] = _Track(each.parent, static)
            track.add(each)

    def knows(self, frame: str) -> bool:
        """Return whether a frame is in the tree."""
        return frame in self._tracks or any(track.parent == frame for track in self._tracks.values())

    def lookup(self, target: str, source: str, stamp_ns: int) -> RigidTransform:
        """Return what takes points of a frame to another one, both at one moment.

        Raises:
            TransformError: it is not known.
        """
        if target == source:
            return RigidTransform.identity()
        up, down = self._ancestors(source), self._ancestors(target)
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            missing = [frame for frame in (source, target) if not self.knows(frame)]
            raise TransformError(
                f"tf: expected a way from frame {source!r} to {target!r}, found none"
                + (f": nobody publishes {' and '.join(map(repr, missing))}" if missing else "; they are in two trees")
                + "; check /tf and /tf_static (`ros2 run tf2_tools view_frames`)",
                early=True,
            )
        ways = [self._up(up[: up.index(common)], stamp_ns), self._up(down[: down.index(common)], stamp_ns)]
        return ways[1].inverse() @ ways[0]

    def lookup_between(self, target: str, target_ns: int, source: str, source_ns: int, fixed: str) -> RigidTransform:
        """Return what takes points of a frame at one moment to another frame at another moment.

        Args:
            target, target_ns: where points are wanted.
            source, source_ns: where they were measured.
            fixed: frame that does not move between the moments, such as `odom`.

        Raises:
            TransformError: it is not known.
        """
        return self.lookup(target, fixed, target_ns) @ self.lookup(fixed, source, source_ns)

    def _ancestors(self, frame: str) -> list[str]:
        """The frame, its parent, the parent of that, and so on."""
        names = [frame]
        while (track := self._tracks.get(names[-1])) is not None:
            if len(names) > _DEEPEST or track.parent in names:
                raise TransformError(f"tf: the parents of frame {frame!r} form a loop: {' -> '.join(names[:8])}")
            names.append(track.parent)
        return names

    def _up(self, frames: list[str], stamp_ns: int) -> RigidTransform:
        """What takes points of the first frame to the parent of the last."""
        way = RigidTransform.identity()
        for frame in frames:
            way = self._tracks[frame].at(frame, stamp_ns, int(self.tolerance * 1e9)) @ way
        return way


def _rigid(translation: NDArray[np.float64], quaternion: NDArray[np.float64]) -> RigidTransform:
    x, y, z, w = quaternion.tolist()
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return RigidTransform(rotation, translation)


def _slerp(first: NDArray[np.float64], second: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """The rotation in between, along the shorter arc."""
    cosine = float(first @ second)
    if cosine < 0:
        second, cosine = -second, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-4:
        between = first + share * (second - first)
    else:
        between = (np.sin((1 - share) * angle) * first + np.sin(share * angle) * second) / np.sin(angle)
    between /= np.linalg.norm(between)
    return between
