"""What is labelled: frames, their objects, and what a reviewer should look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS, ClassTable, group_name
from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.evaluation.omissions import Omissions
from seg_perception.offboard.metrics.compact import CompactMask
from seg_perception.offboard.metrics.segmentations import check_image_size

from .shapes import crop_runs, mask_of_crop_runs, polygons_of

GROUPS, CLASSES = "groups", "classes"
RLE, POLYGONS = "rle", "polygons"
# Largest track number of labels.
MOST_TRACKS = 2**31 - 1
# Attributes of a frame that are plain values in its record.
_PLAIN: dict[str, type] = {
    "file_name": str, "width": int, "height": int, "source": str, "index": int, "camera": str, "stamp_ns": int,
    "weather": str, "digest": str,
}  # fmt: skip
# Sides of a box: x1 y1 x2 y2 in camera pixels.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Category:
    """What objects are called: its number in COCO's files, its name, and the road group it belongs to."""

    number: int
    name: str
    group: str


@dataclass(frozen=True, slots=True)
class MaskStyle:
    """The form in which masks are written.

    Attributes:
        form: `rle`, which is exact, or `polygons`, which people can edit.
        simplify: how far a polygon may leave the outline of its mask, in pixels.
    """

    form: str = RLE
    simplify: float = 1.0

    def __post_init__(self) -> None:
        if self.form not in (RLE, POLYGONS):
            raise ConfigurationError(f"masks: expected {RLE} or {POLYGONS}, got {self.form!r}")
        if not 0 <= self.simplify <= 100:
            raise ConfigurationError(f"simplify: expected 0 to 100 pixels, got {self.simplify}")

    def polygons(self, mask: CompactMask) -> list[NDArray[np.float64]] | None:
        """The outlines to write, float64 `[P, 2]` each; None where the mask itself is to be written."""
        return polygons_of(mask, self.simplify) if self.form == POLYGONS else None


@dataclass(frozen=True, slots=True)
class LabelledObject:
    """One object of a frame.

    Attributes:
        category: its name.
        mask: its visible pixels.
        score: the model's, 0-1; None for what a person drew.
        track: a number that its other appearances in the data set have, too; 0 for none.
        visible: share of its own mask that nothing lies before, 0-1; None where it is not known.
        shapeless: whether there is but a box, which `mask` then fills.
    """

    category: str
    mask: CompactMask
    score: float | None = None
    track: int = 0
    visible: float | None = None
    shapeless: bool = False


@dataclass(frozen=True, slots=True)
class QaFlag:
    """Something a person should look at.

    Attributes:
        kind: key of `quality.KINDS`.
        weight: how much it matters, above 0 to 1.
        words: what it is.
        box: where.
        subject: index of the object it is about; None for something that is not labelled.
    """

    kind: str
    weight: float
    words: str
    box: Box | None = None
    subject: int | None = None


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """One image with its labels.

    Attributes:
        file_name: of the image.
        width, height: in pixels.
        objects: what is labelled.
        source: path of the bag, video or folder it is from.
        index: of the frame among those of its source.
        camera: its name.
        stamp_ns: acquisition time in nanoseconds; 0 for an image that has none.
        weather: as the user said.
        digest: of the pixels, so that no image comes in twice.
        picks: why it was chosen, each with the number it was ranked by.
        concerns: what a person should look at.
    """

    file_name: str
    width: int
    height: int
    objects: tuple[LabelledObject, ...] = ()
    source: str = ""
    index: int = 0
    camera: str = ""
    stamp_ns: int = 0
    weather: str = ""
    digest: str = ""
    picks: Mapping[str, float] = field(default_factory=dict)
    concerns: tuple[QaFlag, ...] = ()

    @property
    def name(self) -> str:
        """The image's name without its suffix."""
        return self.file_name.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class ReadLabels:
    """What a reader of labels found.

    Attributes:
        frames: the images and their objects.
        omitted: what it left out, and why.
    """

    frames: list[LabelledFrame]
    omitted: Omissions


def categories_of(by: str, class_names: Sequence[str], table: ClassTable) -> list[Category]:
    """The categories of a data set, by road groups or by the model's classes that belong to one.

    Raises:
        ConfigurationError: `by` is neither.
    """
    if by == GROUPS:
        return [Category(number, name, name) for number, name in enumerate(ROAD_GROUPS, 1)]
    if by != CLASSES:
        raise ConfigurationError(f"categories: expected {GROUPS} or {CLASSES}, got {by!r}")
    groups = table.groups(class_names).tolist()
    return [
        Category(number, name, group_name(group))
        for number, (name, group) in enumerate(zip(class_names, groups, strict=True), 1)
        if group != NO_GROUP
    ]


def frame_to_json(frame: LabelledFrame) -> dict[str, Any]:
    """A frame as plain values."""
    objects = [
        {
            **{name: getattr(each, name) for name in ("category", "score", "track", "visible", "shapeless")},
            "mask": _mask_to_json(each.mask),
        }
        for each in frame.objects
    ]
    plain = {name: getattr(frame, name) for name in LabelledFrame.__slots__ if name not in ("objects", "concerns")}
    return {
        **plain,
        "picks": dict(frame.picks),
        "objects": objects,
        "concerns": [asdict(each) for each in frame.concerns],
    }


def frame_from_json(content: Mapping[str, Any]) -> LabelledFrame:
    """The inverse of `frame_to_json`; the content may be a stranger's.

    Raises:
        KeyError, TypeError, ValueError: the content has another form.
    """
    for name, kind in _PLAIN.items():
        if type(content[name]) is not kind:
            raise ValueError(f"expected `{name}` as {kind.__name__}, got {content[name]!r:.60}")
    file_name = content["file_name"]
    if PurePosixPath(file_name).name != file_name or not file_name.rpartition(".")[0]:
        raise ValueError(f"expected `file_name` as the name of an image without folders, got {file_name!r:.60}")
    check_image_size(content["height"], content["width"])
    picks = content["picks"]
    if not isinstance(picks, dict) or not all(isinstance(value, (int, float)) for value in picks.values()):
        raise ValueError(f"expected `picks` as numbers by rule, got {picks!r:.60}")
    objects = tuple(LabelledObject(**{**each, "mask": _mask_from_json(each["mask"])}) for each in content["objects"])
    concerns = tuple(
        QaFlag(**{**each, "box": None if each["box"] is None else box_of(each["box"])}) for each in content["concerns"]
    )
    if any(each.mask.size != (content["height"], content["width"]) for each in objects):
        raise ValueError(f"expected masks of {content['width']} x {content['height']} pixels, got others")
    return LabelledFrame(**{**content, "objects": objects, "concerns": concerns})


def score_and_track(known: Mapping[str, Any]) -> tuple[float | None, int]:
    """`score` and `track_id` of an object as far as a reviewers' tool kept them as numbers; else None and 0."""
    score, track = _number(known.get("score")), _number(known.get("track_id"))
    return score, int(track) if track is not None and 0 < track <= MOST_TRACKS else 0


def box_of(sides: Sequence[float] | NDArray[np.floating]) -> Box:
    """Four sides as a box, to a hundredth of a pixel."""
    x1, y1, x2, y2 = (round(float(side), 2) for side in sides)
    return x1, y1, x2, y2


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if isfinite(number) else None


def _mask_to_json(mask: CompactMask) -> dict[str, Any]:
    box = [mask.left, mask.top, mask.right - mask.left, mask.bottom - mask.top]
    return {"size": mask.size, "box": box, "runs": crop_runs(mask)}


def _mask_from_json(content: Mapping[str, Any]) -> CompactMask:
    check_image_size(*content["size"])
    left, top, width, height = content["box"]
    return mask_of_crop_runs(content["runs"], (left, top, width, height), tuple(content["size"]))
