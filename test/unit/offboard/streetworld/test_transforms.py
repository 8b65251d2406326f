"""The bag's transforms lead from one image to another, and to the road: judged by what the images show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader

from seg_perception.offboard.data.bags.types import message_store
from seg_perception.offboard.streetworld.bag import (
    CAMERA_INFO,
    IMAGE,
    INSTANCE_MAP,
    TF,
    TF_STATIC,
    bag_transforms,
    write_bag,
)
from seg_perception.offboard.streetworld.ego import Transform, optical
from seg_perception.offboard.streetworld.scene import random_scene
from seg_perception.offboard.streetworld.world import StreetWorld, WorldFrame, WorldOptions

# Drives of 4 s, in steps of 0.5 s.
OPTIONS = WorldOptions(48, seed=4, width=640, height=384, fps=2.0, weathers=("day",), scene_frames=8)
STANDING = ("traffic sign", "traffic light")

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """One image of the bag, with what a node knows of it."""

    camera_to_map: Matrix
    base_to_map: Matrix
    matrix: Matrix
    distortion: Matrix
    numbers: NDArray[np.uint16]

    def to_map(self, pixel: tuple[float, float], distance: float) -> Matrix:
        """The point that a pixel shows."""
        return (self.camera_to_map @ np.append(self.ray(pixel) * distance, 1.0))[:3]

    def ray(self, pixel: tuple[float, float]) -> Matrix:
        flat = cv2.undistortPoints(np.array([[pixel]]), self.matrix, self.distortion).reshape(2)
        ray = np.append(flat, 1.0)
        return ray / np.linalg.norm(ray)

    def pixel(self, point: Matrix) -> Matrix:
        """Where a point of the map is seen; NaN if it is behind the camera or outside the image."""
        seen = (np.linalg.inv(self.camera_to_map) @ np.append(point, 1.0))[:3]
        if seen[2] < 1:
            return np.full(2, np.nan)
        pixel, _ = cv2.projectPoints(seen[None], np.zeros(3), np.zeros(3), self.matrix, self.distortion)
        x, y = pixel.reshape(2)
        inside = 0 <= x < self.numbers.shape[1] - 1 and 0 <= y < self.numbers.shape[0] - 1
        return np.array([x, y]) if inside else np.full(2, np.nan)


@pytest.fixture(scope="module")
def shots() -> list[WorldFrame]:
    return list(StreetWorld(OPTIONS).shots())


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory, shots: list[WorldFrame]) -> Path:
    folder = tmp_path_factory.mktemp("transforms") / "bag"
    write_bag(folder, StreetWorld(OPTIONS).camera, shots)
    return folder


@pytest.fixture(scope="module")
def views(bag: Path) -> list[View]:
    """From nothing but the bag."""
    received: dict[str, dict[int, Any]] = {}
    with AnyReader([bag], default_typestore=message_store()) as reader:
        for connection, stamp, data in reader.messages():
            received.setdefault(connection.topic, {})[stamp] = reader.deserialize(data, connection.msgtype)
    (static,) = received[TF_STATIC].values()
    result = []
    for stamp, numbers in received[INSTANCE_MAP].items():
        info, dynamic = received[CAMERA_INFO][stamp], received[TF][stamp]
        tree = {each.child_frame_id: each for each in (*static.transforms, *dynamic.transforms)}
        assert all(each.header.stamp == info.header.stamp for each in dynamic.transforms)
        frame_id = received[IMAGE][stamp].header.frame_id
        result.append(
            View(
                to_map(tree, frame_id),
                to_map(tree, "base_link"),
                np.reshape(info.k, (3, 3)),
                info.d,
                numbers.data.view("<u2").reshape(numbers.height, numbers.width),
            )
        )
    return result


def to_map(tree: dict[str, Any], frame: str) -> Matrix:
    """The transform of a frame to `map`, step by step up the tree."""
    result = np.eye(4)
    while frame != "map":
        step = tree[frame]
        turn, move = step.transform.rotation, step.transform.translation
        axis, real = np.array([turn.x, turn.y, turn.z]), turn.w
        assert axis @ axis + real * real == pytest.approx(1.0)
        # Rodrigues' vector of a quaternion.
        length = np.linalg.norm(axis)
        vector = axis * (2 * np.arctan2(length, real) / length) if length else axis
        here = np.eye(4)
        here[:3, :3], here[:3, 3] = cv2.Rodrigues(vector)[0], (move.x, move.y, move.z)
        result, frame = here @ result, step.header.frame_id
    return result


def misses(views: list[View], shots: list[WorldFrame], known: Callable[[int, int], View]) -> NDArray[np.float64]:
    """How many pixels next to its mask a sign or a light is looked for in images one to three seconds later.

    Its place on the map comes from its mask's middle and its distance in the earlier image.

    Args:
        views, shots: of the bag and of the world.
        known: what is taken for the later view, by the number of the earlier and of the later image.
    """
    found = []
    pairs = [(k, k + step) for step in (2, 4, 6) for k in range(len(shots) - step)]
    for early, late in pairs:
        for instance in shots[early].truth.instances:
            mask = views[late].numbers == instance.number
            alone = instance.occlusion == instance.truncation == 0
            if instance.class_name not in STANDING or not alone or mask.sum() < 20:
                continue
            x1, y1, x2, y2 = instance.box
            point = views[early].to_map(((x1 + x2 - 1) / 2, (y1 + y2 - 1) / 2), instance.distance)
            pixel = known(early, late).pixel(point)
            if not np.isnan(pixel).any():
                beside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
                found.append(beside[round(pixel[1]), round(pixel[0])])
    return np.array(found)


def test_what_stands_still_is_found_again_by_transforms_and_calibration(views: list[View], shots: list[WorldFrame]):
    found = misses(views, shots, lambda _, late: views[late])
    assert len(found) > 100
    assert (found == 0).mean() > 0.95
    # By the transform of the earlier image it is not found.
    assert (misses(views, shots, lambda early, _: views[early]) == 0).mean() < 0.3


def test_the_road_is_the_plane_zero(views: list[View], shots: list[WorldFrame]):
    """Where the lower edge of a vehicle's box meets the road it is as far away as the truth says."""
    errors = []
    for view, shot in zip(views, shots, strict=True):
        for instance in shot.truth.instances:
            whole = instance.occlusion == instance.truncation == 0
            if instance.class_name not in ("car", "truck", "bus") or not whole or not 8 < instance.distance < 40:
                continue
            x1, _, x2, y2 = instance.box
            start, ray = view.camera_to_map[:3, 3], view.camera_to_map[:3, :3] @ view.ray(((x1 + x2 - 1) / 2, y2 - 0.5))
            foot = start + ray * (start[2] / -ray[2])
            distance = np.linalg.norm(foot[:2] - view.base_to_map[:2, 3])
            errors.append(distance / instance.distance - 1)
    assert len(errors) > 40
    # The distance is that of a bumper, the box ends with the tyres behind it.
    assert 0 < np.median(errors) < 0.06
    assert np.percentile(np.abs(errors), 95) < 0.1


def test_the_car_drives_ahead_on_the_road(views: list[View], shots: list[WorldFrame]):
    for before, after, shot, following in zip(views, views[1:], shots, shots[1:], strict=False):
        down = after.base_to_map[:3, :3] @ (0, 0, 1)
        assert down == pytest.approx([0, 0, 1])
        assert after.base_to_map[2, 3] == 0
        assert 1.2 < after.camera_to_map[2, 3] < 2.2
        if shot.scene == following.scene:
            step = np.linalg.inv(before.base_to_map) @ after.base_to_map[:, 3]
            assert 1.4 < step[0] < 6.6
            assert abs(step[1]) < 0.15 * step[0]


@pytest.mark.parametrize("second", [0.4, 1.7, 5.0])
def test_the_transforms_are_exactly_the_pose_that_was_painted(second: float):
    """Also the roll, which is too small to be seen in where things are found."""
    scene = random_scene(3, 1, 6.0, "day", 1)
    pose, frames = scene.pose(second), (*scene.ego(second).transforms(), optical("camera"))
    assert abs(pose.roll) > 1e-3
    tree = {each.child: message(each) for each in frames}
    points = np.random.default_rng(0).uniform((-5, -1, 5), (5, 5, 40), (20, 3))
    # Of the base: x ahead, y to the left, z up from the road; turned as the car is against the street.
    ahead, left, up = points[:, 2], -points[:, 0], points[:, 1] + pose.y
    (sine, cosine), whole = (np.sin(pose.yaw), np.cos(pose.yaw)), np.ones(20)
    based = np.stack([cosine * ahead - sine * left, sine * ahead + cosine * left, up, whole])
    seen = np.linalg.inv(to_map(tree, "camera")) @ to_map(tree, "base_link") @ based
    assert np.allclose(seen[:3].T, points @ pose.rotation().T, atol=1e-4)


def message(step: Transform) -> Any:
    """As it is in a bag."""
    types = message_store().types
    return bag_transforms(types, types["std_msgs/msg/Header"](stamp=None, frame_id=""), [step]).transforms[0]


def test_streets_of_different_drives_lie_apart(views: list[View], shots: list[WorldFrame]):
    places = {shot.scene: view.base_to_map[:2, 3] for view, shot in zip(views, shots, strict=True)}
    assert all(np.linalg.norm(a - b) > 500 for i, a in places.items() for j, b in places.items() if i < j)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_players_of_the_bag_learn_that_static_transforms_stay(tmp_path: Path, shots: list[WorldFrame], storage: str):
    folder = tmp_path / "bag"
    write_bag(folder, StreetWorld(OPTIONS).camera, shots[:2], storage)
    information = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    topics = {each["topic_metadata"]["name"]: each for each in information["topics_with_message_count"]}
    assert (topics[TF_STATIC]["message_count"], topics[TF]["message_count"]) == (1, 2)
    assert information["version"] == 8
    for topic, each in topics.items():
        # Up to version 8 a text with numbers, since then a list with words; players before Iron know the text only.
        text = each["topic_metadata"]["offered_qos_profiles"]
        assert isinstance(text, str)
        (profile,) = yaml.safe_load(text)
        assert profile["durability"] == (1 if topic == TF_STATIC else 2)  # transient local, volatile
        assert (profile["reliability"], profile["history"]) == (1, 1)  # reliable, keep last
        assert profile["depth"] >= 1
        assert set(profile["lifespan"]) == {"sec", "nsec"}
