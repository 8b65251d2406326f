"""The node with the GPU's backend, its kernels compiled for the CPU: batches of cameras, and what a fault does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from colour_model import FAULT_COLOUR, save_canonical_colour_model
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
from sensor_msgs.msg import Image

TEST = Path(__file__).parents[1]
CAMERAS = ("front", "left", "right")
# Engines open as the model that their file names; the file `fault` next to it makes the device fail once.
PATCH = """
from pathlib import Path
import seg_perception.onboard.backend.tensorrt.backend as tensorrt

def open_model(path, options):
    from host_device import HostDevice, HostStream, host_backend

    device, fault, wait = HostDevice(), path.with_name("fault"), HostStream.wait

    def failing(stream):
        if fault.exists():
            fault.unlink()
            device.fault = "an illegal address was accessed"
        wait(stream)

    HostStream.wait = failing
    return host_backend(Path(path.read_text()), largest_batch=2, device=device)

tensorrt.open_model = open_model
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accelerator")
    (folder / "sitecustomize.py").write_text(PATCH)
    model = save_canonical_colour_model(folder / "colours.onnx", fault="predictions", batch=None)
    (folder / "colours.engine").write_text(str(model))
    return folder / "colours.engine"


@pytest.fixture(scope="module")
def node(start_node: Callable[..., NodeProcess], engine: Path) -> NodeProcess:
    topics = {f"cameras.{name}.topic": f"/accelerated_{name}" for name in CAMERAS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{engine.parent}:{TEST}:{TEST.parent}")
        started = start_node("accelerated", model=engine, autostart=True, camera_names=list(CAMERAS), **topics)
    started.wait_state("active")
    return started


def image(width: int = WIDTH, height: int = HEIGHT) -> Image:
    return image_message(street(width, height).image, "rgb8")


def test_every_camera_gets_its_own_maps(node: NodeProcess) -> None:
    for name, size in zip(CAMERAS, ((WIDTH, HEIGHT), (640, 384), (160, 96)), strict=True):
        message = image(*size)
        result = node.process(message, node.output(Image, f"{name}/instance_map"), f"/accelerated_{name}")
        assert result.header == message.header
        assert_same_instances(pixels_of(result), street(*size), iou=0.8)
    assert "launches CUDA graphs" in node.log


def test_cameras_at_once_are_served_in_turn(node: NodeProcess) -> None:
    """More frames than can be taken: all cameras are served alike, each result is that of its own frame."""
    sent: dict[str, int] = dict.fromkeys(CAMERAS, 0)
    maps = {name: node.output(Image, f"{name}/instance_map") for name in CAMERAS}
    before = {name: node.count("processed", f"camera {name}") for name in CAMERAS}
    end = time.monotonic() + 4.0

    def flood(name: str) -> None:
        publisher = node.publisher(topic=f"/accelerated_{name}")
        while time.monotonic() < end:
            publisher.publish(image())
            sent[name] += 1
            time.sleep(0.005)

    threads = [threading.Thread(target=flood, args=(name,)) for name in CAMERAS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: all(len(maps[name].messages) > 5 for name in CAMERAS), "maps of all cameras")
    counts = [node.count("processed", f"camera {name}") - before[name] for name in CAMERAS]
    assert min(counts) > 0.5 * max(counts)
    scene = street()
    for name in CAMERAS:
        assert_same_instances(pixels_of(maps[name].messages[-1]), scene)


def test_frames_that_come_one_after_the_other_go_together_where_that_is_wanted(node: NodeProcess) -> None:
    """Each time the engine is opened again, which the accelerator must survive, too, and which begins new counts."""
    publishers = [node.publisher(topic=f"/accelerated_{name}") for name in ("front", "left")]
    together = []
    for batch_wait in (0.0, 0.15):
        assert node.set(batch_wait=batch_wait)[0].successful
        answer = node.reload()
        assert answer.success, answer.message
        for _ in range(12):
            for publisher in publishers:
                publisher.publish(image())
                time.sleep(0.05)
            time.sleep(0.1)
        wait_for(lambda: node.count("processed", "camera left") >= 12, "results")
        node.wait_diagnostics()
        together.append(float(node.values("model")["frames_at_once"]))
    assert node.set(batch_wait=0.0)[0].successful
    assert together[0] < 1.3
    assert together[1] > 1.5
    result = node.process(image(), node.output(Image, "front/instance_map"), "/accelerated_front")
    assert_same_instances(pixels_of(result), street())


def test_a_fault_of_the_model_in_one_camera_is_counted_there(node: NodeProcess) -> None:
    bad = street().image.copy()
    bad[:8, :8] = FAULT_COLOUR
    node.lose(image_message(bad, "rgb8"), "model_output", "/accelerated_left", "camera left")
    result = node.process(image(), node.output(Image, "right/instance_map"), "/accelerated_right")
    assert np.asarray(pixels_of(result)).any()


def test_a_fault_of_the_device_leads_through_error_processing_and_back(node: NodeProcess, engine: Path) -> None:
    engine.with_name("fault").touch()
    node.publisher(topic="/accelerated_front").publish(image())
    node.wait_log("illegal address", "activate: done")
    wait_for(lambda: node.log.count("activate: done") == 2, "the node active again")
    wait_for(lambda: node.count("dropped_failure", "camera front") == 1, "the frame that was in flight in the counts")
    result = node.process(image(), node.output(Image, "front/instance_map"), "/accelerated_front")
    assert_same_instances(pixels_of(result), street())
