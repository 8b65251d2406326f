"""Results matched with some of the truth, again and again with others of it, from overlaps that are computed once.

The rules are those of pycocotools (`COCOeval.evaluateImg`), which computes everything again for each choice of objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IOU_LEVELS = np.linspace(0.5, 0.95, 10, dtype=np.float64)
# As COCO has it: of a frame and class, no more results count.
MOST_RESULTS = 100


@dataclass(frozen=True, slots=True)
class ClassOverlaps:
    """The results of one class in one frame and how they overlap the truth of that class.

    Attributes:
        rows: int64 `[D]`, of the results in the frame, best first.
        scores: float64 `[D]`, descending.
        areas: float64 `[D]`, in pixels.
        truths: int64 `[T]`, of the truth objects in the frame.
        crowd: bool `[T]`.
        pairs: int32 `[P, 2]`, (result, truth) as places in the arrays above, of those that overlap enough to matter.
        iou: float64 `[P]`; for a crowd the share of the result that lies on it.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    truths: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    pairs: NDArray[np.int32]
    iou: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        iou: NDArray[np.float64],
        scores: NDArray[np.floating],
        areas: tuple[NDArray[np.number], NDArray[np.number]],
        crowd: NDArray[np.bool_],
        rows: NDArray[np.int64],
        truths: NDArray[np.int64],
    ) -> ClassOverlaps:
        """Take what one class has of a frame.

        Args:
            iou: float64 `[N, M]`, of all results with all truth objects of the frame.
            scores: `[N]`.
            areas: of results `[N]` and of truth objects `[M]`.
            crowd: bool `[M]`.
            rows: int64 `[D]`, the results of this class.
            truths: int64 `[T]`, the truth objects of this class.
        """
        best = rows[np.argsort(-np.asarray(scores, np.float64)[rows], kind="stable")][:MOST_RESULTS]
        own, true = (np.asarray(each, np.float64) for each in areas)
        overlap = iou[np.ix_(best, truths)]
        # The shared area follows from the IoU; a crowd need not be covered, it covers.
        shared = overlap / (1 + overlap) * (own[best][:, None] + true[truths])
        share = np.divide(shared, own[best][:, None], out=np.zeros_like(shared), where=own[best][:, None] > 0)
        # What rounding took from an exact half would decide a match.
        overlap = np.where(crowd[truths], np.round(share, 12), overlap)
        first, second = np.nonzero(overlap >= IOU_LEVELS[0] - 1e-9)
        return cls(
            best,
            np.asarray(scores, np.float64)[best],
            own[best],
            truths,
            crowd[truths],
            np.stack([first, second], axis=1).astype(np.int32),
            overlap[first, second],
        )

    def match(self, ignored: NDArray[np.bool_], levels: NDArray[np.float64] = IOU_LEVELS) -> NDArray[np.int64]:
        """The truth object of each result.

        Args:
            ignored: bool `[T]`, objects that are neither to be found nor wrong when found; crowds are among them.
            levels: lowest IoU, float64 `[L]`.

        Returns:
            int64 `[L, D]`, place in `truths`; -1 for none.
        """
        matched = np.full((len(levels), len(self.rows)), -1, np.int64)
        candidates: dict[int, list[tuple[int, float, bool, bool]]] = {}
        # Objects that count come first, so that a result prefers them.
        order = np.lexsort((self.pairs[:, 1], ignored[self.pairs[:, 1]], self.pairs[:, 0]))
        for (result, truth), iou in zip(self.pairs[order].tolist(), self.iou[order].tolist(), strict=True):
            entry = (truth, iou, bool(ignored[truth]), bool(self.crowd[truth]))
            candidates.setdefault(result, []).append(entry)
        for level, lowest in enumerate(levels.tolist()):
            taken: set[int] = set()
            for result, choice in candidates.items():
                best = _best(choice, taken, min(lowest, 1 - 1e-10))
                if best >= 0:
                    matched[level, result] = best
                    taken.add(best)
        return matched

    def outcome(self, ignored: NDArray[np.bool_], sizes: tuple[float, float] | None = None) -> Mapping[str, Any] | None:
        """Return what `ClassMatches.of` takes of one image; None for nothing there.

        Args:
            ignored: bool `[T]`, as for `match`.
            sizes: least and largest area in pixels; results of another one that match nothing are not wrong.
        """
        if not len(self.rows) and not len(self.truths):
            return None
        matched = self.match(ignored)
        left_out = (matched >= 0) & np.append(ignored, False)[matched]
        if sizes is not None:
            outside = (self.areas < sizes[0]) | (self.areas > sizes[1])
            left_out |= (matched < 0) & outside
        return {"gtIgnore": ignored, "dtScores": self.scores, "dtMatches": matched + 1, "dtIgnore": left_out}


def _best(choice: list[tuple[int, float, bool, bool]], taken: set[int], lowest: float) -> int:
    """The truth object of one result: the one it overlaps most of those that are left; -1 for none."""
    best, best_counts = -1, False
    for truth, iou, ignored, crowd in choice:
        if truth in taken and not crowd:
            continue
        if best >= 0 and best_counts and ignored:
            break
        if iou < lowest:
            continue
        best, best_counts, lowest = truth, not ignored, iou
    return best
