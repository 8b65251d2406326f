"""Fixtures of the tests that run the real node in its own process over real DDS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The stock shared-memory segment of Fast DDS loses bursts of larger frames for half a second at a time.
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(Path(__file__).parents[2] / "config" / "fastdds.xml"))
os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", os.environ["FASTDDS_DEFAULT_PROFILES_FILE"])  # up to Jazzy

pytest.importorskip("rclpy", reason="rclpy is not installed: `make setup`, or source a ROS distribution")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed: `make setup`, or ros-DISTRO-vision-msgs")

from integration.harness import Client, NodeProcess
from integration.spare import Spare


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def model(model_folder: Path) -> Path:
    """Finds coloured rectangles; a pixel of `FAULT_COLOUR` makes its outputs NaN."""
    from colour_model import save_canonical_colour_model

    return save_canonical_colour_model(model_folder / "colours.onnx", fault="predictions")


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    client = Client()
    Spare.prepare()
    yield client
    Spare.end_last()
    client.close()


@pytest.fixture(scope="module")
def start_node(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., NodeProcess]]:
    """Starts nodes that end with the module."""
    started: list[NodeProcess] = []

    def start(name: str, *arguments: str, **parameters: object) -> NodeProcess:
        node = NodeProcess(client, name, tmp_path_factory.mktemp("log") / f"{name}.log", arguments, parameters)
        started.append(node)
        return node

    yield start
    for node in started:
        node.popen.terminate()
    for node in started:
        node.stop()
