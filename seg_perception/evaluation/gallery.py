"""Frames worth looking at, kept while a set goes by: the best, the worst, and those that models see differently."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count

import cv2
import numpy as np

from ..frame import Frame
from ..metrics.agreement import FrameAgreement
from ..sources.encodings import to_bgr
from .model_run import Look
from .results import GALLERY_KINDS, PICTURE_WIDTH, FrameVerdict, GalleryFrame
from .truth import FrameTruth

_QUALITY = 85
# A frame with fewer objects is no proof of anything.
_ENOUGH = 3


class Gallery:
    """Keeps the frames of each kind that rank highest; memory does not grow beyond."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heaps: dict[str, list[tuple[float, int, GalleryFrame]]] = {kind: [] for kind in GALLERY_KINDS}
        self._numbers = count()

    def add(
        self,
        frame: Frame,
        truth: FrameTruth,
        looks: Sequence[Look],
        changes: Sequence[FrameAgreement],
        names: Sequence[str],
    ) -> None:
        """Look at a frame.

        Args:
            frame: the picture.
            truth: its truth.
            looks: of each model.
            changes: the second and further models against the first.
            names: of the models.
        """
        ranks = _ranks(truth, looks[0].verdict, changes)
        chosen = [kind for kind, rank in ranks.items() if self._most and self._takes(kind, rank)]
        if not chosen:
            return
        jpeg = _jpeg(frame)
        own, found = truth.instances(), tuple(look.published.instances() for look in looks)
        verdicts = tuple(look.verdict for look in looks)
        for kind in chosen:
            words = _changed(changes, names) if kind == "changed" else verdicts[0].words
            entry = GalleryFrame(kind, truth.name, jpeg, frame.width, frame.height, own, found, verdicts, words)
            # Of equals the earlier frame stays.
            heapq.heappush(self._heaps[kind], (ranks[kind], -next(self._numbers), entry))
            if len(self._heaps[kind]) > self._most:
                heapq.heappop(self._heaps[kind])

    def frames(self) -> tuple[GalleryFrame, ...]:
        """What was kept, by kind, the most telling first."""
        return tuple(
            entry
            for kind in GALLERY_KINDS
            for _, _, entry in sorted(self._heaps[kind], key=lambda each: each[:2], reverse=True)
        )

    def _takes(self, kind: str, rank: float) -> bool:
        heap = self._heaps[kind]
        return len(heap) < self._most or rank > heap[0][0]


def _ranks(truth: FrameTruth, verdict: FrameVerdict, changes: Sequence[FrameAgreement]) -> dict[str, float]:
    """How well a frame fits each kind; kinds that it does not fit at all are left out."""
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
    """What the model that differs most sees otherwise than the first."""
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
    picture = to_bgr(frame)
    if frame.width > PICTURE_WIDTH:
        height = max(1, round(frame.height * PICTURE_WIDTH / frame.width))
        picture = cv2.resize(picture, (PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA).view(np.uint8)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes()
