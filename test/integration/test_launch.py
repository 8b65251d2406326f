"""The launch files: they fit the node and Humble, and bring the node up under the real launch and launch_ros."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from colour_model import save_canonical_colour_model
from integration.harness import NodeProcess, wait_for

from seg_perception.offboard.streetworld.bag import IMAGE
from seg_perception.onboard.ros.fusion import scheme as fusion
from seg_perception.onboard.ros.scheme import SCHEME, camera_parameters

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "launch"
FILES = sorted(path.name for path in FOLDER.glob("*.launch.py"))
# What Humble's launch and launch_ros have of what the launch files use; looked up in their sources.
HUMBLE = {
    "launch": {"LaunchContext", "LaunchDescription", "LaunchDescriptionEntity"},
    "launch.actions": {
        "DeclareLaunchArgument", "ExecuteProcess", "GroupAction", "IncludeLaunchDescription", "LogInfo",
        "OpaqueFunction", "RegisterEventHandler", "SetEnvironmentVariable", "Shutdown", "TimerAction",
    },
    "launch.conditions": {"IfCondition"},
    "launch.event_handlers": {"OnProcessIO"},
    "launch.events.process": {"ProcessExited", "ProcessIO"},
    "launch.launch_description_sources": {"PythonLaunchDescriptionSource"},
    "launch.substitutions": {"LaunchConfiguration"},
    "launch_ros.actions": {"LifecycleNode", "Node"},
    "launch_ros.parameter_descriptions": {"ParameterValue"},
    "launch_ros.substitutions": {"ExecutableInPackage"},
}  # fmt: skip
# Not on PyPI; a ROS distribution has them, and their sources on PYTHONPATH do as well.
LAUNCH_MISSING = subprocess.run(
    [sys.executable, "-c", "import launch, launch_ros.actions"], capture_output=True, check=False
).returncode
SECONDS = 60.0
PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def launches(test: Callable[..., None]) -> Callable[..., None]:
    """Skips a test that launches for real where that is impossible."""
    unsourced = "seg_perception" not in os.environ.get("AMENT_PREFIX_PATH", "")
    for impossible, reason in (
        (bool(LAUNCH_MISSING), "launch and launch_ros are not importable (no ROS distribution)"),
        (unsourced, "no install space of seg_perception is sourced; `colcon build` and source install/setup.bash"),
    ):
        test = pytest.mark.skipif(impossible, reason=reason)(test)
    return test


def tree(name: str) -> ast.Module:
    return ast.parse((FOLDER / name).read_text())


def arguments_of(name: str) -> dict[str, str | None]:
    """Default by argument of the table in a launch file."""
    for node in tree(name).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ARGUMENTS":
            return {argument: default for argument, default, _ in ast.literal_eval(node.value)}
    return {"dds_profile": ""}


@pytest.mark.parametrize(
    ("file", "known", "among"),
    [
        ("perception", {spec.name for spec in SCHEME} | set(camera_parameters(["camera"])), "model"),
        ("fusion", {spec.name for spec in fusion.SCHEME} | set(fusion.camera_parameters(["camera"])), "points_topic"),
    ],
)
def test_sets_only_parameters_that_the_node_has(file: str, known: set[str], among: str) -> None:
    names = {
        key.value
        for node in ast.walk(tree(f"{file}.launch.py"))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    } - {"dds_profile"}
    assert among in names
    assert names <= known


@pytest.mark.parametrize("name", FILES)
def test_uses_nothing_that_humble_lacks(name: str) -> None:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("launch", "launch_ros"):
            assert {alias.name for alias in node.names} <= HUMBLE[node.module or ""]


def test_defaults_of_shared_arguments_agree() -> None:
    # An included file finds the value that the including one has declared, and then its own default is without effect.
    defaults: dict[str, str | None] = {}
    for name in FILES:
        for argument, default in arguments_of(name).items():
            assert defaults.setdefault(argument, default) == default, f"{argument} in {name}"


def test_the_readme_lists_the_arguments() -> None:
    listed = set(re.findall(r"`(\w+):=", (ROOT / "README.md").read_text()))
    for name in FILES:
        assert set(arguments_of(name)) - {"required"} <= listed, name


def test_the_aggregator_expects_the_statuses_of_the_node(start_node: Callable[..., NodeProcess]) -> None:
    content = yaml.safe_load((ROOT / "config" / "diagnostics_aggregator.yaml").read_text())
    (analyzer,) = (value for value in content["/**"]["ros__parameters"].values() if isinstance(value, dict))
    assert analyzer["type"] == "diagnostic_aggregator/GenericAnalyzer"
    (prefix,) = analyzer["find_and_remove_prefix"]
    node = start_node("segmenter")
    for name in analyzer["expected"]:
        wait_for(lambda name=name: node.status(name.removeprefix(prefix)), f"status {name!r}")


class Launch:
    """`ros2 launch FILE NAME:=VALUE ...` in a process of its own."""

    def __init__(self, log: Path, file: str, environment: dict[str, str], **arguments: object) -> None:
        given = {name: str(value) for name, value in arguments.items()}
        script = (
            "import sys; from launch import LaunchDescription, LaunchService\n"
            "from launch.actions import IncludeLaunchDescription\n"
            "from launch.launch_description_sources import PythonLaunchDescriptionSource as Source\n"
            f"include = IncludeLaunchDescription(Source({str(FOLDER / file)!r}), launch_arguments={given!r}.items())\n"
            "service = LaunchService(noninteractive=True)\n"
            "service.include_launch_description(LaunchDescription([include]))\n"
            "sys.exit(service.run())\n"
        )
        self._log = log
        # The launch files are to set the profile.
        kept = {key: value for key, value in os.environ.items() if key not in PROFILES}
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", script], stdout=stream, stderr=subprocess.STDOUT, env=kept | environment
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, pattern: str, times: int = 1) -> None:
        """Until the log has it."""
        end = time.monotonic() + SECONDS
        while len(re.findall(pattern, self.log)) < times:
            assert self.process.poll() is None, f"ended before {pattern!r}:\n{self.log}"
            assert time.monotonic() < end, f"no {pattern!r}:\n{self.log}"
            time.sleep(0.1)

    def ends(self) -> None:
        """Waits for the end that comes by itself."""
        try:
            self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"did not end:\n{self.log}")

    def stop(self) -> None:
        """Ctrl-C, and the end; nothing is left running."""
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        finally:
            for child in [*children, self.process]:
                if isinstance(child, psutil.Process) and child.is_running():
                    child.kill()
            self.process.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Launch]]:
    """Launches a file; `rviz2` and `ros2 bag play` are stand-ins where they are asked for."""
    environment = {"ROS_LOG_DIR": str(tmp_path / "ros"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment |= {"PATH": os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])}
    environment |= {"AMENT_PREFIX_PATH": os.pathsep.join([str(tmp_path), os.environ.get("AMENT_PREFIX_PATH", "")])}
    player = Path(__file__).parent / "bag_player.py"
    (tmp_path / "bin").mkdir()
    executable(tmp_path / "bin" / "ros2", f'exec "{sys.executable}" "{player}" "$@"')
    (tmp_path / "share/ament_index/resource_index/packages").mkdir(parents=True)
    (tmp_path / "share/ament_index/resource_index/packages/rviz2").touch()
    (tmp_path / "lib/rviz2").mkdir(parents=True)
    executable(tmp_path / "lib/rviz2/rviz2", f'echo "rviz2 $@"; while [ ! -e "{tmp_path}/close" ]; do sleep 0.1; done')
    started: list[Launch] = []

    def launch(file: str, **arguments: object) -> Launch:
        started.append(Launch(tmp_path / f"log{len(started)}", file, environment, **arguments))
        return started[-1]

    yield launch
    for each in started:
        each.stop()


def executable(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_canonical_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx")


@launches
def test_brings_the_node_up_again_and_again(start: Callable[..., Launch], colours: Path) -> None:
    arguments = {"model": colours, "params_file": "six_cameras", "namespace": "front", "respawn_delay": 0.5}
    launch = start("perception.launch.py", **arguments)
    launch.wait_for(r"front\.segmenter.*state active")
    assert "they are without effect" not in launch.log
    children = psutil.Process(launch.process.pid).children()
    (node,) = (child for child in children if "segmenter" in " ".join(child.cmdline()))
    # Kilted reads the new name, those before it the old one; both are set where it is not known which it is.
    old = PROFILES[1:]
    names = {"": PROFILES, "humble": old, "jazzy": old}.get(os.environ.get("ROS_DISTRO", ""), PROFILES[:1])
    environment = node.environ()
    given = {name: environment[name] for name in PROFILES if name in environment}
    assert given == dict.fromkeys(names, str(ROOT / "config" / "fastdds.xml"))
    node.kill()
    launch.wait_for(r"front\.segmenter.*state active", times=2)
    launch.stop()
    assert "process has finished cleanly" in launch.log


@launches
def test_leaves_the_lifecycle_to_a_manager(start: Callable[..., Launch], colours: Path) -> None:
    launch = start("perception.launch.py", engine=colours, autostart="false", name="eye", log_level="eye:=debug")
    launch.wait_for("process started")
    time.sleep(2)
    assert "configure" not in launch.log
    launch.stop()
    assert "process has finished cleanly" in launch.log


@launches
@pytest.mark.parametrize(
    ("file", "arguments", "reason"),
    [
        ("perception", {"params_file": "none_such"}, "expected a file or one of jetson, seg_perception, six_cameras"),
        ("perception", {"respawn": "perhaps"}, "respawn: expected true or false, got 'perhaps'"),
        ("perception", {"respawn_delay": "soon"}, "respawn_delay: expected seconds"),
        ("perception", {"model": "a.onnx", "engine": "b.engine"}, "expected one of them"),
        ("perception", {"dds_profile": "/none/such.xml"}, "there is no file /none/such.xml"),
        ("replay", {"bag": "/none/such"}, "there is no '/none/such'"),
    ],
)
def test_says_what_is_wrong(start: Callable[..., Launch], file: str, arguments: dict[str, str], reason: str) -> None:
    launch = start(f"{file}.launch.py", **arguments)
    launch.ends()
    assert reason in launch.log


@launches
@pytest.mark.timeout(180)
def test_renders_once_and_replays(start: Callable[..., Launch], tmp_path: Path, colours: Path) -> None:
    first = start("demo.launch.py", model=colours, frames=3, rviz="false")
    first.wait_for("results: [1-9]")
    assert "rendering 3 frames" in first.log
    bag = tmp_path / "cache" / "seg_perception" / "streetworld-3"
    assert re.search(f"played with bag play {bag} --clock .* --loop", first.log)
    first.stop()
    again = start("replay.launch.py", model=colours, bag=bag, camera_topic=IMAGE, play_arguments="--start-offset 0")
    again.wait_for("close RViz or press Ctrl-C")
    assert re.search("results: [1-9]", again.log)
    assert "--loop" not in again.log
    assert "rendering" not in again.log
    assert "all the same" not in first.log + again.log
    assert f"-r /image_raw:={IMAGE}" in again.log
    (tmp_path / "close").touch()
    again.ends()


@launches
def test_rviz_shows_the_node_that_is_meant(start: Callable[..., Launch], tmp_path: Path) -> None:
    launch = start("rviz.launch.py", namespace="/car", name="eye", camera="left")
    launch.wait_for("rviz2 -d .*seg_perception.rviz")
    for configured, real in {
        "/image_raw": "/car/left/image_raw",
        "/segmenter/overlay": "/car/eye/left/overlay",
        "/segmenter/instance_map/color": "/car/eye/left/instance_map/color",
    }.items():
        assert f"-r {configured}:={real}" in launch.log
    (tmp_path / "close").touch()
    launch.ends()
