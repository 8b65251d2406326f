"""Show a camera and what the node makes of it in RViz.

    ros2 launch seg_perception rviz.launch.py camera_topic:=/front/image_raw namespace:=front

The displays subscribe to the names in config/seg_perception.rviz, which are remapped to those of the node.
"""

from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

# name, default, description
ARGUMENTS = (
    ("camera_topic", "", "raw image topic of the camera; default: image_raw, or CAMERA/image_raw"),
    ("namespace", "", "namespace of the node"),
    ("name", "segmenter", "name of the node"),
    ("camera", "", "which camera is shown, of several; empty where the node has one"),
    ("rviz_config", "", "default: config/seg_perception.rviz of the package"),
    ("use_sim_time", "false", "take the time from /clock"),
    ("required", "false", "whether closing RViz ends everything that was launched with it"),
)
# In config/seg_perception.rviz.
CAMERA_TOPIC, NODE = "/image_raw", "/segmenter"
OUTPUTS = ("overlay", "instance_map/color")


def generate_launch_description() -> LaunchDescription:
    """The arguments, then what they lead to."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_show)])


def _show(context: LaunchContext) -> list[Node]:
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError as error:
        raise RuntimeError(
            "RViz: the package rviz2 is not installed; install ros-DISTRO-rviz2 (`sudo apt install "
            "ros-$ROS_DISTRO-rviz2`), or go on without it where the launch file has rviz:=false"
        ) from error
    config = value["rviz_config"] or str(Path(__file__).resolve().parents[1] / "config" / "seg_perception.rviz")
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            arguments=["-d", config],
            parameters=[{"use_sim_time": value["use_sim_time"].lower() == "true"}],
            remappings=_remappings(value),
            on_exit=[Shutdown(reason="RViz was closed")] if value["required"].lower() == "true" else None,
            output="screen",
        )
    ]


def _remappings(value: dict[str, str]) -> list[tuple[str, str]]:
    """From the names in the configuration to those of this camera and node."""
    topic = value["camera_topic"] or "/".join(filter(None, (value["camera"], "image_raw")))
    node = _full(value["namespace"], value["name"])
    below = "/".join(filter(None, (node, value["camera"])))
    pairs = [(CAMERA_TOPIC, _full(value["namespace"], topic))]
    pairs += [(f"{NODE}/{output}", f"{below}/{output}") for output in OUTPUTS]
    return [(configured, real) for configured, real in pairs if configured != real]


def _full(namespace: str, name: str) -> str:
    """A name with its namespace, from the root."""
    return name if name.startswith("/") else "/".join(("", *filter(None, namespace.strip("/").split("/")), name))
