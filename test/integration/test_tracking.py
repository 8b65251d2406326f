"""Tracking, from the node's topics; switched on and off while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from colour_model import paint_scene
from integration.harness import NodeProcess, image_message, pixels_of, wait_for
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray


@pytest.fixture(scope="module")
def node(start_node: Callable[..., NodeProcess], model: Path) -> NodeProcess:
    node = start_node("tracks", model=model, autostart=True, tracking=True, **{"cameras.camera.topic": "/tracks_image"})
    node.wait_state("active")
    return node


def numbers_at(node: NodeProcess, *boxes: tuple[int, int, int, int, int]) -> list[int]:
    """The pixel value at the middle of each box, which `detections` has as an id, too."""
    maps, detections = node.output(Image, "instance_map"), node.output(Detection2DArray, "detections")
    message = image_message(paint_scene(320, 192, list(boxes)).image, "rgb8")
    pixels = pixels_of(node.process(message, maps))
    stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
    found = wait_for(lambda: detections.of(stamp), "detections")
    values = [int(pixels[(y1 + y2) // 2, (x1 + x2) // 2]) for x1, y1, x2, y2, _ in boxes]
    assert sorted(int(each.id) for each in found.detections) == sorted(values)
    assert set(np.unique(pixels)) == {0, *values}
    return values


def test_an_object_keeps_its_number(node: NodeProcess) -> None:
    standing = (200, 112, 280, 176, 1)
    first, second = numbers_at(node, (16, 16, 80, 64, 1), standing)
    assert first != second
    for step in (1, 2, 3):
        x = 16 + 6 * step
        # In the other order: what the model finds first changes.
        assert numbers_at(node, standing, (x, 16, x + 64, 64, 1)) == [second, first]
    assert node.set(tracking=False)[0].successful
    assert numbers_at(node, standing) == [1]
    assert node.set(tracking=True)[0].successful
    assert numbers_at(node, standing)[0] > 0
