"""Every family's small model (test/layouts), prepared, through the real node: one node that changes models."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from integration.harness import NodeProcess, assert_same_instances, image_message, pixels_of, street, wait_for
from sensor_msgs.msg import Image

from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

LAYOUTS = sorted(path.stem for path in (Path(__file__).parents[1] / "layouts").glob("[!_]*.py"))
# Smallest part of a rectangle and its instance that is common to both; some families' masks have coarse cells.
MASK_IOU = 0.8


@pytest.fixture(scope="module")
def node(start_node: Callable[..., NodeProcess]) -> NodeProcess:
    return start_node("families", "-r", "image_raw:=/families_image", score_threshold=0.5)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_node_finds_what_is_there(node: NodeProcess, name: str, tmp_path: Path) -> None:
    layout = import_module(f"layouts.{name}")
    layout.export(tmp_path / "source.onnx")
    prepare(tmp_path / "source.onnx", tmp_path / "model.onnx", getattr(layout, "OPTIONS", PrepareOptions()))
    assert all(result.successful for result in node.set(model=str(tmp_path / "model.onnx")))
    assert node.change("configure")
    assert node.change("activate")
    try:
        scene = street()
        frame = image_message(np.ascontiguousarray(scene.image[..., ::-1]))
        found = node.process(frame, node.output(Image, "instance_map"))
        assert found.header == frame.header
        assert_same_instances(pixels_of(found), scene, MASK_IOU)
        wait_for(lambda: node.values("model").get("family") == name, "the diagnostics of this model")
    finally:
        node.forget("instance_map")
        assert node.change("deactivate")
        assert node.change("cleanup")
