"""The parameters of the node: one table, from which they are declared, described, validated and read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

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
from seg_perception.onboard.pipeline.overlay import BOTH, OverlayStyle
from seg_perception.onboard.pipeline.track import TrackerOptions

# When a parameter is read.
START = "read once, when the node starts"
CONFIGURE = "read when the node is configured; change it while the node is unconfigured"
RELOAD = "read when the node is configured, and again on a call of ~/reload"
LIVE = "may be changed at any time"

TRIALS = ("reload", "always", "never")
_SIZE = re.compile(r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}\Z")
_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        name: within the node, or within `cameras.NAME.`.
        default: also fixes the type.
        when: START, CONFIGURE, RELOAD or LIVE.
        text: what it is, for `ros2 param describe`.
        lowest, highest: range of a number.
        any_type: whether values of other types are accepted too and read as text.
    """

    name: str
    default: Any
    when: str
    text: str
    lowest: float = 0.0
    highest: float = 0.0
    any_type: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """The descriptor that rclpy checks values against."""
        descriptor = ParameterDescriptor(
            description=self.text,
            additional_constraints=self.when,
            read_only=self.when == START,
            dynamic_typing=self.any_type,
        )
        if self.highest > self.lowest and isinstance(self.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=self.lowest, to_value=self.highest)]
        elif self.highest > self.lowest:
            descriptor.integer_range = [IntegerRange(from_value=int(self.lowest), to_value=int(self.highest), step=1)]
        return descriptor


# In share/engines; trained on rendered streets only.
DEFAULT_MODEL = "street-nano.onnx"

SCHEME = (
    ParameterSpec(
        "model",
        DEFAULT_MODEL,
        RELOAD,
        "canonical model (.onnx): a path, the name of a file in the package's share/engines, or a name of "
        "`seg_perception models`; the default is one to start with, not to drive with",
    ),
    ParameterSpec("device", "", RELOAD, "the backend's name of the device (CPU, GPU, NPU; cuda); '' for its default"),
    ParameterSpec("backend", "", RELOAD, "openvino, onnxruntime or tensorrt; '' chooses by the model's file suffix"),
    ParameterSpec("threads", 0, RELOAD, "CPU threads of the model; 0 lets the backend choose", 0, 1024),
    ParameterSpec(
        "classes",
        "auto",
        RELOAD,
        "class table that sorts the model's classes into road groups: a name from config/classes, a YAML file, or "
        "'auto' for the table that knows most of them",
    ),
    ParameterSpec(
        "open_timeout", 600.0, LIVE, "seconds that opening a model may take before it is given up", 0.1, 86400.0
    ),
    ParameterSpec(
        "trial",
        "reload",
        LIVE,
        "when a model is opened and run in a process of its own first, so that a damaged one cannot end the node: "
        "reload (before ~/reload), always (before configure, too, which takes half as long again), never",
    ),
    ParameterSpec("camera_names", ["camera"], CONFIGURE, "names of the cameras; each has parameters cameras.NAME.*"),
    ParameterSpec(
        "batch_wait",
        0.0,
        LIVE,
        "seconds for which frames at hand may wait for those of other cameras that are due, so that they go through "
        "the GPU together; 0 for never; without effect on a CPU, which gains nothing",
        0.0,
        1.0,
    ),
    ParameterSpec("score_threshold", 0.25, LIVE, "lowest score of a published instance", 0.0, 1.0),
    *(
        ParameterSpec(
            f"thresholds.{group}", -1.0, LIVE, f"lowest score of a {group}; negative: as score_threshold", -1.0, 1.0
        )
        for group in ROAD_GROUPS
    ),
    ParameterSpec(
        "group_iou",
        0.7,
        LIVE,
        "two classes of one road group found at the same place, boxes overlapping by more than this IoU, are one "
        "instance; 1 keeps both",
        0.0,
        1.0,
    ),
    ParameterSpec("min_pixels", 16, LIVE, "instances with fewer visible pixels are not published", 0, 2**31 - 1),
    ParameterSpec("keep_other_classes", False, LIVE, "publish instances of classes of no road group too"),
    ParameterSpec(
        "output_size",
        "camera",
        CONFIGURE,
        "size of the instance map: 'camera', 'network', or a scale of the camera's size from 0.01 to 4 such as '0.5'",
        any_type=True,
    ),
    ParameterSpec("tracking", False, LIVE, "keep an object's number from frame to frame, for each camera"),
    ParameterSpec(
        "tracking_max_age",
        TrackerOptions().max_age,
        LIVE,
        "seconds after which an object that is not seen loses its number",
        0.01,
        60.0,
    ),
    ParameterSpec(
        "tracking_coast",
        0.0,
        LIVE,
        "seconds for which an object that is not seen stays in the detections, where it is expected; 0 for never",
        0.0,
        60.0,
    ),
    ParameterSpec(
        "overlay_style", BOTH, LIVE, "how the overlay marks instances: by their outline, by a fill, or by both"
    ),
    ParameterSpec(
        "overlay_figures",
        True,
        LIVE,
        "whether the overlay has a legend and figures: age of the frame, results a second, drops by cause",
    ),
    ParameterSpec("autostart", False, START, "configure and activate without a lifecycle manager"),
    ParameterSpec("diagnostics_period", 1.0, START, "seconds between messages on /diagnostics", 0.1, 60.0),
)

CAMERA_SCHEME = (
    ParameterSpec(
        "topic",
        "image_raw",
        CONFIGURE,
        "image topic; camera_info is expected next to it; the default is NAME/image_raw when several cameras are named",
    ),
    ParameterSpec(
        "transport",
        "raw",
        CONFIGURE,
        "raw (sensor_msgs/Image), compressed (still images on TOPIC/compressed), or video, of which every packet is "
        "decoded: video (sensor_msgs/CompressedImage with H.264, H.265, VP9 or AV1), foxglove "
        "(foxglove_msgs/CompressedVideo), ffmpeg (ffmpeg_image_transport on TOPIC/ffmpeg)",
    ),
    ParameterSpec(
        "max_age", 0.0, LIVE, "seconds; older frames are dropped, by stamp and ROS clock; 0 for no limit", 0.0, 3600.0
    ),
    ParameterSpec(
        "ignore_mask",
        "",
        RELOAD,
        "image of the region in which nothing is reported (non-zero = ignored), such as the ego hood; '' for none",
    ),
    ParameterSpec(
        "max_image_size",
        "4096x4096",
        LIVE,
        "compressed images with more pixels than this width x height are refused before they are decoded; a few "
        "kilobytes can claim any size",
    ),
    ParameterSpec(
        "bit_depth",
        str(FULL_DEPTH),
        LIVE,
        "bits that the camera uses of each 16-bit channel, 8 to 16, or 'auto' for the largest value seen so far",
        any_type=True,
    ),
    ParameterSpec("enabled", True, LIVE, "whether the camera is subscribed to; one that is not costs nothing"),
    *(
        ParameterSpec(
            f"thresholds.{group}", -1.0, LIVE, f"lowest score of a {group}; negative: as for all cameras", -1.0, 1.0
        )
        for group in ROAD_GROUPS
    ),
)


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


def camera_parameters(cameras: Iterable[str]) -> dict[str, ParameterSpec]:
    """Specifications of the parameters of cameras, by full name; several cameras have topics of their own."""
    names = tuple(cameras)
    specs = {f"cameras.{camera}.{spec.name}": spec for camera in names for spec in CAMERA_SCHEME}
    if len(names) > 1:
        for camera in names:
            topic = f"cameras.{camera}.topic"
            specs[topic] = replace(specs[topic], default=f"{camera}/{specs[topic].default}")
    return specs


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
