"""How far people agree with the labels they were given, and the labels they leave behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seg_perception.core.errors import SourceError
from seg_perception.core.files import inside
from seg_perception.offboard.metrics.agreement import AgreementRule, compare
from seg_perception.offboard.metrics.boundary import boundary_iou
from seg_perception.offboard.metrics.compact import FrameInstances

from .coco import INSTANCES, read_categories, read_coco
from .records import Category, LabelledFrame, LabelledObject
from .reviewed import read_reviewed, renamed, with_tracks
from .shapes import is_near

# Whatever was drawn counts, and is the same object if half of both masks is shared.
_RULE = AgreementRule(score=0.0, margin=0.0, iou=0.5, min_pixels=1)
# Formats round outlines; what differs by no more was left as it was.
_UNCHANGED = 1


@dataclass(frozen=True, slots=True)
class Pair:
    """A label and the result of it.

    Attributes:
        before, after: rows of the objects of the frame, as labelled and as reviewed.
        iou: of the masks.
        boundary: boundary IoU of the masks.
        unchanged: no pixel differs but some at the outline.
    """

    before: int
    after: int
    iou: float
    boundary: float
    unchanged: bool


@dataclass(frozen=True, slots=True)
class FrameReview:
    """One frame before and after.

    Attributes:
        before: as labelled.
        after: as reviewed.
        matched: labels that are still there under the same category.
        relabelled: labels that are there under another category, `before` and `after`.
        removed: rows of labels that are gone.
        added: rows of reviewed objects that no label was made for.
    """

    before: LabelledFrame
    after: LabelledFrame
    matched: tuple[Pair, ...]
    relabelled: tuple[tuple[int, int], ...]
    removed: tuple[int, ...]
    added: tuple[int, ...]

    @property
    def changes(self) -> float:
        """Return the amount of change: each label removed, added or relabelled counts 1, a mask what differs."""
        faults = len(self.relabelled) + len(self.removed) + len(self.added)
        return faults + sum(1 - each.iou for each in self.matched)


@dataclass(frozen=True, slots=True)
class GroupReview:
    """Labels of one road group, in all reviewed frames.

    Attributes:
        group: its name; empty for all of them.
        labels: how many there were.
        reviewed: how many there are now.
        matched: labels that are still there under the same category.
        unchanged: those of them whose mask is the same but for its outline's pixels.
        relabelled, removed, added: what was changed; `relabelled` and `removed` by the group before.
        mean_iou, mean_boundary: of the matched masks; NaN without any.
    """

    group: str
    labels: int
    reviewed: int
    matched: int
    unchanged: int
    relabelled: int
    removed: int
    added: int
    mean_iou: float
    mean_boundary: float

    @property
    def kept(self) -> float:
        """Share of the labels that people left as they were; NaN without any."""
        return self.unchanged / self.labels if self.labels else float("nan")


@dataclass(frozen=True, slots=True)
class Review:
    """A reviewed data set.

    Attributes:
        frames: the reviewed ones, in the order of the data set.
        categories: of the data set.
        groups: all together first, then each road group that has labels.
        unreviewed: images of the data set that did not come back.
        foreign: reviewed images that are not of the data set, and are left out.
        renamed: category of each name that the reviewers used instead.
        boxes: reviewed objects that have no mask; training ignores their regions.
        omitted: what the reader of the reviewed labels left out and why, in words.
    """

    frames: tuple[FrameReview, ...]
    categories: tuple[Category, ...]
    groups: tuple[GroupReview, ...]
    unreviewed: tuple[str, ...]
    foreign: tuple[str, ...]
    renamed: Mapping[str, str]
    boxes: int
    omitted: tuple[str, ...] = ()


def review(path: Path, dataset: Path) -> Review:
    """Compare reviewed labels with those of the data set that was given for review.

    Args:
        path: the reviewed labels; see `read_reviewed`.
        dataset: folder of the data set.

    Raises:
        ConfigurationError: the labels of the data set are no regular file in it.
        SourceError: one of them cannot be read, or they have no image in common.
        BackendUnavailable: pycocotools is not installed.
    """
    labels = inside(dataset, INSTANCES, what="labels of a data set")
    before = {each.file_name: each for each in read_coco(labels).frames}
    categories = tuple(read_categories(labels))
    reviewed = read_reviewed(path)
    frames, names = renamed(reviewed.frames, [each.name for each in categories], path)
    after = {each.file_name: each for each in frames}
    both = [name for name in before if name in after]
    if not both:
        raise SourceError(
            f"{path}: expected images of {dataset} such as {next(iter(before), '-')}, got {next(iter(after), 'none')}"
        )
    compared = tuple(compare_frames(before[name], after[name]) for name in both)
    return Review(
        compared,
        categories,
        _by_group(compared, categories),
        tuple(name for name in before if name not in after),
        tuple(name for name in after if name not in before),
        names,
        sum(each.shapeless for frame in compared for each in frame.after.objects),
        reviewed.omitted.lines(),
    )


def compare_frames(before: LabelledFrame, after: LabelledFrame) -> FrameReview:
    """Compare the labels of one image with the result of them.

    Raises:
        SourceError: they are of images of different sizes.
    """
    if (before.width, before.height) != (after.width, after.height):
        raise SourceError(
            f"{after.file_name}: expected {before.width} x {before.height} pixels, the reviewed labels are of "
            f"{after.width} x {after.height}; export them at the size of the images"
        )
    names = sorted({each.category for each in (*before.objects, *after.objects)})
    ours, theirs = _instances(before, names), _instances(after, names)
    # Objects without a mask have nothing to be compared.
    rows = [_shaped(before), _shaped(after)]
    found = compare(theirs, ours, _RULE)
    pairs = []
    for (column, row), iou in zip(found.pairs.tolist(), found.iou.tolist(), strict=True):
        first, second = ours.masks[row], theirs.masks[column]
        same = is_near(second, first, _UNCHANGED)
        pairs.append(Pair(rows[0][row], rows[1][column], iou, boundary_iou(first, second), same))
    whole = replace(before, objects=_traced(before, after, pairs), concerns=())
    return FrameReview(
        before,
        whole,
        tuple(pairs),
        tuple((rows[0][row], rows[1][column]) for column, row in found.switched.tolist()),
        tuple(rows[0][row] for row in found.extra.tolist()),
        tuple(rows[1][column] for column in found.missed.tolist()),
    )


def _shaped(frame: LabelledFrame) -> list[int]:
    return [row for row, each in enumerate(frame.objects) if not each.shapeless]


def _instances(frame: LabelledFrame, names: Sequence[str]) -> FrameInstances:
    objects = [frame.objects[row] for row in _shaped(frame)]
    masks = tuple(each.mask for each in objects)
    boxes = [(mask.left, mask.top, mask.right, mask.bottom) for mask in masks]
    labels = [names.index(each.category) for each in objects]
    return FrameInstances(
        np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(masks), np.float32), np.array(labels, np.int32), masks
    )


def _traced(before: LabelledFrame, after: LabelledFrame, pairs: Sequence[Pair]) -> tuple[LabelledObject, ...]:
    """The reviewed objects with the tracks of the labels they were made from; what a person says has no score."""
    origin = {each.after: before.objects[each.before] for each in pairs}
    return tuple(
        replace(with_tracks(each, origin[row]) if row in origin else each, score=None)
        for row, each in enumerate(after.objects)
    )


def _by_group(frames: Sequence[FrameReview], categories: Sequence[Category]) -> tuple[GroupReview, ...]:
    group_of = {each.name: each.group for each in categories}
    names = list(dict.fromkeys(group_of.values()))
    rows = [_group(frames, group_of, name) for name in ("", *names)]
    return tuple(each for each in rows if not each.group or each.labels or each.reviewed)


def _group(frames: Sequence[FrameReview], group_of: Mapping[str, str], name: str) -> GroupReview:
    def counts(frame: LabelledFrame, row: int) -> bool:
        return not name or group_of[frame.objects[row].category] == name

    pairs = [pair for each in frames for pair in each.matched if counts(each.before, pair.before)]
    return GroupReview(
        name,
        sum(counts(each.before, row) for each in frames for row in range(len(each.before.objects))),
        sum(counts(each.after, row) for each in frames for row in range(len(each.after.objects))),
        len(pairs),
        sum(pair.unchanged for pair in pairs),
        sum(counts(each.before, row) for each in frames for row, _ in each.relabelled),
        sum(counts(each.before, row) for each in frames for row in each.removed),
        sum(counts(each.after, row) for each in frames for row in each.added),
        float(np.mean([pair.iou for pair in pairs])) if pairs else float("nan"),
        float(np.mean([pair.boundary for pair in pairs])) if pairs else float("nan"),
    )
