"""The parameter files in config/ say nothing that the node does not understand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is not installed: `make setup`, or source a ROS distribution")

from seg_perception.onboard.ros.parameters import SCHEME, Settings, camera_parameters

CONFIG = Path(__file__).parents[2] / "config"
# That for diagnostic_aggregator is held against the node's diagnostics in test/integration/test_launch.py, and the
# catalogue of models against the toolchain in test_catalogue.py.
FILES = sorted(set(CONFIG.glob("*.yaml")) - {CONFIG / "diagnostics_aggregator.yaml", CONFIG / "models.yaml"})


def parameters(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text())
    assert list(content) == ["/**"], "the node may have any name and namespace"
    given: dict[str, Any] = content["/**"]["ros__parameters"]
    return given


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_node_has_every_parameter_and_takes_its_value(file: Path) -> None:
    given = parameters(file)
    specs = {spec.name: spec for spec in SCHEME} | camera_parameters(given["camera_names"])
    assert set(given) <= set(specs)
    for name, value in given.items():
        # rclpy refuses another type, such as 1 for 1.0.
        assert type(value) is type(specs[name].default), name
    defaults = {name: spec.default for name, spec in specs.items()}
    settings = Settings.from_values(defaults | given)
    assert len({camera.topic for camera in settings.cameras}) == len(given["camera_names"])


def test_six_cameras() -> None:
    assert len(parameters(CONFIG / "six_cameras.yaml")["camera_names"]) == 6
