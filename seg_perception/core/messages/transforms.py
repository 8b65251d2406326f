"""`tf2_msgs/TFMessage`: transforms between coordinate frames, read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from .cdr import CdrReader

TF_MESSAGE = "tf2_msgs/msg/TFMessage"
_SUBJECT = "tf message"
# A humanoid robot has fewer.
_MOST_TRANSFORMS = 10_000


class StampedTransform(NamedTuple):
    """Takes coordinates of the child to those of the parent.

    Attributes:
        stamp_ns: when it holds.
        parent, child: names of the frames.
        translation: float64 `[3]`, metres.
        quaternion: float64 `[4]`, x y z w, of length 1.
    """

    stamp_ns: int
    parent: str
    child: str
    translation: NDArray[np.float64]
    quaternion: NDArray[np.float64]


def read_transforms(serialized: bytes) -> Iterator[StampedTransform]:
    """Read a serialized `tf2_msgs/TFMessage`, one transform after the other.

    Raises:
        FrameError: kind `message`, the bytes are not such a message; `transform`, a rotation or a place is no number.
    """
    reader = CdrReader(serialized, _SUBJECT)
    count = reader.uint32("transforms")
    if count > _MOST_TRANSFORMS:
        raise FrameError("message", f"{_SUBJECT}: expected at most {_MOST_TRANSFORMS} transforms, got {count}")
    for _ in range(count):
        stamp_ns, parent = reader.header()
        child = reader.text("child_frame_id")
        translation, quaternion = reader.float64s("translation", 3), reader.float64s("rotation", 4)
        length = float(np.linalg.norm(quaternion))
        if not np.isfinite(translation).all() or not 0.9 < length < 1.1:
            raise FrameError(
                "transform",
                f"{_SUBJECT}: {parent!r} -> {child!r}: expected finite numbers and a rotation of length 1, got "
                f"{translation.tolist()} and {quaternion.tolist()}",
            )
        yield StampedTransform(stamp_ns, parent.lstrip("/"), child.lstrip("/"), translation, quaternion / length)
