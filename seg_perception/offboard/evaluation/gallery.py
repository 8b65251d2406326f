"""Frames worth looking at, kept while a set goes by: the best, the worst, and those that models see differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.frame import Frame
from seg_perception.offboard.metrics.agreement import FrameAgreement

from .model_run import Look
from .results import GALLERY_KINDS, IMAGE_WIDTH, FrameVerdict, GalleryFrame
from .truth import FrameTruth

_QUALITY = 85
# A frame with fewer objects is no proof of anything.
_ENOUGH = 3


class Gallery:
    """Keeps the frames of each kind that rank highest; memory does not grow beyond."""

    def __init__(self, most: int, apart: int = 1) -> None:
        """Begin.

        Args:
            most: frames of each kind.
            apart: frames of a kind are at least so far from one another; more than 1 for films.
        """
        self._most, self._apart = most, apart
        self._kept: dict[str, list[_Kept]] = {kind: [] for kind in GALLERY_KINDS}

    def add(
        self,
        frame: Frame,
        truth: FrameTruth,
        looks: Sequence[Look],
        changes: Sequence[FrameAgreement],
        names: Sequence[str],
        place: int,
    ) -> None:
        """Look at a frame.

        Args:
            frame: the image.
            truth: its truth.
            looks: of each model.
            changes: the second and further models against the first.
            names: of the models.
            place: of the frame in the order in which they come.
        """
        ranks = _ranks(truth, looks[0].verdict, changes)
        chosen = [kind for kind, rank in ranks.items() if self._makes_room(kind, rank, place)]
        if not chosen:
            return
        jpeg = _jpeg(frame)
        own, found = truth.instances(), tuple(look.published.instances() for look in looks)
        verdicts = tuple(look.verdict for look in looks)
        for kind in chosen:
            words = _changed(changes, names) if kind == "changed" else verdicts[0].words
            entry = GalleryFrame(kind, truth.name, jpeg, frame.width, frame.height, own, found, verdicts, words)
            self._kept[kind].append(_Kept(ranks[kind], place, entry))

    def frames(self) -> tuple[GalleryFrame, ...]:
        """Return what was kept, by kind, the most telling first; of equals the earlier one."""
        return tuple(
            each.entry
            for kind in GALLERY_KINDS
            for each in sorted(self._kept[kind], key=lambda each: (-each.rank, each.place))
        )

    def _makes_room(self, kind: str, rank: float, place: int) -> bool:
        """Return whether a frame is to be kept; what it displaces is dropped."""
        kept = self._kept[kind]
        near = [each for each in kept if place - each.place < self._apart]
        rivals = near or (kept if len(kept) >= self._most else [])
        if not self._most or any(each.rank >= rank for each in near):
            return False
        if not rivals:
            return True
        lowest = min(rivals, key=lambda each: (each.rank, -each.place))
        if lowest.rank >= rank:
            return False
        self._kept[kind] = [each for each in kept if each not in near and each is not lowest]
        return True


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A frame with its rank and its place in the order of frames."""

    rank: float
    place: int
    entry: GalleryFrame


def _ranks(truth: FrameTruth, verdict: FrameVerdict, changes: Sequence[FrameAgreement]) -> dict[str, float]:
    """Return how well a frame fits each kind; kinds that it does not fit at all are left out."""
    ranks = {}
    faults = len(verdict.missed) + len(verdict.extra)
    if not np.isnan(verdict.score):
        if len(verdict.found):
            ranks["best"] = min(len(truth.judged), _ENOUGH) + verdict.score
        if faults:
            ranks["worst"] = (1 - verdict.score) * float(np.sqrt(faults))
    if changes and (most := max(each.disagreement for each in changes)) > 0:
        ranks["changed"] = most
    return ranks


def _changed(changes: Sequence[FrameAgreement], names: Sequence[str]) -> str:
    """Return what the model that differs most sees otherwise than the first."""
    place = int(np.argmax([each.disagreement for each in changes]))
    change = changes[place]
    numbers = [
        f"{len(rows)} {what}"
        for rows, what in ((change.missed, "lost"), (change.extra, "new"), (change.switched, "of another class"))
        if len(rows)
    ]
    overlap = f"{len(change.iou)} others with an IoU of {change.iou.mean():.2f}" if len(change.iou) else ""
    parts = [", ".join(numbers), overlap]
    return f"{names[place + 1]} against {names[0]}: {'; '.join(each for each in parts if each)}"


def _jpeg(frame: Frame) -> bytes:
    image = to_bgr(frame)
    if frame.width > IMAGE_WIDTH:
        height = max(1, round(frame.height * IMAGE_WIDTH / frame.width))
        image = cv2.resize(image, (IMAGE_WIDTH, height), interpolation=cv2.INTER_AREA).view(np.uint8)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes()
