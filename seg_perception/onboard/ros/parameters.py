"""Values of the parameters that the scheme declares, validated as a set and grouped for their users."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.core.encodings.bit_depth import check_bit_depth
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.frame import FULL_DEPTH, MAX_SIDE
from seg_perception.core.messages.topics import TRANSPORTS
from seg_perception.core.share import find_model, share_directory
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.select import SelectOptions
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.output_size import OutputSize
from seg_perception.onboard.pipeline.overlay import OverlayStyle
from seg_perception.onboard.pipeline.track import TrackerOptions

from .scheme import CAMERA_SCHEME, DEFAULT_MODEL

TRIALS = ("reload", "always", "never")
_SIZE = re.compile(r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}\Z")
_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """Parameters `cameras.NAME.*`; `options` are those of the node but for the thresholds.

    Attributes:
        max_age: in seconds.
        max_image_size: most pixels of a compressed image, as text WIDTHxHEIGHT.
        bit_depth: 8 to 16, or `auto`.

    Raises:
        ConfigurationError: a value is impossible.
    """

    name: str
    topic: str
    transport: str
    max_age: float
    ignore_mask: str
    enabled: bool = True
    max_image_size: str = "4096x4096"
    bit_depth: str = str(FULL_DEPTH)
    options: SegmenterOptions = field(default_factory=SegmenterOptions)

    def __post_init__(self) -> None:
        prefix = f"cameras.{self.name}"
        if self.transport not in TRANSPORTS:
            raise ConfigurationError(f"{prefix}.transport: expected {' or '.join(TRANSPORTS)}, got {self.transport!r}")
        if not _SIZE.match(self.max_image_size) or not 0 < self.max_pixels <= MAX_SIDE * MAX_SIDE:
            raise ConfigurationError(
                f"{prefix}.max_image_size: expected WIDTHxHEIGHT such as 3840x2160, at most {MAX_SIDE} pixels a side, "
                f"got {self.max_image_size!r}"
            )
        try:
            check_bit_depth(self.bit_depth)
        except ConfigurationError as error:
            raise ConfigurationError(f"{prefix}.bit_depth: {error}") from error

    @property
    def max_pixels(self) -> int:
        """Most pixels of a compressed image."""
        width, _, height = self.max_image_size.partition("x")
        return int(width) * int(height)


@dataclass(frozen=True, slots=True)
class Settings:
    """All parameters, validated as a set; `batch_wait` and `open_timeout` are in seconds.

    Raises:
        ConfigurationError: `trial` is none of `TRIALS`.
    """

    model: str
    backend: str
    run: RunOptions
    classes: str
    cameras: tuple[CameraSettings, ...]
    options: SegmenterOptions
    overlay: OverlayStyle
    batch_wait: float
    open_timeout: float
    trial: str = "reload"

    def __post_init__(self) -> None:
        if self.trial not in TRIALS:
            raise ConfigurationError(f"trial: expected {' or '.join(TRIALS)}, got {self.trial!r}")

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Settings:
        """Validate and group parameter values.

        Args:
            values: by full parameter name; those of SCHEME and, for each camera, of CAMERA_SCHEME.

        Raises:
            ConfigurationError: a value is impossible, or two do not fit each other.
        """
        tracking = TrackerOptions(max_age=values["tracking_max_age"], coast=values["tracking_coast"])
        select = SelectOptions(
            score_threshold=values["score_threshold"],
            group_thresholds=tuple(values[f"thresholds.{group}"] for group in ROAD_GROUPS),
            group_iou=values["group_iou"],
            keep_other=values["keep_other_classes"],
        )
        options = SegmenterOptions(
            select=select,
            min_pixels=values["min_pixels"],
            output_size=OutputSize.parse(str(values["output_size"])),
            tracking=tracking if values["tracking"] else None,
        )
        return cls(
            model=values["model"],
            backend=values["backend"],
            run=RunOptions(device=values["device"], threads=values["threads"]),
            classes=values["classes"],
            cameras=_cameras(values, options),
            options=options,
            # Numbers that are others in the next frame tell nobody anything.
            overlay=OverlayStyle(values["overlay_style"], bool(values["tracking"]), values["overlay_figures"]),
            batch_wait=values["batch_wait"],
            open_timeout=values["open_timeout"],
            trial=values["trial"],
        )


def check_camera_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names, if each can be part of a topic and none comes twice.

    Raises:
        ConfigurationError: they cannot be used.
    """
    cameras = tuple(names)
    odd = [name for name in cameras if not _CAMERA_NAME.match(name) or "__" in name or name.endswith("_")]
    if odd or not cameras or len(set(cameras)) < len(cameras):
        raise ConfigurationError(
            "camera_names: expected at least one name, each once, of letters, digits and single underscores, "
            f"got {list(cameras)}; for example ['front', 'left']"
        )
    return cameras


def default_model() -> Path:
    """The model that comes with the package."""
    return share_directory() / "engines" / DEFAULT_MODEL


def model_path(model: str) -> Path:
    """The file that parameter `model` names.

    Raises:
        ConfigurationError: the parameter is empty.
    """
    if not model:
        raise ConfigurationError(
            "model: expected the path of a canonical model, got nothing; make one with `seg_perception prepare` and "
            "start the node with `--ros-args -p model:=MODEL.onnx`"
        )
    return find_model(model)


def _cameras(values: Mapping[str, Any], options: SegmenterOptions) -> tuple[CameraSettings, ...]:
    cameras = []
    for name in check_camera_names(values["camera_names"]):
        own = {spec.name: values[f"cameras.{name}.{spec.name}"] for spec in CAMERA_SCHEME}
        thresholds = [own.pop(f"thresholds.{group}") for group in ROAD_GROUPS]
        own["bit_depth"] = str(own["bit_depth"])
        cameras.append(CameraSettings(name, **own, options=_with_thresholds(options, thresholds)))
    return tuple(cameras)


def _with_thresholds(options: SegmenterOptions, thresholds: Iterable[float]) -> SegmenterOptions:
    """Options with other thresholds of groups where those are not negative."""
    pairs = zip(thresholds, options.select.group_thresholds, strict=True)
    merged = tuple(own if own >= 0 else common for own, common in pairs)
    return replace(options, select=replace(options.select, group_thresholds=merged))
