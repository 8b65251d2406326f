"""The launch file: its parameters are the node's, and it brings the node up under the real launch and launch_ros."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from colour_model import save_canonical_colour_model

from seg_perception.ros.parameters import SCHEME, camera_parameters

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / "launch" / "perception.launch.py"
# Not on PyPI; a ROS distribution has them, and their sources on PYTHONPATH do as well.
LAUNCH_MISSING = subprocess.run(
    [sys.executable, "-c", "import launch, launch_ros.actions"], capture_output=True, check=False
).returncode


def test_sets_only_parameters_that_the_node_has() -> None:
    tree = ast.parse(LAUNCH_FILE.read_text())
    names = {
        key.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    known = {spec.name for spec in SCHEME} | set(camera_parameters(["camera"]))
    assert names >= {"model", "cameras.camera.topic"}
    assert names <= known


@pytest.mark.skipif(bool(LAUNCH_MISSING), reason="launch and launch_ros are not importable (no ROS distribution)")
@pytest.mark.skipif(
    "seg_perception" not in os.environ.get("AMENT_PREFIX_PATH", ""),
    reason="no install space of seg_perception is sourced; `colcon build` and source install/setup.bash",
)
def test_brings_the_node_up(tmp_path: Path) -> None:
    model = save_canonical_colour_model(tmp_path / "colours.onnx")
    script = (
        "import sys; from launch import LaunchDescription, LaunchService\n"
        "from launch.actions import IncludeLaunchDescription\n"
        "from launch.launch_description_sources import PythonLaunchDescriptionSource as Source\n"
        f"arguments = {{'model': {str(model)!r}, 'camera_topic': '/front/image_raw', 'namespace': 'front'}}\n"
        f"include = IncludeLaunchDescription(Source({str(LAUNCH_FILE)!r}), launch_arguments=arguments.items())\n"
        "service = LaunchService(); service.include_launch_description(LaunchDescription([include]))\n"
        "sys.exit(service.run())\n"
    )
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, "-c", script], stdout=stream, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + 60
            while "state active" not in log.read_text() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.2)
            assert re.search(r"front\.segmenter.*state active", log.read_text()), log.read_text()
            process.send_signal(signal.SIGINT)
            process.wait(20)
        finally:
            if process.poll() is None:
                process.kill()
    assert "process has finished cleanly" in log.read_text()
