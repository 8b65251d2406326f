"""More frames than the model can take: the freshest wins, the others are counted, memory stays flat."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from integration.harness import NodeProcess, image_message, wait_for
from sensor_msgs.msg import Image

pytestmark = pytest.mark.alone
FLOOD_HZ = 200
SLOWED = 0.05


@pytest.fixture
def slow_node(start_node: Callable[..., NodeProcess], model: Path, tmp_path: Path) -> NodeProcess:
    """A node whose model takes at least `SLOWED` seconds, on any machine."""
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "from seg_perception.onboard.backend.host.openvino import OpenVinoRunner\n"
        "run = OpenVinoRunner.run\n"
        f"def slow(self, images):\n    time.sleep({SLOWED})\n    return run(self, images)\n"
        "OpenVinoRunner.run = slow\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
        node = start_node("flooded", model=model, autostart=True, **{"cameras.camera.topic": "/flooded_image"})
    node.wait_state("active")
    return node


def accounted(node: NodeProcess) -> int:
    values = node.values()
    return int(values["processed"]) + sum(int(count) for key, count in values.items() if key.startswith("dropped_"))


def test_a_flood_costs_only_dropped_frames(slow_node: NodeProcess) -> None:
    node, publisher = slow_node, slow_node.publisher()
    maps = node.output(Image, "instance_map")
    frame = image_message(np.full((192, 320, 3), 114, np.uint8))
    ended = threading.Event()
    sent = 0

    def flood() -> None:
        nonlocal sent
        due = time.monotonic()
        while not ended.is_set():
            now = time.time_ns()
            frame.header.stamp.sec, frame.header.stamp.nanosec = divmod(now, 10**9)
            publisher.publish(frame)
            sent += 1
            due += 1 / FLOOD_HZ
            time.sleep(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=flood)
    thread.start()
    used: list[int] = []

    def settled() -> bool:
        # Memory of buffers fills at first and has its ups and downs; a leak shows in the lowest values, and for ever.
        used.append(node.usage.memory_info().rss)
        time.sleep(0.1)
        return len(used) > 40 and min(used[-20:]) - min(used[-40:-20]) < 2**20

    try:
        wait_for(settled, f"memory that no longer grows: {used}", timeout=40)
    finally:
        ended.set()
        thread.join()
    assert node.state() == "active"
    # All that were sent are accounted for, but for those that no later frame told of.
    wait_for(lambda: node.count("received") >= 0.9 * sent, "count of received frames")
    wait_for(lambda: node.count("received") == accounted(node), "balance")
    assert node.count("dropped_superseded") > node.count("processed") > 20
    assert maps.messages


def test_a_slow_camera_is_not_starved_by_a_fast_one(
    start_node: Callable[..., NodeProcess], model: Path, tmp_path: Path
) -> None:
    topics = {"cameras.fast.topic": "/fair_fast", "cameras.slow.topic": "/fair_slow"}
    node = start_node("fair", model=model, autostart=True, camera_names=["fast", "slow"], **topics)
    node.wait_state("active")
    fast, slow = node.publisher(Image, "/fair_fast"), node.publisher(Image, "/fair_slow")
    frame = image_message(np.full((192, 320, 3), 114, np.uint8))
    for turn in range(400):
        fast.publish(frame)
        if turn % 20 == 0:
            slow.publish(frame)
        time.sleep(0.005)
    wait_for(lambda: node.count("processed", "camera slow") >= 16, "frames of the slow camera")
