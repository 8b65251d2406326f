"""Fusion: what it costs, and how far the places it finds are from the true ones in unseen drives of the street world.

Cost: a turn of 64 rings with 120,000 points, and a depth image of 720p, each under 30 instances; CPU time of the one
thread that does it, which other programs disturb least. Accuracy: the distance of an object is that of the middle of
what the camera sees of it, in the exact depth image; masks are the true ones, the true ones grown by 5 pixels, and
those of the model, whose objects are held against the true one that they overlap most. Misplaced is an object whose
box is farther from the true one, in plan view, than that is long (or a metre).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.table import show
from demo.model import MODEL
from seg_perception.core.messages.calibration import CAMERA_INFO, Calibration
from seg_perception.core.messages.detections import (
    DETECTIONS,
    DETECTIONS_3D,
    DetectionRow,
    Hypothesis,
    read_detections,
)
from seg_perception.core.messages.images import read_image, write_image
from seg_perception.core.messages.point_clouds import read_point_cloud, write_point_cloud
from seg_perception.core.messages.transforms import StampedTransform
from seg_perception.offboard.data.bags.reader import Bag
from seg_perception.offboard.data.bags.types import message_store
from seg_perception.offboard.replay.fuse import FuseJob, fuse_bag
from seg_perception.offboard.replay.writer import BagWriter
from seg_perception.onboard.fusion.boxes import OPTICAL, FusionOptions
from seg_perception.onboard.fusion.depth import read_depth
from seg_perception.onboard.fusion.fuse import Fused, View, deskewed, fuse_cloud, fuse_depth
from seg_perception.onboard.fusion.fuser import FuserOptions
from seg_perception.onboard.fusion.projection import CameraModel, Projection
from seg_perception.onboard.fusion.transforms import RigidTransform, TransformBuffer

POINTS, RINGS, INSTANCES, SIZE = 120_000, 64, 30, (1280, 720)
ROUNDS = 40
# Unseen designs, as the tests of the default model have them.
SEED, FRAMES, WORLD_SIZE, NEAR = 7000, 120, "640x384", 40.0
GROUPS = ("pedestrian", "vehicle", "traffic_sign", "traffic_light")
LIDAR, DEPTH, INFO = "/lidar/points", "/camera/depth/image_raw", "/camera/camera_info"
MAP = "/ground_truth/instance_map"
_OVERLAP = 0.5


class Case(NamedTuple):
    """A bag and the namespace of the results in it."""

    masks: str
    bag: Path
    results: str


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=FRAMES, help="of the street world (default: %(default)s)")
    arguments = parser.parse_args()
    show("Cost, ms of CPU time, median", ["what", "read", "place", "write"], list(cost()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drive = _drive(folder / "sensors", arguments.frames, "--lidar", str(RINGS), "--depth", "noisy")
        exact = _drive(folder / "exact", arguments.frames, "--depth", "exact", "--boxes-3d")
        truth = true_objects(exact)
        cases = [
            Case("true", drive, "/ground_truth"),
            Case("true, grown by 5 pixels", grown(drive, folder / "grown.mcap", 5), "/ground_truth"),
            Case(f"of {MODEL.name}", _replayed(drive, folder / "model.mcap"), "/segmenter"),
        ]
        head = [
            "points",
            "masks",
            "group",
            "objects",
            "median m",
            "median %",
            "p95 m",
            "misplaced %",
            "without a place %",
        ]
        rows = [row for points in (LIDAR, DEPTH) for case in cases for row in accuracy(case, points, truth, folder)]
        show(f"Distance error within {NEAR:g} m, {arguments.frames} frames", head, rows)


# Cost


def cost() -> Iterable[list[str]]:
    """Rows of the table of costs."""
    width, height = SIZE
    k = np.array([1000.0, 0, width / 2, 0, 1000.0, height / 2, 0, 0, 1])
    lens = {"without distortion": np.zeros(0), "plumb_bob": np.array([-0.3, 0.1, 0.001, 0.001, 0.0])}
    message, transforms = _turn(), _driving()
    options, target = FusionOptions(), ("lidar", RigidTransform.identity())
    to_camera = RigidTransform(OPTICAL, np.zeros(3))
    for name, d in lens.items():
        calibration = Calibration(0, "camera", height, width, "plumb_bob", d, k, np.eye(3).reshape(-1), np.zeros(12))
        view = _view(Projection(CameraModel.of(calibration, width, height)))
        yield [f"{POINTS} points, {name}", *_timed(
            lambda: read_point_cloud(message),
            lambda cloud, view=view: fuse_cloud(
                deskewed(cloud, transforms, "odom"), [(view, to_camera)], target, options
            ),
            lambda fused: (fused.points_message(all_points=False), fused.detections_message()),
        )]  # fmt: skip
    depth = np.random.default_rng(1).integers(9_900, 10_100, (height, width)).astype(np.uint16)
    serialized = write_image(0, "camera", "16UC1", depth)
    view.projection.rays()
    yield [f"depth image of {width} x {height}", *_timed(
        lambda: read_depth(read_image(serialized)),
        lambda image: fuse_depth(image, view, ("camera", RigidTransform.identity()), options),
        lambda fused: (fused.points_message(all_points=False), fused.detections_message()),
    )]  # fmt: skip


def _timed(*steps: Callable[..., object]) -> list[str]:
    seconds = []
    for _ in range(ROUNDS):
        value: tuple[object, ...] = ()
        times = []
        for step in steps:
            begin = time.thread_time()
            value = (step(*value),)
            times.append(time.thread_time() - begin)
        seconds.append(times)
    return [f"{1e3 * each:.1f}" for each in np.median(seconds, 0)]


def _turn() -> bytes:
    random = np.random.default_rng(1)
    azimuth = np.sort(random.uniform(-np.pi, np.pi, POINTS))
    ring = random.integers(0, RINGS, POINTS)
    elevation, reach = np.deg2rad(-25 + 30 * ring / RINGS), random.uniform(9.5, 10.5, POINTS)
    flat = reach * np.cos(elevation)
    columns = {
        "x": flat * np.cos(azimuth), "y": flat * np.sin(azimuth), "z": reach * np.sin(elevation),
        "intensity": reach, "time": azimuth / (20 * np.pi) - 0.05,
    }  # fmt: skip
    packed: dict[str, NDArray[np.generic]] = {name: values.astype(np.float32) for name, values in columns.items()}
    return write_point_cloud(10**9, "lidar", packed | {"ring": ring.astype(np.uint16)})


def _driving() -> TransformBuffer:
    buffer, straight = TransformBuffer(), np.array([0.0, 0.0, 0.0, 1.0])
    for t in np.arange(0.8, 1.05, 0.02):
        place = StampedTransform(round(t * 1e9), "odom", "lidar", np.array([15 * t, 0, 0]), straight)
        buffer.add([place], static=False)
    return buffer


def _view(projection: Projection) -> View:
    """Thirty instances, each of 60 x 90 pixels."""
    width, height = SIZE
    instance_map = np.zeros((height, width), np.uint16)
    for number in range(INSTANCES):
        x, y = number % 10 * 128 + 30, number // 10 * 200 + 240
        instance_map[y : y + 90, x : x + 60] = number + 1
    rows = {n: DetectionRow(n, (Hypothesis("vehicle", 0.9), Hypothesis("car", 0.9))) for n in range(1, INSTANCES + 1)}
    return View("camera", "camera", 10**9, projection, instance_map, rows)


# Accuracy


def _drive(folder: Path, frames: int, *more: str) -> Path:
    command = [
        sys.executable, "-m", "seg_perception.cli", "streetworld", "--frames", str(frames), "--seed", str(SEED),
        "--designs", "unseen", "--scene-frames", "30", "--size", WORLD_SIZE, "--bag", str(folder), *more,
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def _replayed(bag: Path, output: Path) -> Path:
    command = [
        sys.executable, "-m", "seg_perception.cli", "replay", str(bag), "--model", str(MODEL), "-o", str(output),
        "--topics", "/camera/image_raw", "--copy-inputs",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return output


def grown(bag: Path, output: Path, pixels: int) -> Path:
    """Copy a bag with true masks that are larger by some pixels, where nothing else is."""
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    with Bag(bag) as source, BagWriter(output, {}) as writer:
        for topic, kind, time_ns, data in source.messages():
            if topic == MAP:
                image = read_image(data)
                before = image.data.view("<u2").reshape(image.height, image.width)
                after = np.where(before > 0, before, cv2.dilate(before, kernel))
                data = write_image(image.stamp_ns, image.frame_id, "mono16", after.astype(np.uint16))
            writer.write(topic, kind, time_ns, data)
    return output


class TrueObject(NamedTuple):
    """An object: its road group, distance in metres, and its box in `base_link`: centre `[3]` and length."""

    group: str
    distance: float
    centre: NDArray[np.float64]
    length: float


Truth = Mapping[int, tuple[NDArray[np.uint16], Mapping[int, TrueObject]]]


def true_objects(bag: Path) -> Truth:
    """The true map of each stamp, and its objects by their number."""
    boxes: dict[int, dict[int, tuple[NDArray[np.float64], float]]] = {}
    maps: dict[int, NDArray[np.uint16]] = {}
    depths: dict[int, NDArray[np.float32]] = {}
    groups: dict[int, dict[int, str]] = {}
    calibration: Calibration | None = None
    with Bag(bag) as source:
        for topic, kind, _, data in source.messages():
            if topic == MAP:
                image = read_image(data)
                maps[image.stamp_ns] = image.data.view("<u2").reshape(image.height, image.width)
            elif topic == DEPTH:
                depth = read_depth(read_image(data))
                depths[depth.stamp_ns] = depth.values * np.float32(depth.metres)
            elif topic == INFO and kind == CAMERA_INFO:
                calibration = Calibration.read(data)
            elif kind == DETECTIONS_3D:
                message = message_store().deserialize_cdr(data, kind)
                stamp = message.header.stamp
                boxes[stamp.sec * 10**9 + stamp.nanosec] = {
                    int(each.id): _box(each.bbox) for each in message.detections
                }
            elif kind == DETECTIONS:
                stamp_ns, _, rows = read_detections(data)
                groups[stamp_ns] = {row.number: row.group for row in rows}
    assert calibration is not None
    height, width = next(iter(maps.values())).shape
    rays = Projection(CameraModel.of(calibration, width, height)).rays()
    lengths = np.linalg.norm(rays, axis=1).reshape(height, width)
    result = {}
    for stamp_ns, instance_map in maps.items():
        reach = depths[stamp_ns] * lengths
        objects = {}
        for number, group in groups[stamp_ns].items():
            distance = float(np.nanmedian(reach[instance_map == number]))
            objects[number] = TrueObject(group, distance, *boxes[stamp_ns][number])
        result[stamp_ns] = instance_map, objects
    return result


def _box(box: Any) -> tuple[NDArray[np.float64], float]:
    place = box.center.position
    return np.array([place.x, place.y, place.z]), max(box.size.x, box.size.y)


def accuracy(
    case: Case,
    points: str,
    truth: Truth,
    folder: Path,
) -> Iterable[list[str]]:
    """Rows of the table of errors."""
    pairs: dict[str, list[tuple[float, float, bool]]] = defaultdict(list)
    missing: dict[str, int] = defaultdict(int)
    own = _own_maps(case)

    def watch(fused: Fused) -> None:
        stamp_ns = fused.cloud.stamp_ns
        true_map, objects = truth[stamp_ns]
        found = {int(each.identity): (each, near) for each, near in zip(fused.objects, fused.distances, strict=True)}
        for number, true in objects.items():
            mine = _overlapping(true_map == number, own[stamp_ns]) if true.distance <= NEAR else 0
            if mine in found:
                placed, distance = found[mine]
                apart = float(np.linalg.norm((placed.centre - true.centre)[:2]))
                pairs[true.group].append((true.distance, distance, apart > max(true.length, 1.0)))
            elif mine:
                missing[true.group] += 1

    output = folder / "fused.mcap"
    output.unlink(missing_ok=True)
    options = FuserOptions("base_link", "map")
    fuse_bag(FuseJob(case.bag, points, output, case.results, INFO, options=options), watch)
    for group in GROUPS:
        if not pairs[group]:
            continue
        true, found, misplaced = np.array(pairs[group]).T
        error = np.abs(true - found)
        figures = f"{np.median(error):.3f}", f"{100 * np.median(error / true):.2f}", f"{np.percentile(error, 95):.2f}"
        share = 100 * missing[group] / (missing[group] + len(error))
        yield [points, case.masks, group, str(len(error)), *figures, f"{100 * misplaced.mean():.1f}", f"{share:.0f}"]


def _own_maps(case: Case) -> dict[int, NDArray[np.uint16]]:
    with Bag(case.bag) as bag:
        images = [read_image(message.data) for message in bag.messages([f"{case.results}/instance_map"])]
    return {each.stamp_ns: each.data.view("<u2").reshape(each.height, each.width) for each in images}


def _overlapping(mask: NDArray[np.bool_], own: NDArray[np.uint16]) -> int:
    """The instance that covers most of a true one, and at least half of it; 0 for none."""
    numbers, counts = np.unique(own[mask], return_counts=True)
    best = int(np.argmax(counts))
    return int(numbers[best]) if counts[best] >= _OVERLAP * mask.sum() else 0


if __name__ == "__main__":
    main()
