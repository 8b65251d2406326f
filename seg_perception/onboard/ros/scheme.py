"""The scheme of the node's parameters. Everything else that lists parameters is made from it.

`python -m tools.parameters` writes config/seg_perception.yaml and docs/parameters.md. ROS is not needed to read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.core.frame import FULL_DEPTH

# When a parameter is read.
START = "read once, when the node starts"
CONFIGURE = "read when the node is configured; change it while the node is unconfigured"
RELOAD = "read when the node is configured, and again on a call of ~/reload"
LIVE = "may be changed at any time"

# In share/engines; trained on rendered streets only.
DEFAULT_MODEL = "street-nano.onnx"


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        name: within the node, or within `cameras.NAME.`.
        default: also fixes the type.
        when: START, CONFIGURE, RELOAD or LIVE.
        text: what it is, for `ros2 param describe`, the parameter file and the documentation.
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

    @property
    def range_text(self) -> str:
        """The range as text, such as `0.0 to 1.0`; empty if there is none."""
        kind = type(self.default)
        return f"{kind(self.lowest)} to {kind(self.highest)}" if self.highest > self.lowest else ""


def _thresholds(otherwise: str) -> Iterable[ParameterSpec]:
    """Return the thresholds of the road groups; a negative one stands for another parameter."""
    for group in ROAD_GROUPS:
        text = f"lowest score of a {group}; negative: {otherwise}"
        yield ParameterSpec(f"thresholds.{group}", -1.0, LIVE, text, -1.0, 1.0)


SCHEME = (
    ParameterSpec(
        "model",
        DEFAULT_MODEL,
        RELOAD,
        "canonical model (.onnx) or engine (.engine): a path, the name of a file in the package's share/engines, or a "
        "name of `seg_perception models`; the default is one to start with, not to drive with (docs/default-model.md)",
    ),
    ParameterSpec("backend", "", RELOAD, "openvino, onnxruntime or tensorrt; '' chooses by the model's file suffix"),
    ParameterSpec(
        "device",
        "",
        RELOAD,
        "the backend's name of the device: CPU, GPU, NPU (openvino), cuda (onnxruntime); '' for its default; an engine "
        "runs on the first GPU that CUDA_VISIBLE_DEVICES shows",
    ),
    ParameterSpec("threads", 0, RELOAD, "CPU threads of the model; 0 lets the backend choose", 0, 1024),
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
    ParameterSpec(
        "classes",
        "auto",
        RELOAD,
        "class table that sorts the model's classes into road groups: a name from config/classes, a .yaml file without "
        "aliases, or 'auto' for the table that knows most of them",
    ),
    ParameterSpec(
        "camera_names",
        ["camera"],
        CONFIGURE,
        "names of the cameras; each has parameters cameras.NAME.*; one camera publishes under ~/, several under "
        "~/NAME/",
    ),
    ParameterSpec(
        "batch_wait",
        0.0,
        LIVE,
        "seconds for which frames at hand may wait for those of other cameras that are due, so that they go through "
        "the GPU together: for cameras that are triggered together, a little more than what lies between their frames; "
        "0 for never; without effect on a CPU, which gains nothing",
        0.0,
        1.0,
    ),
    ParameterSpec("score_threshold", 0.25, LIVE, "lowest score of a published instance", 0.0, 1.0),
    *_thresholds("as score_threshold"),
    ParameterSpec(
        "group_iou",
        0.7,
        LIVE,
        "two classes of one road group found at the same place, boxes overlapping by more than this IoU, are one "
        "instance (a car that is also a truck); 1 keeps both",
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
    ParameterSpec(
        "tracking", False, LIVE, "keep an object's id, and pixel value, from frame to frame, for each camera"
    ),
    ParameterSpec(
        "tracking_max_age", 2.0, LIVE, "seconds after which an object that is not seen loses its id", 0.01, 60.0
    ),
    ParameterSpec(
        "tracking_coast",
        0.0,
        LIVE,
        "seconds for which an object that is not seen stays in the detections, where it is expected; 0 for never",
        0.0,
        60.0,
    ),
    ParameterSpec("overlay_style", "both", LIVE, "how the overlay marks instances: 'outline', 'fill' or 'both'"),
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
        "image topic; camera_info is expected next to it, and a remapping of the topic takes it along; the default is "
        "NAME/image_raw when several cameras are named",
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
        "max_age",
        0.0,
        LIVE,
        "seconds; older frames are dropped and counted, by stamp and ROS clock; 0 for no limit",
        0.0,
        3600.0,
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
    *_thresholds("as for all cameras"),
)


def camera_parameters(cameras: Iterable[str]) -> dict[str, ParameterSpec]:
    """Return the specifications of cameras' parameters by full name; several cameras have topics of their own."""
    return specs_of_cameras(cameras, CAMERA_SCHEME, "topic")


def specs_of_cameras(cameras: Iterable[str], scheme: Iterable[ParameterSpec], topic: str) -> dict[str, ParameterSpec]:
    """Return the specifications of cameras' parameters by full name.

    Args:
        cameras: their names.
        scheme: of the parameters of one camera.
        topic: the parameter whose default begins with the camera's name where there are several.
    """
    names = tuple(cameras)
    specs = {f"cameras.{camera}.{spec.name}": spec for camera in names for spec in scheme}
    if len(names) > 1:
        for camera in names:
            name = f"cameras.{camera}.{topic}"
            specs[name] = replace(specs[name], default=f"{camera}/{specs[name].default}")
    return specs
