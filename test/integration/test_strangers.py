"""What other DDS participants announce or send must not end the node, stop its cameras or forge its log."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product

import pytest
from builtin_interfaces.msg import Time
from integration.harness import Client, NodeProcess, image_message, street, wait_for
from rosgraph_msgs.msg import Clock
from rtps import DEADLINE, DURABILITY, HISTORY, IMAGE, LIFESPAN, LIVELINESS, Announcer, duration, host_id, parameter
from sensor_msgs.msg import Image

TOPIC = "rt/strangers_b"
ODD_DURATIONS = [(-1, 0), (-5, 0), (-(2**31), 0), (2**31 - 1, 2**32 - 1), (0, 2**32 - 2)]
ODD_NAMES = [
    "rt/front-camera/image_raw", "rt//image_raw", "rt/", "rt", "rq/image_raw", "image_raw", "rt/1image", "rt/é",
    "rt/" + "a" * 240, "rt/~/x", "rt/{x}/image_raw", "rt/a b", "rt/__x", "rt/image_raw/", "rt/image_raw\x1b[2J",
    "rt/image_raw\n[FATAL] [1796060000.0] [segmenter]: brakes released", b"rt/\xff\xfe/image_raw",
]  # fmt: skip
ODD_TYPES = ["", "Image", "a::b", "sensor_msgs::msg::dds_::", "sensor_msgs::msg::dds_::Image_\nX", b"\xff\xfe"]
# Topic, type and QoS; those with a proper name are on the topic that camera b waits for.
ANNOUNCEMENTS = [
    *((name, IMAGE, b"") for name in ODD_NAMES),
    *((TOPIC, kind, b"") for kind in ODD_TYPES),
    *((TOPIC, IMAGE, parameter(kind, duration(*odd))) for kind, odd in product((DEADLINE, LIFESPAN), ODD_DURATIONS)),
    *((TOPIC, IMAGE, parameter(LIVELINESS, struct.pack("<I", 77) + duration(*odd))) for odd in ODD_DURATIONS),
    (TOPIC, IMAGE, parameter(HISTORY, struct.pack("<Ii", 5, -1))),
    (TOPIC, IMAGE, parameter(DURABILITY, struct.pack("<I", 9))),
]


@pytest.fixture
def announcer(client: Client) -> Iterator[Announcer]:
    publisher = client.publisher(Image, "/strangers_known")
    known = wait_for(lambda: client.node.get_publishers_info_by_topic("/strangers_known"), "own publisher in the graph")
    with Announcer(int(os.environ["ROS_DOMAIN_ID"]), host_id(known[0].endpoint_gid)) as announcer:
        yield announcer
    client.node.destroy_publisher(publisher)


def appears(client: Client, topic: str) -> None:
    """Wait until an announced topic is in the graph, so that the node has heard of it, too."""

    def is_there() -> bool:
        try:
            return topic in dict(client.node.get_topic_names_and_types())
        except UnicodeDecodeError:  # another announced name
            return True

    wait_for(is_there, f"{topic} in the graph")


def two_cameras(start_node: Callable[..., NodeProcess], model: object, name: str) -> NodeProcess:
    return start_node(
        name,
        model=str(model),
        camera_names=["a", "b"],
        autostart=True,
        **{"cameras.a.topic": f"/{name}_a", "cameras.b.topic": "/strangers_b"},
    )


def test_there_are_as_many_announcements_as_were_known_to_kill() -> None:
    assert len(ANNOUNCEMENTS) >= 35


def test_no_announcement_ends_the_node_or_a_camera(
    start_node: Callable[..., NodeProcess], model: object, client: Client, announcer: Announcer
) -> None:
    node = two_cameras(start_node, model, "announced")
    node.wait_state("active")
    results = node.output(Image, "a/instance_map")
    node.process(image_message(street().image, "rgb8"), results, "/announced_a")
    # Camera b is silent, so that the node asks the graph why.
    node.wait_log("camera b: no frames")
    for number, (topic, kind, qos) in enumerate(ANNOUNCEMENTS):
        announcer.publisher(topic, kind, qos)
        if number % 10 == 0:
            node.process(image_message(street().image, "rgb8"), results, "/announced_a")
    appears(client, "/front-camera/image_raw")
    looks = wait_for(lambda: node.values("camera b").get("no_frames_because") == "unknown", "camera b looked after")
    assert looks
    node.process(image_message(street().image, "rgb8"), results, "/announced_a")
    assert node.popen.poll() is None
    assert node.state() == "active"
    assert node.count("callback_faults", "model") == 0
    assert "\x1b" not in node.log
    assert not [line for line in node.log.splitlines() if line.startswith("[FATAL]")]
    assert node.values("camera b")["publishers"].isdigit()


@pytest.mark.parametrize("kind", [DEADLINE, LIFESPAN, LIVELINESS])
def test_odd_qos_that_is_there_before_the_node_does_not_prevent_activation(
    start_node: Callable[..., NodeProcess], model: object, client: Client, announcer: Announcer, kind: int
) -> None:
    name = f"beforehand_{kind}"
    value = duration(-5) if kind != LIVELINESS else struct.pack("<I", 0) + duration(-5)
    announcer.publisher(f"rt/{name}_a", IMAGE, parameter(kind, value))
    appears(client, f"/{name}_a")
    node = two_cameras(start_node, model, name)
    node.wait_state("active")
    node.process(image_message(street().image, "rgb8"), node.output(Image, "a/instance_map"), f"/{name}_a")


def test_impossible_times_on_the_clock_are_refused_and_counted(
    start_node: Callable[..., NodeProcess], model: object, client: Client
) -> None:
    node = start_node("clocked", "-r", "/clock:=/clocked_clock", model=str(model), autostart=True, use_sim_time=True)
    node.wait_state("active")
    publisher = node.publisher(Clock, "/clocked_clock")
    clock = Clock()
    for seconds, nanoseconds in ((-1, 0), (-(2**31), 0), (-5, 5)):
        before = node.count("callback_faults", "model")
        clock.clock = Time(sec=seconds, nanosec=nanoseconds)

        def counted(before: int = before) -> bool:
            publisher.publish(clock)
            time.sleep(0.05)
            return node.count("callback_faults", "model") > before

        wait_for(counted, f"a clock of {seconds} s is counted")
    assert "/clock" in node.values("model")["last_callback_fault"]
    assert node.state() == "active"
    clock.clock = Time(sec=2**31 - 1, nanosec=999999999)
    publisher.publish(clock)
    node.process(image_message(street().image, "rgb8"), node.output(Image, "instance_map"), "/image_raw")


@pytest.mark.parametrize("command", [["doctor", "--seconds", "0.5"], ["top", "--once"]])
def test_the_tools_survive_all_announcements(client: Client, announcer: Announcer, command: list[str]) -> None:
    for announcement in ANNOUNCEMENTS:
        announcer.publisher(*announcement)
    appears(client, "/front-camera/image_raw")
    done = subprocess.run(
        [sys.executable, "-m", "seg_perception.cli", *command], capture_output=True, timeout=120, check=False
    )
    output = done.stdout + done.stderr
    assert b"Traceback" not in output, output.decode(errors="replace")
    assert b"\x1b[2J" not in output
    assert not any(line.startswith(b"[FATAL]") for line in output.splitlines())
    assert output


@pytest.mark.long
@pytest.mark.alone
def test_a_healthy_camera_keeps_its_rate_while_strangers_announce(
    start_node: Callable[..., NodeProcess], model: object, client: Client, announcer: Announcer
) -> None:
    node = two_cameras(start_node, model, "steady")
    node.wait_state("active")
    results = node.output(Image, "a/instance_map")
    node.process(image_message(street().image, "rgb8"), results, "/steady_a")
    publisher = node.publisher(Image, "/steady_a")

    def rate(seconds: float, announce: bool) -> float:
        before, end, waiting = len(results.messages), time.monotonic() + seconds, iter(ANNOUNCEMENTS)
        sent = 0
        while time.monotonic() < end:
            publisher.publish(image_message(street().image, "rgb8"))
            sent += 1
            if announce and (announcement := next(waiting, None)):
                announcer.publisher(*announcement)
            time.sleep(0.1)
        wait_for(lambda: len(results.messages) - before >= 0.9 * sent, "the last results")
        return (len(results.messages) - before) / sent

    alone = rate(6.0, announce=False)
    among_strangers = rate(10.0, announce=True)
    print(f"results for each frame: {alone:.3f} alone, {among_strangers:.3f} among {len(ANNOUNCEMENTS)} announcements")
    assert among_strangers >= 0.95 * alone
    assert node.state() == "active"
