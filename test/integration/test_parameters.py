"""Parameters: described, refused with a reason, applied while the node runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from integration.harness import Client, NodeProcess, image_message, pixels_of, street, wait_for
from numpy.typing import NDArray
from rcl_interfaces.srv import ListParameters
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray, LabelInfo

from seg_perception.onboard.ros.scheme import SCHEME, camera_parameters

CONFIG = Path(__file__).parents[2] / "config" / "seg_perception.yaml"


@pytest.fixture(scope="module")
def node(start_node: Callable[..., NodeProcess], model: object) -> NodeProcess:
    node = start_node("knobs", model=model, autostart=True, **{"cameras.camera.topic": "/knobs_image"})
    node.wait_state("active")
    return node


@pytest.fixture(scope="module")
def blank(start_node: Callable[..., NodeProcess]) -> NodeProcess:
    """A node that is never configured."""
    return start_node("blank")


def names_found(node: NodeProcess) -> set[str]:
    detections = node.output(Detection2DArray, "detections")
    result = node.process(image_message(street().image, "rgb8"), detections)
    return {detection.results[1].hypothesis.class_id for detection in result.detections}


def test_every_parameter_is_described(node: NodeProcess) -> None:
    specs = {spec.name: spec for spec in SCHEME} | camera_parameters(["camera"])
    for descriptor, (name, spec) in zip(node.describe(*specs), specs.items(), strict=True):
        assert descriptor.name == name
        assert descriptor.description == spec.text
        assert descriptor.additional_constraints == spec.when
    (threshold,) = node.describe("thresholds.pedestrian")
    assert (threshold.floating_point_range[0].from_value, threshold.floating_point_range[0].to_value) == (-1.0, 1.0)


def test_the_parameter_file_starts_the_node(start_node: Callable[..., NodeProcess], model: object) -> None:
    node = start_node("from_file", "--params-file", str(CONFIG), model=model)
    assert node.change("configure")
    assert node.get("cameras.camera.topic") == "image_raw"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("score_threshold", 1.5, "out of range"),
        ("score_threshold", "much", "Wrong parameter type"),
        ("score_threshold", float("nan"), "out of range"),
        ("thresholds__vehicle", -2.0, "out of range"),
        ("min_pixels", -1, "out of range"),
        ("autostart", False, "read-only"),
        ("output_size", "network", "while the node is unconfigured"),
        ("cameras__camera__topic", "/other", "while the node is unconfigured"),
        ("tracking_coast", 5.0, "tracking coast: expected 0 to max_age"),
        ("cameras__camera__max_age", -1.0, "out of range"),
    ],
)
def test_what_makes_no_sense_is_refused(node: NodeProcess, name: str, value: object, reason: str) -> None:
    before = node.get(name.replace("__", "."))
    (result,) = node.set(**{name: value})
    assert not result.successful
    assert reason in result.reason
    assert node.get(name.replace("__", ".")) == before


def test_a_set_is_accepted_or_refused_as_one(node: NodeProcess) -> None:
    result = node.set_together(score_threshold=0.4, group_iou=3.0)
    assert not result.successful
    assert node.get("score_threshold") == 0.25


def test_thresholds_act_at_once(node: NodeProcess) -> None:
    everything = {"person", "car", "stop sign", "traffic light"}
    assert names_found(node) == everything
    assert node.set(thresholds__vehicle=1.0)[0].successful
    assert names_found(node) == everything - {"car"}
    labels = node.output(LabelInfo, "label_info", latched=True)
    assert node.set_together(score_threshold=1.0, thresholds__pedestrian=0.3).successful
    assert names_found(node) == {"person"}
    lowest = pytest.approx(0.3)
    wait_for(lambda: labels.messages and labels.messages[-1].threshold == lowest, "labels with the lowest threshold")
    assert node.set_together(score_threshold=0.25, thresholds__pedestrian=-1.0, thresholds__vehicle=-1.0).successful
    assert node.set(min_pixels=3000)[0].successful
    assert names_found(node) == {"person", "car"}
    assert node.set(min_pixels=16)[0].successful
    assert names_found(node) == everything


def test_the_overlay_changes_its_style_while_somebody_looks(node: NodeProcess) -> None:
    scene = street()
    overlay = node.output(Image, "overlay")

    def drawn(**parameters: object) -> NDArray[np.bool_]:
        assert node.set_together(**parameters).successful
        result = node.process(image_message(scene.image, "rgb8"), overlay)
        return (pixels_of(result) != scene.image[..., ::-1]).any(axis=-1)

    inside = np.s_[105:120, 100:160]  # of the car, below its label
    both = drawn(overlay_style="both", overlay_figures=True)
    outline = drawn(overlay_style="outline", overlay_figures=False)
    assert both[inside].all()
    assert not outline[inside].any()
    corner = np.s_[:6, :60]
    assert both[corner].any()
    assert not outline[corner].any()
    (refused,) = node.set(overlay_style="neon")
    assert "overlay_style: expected outline, fill, both" in refused.reason
    assert node.set_together(overlay_style="both", overlay_figures=True).successful
    node.forget("overlay")


def test_before_configure_everything_but_nonsense_may_change(blank: NodeProcess) -> None:
    node = blank
    for name, value, reason in (
        ("camera_names", ["front", "front"], "each once"),
        ("camera_names", ["a/b"], "at least one name"),
        ("output_size", "huge", "output size"),
        ("cameras__camera__transport", "carrier pigeon", "raw or compressed"),
        ("cameras__camera__topic", "my topic!", "cameras.camera.topic: expected the name of an image topic"),
        ("cameras__camera__topic", "image_raw/", "cameras.camera.topic: expected the name of an image topic"),
        ("cameras__camera__topic", "~image", "cameras.camera.topic: expected the name of an image topic"),
        ("cameras__camera__topic", "", "cameras.camera.topic: expected the name of an image topic"),
    ):
        (result,) = node.set(**{name: value})
        assert not result.successful, name
        assert reason in result.reason
    assert node.set(output_size=0.25)[0].successful


def test_cameras_can_be_named_while_the_node_runs(blank: NodeProcess) -> None:
    node = blank
    assert node.set(camera_names=["front", "left"])[0].successful
    assert (node.get("cameras.front.topic"), node.get("cameras.left.topic")) == ("front/image_raw", "left/image_raw")
    assert len(node.describe("cameras.left.max_age")[0].description) > 10
    (refused,) = node.set(cameras__left__topic="/front/image_raw")
    assert not refused.successful
    assert "a topic of its own for each camera" in refused.reason


def test_a_set_may_name_cameras_and_set_their_parameters(blank: NodeProcess) -> None:
    node, before = blank, blank.get("camera_names")
    refused = node.set_together(camera_names=["up", "down"], cameras__down__max_age=-1.0)
    assert not refused.successful
    assert node.get("camera_names") == before
    assert not node.describe("cameras.down.topic"), "a refused set leaves nothing behind"
    assert not node.set_together(camera_names=["up"], cameras__down__topic="/down").successful
    assert node.set_together(camera_names=["up", "down"], cameras__down__topic="/down/image_raw").successful
    assert (node.get("cameras.up.topic"), node.get("cameras.down.topic")) == ("up/image_raw", "/down/image_raw")


def test_a_start_value_that_waits_for_its_camera_is_refused_with_it(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node("waits", **{"cameras.left.max_age": 1})
    (refused,) = node.set(camera_names=["left"])
    assert not refused.successful
    assert "cameras.left.max_age" in refused.reason
    assert node.get("camera_names") == ["camera"]
    assert node.state() == "unconfigured"


def test_a_parameter_cannot_be_removed(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node("removes", output_size="huge")
    (refused,) = node.set(output_size=None)
    assert not refused.successful
    assert node.get("output_size") == "huge"


def test_bad_start_values_are_told_at_configure(start_node: Callable[..., NodeProcess], model: object) -> None:
    node = start_node("wrong", model=model, tracking_coast=9.0, output_size="huge")
    assert not node.change("configure")
    node.wait_log("configure failed")
    assert node.set(output_size="camera")[0].successful
    assert node.set(tracking_coast=0.0)[0].successful
    assert node.change("configure")
    wait_for(lambda: node.values("model").get("state") == "inactive", "diagnostics")


def test_parameters_that_the_node_does_not_have_are_reported(
    start_node: Callable[..., NodeProcess], model: Path
) -> None:
    options = {"score_treshold": 0.5, "cameras.frnt.topic": "/x"}
    node = start_node("misspelt", model=model, autostart=True, **options)
    node.wait_state("active")
    assert "parameters: cameras.frnt.topic, score_treshold were given" in node.log


def test_parameters_of_cameras_that_are_named_no_more_are_gone(blank: NodeProcess) -> None:
    assert blank.set(camera_names=["east", "west"])[0].successful
    assert blank.describe("cameras.west.topic")
    assert blank.set(camera_names=["east"])[0].successful
    assert not blank.describe("cameras.west.topic")
    assert blank.describe("cameras.east.topic")


def test_the_old_name_of_the_cameras_is_refused_with_the_new_one(
    blank: NodeProcess, start_node: Callable[..., NodeProcess]
) -> None:
    result = blank.set_together(cameras=["front"])
    assert not result.successful
    assert "camera_names" in result.reason
    node = start_node("old_name", cameras=["front", "rear"])
    assert node.popen.wait(20) == 2
    assert "`cameras` is called `camera_names` now" in node.log


def test_a_dump_of_all_parameters_brings_the_same_node_back(
    client: Client, start_node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    """`ros2 param dump` splits names at the dots and nests them; no name may be a value and a prefix."""
    node = start_node("dumped", camera_names=["front", "rear"], **{"cameras.rear.max_age": 0.5})
    node.wait_state("unconfigured")
    names = client.call(ListParameters, "/dumped/list_parameters", ListParameters.Request()).result.names
    nested: dict[str, Any] = {}
    for name in names:
        branch = nested
        *branches, leaf = name.split(".")
        for part in branches:
            branch = branch.setdefault(part, {})
            assert isinstance(branch, dict), f"{name}: {part} is a value and a prefix"
        assert leaf not in branch, f"{name}: is a value and a prefix"
        value = node.get(name)
        branch[leaf] = value.tolist() if hasattr(value, "tolist") else value
    dump = tmp_path / "dump.yaml"
    dump.write_text(yaml.safe_dump({"/**": {"ros__parameters": nested}}))
    copy = start_node("restored", "--params-file", str(dump))
    copy.wait_state("unconfigured")
    assert copy.get("camera_names") == ["front", "rear"]
    assert copy.get("cameras.rear.max_age") == 0.5
