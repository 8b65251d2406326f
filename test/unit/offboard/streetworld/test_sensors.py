"""Depth, clouds and boxes of a bag fit together and to the images: judged with nothing but the bag."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader

from seg_perception.cli.main import main
from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.data.bags.types import message_store
from seg_perception.offboard.data.images import open_source
from seg_perception.offboard.streetworld import bag as b
from seg_perception.offboard.streetworld.lidar import RANGE_NOISE
from seg_perception.offboard.streetworld.scene import random_scene
from seg_perception.offboard.streetworld.truth import Truth
from seg_perception.offboard.streetworld.world import FIRST_STAMP_NS, StreetWorld, WorldFrame, WorldOptions

PLAIN = WorldOptions(6, seed=4, width=320, height=192, weathers=("day",), scene_frames=3)
OPTIONS = replace(PLAIN, depth="exact", lidar=32, boxes_3d=True)

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """All messages of one stamp by topic, and the transforms up to then."""

    messages: dict[str, Any]
    mounts: dict[str, Any]
    poses: dict[int, dict[str, Any]]
    stamp: int

    def optical_to_base(self) -> Matrix:
        mount, tree = self.messages[b.IMAGE].header.frame_id, self.poses[self.stamp]
        return matrix(tree["camera_link"]) @ matrix(self.mounts[mount])

    def instance_map(self) -> NDArray[np.uint16]:
        message = self.messages[b.INSTANCE_MAP]
        return np.asarray(message.data.view("<u2").reshape(message.height, message.width))

    def seen_points(self) -> Matrix:
        """Every pixel of the depth image as a point in `base_link`, `[height, width, 3]`."""
        message, info = self.messages[b.DEPTH], self.messages[b.DEPTH_INFO]
        depth = message.data.view("<f4").reshape(message.height, message.width).astype(float)
        columns, rows = np.meshgrid(np.arange(message.width), np.arange(message.height))
        pixels = np.stack([columns, rows], -1).reshape(-1, 1, 2).astype(float)
        flat = cv2.undistortPoints(pixels, np.reshape(info.k, (3, 3)), info.d).reshape(message.height, message.width, 2)
        points = np.dstack([flat * depth[..., None], depth])
        return moved(self.optical_to_base(), points)

    def cloud(self) -> NDArray[Any]:
        return points_of(self.messages[b.POINTS])

    def standing_cloud(self) -> Matrix:
        """The cloud in `base_link` of the message's stamp, each point by the transforms of its own time."""
        cloud = self.cloud()
        points = np.stack([cloud["x"], cloud["y"], cloud["z"]], 1).astype(float)
        points = moved(matrix(self.mounts["lidar"]), points)
        known = sorted(self.poses)
        times = self.stamp + cloud["time"].astype(float) * 1e9
        places = np.array([place(self.poses[stamp]["base_link"]) for stamp in known])
        x, y, yaw = (np.interp(times, known, places[:, k]) for k in range(3))
        on_map = np.stack(
            [
                x + np.cos(yaw) * points[:, 0] - np.sin(yaw) * points[:, 1],
                y + np.sin(yaw) * points[:, 0] + np.cos(yaw) * points[:, 1],
                points[:, 2],
            ],
            1,
        )
        return moved(np.linalg.inv(matrix(self.poses[self.stamp]["base_link"])), on_map)

    def boxes(self) -> dict[int, Any]:
        return {int(each.id): each.bbox for each in self.messages[b.DETECTIONS_3D].detections}


def matrix(step: Any) -> Matrix:
    turn, move = step.transform.rotation, step.transform.translation
    x, y, z, w = turn.x, turn.y, turn.z, turn.w
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = rotation, (move.x, move.y, move.z)
    return result


def place(step: Any) -> tuple[float, float, float]:
    turn, move = step.transform.rotation, step.transform.translation
    return move.x, move.y, 2 * np.arctan2(turn.z, turn.w)


def moved(transform: Matrix, points: Matrix) -> Matrix:
    return np.asarray(points @ transform[:3, :3].T + transform[:3, 3])


def points_of(message: Any) -> NDArray[Any]:
    kinds = {7: "<f4", 4: "<u2"}
    layout = {
        "names": [each.name for each in message.fields],
        "formats": [kinds[each.datatype] for each in message.fields],
        "offsets": [each.offset for each in message.fields],
        "itemsize": message.point_step,
    }
    assert len(message.data) == message.row_step == message.point_step * message.width
    return np.frombuffer(message.data.tobytes(), np.dtype(layout))  # type: ignore[call-overload]


def within(box: Any, points: Matrix, margin: float) -> NDArray[np.bool_]:
    centre, turn = box.center.position, box.center.orientation
    yaw = 2 * np.arctan2(turn.z, turn.w)
    x, y, z = (points - (centre.x, centre.y, centre.z)).T
    ahead, left = np.cos(yaw) * x + np.sin(yaw) * y, np.cos(yaw) * y - np.sin(yaw) * x
    size = np.array([box.size.x, box.size.y, box.size.z])
    return np.asarray((np.abs(np.stack([ahead, left, z], 1)) <= size / 2 + margin).all(1))


@pytest.fixture(scope="module")
def shots() -> list[WorldFrame]:
    return list(StreetWorld(OPTIONS).shots())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shots: list[WorldFrame]) -> Path:
    path = tmp_path_factory.mktemp("sensors") / "bag"
    b.write_bag(path, StreetWorld(OPTIONS).camera, shots)
    return path


@pytest.fixture(scope="module")
def moments(folder: Path) -> list[Moment]:
    mounts: dict[str, Any] = {}
    poses: dict[int, dict[str, Any]] = {}
    messages: dict[int, dict[str, Any]] = {}
    with AnyReader([folder], default_typestore=message_store()) as reader:
        for connection, stamp, data in reader.messages():
            message: Any = reader.deserialize(data, connection.msgtype)
            if connection.topic == b.TF_STATIC:
                mounts.update({each.child_frame_id: each for each in message.transforms})
            elif connection.topic == b.TF:
                poses[stamp] = {each.child_frame_id: each for each in message.transforms}
            else:
                messages.setdefault(stamp, {})[connection.topic] = message
    return [Moment(found, mounts, poses, stamp) for stamp, found in messages.items()]


def stripped(shot: WorldFrame) -> WorldFrame:
    instances = tuple(replace(instance, box_3d=None) for instance in shot.truth.instances)
    truth = Truth(shot.truth.instance_map, instances)
    return replace(shot, truth=truth, depth=None, depth_encoding="", cloud=None, way=(), has_boxes=False)


def test_sensors_change_nothing_else(tmp_path: Path, shots: list[WorldFrame]):
    """A world without them is byte for byte the rest of a world with them, images, truth and transforms included."""
    plain = StreetWorld(PLAIN)
    for name, frames in (("one", plain.shots()), ("two", map(stripped, shots))):
        (tmp_path / name).mkdir()
        b.write_bag(tmp_path / name / "bag", plain.camera, frames)
    for file in ("bag.mcap", "metadata.yaml"):
        assert (tmp_path / "one/bag" / file).read_bytes() == (tmp_path / "two/bag" / file).read_bytes()


def test_each_sensor_measures_the_same_with_and_without_the_others(shots: list[WorldFrame]):
    index = 4
    for options in (replace(PLAIN, depth="exact"), replace(PLAIN, lidar=32), replace(PLAIN, boxes_3d=True)):
        shot, full = StreetWorld(options).render(index), shots[index]
        assert (shot.depth is None) == (not options.depth)
        assert (shot.cloud is None) == (not options.lidar)
        if shot.depth is not None:
            assert np.array_equal(shot.depth, full.depth, equal_nan=True)  # type: ignore[arg-type]
        if shot.cloud is not None and full.cloud is not None:
            assert np.array_equal(shot.cloud.points, full.cloud.points)
            assert shot.way == full.way
        if options.boxes_3d:
            assert [each.box_3d for each in shot.truth.instances] == [each.box_3d for each in full.truth.instances]


def test_messages_name_their_frames_fields_and_stamps(moments: list[Moment], shots: list[WorldFrame]):
    assert [moment.stamp for moment in moments] == [shot.frame.stamp_ns for shot in shots]
    for moment, shot in zip(moments, shots, strict=True):
        messages = moment.messages
        assert set(messages) == {*b.TOPICS, *b.TOPICS_3D} - {b.TF, b.TF_STATIC}
        assert messages[b.DEPTH].header == messages[b.DEPTH_INFO].header == messages[b.IMAGE].header
        assert {message.header.stamp.nanosec for message in messages.values()} == {moment.stamp % 10**9}
        frames = {topic: messages[topic].header.frame_id for topic in (b.POINTS, b.DETECTIONS_3D, b.DISTANCES)}
        assert frames == {b.POINTS: "lidar", b.DETECTIONS_3D: "base_link", b.DISTANCES: "base_link"}
        depth, image, info = messages[b.DEPTH], messages[b.IMAGE], messages[b.CAMERA_INFO]
        assert (depth.encoding, depth.width, depth.height) == ("32FC1", image.width, image.height)
        assert np.array_equal(depth.data.view("<f4").reshape(192, 320), shot.depth, equal_nan=True)  # type: ignore[arg-type]
        assert np.array_equal(info.k, messages[b.DEPTH_INFO].k)
        assert np.array_equal(info.d, messages[b.DEPTH_INFO].d)
        cloud = moment.cloud()
        assert cloud.dtype.names == ("x", "y", "z", "intensity", "ring", "time")
        assert len(cloud) == len(shot.cloud or ())
        assert [each.id for each in messages[b.DETECTIONS_3D].detections] == [
            each.id for each in messages[b.DETECTIONS].detections
        ]
        for flat, solid in zip(messages[b.DETECTIONS].detections, messages[b.DETECTIONS_3D].detections, strict=True):
            assert [each.hypothesis for each in flat.results] == [each.hypothesis for each in solid.results]


def test_static_transforms_come_together(moments: list[Moment]):
    mounts = moments[0].mounts
    assert {child: each.header.frame_id for child, each in mounts.items()} == {
        "streetworld_camera": "camera_link", "lidar": "base_link",
    }  # fmt: skip
    assert mounts["lidar"].transform.translation.z == 1.9


def test_exact_depth_of_an_object_lies_in_its_box(moments: list[Moment]):
    inside = []
    for moment in moments:
        points, numbers = moment.seen_points(), moment.instance_map()
        for number, box in moment.boxes().items():
            seen = points[numbers == number]
            inside.append(within(box, seen, 0.05))
            # Of what is far away a pixel on the outline looks past it, by half a pixel and a quarter for the sample.
            pixel = np.linalg.norm(seen, axis=1).mean() / moment.messages[b.DEPTH_INFO].k[0]
            assert within(box, seen, 0.05 + 0.75 * pixel).all()
    assert len(inside) > 50
    assert np.concatenate(inside).mean() >= 0.99


def test_depth_is_there_for_all_but_the_sky(moments: list[Moment]):
    for moment in moments:
        points, numbers = moment.seen_points(), moment.instance_map()
        nothing = np.isnan(points[..., 2])
        assert not nothing[numbers > 0].any()
        assert 0.02 < nothing.mean() < 0.5
        assert not nothing[-20:].any()
        # Nothing is below the road but by the size of a pixel.
        assert np.nanmin(points[..., 2]) > -0.05


def test_deskewed_points_of_what_stands_lie_in_its_box(moments: list[Moment], shots: list[WorldFrame]):
    deskewed, raw = [], []
    for moment, shot in zip(moments, shots, strict=True):
        scene = random_scene(4, shot.scene, 0.3, "day", 1 + shot.scene * OPTIONS.tracks_per_drive)
        standing = {actor.track for actor in scene.actors if actor.track and not actor.speed}
        assert shot.cloud is not None
        points = moment.standing_cloud()
        for number in standing & set(moment.boxes()):
            mine = shot.cloud.instance == number
            deskewed.append(within(moment.boxes()[number], points[mine], 3 * RANGE_NOISE))
            raw.append(within(moment.boxes()[number], moved(matrix(moment.mounts["lidar"]), shot.cloud.points[mine]),
                              3 * RANGE_NOISE))  # fmt: skip
    assert len(np.concatenate(deskewed)) > 100
    assert np.concatenate(deskewed).mean() >= 0.99
    # Motion distortion: by the stamp of the message alone many points are elsewhere.
    assert np.concatenate(raw).mean() < 0.9


def test_points_of_what_moves_are_where_it_was_at_their_time(moments: list[Moment], shots: list[WorldFrame]):
    at_stamp, at_time = [], []
    for moment, shot in zip(moments, shots, strict=True):
        scene = random_scene(4, shot.scene, 0.3, "day", 1 + shot.scene * OPTIONS.tracks_per_drive)
        second = (shot.frame.stamp_ns - FIRST_STAMP_NS) / 1e9 - 0.3 * shot.scene
        moving = [actor for actor in scene.actors if actor.class_name in ("car", "bus") and actor.speed > 4]
        actors = {actor.track: actor for actor in moving}
        assert shot.cloud is not None
        for number in set(actors) & set(moment.boxes()):
            mine = shot.cloud.instance == number
            pose = scene.pose(second)
            ways = [actors[number].at(second + time) for time in (-0.05, 0.0)]
            feet = np.array([[way.x, 0, way.z] for way in ways], np.float32)
            velocity = np.diff(pose.to_base(pose.bent(feet)), axis=0)[0] / 0.05
            points = moment.standing_cloud()[mine]
            back = points - velocity * shot.cloud.time[mine, None]
            at_stamp.append(within(moment.boxes()[number], points, 0.08))
            at_time.append(within(moment.boxes()[number], back, 0.08))
    assert len(np.concatenate(at_time)) > 50
    assert np.concatenate(at_time).mean() >= 0.99
    assert np.concatenate(at_stamp).mean() < 0.95


def test_lidar_and_depth_image_agree(moments: list[Moment]):
    """Two ways to the same surfaces: one paints faces, the other meets them with rays."""
    agreed = []
    for moment in moments:
        info, points = moment.messages[b.CAMERA_INFO], moment.standing_cloud()
        seen = moved(np.linalg.inv(moment.optical_to_base()), points)
        seen = seen[seen[:, 2] > 1.5]
        pixels, _ = cv2.projectPoints(seen, np.zeros(3), np.zeros(3), np.reshape(info.k, (3, 3)), info.d)
        columns, rows = np.rint(pixels.reshape(-1, 2)).T
        straight = np.abs(seen[:, :2] / seen[:, 2:]).max(1) < 0.9
        there = straight & (columns >= 0) & (columns < 320) & (rows >= 0) & (rows < 192)
        image = moment.messages[b.DEPTH].data.view("<f4").reshape(192, 320)
        depth = image[rows[there].astype(int), columns[there].astype(int)]
        assert there.sum() > 1000
        agreed.append(np.abs(depth - seen[there, 2]) < 0.2 + 0.02 * seen[there, 2])
    # The rest are pixels on outlines, and what the one sees past an edge that hides it from the other.
    assert np.concatenate(agreed).mean() > 0.9


def test_distances_are_those_to_the_visible_surface_and_to_the_centre(moments: list[Moment]):
    for moment in moments:
        rows = points_of(moment.messages[b.DISTANCES])
        camera = moment.optical_to_base()[:3, 3]
        points, numbers = moment.seen_points(), moment.instance_map()
        assert rows["instance"].tolist() == sorted(moment.boxes())
        for row in rows:
            centre = moment.boxes()[int(row["instance"])].center.position
            nearest = np.linalg.norm(points[numbers == row["instance"]] - camera, axis=1).min()
            assert row["distance"] == pytest.approx(nearest, abs=1e-3)
            assert np.linalg.norm((row["x"], row["y"], row["z"]) - camera) == pytest.approx(nearest, abs=1e-3)
            expected = np.linalg.norm(np.array([centre.x, centre.y, centre.z]) - camera)
            assert row["centre_distance"] == pytest.approx(expected, abs=1e-3)


def test_boxes_of_what_stands_stay_where_they_are_on_the_map(moments: list[Moment], shots: list[WorldFrame]):
    steps, turns = [], []
    for before, after, shot, following in zip(moments, moments[1:], shots, shots[1:], strict=False):
        if shot.scene != following.scene:
            continue
        scene = random_scene(4, shot.scene, 0.3, "day", 1 + shot.scene * OPTIONS.tracks_per_drive)
        standing = {actor.track for actor in scene.actors if actor.track and not actor.speed}
        for number in standing & set(before.boxes()) & set(after.boxes()):
            (a, yaw_a), (b, yaw_b) = (on_map(moment, moment.boxes()[number]) for moment in (before, after))
            steps.append(np.linalg.norm(a - b))
            turns.append(abs((yaw_a - yaw_b + np.pi) % (2 * np.pi) - np.pi))
    assert len(steps) > 10
    # We drove a metre in between; the road's parabola is no arc, so that far away things move a little.
    assert max(steps) < 0.1
    assert max(turns) < 0.01


def on_map(moment: Moment, box: Any) -> tuple[Matrix, float]:
    base = moment.poses[moment.stamp]["base_link"]
    centre, turn = box.center.position, box.center.orientation
    yaw = place(base)[2] + 2 * np.arctan2(turn.z, turn.w)
    return moved(matrix(base), np.array([centre.x, centre.y, centre.z])), yaw


def test_transforms_cover_every_sweep(moments: list[Moment]):
    for moment in moments:
        times = moment.cloud()["time"]
        assert -0.1 < times.min() <= times.max() <= 0
        # The first sweep of a drive, too, whose street is a kilometre away from the last one.
        known = [stamp for stamp in moment.poses if moment.stamp - 10**8 < stamp <= moment.stamp]
        assert len(known) == 6
        assert min(known) <= moment.stamp + times.min() * 1e9 + 100
        places = np.array([place(moment.poses[stamp]["base_link"])[:2] for stamp in sorted(known)])
        assert np.linalg.norm(np.diff(places, axis=0), axis=1).max() < 0.3


def test_players_learn_how_the_topics_were_offered(folder: Path):
    information = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    topics = {each["topic_metadata"]["name"]: each for each in information["topics_with_message_count"]}
    assert set(topics) == {*b.TOPICS, *b.TOPICS_3D}
    for topic, kind in b.TOPICS_3D.items():
        assert topics[topic]["topic_metadata"]["type"] == kind
        assert topics[topic]["message_count"] == 6
        (profile,) = yaml.safe_load(topics[topic]["topic_metadata"]["offered_qos_profiles"])
        assert (profile["durability"], profile["reliability"], profile["depth"]) == (2, 1, 10)
    assert topics[b.TF]["message_count"] == 36


def test_the_bag_still_has_one_camera(folder: Path):
    names = {frame.encoding for _, frame in open_source(folder)} - {"mono16"}
    assert names == {"bgr8"}


def test_noisy_depth_is_in_millimetres_with_0_for_nothing(tmp_path: Path):
    arguments = ["--frames", "1", "--seed", "4", "--size", "320x192", "--weather", "day", "--depth", "noisy"]
    assert main(["streetworld", *arguments, "--bag", str(tmp_path / "bag")]) == 0
    shot = StreetWorld(WorldOptions(1, 4, 320, 192, weathers=("day",), depth="noisy")).render(0)
    assert shot.depth is not None
    with AnyReader([tmp_path / "bag"], default_typestore=message_store()) as reader:
        topics = {connection.topic for connection in reader.connections}
        assert topics == {*b.TOPICS, b.DEPTH, b.DEPTH_INFO}
        ((connection, _, data),) = reader.messages([each for each in reader.connections if each.topic == b.DEPTH])
        message: Any = reader.deserialize(data, connection.msgtype)
    assert (message.encoding, message.step, message.is_bigendian) == ("16UC1", 640, 0)
    pixels = message.data.view("<u2").reshape(192, 320)
    assert np.array_equal(pixels == 0, np.isnan(shot.depth))
    assert np.abs(pixels / 1000 - np.nan_to_num(shot.depth)).max() < 1e-4
    assert pixels[pixels > 0].min() >= 300
    assert pixels.max() <= 40000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"depth": "perfect"}, "exact or noisy, got 'perfect'"), ({"lidar": 17}, "16, 32, 64 rings, got 17"),
     ({"lidar": -16}, "16, 32, 64 rings, got -16")],
)  # fmt: skip
def test_impossible_sensors_are_refused(wrong: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        replace(PLAIN, **wrong)


@pytest.mark.parametrize(
    ("options", "output", "message"),
    [(["--depth", "exact"], "--coco", "--depth: expected with --bag"),
     (["--lidar", "16"], "--coco", "--lidar: expected with --bag"),
     (["--lidar", "16"], "--sheet", "--lidar: expected with --bag"),
     (["--boxes-3d"], "--sheet", "--boxes-3d: expected with --bag or --coco")],
)  # fmt: skip
def test_outputs_that_cannot_hold_a_sensor_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], output: str, message: str
):
    assert main(["streetworld", "--frames", "1", *options, output, str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_faster_frames_have_faster_sweeps():
    shot = StreetWorld(replace(PLAIN, lidar=16, fps=25.0)).render(1)
    assert shot.cloud is not None
    assert -0.04 < shot.cloud.time.min() < -0.035
    assert min(stamp for stamp, _ in shot.way) > FIRST_STAMP_NS
