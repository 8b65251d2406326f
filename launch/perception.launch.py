"""Bring up the perception node, for one camera or for all that a parameter file names.

    ros2 launch seg_perception perception.launch.py model:=/path/model.onnx camera_topic:=/front/image_raw
    ros2 launch seg_perception perception.launch.py params_file:=six_cameras engine:=/path/model.engine

An argument that is left out leaves the parameter to `params_file`, and then to the node's default.
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
# Parameter files for other nodes.
OTHERS = ("diagnostics_aggregator", "fusion", "models")

# name, default, description
ARGUMENTS = (
    ("model", "", "canonical model (.onnx) or engine: a path, a file in share/engines, or a fetched model's name"),
    ("engine", "", "another word for model"),
    ("camera_topic", "", "image topic of the camera named `camera`; several are set up in params_file"),
    ("transport", "", "raw, compressed (CAMERA_TOPIC/compressed), video, foxglove or ffmpeg; for the same camera"),
    ("params_file", "seg_perception", "YAML file with parameters: a path, or a name from the package's share/config"),
    ("namespace", "", "namespace of the node, for instance front"),
    ("name", "segmenter", "name of the node"),
    ("autostart", "true", "configure and activate at once; false leaves that to a lifecycle manager"),
    ("respawn", "true", "start the node again when its process has ended"),
    ("respawn_delay", "2.0", "seconds before that"),
    ("use_sim_time", "false", "take the time from /clock, for bag replay"),
    ("log_level", "info", "debug, info, warn, error; or of one logger, such as segmenter:=debug"),
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
        "model": _model(value["model"], value["engine"]),
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
        parameters=[str(_params_file(value["params_file"])), overrides],
        arguments=["--ros-args", "--log-level", value["log_level"]],
        respawn=_truth("respawn", value["respawn"]),
        respawn_delay=_seconds("respawn_delay", value["respawn_delay"]),
        output="screen",
    )


def _model(model: str, engine: str) -> str:
    if model and engine:
        raise ValueError(f"launch arguments model and engine: expected one of them, got {model!r} and {engine!r}")
    return model or engine


def _params_file(text: str) -> Path:
    """The file of that path, else that of the package; its suffix may be left out."""
    candidates = (Path(text).expanduser(), CONFIG / text, CONFIG / f"{text}.yaml")
    for path in candidates:
        if path.is_file():
            return path.resolve()
    names = ", ".join(sorted(path.stem for path in CONFIG.glob("*.yaml") if path.stem not in OTHERS))
    raise ValueError(f"launch argument params_file: expected a file or one of {names}; got {text!r}")


def _truth(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"launch argument {name}: expected true or false, got {text!r}")
    return text.lower() == "true"


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"launch argument {name}: expected seconds such as 2.0, got {text!r}") from error
