"""How far two class maps agree."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import NO_CLASS

_VALUES = 256
# Of classes with fewer pixels than this share of all, the border decides about the IoU.
_FEW_PIXELS = 0.001


@dataclass(frozen=True, slots=True)
class CompactClassMap:
    """A class map, compressed: those of many frames are kept at once.

    Attributes:
        data: compressed pixels.
        shape: rows and columns.
    """

    data: bytes
    shape: tuple[int, int]

    @classmethod
    def of(cls, class_map: NDArray[np.uint8]) -> CompactClassMap:
        """Compress a class map, uint8 `[H, W]`."""
        rows, columns = class_map.shape
        return cls(zlib.compress(np.ascontiguousarray(class_map).data, level=1), (rows, columns))

    def full(self) -> NDArray[np.uint8]:
        """The class map again, read-only."""
        return np.frombuffer(zlib.decompress(self.data), np.uint8).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class ClassMapAgreement:
    """Pixels of two class maps by their classes, over one frame or many.

    Attributes:
        counts: int64 `[256, 256]`, pixels by value in the reference and in the tested model.
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, reference: NDArray[np.uint8], tested: NDArray[np.uint8]) -> ClassMapAgreement:
        """Compare two class maps, uint8 `[H, W]`.

        Raises:
            ValueError: they are not of one size.
        """
        if reference.shape != tested.shape:
            raise ValueError(f"class maps: expected one size, got {reference.shape} and {tested.shape}")
        pairs = reference.astype(np.int64) * _VALUES + tested
        return cls(np.bincount(pairs.reshape(-1), minlength=_VALUES**2).reshape(_VALUES, _VALUES))

    @classmethod
    def sum(cls, frames: Iterable[ClassMapAgreement]) -> ClassMapAgreement:
        """All frames together."""
        return cls(sum((each.counts for each in frames), np.zeros((_VALUES, _VALUES), np.int64)))

    @property
    def pixels(self) -> int:
        """Pixels that have a class in one of the maps at least."""
        return int(self.counts.sum() - self.counts[NO_CLASS, NO_CLASS])

    @property
    def share(self) -> float:
        """Part of these pixels whose class is the same in both, 0-1; NaN where there is none."""
        equal = int(np.trace(self.counts) - self.counts[NO_CLASS, NO_CLASS])
        return equal / self.pixels if self.pixels else float("nan")

    def iou(self) -> dict[int, float]:
        """Intersection over union by class, for classes that one of the maps has."""
        equal = np.diagonal(self.counts)
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - equal
        return {
            label: float(equal[label] / union[label]) for label in np.flatnonzero(union).tolist() if label < NO_CLASS
        }

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that have at least a thousandth of the pixels; NaN where there is none."""
        seen = self.counts.sum(axis=0) + self.counts.sum(axis=1)
        values = [value for label, value in self.iou().items() if seen[label] >= 2 * _FEW_PIXELS * self.pixels]
        return float(np.mean(values)) if values else float("nan")
