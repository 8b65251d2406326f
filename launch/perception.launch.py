"""Bring up the perception node for a camera.

    ros2 launch seg_perception perception.launch.py model:=/path/model.onnx camera_topic:=/front/image_raw

An argument that is left out leaves the parameter to `params_file`, and then to the node's default.
"""

import os

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

# name, default, description
ARGUMENTS = (
    ("model", "", "canonical model (.onnx), made by `seg_perception prepare`; without one the default model, to start with"),
    (
        "camera_topic",
        "",
        "image topic of the camera named `camera`; others are set up in params_file",
    ),
    ("transport", "", "raw, or compressed to subscribe to CAMERA_TOPIC/compressed; for the same camera"),
    ("namespace", "", "namespace of the node, for instance front"),
    ("name", "segmenter", "name of the node"),
    ("params_file", "", "YAML file with parameters; default: config/seg_perception.yaml of the package"),
    ("autostart", "true", "configure and activate at once; false leaves that to a lifecycle manager"),
    ("use_sim_time", "false", "take the time from /clock, for bag replay"),
    ("log_level", "info", "debug, info, warn, error"),
    ("dds_profile", "", "Fast DDS profile; default: config/fastdds.xml of the package; none: leave it alone"),
)
# The name from Kilted on, and the one before.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def generate_launch_description() -> LaunchDescription:
    """The arguments, then what they lead to."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_bring_up)])


def _bring_up(context: LaunchContext) -> list:
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    return [*_dds_profile(context, value["dds_profile"]), _node(context, value)]


def _node(context: LaunchContext, value: dict[str, str]) -> LifecycleNode:
    given = {
        "model": value["model"],
        "cameras.camera.topic": value["camera_topic"],
        "cameras.camera.transport": value["transport"],
    }
    # As text: a model called 1.onnx or a topic called 12 must not become a number.
    overrides = {key: ParameterValue(text, value_type=str) for key, text in given.items() if text}
    for key in ("autostart", "use_sim_time"):
        overrides[key] = _truth(key, value[key])
    return LifecycleNode(
        package="seg_perception",
        executable="segmenter",
        name=value["name"],
        namespace=value["namespace"],
        parameters=[value["params_file"] or _shared(context, "seg_perception.yaml"), overrides],
        arguments=["--ros-args", "--log-level", value["log_level"]],
        output="screen",
    )


def _truth(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"launch argument {name}: expected true or false, got {text!r}")
    return text.lower() == "true"


def _dds_profile(context: LaunchContext, profile: str) -> list[SetEnvironmentVariable]:
    """Set the profile for large images, unless the user's environment already names one."""
    if profile == "none" or (not profile and any(os.environ.get(name) for name in PROFILE_VARIABLES)):
        return []
    path = profile or _shared(context, "fastdds.xml")
    # Fast DDS 2 knows the old name only; with version 3 the old one works but draws a warning.
    old = os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy")
    return [SetEnvironmentVariable(PROFILE_VARIABLES[1 if old else 0], path)]


def _shared(context: LaunchContext, file_name: str) -> str:
    return PathJoinSubstitution([FindPackageShare("seg_perception"), "config", file_name]).perform(context)
