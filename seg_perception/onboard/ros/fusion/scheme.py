"""The parameters of the node `fusion`, and what they mean as a set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from seg_perception.core.errors import ConfigurationError
from seg_perception.onboard.fusion.boxes import FusionOptions
from seg_perception.onboard.fusion.fuser import FuserOptions

from ..parameters import check_camera_names
from ..scheme import CONFIGURE, LIVE, START, ParameterSpec, specs_of_cameras

LIDAR, DEPTH = "lidar", "depth"
DEPTH_TRANSPORTS = ("raw", "compressedDepth")

SCHEME = (
    ParameterSpec(
        "source",
        LIDAR,
        CONFIGURE,
        "where points come from: 'lidar' (sensor_msgs/PointCloud2 on points_topic, for all cameras) or 'depth' (an "
        "image that is aligned with the camera, on cameras.NAME.depth_topic)",
    ),
    ParameterSpec("points_topic", "points", CONFIGURE, "topic of the lidar's sensor_msgs/PointCloud2"),
    ParameterSpec(
        "segmenter",
        "/segmenter",
        CONFIGURE,
        "full name of the segmenter; its topics are expected under it, for several cameras under SEGMENTER/NAME",
    ),
    ParameterSpec("camera_names", ["camera"], CONFIGURE, "the segmenter's cameras that are to be used, by its names"),
    ParameterSpec(
        "target_frame", "", CONFIGURE, "frame in which results are published; '' for that of the points' source"
    ),
    ParameterSpec(
        "fixed_frame",
        "odom",
        CONFIGURE,
        "frame that does not move with the vehicle: what the vehicle moves between the measurement of a point and the "
        "image is taken out through it, where /tf has it; '' for never",
    ),
    ParameterSpec(
        "max_difference", 0.1, LIVE, "most seconds between an image and the points that are labelled by it", 0.001, 10.0
    ),
    ParameterSpec(
        "max_wait",
        0.3,
        LIVE,
        "seconds for which points wait for the segmenter's results of their moment, and for transforms; a little more "
        "than the segmenter's latency",
        0.0,
        10.0,
    ),
    ParameterSpec(
        "transform_tolerance",
        0.0,
        LIVE,
        "seconds for which the last transform of a frame still holds; a moving vehicle makes errors of its speed times "
        "this",
        0.0,
        10.0,
    ),
    ParameterSpec("min_points", 5, LIVE, "instances with fewer points are not placed, but counted", 1, 100_000),
    ParameterSpec(
        "cluster_gap",
        0.5,
        LIVE,
        "metres of depth without a point that part an object from what shines through at the edge of its mask",
        0.01,
        100.0,
    ),
    ParameterSpec(
        "cluster_share",
        0.25,
        LIVE,
        "the nearest cluster with this share of the points under a mask is the object",
        0.01,
        1.0,
    ),
    ParameterSpec("all_points", False, LIVE, "publish points of no object too, with instance 0"),
    ParameterSpec(
        "motion_headings",
        False,
        LIVE,
        "turn boxes to where objects move; needs the segmenter's tracking and a fixed frame",
    ),
    ParameterSpec("autostart", False, START, "configure and activate without a lifecycle manager"),
    ParameterSpec("diagnostics_period", 1.0, START, "seconds between messages on /diagnostics", 0.1, 60.0),
)

CAMERA_SCHEME = (
    ParameterSpec(
        "results", "", CONFIGURE, "namespace of the segmenter's results; '' for the one that `segmenter` says"
    ),
    ParameterSpec("info_topic", "", CONFIGURE, "topic of the camera_info; '' for the one next to the results"),
    ParameterSpec("depth_topic", "depth/image_raw", CONFIGURE, "topic of the depth image (16UC1 in mm, 32FC1 in m)"),
    ParameterSpec(
        "depth_transport",
        "raw",
        CONFIGURE,
        "raw (sensor_msgs/Image) or compressedDepth (sensor_msgs/CompressedImage on DEPTH_TOPIC/compressedDepth)",
    ),
    ParameterSpec(
        "rectified", False, CONFIGURE, "whether the segmenter reads rectified images (image_rect), which P describes"
    ),
    ParameterSpec("frame_id", "", CONFIGURE, "the camera's optical frame; '' for that of its messages"),
)


@dataclass(frozen=True, slots=True)
class FusionCamera:
    """Parameters `cameras.NAME.*`.

    Attributes:
        results, info_topic: resolved; see the scheme for the others.

    Raises:
        ConfigurationError: the transport is not known.
    """

    name: str
    results: str
    info_topic: str
    depth_topic: str
    depth_transport: str
    rectified: bool
    frame_id: str

    def __post_init__(self) -> None:
        if self.depth_transport not in DEPTH_TRANSPORTS:
            raise ConfigurationError(
                f"cameras.{self.name}.depth_transport: expected {' or '.join(DEPTH_TRANSPORTS)}, got "
                f"{self.depth_transport!r}"
            )


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """All parameters, validated as a set; `transform_tolerance` is in seconds.

    Raises:
        ConfigurationError: the source is not known.
    """

    source: str
    points_topic: str
    cameras: tuple[FusionCamera, ...]
    transform_tolerance: float
    fuser: FuserOptions

    def __post_init__(self) -> None:
        if self.source not in (LIDAR, DEPTH):
            raise ConfigurationError(f"source: expected {LIDAR!r} or {DEPTH!r}, got {self.source!r}")

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> FusionSettings:
        """Validate and group parameter values, by full parameter name.

        Raises:
            ConfigurationError: a value is impossible.
        """
        objects = FusionOptions(values["min_points"], values["cluster_gap"], values["cluster_share"])
        fuser = FuserOptions(
            values["target_frame"].lstrip("/"), values["fixed_frame"].lstrip("/"), values["max_difference"],
            values["max_wait"], values["all_points"], values["motion_headings"], objects,
        )  # fmt: skip
        return cls(values["source"], values["points_topic"], _cameras(values), values["transform_tolerance"], fuser)


def camera_parameters(cameras: Iterable[str]) -> dict[str, ParameterSpec]:
    """Return the specifications of cameras' parameters by full name; several cameras have depth topics of their own."""
    return specs_of_cameras(cameras, CAMERA_SCHEME, "depth_topic")


def _cameras(values: Mapping[str, Any]) -> tuple[FusionCamera, ...]:
    names, cameras = check_camera_names(values["camera_names"]), []
    for name in names:
        own = {spec.name: values[f"cameras.{name}.{spec.name}"] for spec in CAMERA_SCHEME}
        base = values["segmenter"].rstrip("/")
        own["results"] = own["results"].rstrip("/") or (base if len(names) == 1 else f"{base}/{name}")
        own["info_topic"] = own["info_topic"] or f"{own['results']}/camera_info"
        own["frame_id"] = own["frame_id"].lstrip("/")
        cameras.append(FusionCamera(name, **own))
    return tuple(cameras)
