"""Models with class maps through the node: the semantic map is the whole scene, the instance map the things."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from colour_model import FAULT_COLOUR
from integration.harness import (
    HEIGHT,
    WIDTH,
    NodeProcess,
    assert_same_instances,
    image_message,
    pixels_of,
    street,
    wait_for,
)
from panoptic_model import AIR, GROUND, save_panoptic_model, save_semantic_model
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray, LabelInfo

SAVE = {"semantic": save_semantic_model, "panoptic": save_panoptic_model}


@pytest.fixture(scope="module", params=SAVE)
def node(
    request: pytest.FixtureRequest, start_node: Callable[..., NodeProcess], model_folder: Path
) -> tuple[str, NodeProcess]:
    kind = str(request.param)
    model = SAVE[kind](model_folder / f"{kind}.onnx")
    node = start_node(kind, "-r", f"image_raw:=/{kind}_image", model=model, autostart=True)
    node.wait_state("active")
    return kind, node


def test_the_semantic_map_shows_the_scene_and_the_instance_map_the_things(node: tuple[str, NodeProcess]) -> None:
    kind, running = node
    scene, maps = street(), running.output(Image, "instance_map")
    image = np.ascontiguousarray(scene.image[..., ::-1])
    frame = image_message(image)
    assert_same_instances(pixels_of(running.process(frame, maps)), scene)
    # A stage that was never timed was never entered: nobody listens yet.
    wait_for(lambda: running.values("model").get("paint_ms"), "diagnostics")
    assert "semantic_ms" not in running.values("model")

    watched = running.output(Image, "semantic_map")
    frame = image_message(image)
    result = running.process(frame, watched)
    assert (result.header, result.encoding, result.width, result.height) == (frame.header, "mono8", WIDTH, HEIGHT)
    if kind == "semantic":
        # 1 is the model's own class `background`.
        truth = np.append(1, scene.labels + 2)[scene.instance_map]
    else:
        stuff = np.where(np.arange(HEIGHT)[:, None] < HEIGHT // 2, AIR + 1, GROUND + 1)
        truth = np.where(scene.instance_map > 0, np.append(0, scene.labels + 1)[scene.instance_map], stuff)
    found = pixels_of(result)
    # At the outlines a cell may be neither of stuff nor within an instance.
    assert set(np.unique(found)) - {0} == set(np.unique(truth))
    assert (found == truth).mean() > 0.97
    wait_for(lambda: running.values("model").get("semantic_ms"), "the time of the semantic map in the diagnostics")
    running.forget("semantic_map")


def test_names_and_scores(node: tuple[str, NodeProcess]) -> None:
    kind, running = node
    labels = running.output(LabelInfo, "label_info", latched=True)
    names = {entry.class_id: entry.class_name for entry in wait_for(lambda: labels.messages, "labels")[0].class_map}
    assert names[1] == ("background" if kind == "semantic" else "person")
    frame = image_message(np.ascontiguousarray(street().image[..., ::-1]))
    found = running.process(frame, running.output(Detection2DArray, "detections"))
    scores = [detection.results[0].hypothesis.score for detection in found.detections]
    assert len(scores) == 5
    assert (set(scores) == {1.0}) == (kind == "semantic")


def test_broken_numbers_lose_a_frame_only(node: tuple[str, NodeProcess]) -> None:
    kind, running = node
    if kind != "semantic":
        pytest.skip("the panoptic model has no faults")
    image = np.ascontiguousarray(street().image[..., ::-1])
    broken = image.copy()
    broken[:8, :8] = FAULT_COLOUR
    running.lose(image_message(broken), "model_output")
    assert pixels_of(running.process(image_message(image), running.output(Image, "instance_map"))).any()
