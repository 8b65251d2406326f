"""Play a bag into the node, on the bag's time, and watch in RViz.

    ros2 launch seg_perception replay.launch.py bag:=drive camera_topic:=/front/image_raw model:=/path/model.onnx

Arguments of perception.launch.py and rviz.launch.py are passed on. The bag begins when the node is active. Closing RViz
ends everything; with rviz:=false the end of the bag does.
"""

import shlex
from collections.abc import Callable
from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessIO
from launch.events.process import ProcessExited, ProcessIO
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

HERE = Path(__file__).resolve().parent

# name, default (None: must be given), description
ARGUMENTS = (
    ("bag", None, "the bag to play"),
    ("rate", "1.0", "how fast"),
    ("loop", "false", "whether it begins again at its end"),
    ("play_arguments", "", "more arguments of `ros2 bag play`, such as '--start-offset 30'"),
    ("rviz", "true", "whether RViz is shown"),
)
# What the node logs; a level above info keeps it from that.
ACTIVE = b"state active"
# Seconds: for a node that does not become active; between the player's start and its first message, for discovery;
# for the node's last results.
LONGEST_WAIT, DISCOVERY, LAST_RESULTS = 20.0, "1.0", 2.0
NOT_ACTIVE = f"the node has not said within {LONGEST_WAIT:.0f} s that it is active; playing the bag all the same"
# Messages that the player holds in memory; its default of 1000 images is gigabytes.
QUEUE = "100"
# Hz; the stamps of results are compared with this clock.
CLOCK = "100"


def generate_launch_description() -> LaunchDescription:
    """The arguments, the node, RViz, and the bag as soon as the node is active."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    play = _play_once()

    def play_when_active(output: ProcessIO) -> list[LaunchDescriptionEntity]:
        return [OpaqueFunction(function=play)] if ACTIVE in output.text else []

    return LaunchDescription(
        [
            *declared,
            OpaqueFunction(function=_check),
            _include("dds_profile"),
            _include("perception", use_sim_time="true", autostart="true"),
            _include("rviz", IfCondition(LaunchConfiguration("rviz")), use_sim_time="true", required="true"),
            # Not by the transition's event: it is lost where it comes before launch and the node have found each other.
            RegisterEventHandler(OnProcessIO(on_stdout=play_when_active, on_stderr=play_when_active)),
            TimerAction(period=LONGEST_WAIT, actions=[OpaqueFunction(function=play, args=[NOT_ACTIVE])]),
        ]
    )


def _include(name: str, condition: IfCondition | None = None, **arguments: str) -> IncludeLaunchDescription:
    source = PythonLaunchDescriptionSource(str(HERE / f"{name}.launch.py"))
    return IncludeLaunchDescription(source, launch_arguments=arguments.items(), condition=condition)


def _check(context: LaunchContext) -> None:
    bag = LaunchConfiguration("bag").perform(context)
    if not Path(bag).exists():
        raise ValueError(f"launch argument bag: expected the folder or file of a bag, but there is no {bag!r}")


def _play_once() -> Callable[..., list[LaunchDescriptionEntity]]:
    """A function that starts the player, after a remark, when it is called for the first time."""
    left = [_player]

    def play(context: LaunchContext, remark: str = "playing the bag") -> list[LaunchDescriptionEntity]:
        return [LogInfo(msg=remark), left.pop()(context)] if left else []

    return play


def _player(context: LaunchContext) -> ExecuteProcess:
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    command = ["ros2", "bag", "play", value["bag"], "--clock", CLOCK, "--rate", value["rate"], "--delay", DISCOVERY]
    command += ["--read-ahead-queue-size", QUEUE, "--disable-keyboard-controls"]
    command += ["--loop"] if value["loop"].lower() == "true" else []
    return ExecuteProcess(cmd=[*command, *shlex.split(value["play_arguments"])], output="screen", on_exit=_on_end)


def _on_end(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    if event.returncode != 0:
        return [Shutdown(reason=f"the bag could not be played, `ros2 bag play` ended with {event.returncode}")]
    if LaunchConfiguration("rviz").perform(context).lower() in ("true", "1"):
        return [LogInfo(msg="the bag is over; close RViz or press Ctrl-C to end")]
    return [TimerAction(period=LAST_RESULTS, actions=[Shutdown(reason="the bag is over")])]
