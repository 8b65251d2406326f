"""The node `fusion` over real DDS: a segmenter's results and points in, objects with a place out."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fusion_scene import CALIBRATION, HEIGHT, WIDTH, box_points, mask_of, wall
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from integration.harness import Client, NodeProcess, wait_for
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection2D, Detection2DArray, Detection3DArray, ObjectHypothesisWithPose
from visualization_msgs.msg import Marker, MarkerArray

from seg_perception.core.messages.images import write_image
from seg_perception.core.messages.point_clouds import write_point_cloud

CENTRE, SIZE = (20.0, 3.0, 0.0), (4.4, 1.8, 1.5)
CAR = box_points(CENTRE, SIZE, 0.4, 300)
BEHIND = wall(35.0)
CLOUD = np.concatenate([BEHIND, CAR])
MASK = mask_of(CAR, 7)


def process(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "seg_perception.onboard.ros.fusion.main", *arguments]
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)


class Vehicle:
    """Publishes what a segmenter, a lidar and /tf do, each under a namespace of its own."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.maps = client.publisher(Image, f"/{name}_seg/instance_map")
        self.detections = client.publisher(Detection2DArray, f"/{name}_seg/detections")
        self.infos = client.publisher(CameraInfo, f"/{name}_seg/camera_info")
        self.clouds = client.publisher(PointCloud2, f"/{name}_points")
        self.depths = client.publisher(Image, f"/{name}_depth")
        self.tf = client.node.create_publisher(TFMessage, "/tf", 10)
        self.static = client.node.create_publisher(TFMessage, "/tf_static", latched)

    def parameters(self, **more: Any) -> dict[str, Any]:
        given = {"segmenter": f"/{self.name}_seg", "points_topic": f"/{self.name}_points", "autostart": True,
                 "fixed_frame": "''", "cameras.camera.depth_topic": f"/{self.name}_depth"}  # fmt: skip
        return {**given, **more}

    def mount(self, camera: str = "camera", lidar: str = "lidar") -> None:
        """Say where the camera is on the lidar: at its place, looking ahead."""
        self.static.publish(TFMessage(transforms=[transform(f"{self.name}_{lidar}", f"{self.name}_{camera}", 0)]))

    def see(self, stamp_ns: int, **changes: Any) -> None:
        """Publish the results of an image."""
        frame = f"{self.name}_camera"
        self.maps.publish(write_image(stamp_ns, frame, "mono16", changes.get("mask", MASK)))
        message = Detection2DArray()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        results = [ObjectHypothesisWithPose(), ObjectHypothesisWithPose()]
        for result, text in zip(results, ("vehicle", "car"), strict=True):
            result.hypothesis.class_id, result.hypothesis.score = text, 0.75
        message.detections = [Detection2D(id=changes.get("identity", "7"), results=results)]
        self.detections.publish(message)
        calibration = changes.get("calibration", CALIBRATION)
        self.infos.publish(replace(calibration, stamp_ns=stamp_ns, frame_id=frame).write())

    def measure(self, stamp_ns: int, xyz: np.ndarray = CLOUD, **more: np.ndarray) -> None:
        columns = dict(zip("xyz", xyz.T, strict=True)) | more
        self.clouds.publish(write_point_cloud(stamp_ns, f"{self.name}_lidar", columns))

    def until(self, done: Callable[[], Any], what: str, node: NodeProcess, **changes: Any) -> Any:
        """See and measure at one moment, again and again, until something is the case."""

        def again() -> Any:
            now = time.time_ns()
            self.mount()
            self.see(now, **changes)
            self.measure(now, changes.get("xyz", CLOUD))
            time.sleep(0.1)
            return done()

        return wait_for(again, lambda: f"{what}; {node.values('points')}; log:\n{node.log}")


def transform(parent: str, child: str, stamp_ns: int, x: float = 0.0, *, ahead: bool = True) -> TransformStamped:
    """From a frame that looks along x to an optical frame, or to one turned alike."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    message.transform.translation = Vector3(x=x)
    half = 0.5 if ahead else 0.0
    message.transform.rotation = Quaternion(x=-half, y=half, z=-half, w=half) if ahead else Quaternion(w=1.0)
    return message


@pytest.fixture(scope="module")
def start_fusion(
    client: Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., tuple[NodeProcess, Vehicle]]]:
    started: list[NodeProcess] = []

    def start(name: str, **parameters: Any) -> tuple[NodeProcess, Vehicle]:
        vehicle = Vehicle(client, name)
        log = tmp_path_factory.mktemp("log") / f"{name}.log"
        node = NodeProcess(client, name, log, (), vehicle.parameters(**parameters), process)
        started.append(node)
        node.wait_state("active")
        return node, vehicle

    yield start
    for node in started:
        node.popen.terminate()
    for node in started:
        node.stop()


@pytest.fixture(scope="module")
def fusing(start_fusion: Callable[..., tuple[NodeProcess, Vehicle]]) -> tuple[NodeProcess, Vehicle]:
    return start_fusion("fusing")


def test_a_car_gets_its_place(fusing: tuple[NodeProcess, Vehicle]) -> None:
    node, vehicle = fusing
    objects, clouds = node.output(Detection3DArray, "detections_3d"), node.output(PointCloud2, "points")
    shown = node.output(MarkerArray, "markers")
    vehicle.until(lambda: objects.messages and clouds.messages and shown.messages, "results", node)
    message = objects.messages[-1]
    assert message.header.frame_id == "fusing_lidar"
    (found,) = message.detections
    assert found.id == "7"
    named = [(each.hypothesis.class_id, each.hypothesis.score) for each in found.results]
    assert named == [("vehicle", 0.75), ("car", 0.75)]
    centre = found.bbox.center.position
    np.testing.assert_allclose([centre.x, centre.y, centre.z], CENTRE, atol=0.15)
    np.testing.assert_allclose([found.bbox.size.x, found.bbox.size.y, found.bbox.size.z], SIZE, atol=0.2)
    covariance = np.reshape(found.results[0].pose.covariance, (6, 6))
    assert covariance[0, 0] > 0.1
    np.testing.assert_array_equal(covariance[3:], 0.0)
    cloud = clouds.messages[-1]
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "instance", "group"]
    assert 0.95 * len(CAR) < cloud.width <= len(CAR)
    boxes, labels = shown.messages[-1].markers[1:]
    assert (boxes.type, boxes.header.frame_id) == (Marker.CUBE, "fusing_lidar")
    assert labels.text.startswith("car 7: 18.")


def test_all_points_and_other_fields_are_passed_on(fusing: tuple[NodeProcess, Vehicle]) -> None:
    node, vehicle = fusing
    clouds = node.output(PointCloud2, "points")
    assert node.set(all_points=True)[0].successful
    wanted: list[Any] = []

    def whole() -> bool:
        now = time.time_ns()
        vehicle.see(now)
        vehicle.measure(now, intensity=np.arange(len(CLOUD), dtype=np.float32), ring=np.zeros(len(CLOUD), np.uint16))
        time.sleep(0.1)
        wanted[:] = [each for each in clouds.messages if each.width == len(CLOUD)]
        return bool(wanted)

    wait_for(whole, lambda: f"all points; log:\n{node.log}")
    assert [each.name for each in wanted[-1].fields] == ["x", "y", "z", "intensity", "ring", "instance", "group"]
    assert node.set(all_points=False)[0].successful


def test_results_carry_the_moment_of_the_points(fusing: tuple[NodeProcess, Vehicle]) -> None:
    """Points lie between two images; the nearer one labels them."""
    node, vehicle = fusing
    objects = node.output(Detection3DArray, "detections_3d")
    stamps: list[int] = []

    def labelled() -> bool:
        now = time.time_ns()
        stamps.append(now)
        vehicle.see(now - 30_000_000)
        vehicle.measure(now)
        vehicle.see(now + 20_000_000)
        time.sleep(0.1)
        sent = {(stamp // 10**9, stamp % 10**9) for stamp in stamps}
        return any((each.header.stamp.sec, each.header.stamp.nanosec) in sent for each in objects.messages)

    wait_for(labelled, lambda: f"results; {node.values('points')}; log:\n{node.log}")


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "encoding": ("expected encoding mono16", {"mask": np.zeros((HEIGHT, WIDTH), np.uint8)}),
    "calibration": ("shaped as 640 x 384", {"calibration": replace(CALIBRATION, width=500, height=500)}),
    "focal": ("calibrate the camera", {"calibration": replace(CALIBRATION, k=np.zeros(9))}),
    "identity": ("name the topics of a segmenter", {"identity": "car_7"}),
    "model": ("distortion_model: expected plumb_bob", {"calibration": replace(CALIBRATION, distortion_model="omni")}),
}


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "encoding"])
def test_results_that_cannot_be_used_are_told_and_work_goes_on(fusing: tuple[NodeProcess, Vehicle], fault: str) -> None:
    node, vehicle = fusing
    text, changes = FAULTS[fault]
    vehicle.until(lambda: text in node.log, text, node, **changes)
    objects = node.output(Detection3DArray, "detections_3d")
    before = len(objects.messages)
    vehicle.until(lambda: len(objects.messages) > before and objects.messages[-1].detections, "results again", node)


def damaged(name: str) -> bytes:
    cloud = write_point_cloud(0, "lidar", dict(zip("xyz", CAR.T, strict=True)))
    without_z = write_point_cloud(0, "lidar", {"x": CAR[:, 0], "y": CAR[:, 1]})
    return {"cut": cloud[:200], "empty": b"", "no_z": without_z}[name]


@pytest.mark.parametrize(("name", "text"), [("cut", "truncated"), ("no_z", "expected x, y and z")])
def test_points_that_cannot_be_used_are_counted(fusing: tuple[NodeProcess, Vehicle], name: str, text: str) -> None:
    node, vehicle = fusing

    def told() -> bool:
        vehicle.clouds.publish(damaged(name))
        time.sleep(0.1)
        return text in node.log

    wait_for(told, text)
    kind = "message" if name == "cut" else "layout"
    wait_for(lambda: node.count(f"dropped_{kind}", "points"), "the count")
    assert node.state() == "active"


def test_an_empty_cloud_is_a_result_without_objects(fusing: tuple[NodeProcess, Vehicle]) -> None:
    node, vehicle = fusing
    objects = node.output(Detection3DArray, "detections_3d")
    unplaced = node.count("unplaced", "results of camera camera")
    before = len(objects.messages)
    vehicle.until(lambda: len(objects.messages) > before, "a result", node, xyz=np.zeros((0, 3), np.float32))
    wait_for(lambda: node.count("unplaced", "results of camera camera") > unplaced, "the instance is counted")


def test_parameters_are_checked(fusing: tuple[NodeProcess, Vehicle]) -> None:
    node, _ = fusing
    assert node.set(min_points=9)[0].successful
    assert not node.set(min_points=0)[0].successful
    assert not node.set(cluster_gap=-1.0)[0].successful
    refused = node.set(source="depth")[0]
    assert "configured" in refused.reason
    assert node.set(min_points=5)[0].successful


def test_without_transforms_points_are_dropped_with_the_reason(
    start_fusion: Callable[..., tuple[NodeProcess, Vehicle]],
) -> None:
    node, vehicle = start_fusion("lost", max_wait=0.1)

    def counted() -> int:
        now = time.time_ns()
        vehicle.see(now)
        vehicle.measure(now)
        time.sleep(0.1)
        return node.count("dropped_transform", "points")

    wait_for(counted, lambda: f"points are dropped; {node.values('points')}; {node.log}")
    assert "nobody publishes 'lost_lidar' and 'lost_camera'" in node.log
    vehicle.until(lambda: node.count("processed", "points"), "results once the transform is there", node)


def test_points_of_another_clock_are_told(start_fusion: Callable[..., tuple[NodeProcess, Vehicle]]) -> None:
    node, vehicle = start_fusion("clocks", max_wait=0.1)

    def counted() -> int:
        now = time.time_ns()
        vehicle.mount()
        vehicle.see(now)
        vehicle.measure(now - 3_600 * 10**9)
        time.sleep(0.1)
        return node.count("dropped_no_view", "points")

    wait_for(counted, lambda: f"points are dropped; {node.values('points')}; {node.log}")
    assert "its latest results are 3600" in node.log
    assert "one clock" in node.log


def test_motion_between_image_and_points_is_taken_out(
    start_fusion: Callable[..., tuple[NodeProcess, Vehicle]], client: Client
) -> None:
    """At 20 m/s the image is 60 ms older than the points: the car has come 1.2 m nearer to the lidar."""
    node, vehicle = start_fusion("moving", fixed_frame="moving_odom", max_wait=2.0)
    objects = node.output(Detection3DArray, "detections_3d")
    base = time.time_ns()

    def placed() -> bool:
        now = time.time_ns()
        vehicle.mount()
        for step in range(-10, 2):
            stamp = now + step * 20_000_000
            at = 20.0 * (stamp - base) / 1e9
            vehicle.tf.publish(TFMessage(transforms=[transform("moving_odom", "moving_lidar", stamp, at, ahead=False)]))
        vehicle.see(now - 60_000_000)
        vehicle.measure(now, CLOUD - np.array([1.2, 0.0, 0.0], np.float32))
        vehicle.see(now + 100_000_000, mask=np.zeros_like(MASK))
        time.sleep(0.2)
        return any(each.detections for each in objects.messages)

    wait_for(placed, lambda: f"results; {node.values('points')}; {node.log}")
    (found,) = next(each for each in reversed(objects.messages) if each.detections).detections
    assert found.bbox.center.position.x == pytest.approx(CENTRE[0] - 1.2, abs=0.15)
    wait_for(lambda: node.values("fusion")["motion_compensation"] == "through frame moving_odom", "it is told")


def test_depth_images_place_objects(start_fusion: Callable[..., tuple[NodeProcess, Vehicle]]) -> None:
    node, vehicle = start_fusion("deep", source="depth")
    objects = node.output(Detection3DArray, "detections_3d")
    depth = np.where(MASK > 0, 12_000, 30_000).astype(np.uint16)

    def placed() -> bool:
        now = time.time_ns()
        vehicle.see(now)
        vehicle.depths.publish(write_image(now, "deep_camera", "16UC1", depth))
        time.sleep(0.1)
        return bool(objects.messages)

    wait_for(placed, lambda: f"results; {node.values('depth of camera camera')}; {node.log}")
    message = objects.messages[-1]
    assert message.header.frame_id == "deep_camera"
    assert message.detections[0].bbox.center.position.z == pytest.approx(12.0, abs=0.05)
    before = len(objects.messages)
    now = time.time_ns()

    def refused() -> bool:
        vehicle.see(now)
        vehicle.depths.publish(write_image(now, "deep_camera", "16UC1", np.ones((480, 640), np.uint16)))
        time.sleep(0.1)
        return "camera_info: expected one for images shaped as 640 x 480" in node.log

    wait_for(refused, lambda: f"the refusal; {node.log}")
    assert len(objects.messages) == before


def test_it_ends_with_a_signal(start_fusion: Callable[..., tuple[NodeProcess, Vehicle]]) -> None:
    node, vehicle = start_fusion("ending")
    vehicle.until(lambda: node.count("processed", "points"), "results", node)
    node.popen.terminate()
    assert node.popen.wait(10) == 0


def test_help_needs_no_ros() -> None:
    command = [sys.executable, "-m", "seg_perception.onboard.ros.fusion.main", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "points_topic" in done.stdout
