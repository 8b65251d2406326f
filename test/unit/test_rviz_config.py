"""RViz's configuration: its displays fit the node's topics, and its words are those of RViz's sources."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is not installed: `make setup`, or source a ROS distribution")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed: `make setup`, or ros-DISTRO-vision-msgs")

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from seg_perception.onboard.pipeline.overlay import OverlayStyle
from seg_perception.onboard.pipeline.overlay_panel import OverlayStats
from seg_perception.onboard.ros.fusion.session import FusionOutputs
from seg_perception.onboard.ros.outputs import Outputs
from seg_perception.onboard.ros.scheme import CAMERA_SCHEME

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "config" / "seg_perception.rviz").read_text())
DISPLAYS: dict[str, dict[str, Any]] = {each["Name"]: each for each in CONFIG["Visualization Manager"]["Displays"]}
# rviz_default_plugins/Image and the QoS of its topic, from Humble to Kilted.
PROPERTIES = {
    "Class", "Enabled", "Max Value", "Median window", "Min Value", "Name", "Normalize Range", "Topic", "Value",
}  # fmt: skip
HISTORY = {"Keep Last": HistoryPolicy.KEEP_LAST, "Keep All": HistoryPolicy.KEEP_ALL}
RELIABILITY = {"Reliable": ReliabilityPolicy.RELIABLE, "Best Effort": ReliabilityPolicy.BEST_EFFORT}
DURABILITY = {"Volatile": DurabilityPolicy.VOLATILE, "Transient Local": DurabilityPolicy.TRANSIENT_LOCAL}


class Published(NamedTuple):
    kind: type
    qos: QoSProfile


class FakeNode:
    """Keeps what would be published."""

    def __init__(self, name: str = "/segmenter") -> None:
        self.name = name
        self.published: dict[str, Published] = {}

    def create_publisher(self, kind: type, name: str, qos: QoSProfile) -> object:
        self.published[name.replace("~", self.name)] = Published(kind, qos)
        return object()


@pytest.fixture(scope="module")
def published() -> dict[str, Published]:
    node = FakeNode()
    Outputs(node, "~", (), OverlayStyle(), lambda _: OverlayStats("camera"))  # type: ignore[arg-type]
    # The camera's image comes from elsewhere; the subscription that any camera serves asks for no more than this.
    topic = next(spec.default for spec in CAMERA_SCHEME if spec.name == "topic")
    modest = QoSProfile(depth=1, reliability=qos_profile_sensor_data.reliability)
    node.published[f"/{topic}"] = Published(Image, modest)
    return node.published


def profile(topic: dict[str, Any]) -> QoSProfile:
    return QoSProfile(
        depth=topic["Depth"],
        history=HISTORY[topic["History Policy"]],
        reliability=RELIABILITY[topic["Reliability Policy"]],
        durability=DURABILITY[topic["Durability Policy"]],
    )


@pytest.mark.parametrize("name", DISPLAYS)
def test_a_display_takes_a_topic_as_it_is_offered(name: str, published: dict[str, Published]) -> None:
    display = DISPLAYS[name]
    assert display["Class"] == "rviz_default_plugins/Image"
    assert set(display) == PROPERTIES
    assert display["Enabled"]
    topic = display["Topic"]
    assert published[topic["Value"]].kind is Image
    assert profile(topic) == published[topic["Value"]].qos


def test_shows_image_overlay_and_instance_map() -> None:
    shown = {display["Topic"]["Value"] for display in DISPLAYS.values()}
    assert shown == {"/image_raw", "/segmenter/overlay", "/segmenter/instance_map/color"}


def test_every_display_has_its_place_in_the_window() -> None:
    # Qt finds a dock by its name, which RViz sets to the display's; one that is not in the state floats about.
    geometry = CONFIG["Window Geometry"]
    state = bytes.fromhex(geometry["QMainWindow State"])
    for name in [*DISPLAYS, "Displays"]:
        assert geometry[name] == {"collapsed": False}
        assert name.encode("utf-16-be") in state


def test_the_launch_file_remaps_the_topics_that_are_shown() -> None:
    tree = ast.parse((ROOT / "launch" / "rviz.launch.py").read_text())
    constants: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [element.id for element in node.targets[0].elts if isinstance(element, ast.Name)]
            constants |= dict(zip(names, ast.literal_eval(node.value), strict=True))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = ast.literal_eval(node.value)
    remapped = {constants["CAMERA_TOPIC"], *(f"{constants['NODE']}/{output}" for output in constants["OUTPUTS"])}
    assert remapped == {display["Topic"]["Value"] for display in DISPLAYS.values()}


def test_fusion_is_shown_as_it_is_offered(published: dict[str, Published]) -> None:
    content = yaml.safe_load((ROOT / "config" / "fusion.rviz").read_text())
    displays = {each["Name"]: each for each in content["Visualization Manager"]["Displays"]}
    node = FakeNode("/fusion")
    FusionOutputs(node, "~")  # type: ignore[arg-type]
    offered = published | node.published
    kinds = {"Overlay": Image, "Labelled points": PointCloud2, "Boxes": MarkerArray}
    for name, kind in kinds.items():
        topic = displays[name]["Topic"]
        assert offered[topic["Value"]].kind is kind
        assert profile(topic) == offered[topic["Value"]].qos
        assert displays[name]["Class"] == f"rviz_default_plugins/{kind.__name__}"
    # One of the fields that `fuse` writes.
    assert displays["Labelled points"]["Channel Name"] == "instance"
