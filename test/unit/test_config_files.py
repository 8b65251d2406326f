"""The parameter files in config/ say nothing that the node does not understand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is not installed: `make setup`, or source a ROS distribution")

from seg_perception.core.errors import ConfigurationError
from seg_perception.onboard.fusion.fuser import FuserOptions
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.track import TrackerOptions
from seg_perception.onboard.ros.fusion import scheme as fusion_scheme
from seg_perception.onboard.ros.node_parameters import descriptor
from seg_perception.onboard.ros.parameters import Settings
from seg_perception.onboard.ros.scheme import LIVE, SCHEME, ParameterSpec, camera_parameters
from tools import parameters as parameter_tool

CONFIG = Path(__file__).parents[2] / "config"
# That for diagnostic_aggregator is held against the node's diagnostics in test/integration/test_launch.py, and the
# catalogue of models against the toolchain in test_catalogue.py.
OTHERS = ("diagnostics_aggregator.yaml", "fusion.yaml", "models.yaml")
FILES = sorted(set(CONFIG.glob("*.yaml")) - {CONFIG / name for name in OTHERS})


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


@pytest.mark.parametrize("node", parameter_tool.NODES, ids=lambda node: node.name)
def test_the_generated_files_are_up_to_date(node: parameter_tool.Listed) -> None:
    text = node.documentation.read_text(encoding="utf-8")
    assert node.with_tables(text) == text, "run `python -m tools.parameters`"
    assert node.parameter_file() == node.config.read_text(encoding="utf-8"), "run `python -m tools.parameters`"


def test_the_defaults_of_fusion_are_those_of_the_code_that_uses_them() -> None:
    given = parameters(CONFIG / "fusion.yaml")
    everything = {spec.name: spec for spec in fusion_scheme.SCHEME} | fusion_scheme.camera_parameters(["camera"])
    assert given == {name: spec.default for name, spec in everything.items()}
    settings = fusion_scheme.FusionSettings.from_values(given)
    assert settings.fuser == FuserOptions()
    assert settings.cameras[0].info_topic == "/segmenter/camera_info"


def test_cameras_of_fusion_have_topics_of_their_own() -> None:
    names = ["front", "left"]
    everything = {spec.name: spec for spec in fusion_scheme.SCHEME} | fusion_scheme.camera_parameters(names)
    values = {name: spec.default for name, spec in everything.items()} | {"camera_names": names}
    front, left = fusion_scheme.FusionSettings.from_values(values).cameras
    assert (front.results, front.depth_topic) == ("/segmenter/front", "front/depth/image_raw")
    assert left.info_topic == "/segmenter/left/camera_info"
    with pytest.raises(ConfigurationError, match="source: expected 'lidar' or 'depth'"):
        fusion_scheme.FusionSettings.from_values(values | {"source": "radar"})
    with pytest.raises(ConfigurationError, match="depth_transport: expected raw or compressedDepth"):
        fusion_scheme.FusionSettings.from_values(values | {"cameras.left.depth_transport": "rvl"})


def test_the_parameter_file_lists_all_with_their_defaults() -> None:
    everything = {spec.name: spec for spec in SCHEME} | camera_parameters(["camera"])
    assert parameters(CONFIG / "seg_perception.yaml") == {name: spec.default for name, spec in everything.items()}


def test_the_defaults_are_those_of_the_code_that_uses_them() -> None:
    everything = {spec.name: spec for spec in SCHEME} | camera_parameters(["camera"])
    values = {name: spec.default for name, spec in everything.items()}
    settings = Settings.from_values(values | {"tracking": True})
    assert settings.options.tracking == TrackerOptions()
    assert Settings.from_values(values).options == SegmenterOptions()


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (ParameterSpec("a", 0.5, LIVE, "", 0.1, 86400.0), "0.1 to 86400.0"),
        (ParameterSpec("a", 16, LIVE, "", 0, 2**31 - 1), "0 to 2147483647"),
        (ParameterSpec("a", -1.0, LIVE, "", -1.0, 1.0), "-1.0 to 1.0"),
        (ParameterSpec("a", 1.0, LIVE, ""), ""),
        (ParameterSpec("a", "1", LIVE, ""), ""),
    ],
)
def test_a_range_reads_like_the_values_it_bounds(spec: ParameterSpec, text: str) -> None:
    assert spec.range_text == text
    declared = descriptor(spec)
    ranges = [*declared.integer_range, *declared.floating_point_range]
    assert [(each.from_value, each.to_value) for each in ranges] == ([(spec.lowest, spec.highest)] if text else [])
    assert len(declared.integer_range) == (isinstance(spec.default, int) and bool(text))
