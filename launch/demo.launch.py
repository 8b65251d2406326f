"""See the node work: on a drive through the made-up street, or on a camera.

    ros2 launch seg_perception demo.launch.py
    ros2 launch seg_perception demo.launch.py camera_topic:=/image_raw model:=/path/model.onnx

The drive is rendered by the first start, in less than half a minute, and kept for the next ones; this needs the
Python package rosbags. Arguments of perception.launch.py and rviz.launch.py are passed on.
"""

import os
import shutil
from functools import partial
from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

HERE = Path(__file__).resolve().parent

# name, default, description
ARGUMENTS = (
    ("camera_topic", "", "image topic of a camera; empty for the made-up street"),
    ("frames", "120", "length of the drive; ten are a second"),
    ("rviz", "true", "whether RViz is shown"),
)
# Of the bags that `seg_perception streetworld` writes.
STREET_TOPIC = "/camera/image_raw"


def generate_launch_description() -> LaunchDescription:
    """The arguments, then what they lead to."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_show)])


def _show(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    if LaunchConfiguration("camera_topic").perform(context):
        rviz = IfCondition(LaunchConfiguration("rviz"))
        return [_include("dds_profile"), _include("perception"), _include("rviz", rviz, required="true")]
    frames = LaunchConfiguration("frames").perform(context)
    bag = _cache() / f"streetworld-{frames}"
    return [_replay(bag)] if bag.exists() else _render(bag, frames)


def _include(name: str, condition: IfCondition | None = None, **arguments: str) -> IncludeLaunchDescription:
    source = PythonLaunchDescriptionSource(str(HERE / f"{name}.launch.py"))
    return IncludeLaunchDescription(source, launch_arguments=arguments.items(), condition=condition)


def _replay(bag: Path) -> IncludeLaunchDescription:
    return _include("replay", bag=str(bag), loop="true", camera_topic=STREET_TOPIC)


def _render(bag: Path, frames: str) -> list[LaunchDescriptionEntity]:
    """Have the drive rendered, then go on with it; a bag that is not whole has another name."""
    part = bag.with_name(f"{bag.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    # Every distribution's player reads sqlite3.
    arguments = ["streetworld", "--frames", frames, "--bag", str(part), "--storage", "sqlite3"]
    program = ExecutableInPackage(package="seg_perception", executable="seg_perception")
    return [
        LogInfo(msg=f"rendering {frames} frames of a drive, once, into {bag}"),
        ExecuteProcess(cmd=[program, *arguments], output="screen", on_exit=partial(_on_rendered, bag, part)),
    ]


def _on_rendered(bag: Path, part: Path, event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    if event.returncode != 0:
        return [Shutdown(reason="the drive could not be rendered; the reason stands above")]
    part.rename(bag)
    return [_replay(bag)]


def _cache() -> Path:
    """By XDG's rules: a path that is not absolute counts as none."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (caches if caches.is_absolute() else Path.home() / ".cache") / "seg_perception"
