"""Bring up the node that gives the segmenter's instances a place, from a lidar or a depth camera.

    ros2 launch seg_perception fusion.launch.py points_topic:=/lidar/points
    ros2 launch seg_perception fusion.launch.py source:=depth depth_topic:=/camera/aligned_depth_to_color/image_raw

An argument that is left out leaves the parameter to `fusion_params_file`, and then to the node's default.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription

HERE = Path(__file__).resolve().parent
CONFIG = HERE.parent / "config"

# name, default, description
ARGUMENTS = (
    ("source", "", "lidar or depth"),
    ("points_topic", "", "sensor_msgs/PointCloud2 of the lidar"),
    ("depth_topic", "", "aligned depth image of the camera named `camera`; several are set up in fusion_params_file"),
    ("segmenter", "", "full name of the segmenter"),
    ("target_frame", "", "frame of the results; that of the points otherwise"),
    ("fusion_params_file", "fusion", "YAML file with parameters: a path, or a name from the package's share/config"),
    ("namespace", "", "namespace of the node, for instance front"),
    ("autostart", "true", "configure and activate at once; false leaves that to a lifecycle manager"),
    ("respawn", "true", "start the node again when its process has ended"),
    ("respawn_delay", "2.0", "seconds before that"),
    ("use_sim_time", "false", "take the time from /clock, for bag replay"),
    ("log_level", "info", "debug, info, warn, error; or of one logger, such as fusion:=debug"),
    ("dds_profile", "", "Fast DDS profile; default: config/fastdds.xml of the package; none: leave it alone"),
)


def generate_launch_description() -> LaunchDescription:
    """The arguments, then what they lead to."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_bring_up)])


def _bring_up(context: LaunchContext) -> list[GroupAction]:
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    profile = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(HERE / "dds_profile.launch.py")),
        launch_arguments={"dds_profile": value["dds_profile"]}.items(),
    )
    # In a group of their own: who includes this file keeps the environment of other processes.
    return [GroupAction([profile, _node(value)])]


def _node(value: dict[str, str]) -> LifecycleNode:
    given = {
        "source": value["source"],
        "points_topic": value["points_topic"],
        "cameras.camera.depth_topic": value["depth_topic"],
        "segmenter": value["segmenter"],
        "target_frame": value["target_frame"],
    }
    # As text: a topic called 12 must not become a number.
    overrides = {key: ParameterValue(text, value_type=str) for key, text in given.items() if text}
    for key in ("autostart", "use_sim_time"):
        overrides[key] = _truth(key, value[key])
    return LifecycleNode(
        package="seg_perception",
        executable="fusion",
        name="fusion",
        namespace=value["namespace"],
        parameters=[str(_params_file(value["fusion_params_file"])), overrides],
        arguments=["--ros-args", "--log-level", value["log_level"]],
        respawn=_truth("respawn", value["respawn"]),
        respawn_delay=float(value["respawn_delay"]),
        output="screen",
    )


def _params_file(text: str) -> Path:
    """The file of that path, else that of the package; its suffix may be left out."""
    for path in (Path(text).expanduser(), CONFIG / text, CONFIG / f"{text}.yaml"):
        if path.is_file():
            return path.resolve()
    raise ValueError(f"launch argument fusion_params_file: expected a file, or fusion of the package; got {text!r}")


def _truth(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"launch argument {name}: expected true or false, got {text!r}")
    return text.lower() == "true"
