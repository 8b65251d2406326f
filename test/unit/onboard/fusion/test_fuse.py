"""Objects from points and masks: right places, edges of masks that lie, several cameras."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fusion_scene import (
    CALIBRATION,
    HEIGHT,
    LIDAR_TO_CAMERA,
    WIDTH,
    box_points,
    cloud_of,
    mask_of,
    row,
    view,
    wall,
)
from numpy.typing import NDArray

from seg_perception.core.errors import ConfigurationError, FrameError
from seg_perception.core.messages.point_clouds import PointCloud, read_point_cloud
from seg_perception.core.messages.transforms import StampedTransform
from seg_perception.onboard.fusion.boxes import (
    OPTICAL,
    UPRIGHT,
    FusionOptions,
    axes_of,
    box_around,
    depth_interval,
    quaternion_of,
)
from seg_perception.onboard.fusion.depth import DepthImage
from seg_perception.onboard.fusion.fuse import Fused, View, deskewed, fuse_cloud, fuse_depth
from seg_perception.onboard.fusion.projection import CameraModel, Projection
from seg_perception.onboard.fusion.transforms import RigidTransform, TransformBuffer

OPTIONS = FusionOptions()


def fused(points: PointCloud, *views: View) -> Fused:
    return fuse_cloud(
        points, [(each, LIDAR_TO_CAMERA) for each in views], ("lidar", RigidTransform.identity()), OPTIONS
    )


@pytest.mark.parametrize("grown", [0, 5])
@pytest.mark.parametrize("yaw", [0.0, 0.4, 1.2])
def test_a_car_is_where_it_is(grown: int, yaw: float) -> None:
    """Also when its mask is 5 pixels too large, so that the wall behind shines through."""
    centre, size = (20.0, 3.0, 0.0), (4.4, 1.8, 1.5)
    car = box_points(centre, size, yaw, 300)
    result = fused(cloud_of(wall(35.0), car), view(mask_of(car, 7, grown), row(7)))
    (found,) = result.objects
    np.testing.assert_allclose(found.centre, centre, atol=0.1)
    np.testing.assert_allclose(found.size, size, atol=0.15)
    assert found.identity == "7"
    assert [each.name for each in found.hypotheses] == ["vehicle", "car"]
    turn = 2 * np.arctan2(found.quaternion[2], found.quaternion[3])
    assert abs((turn - yaw + np.pi / 2) % np.pi - np.pi / 2) < 0.05
    assert result.distances[0] == pytest.approx(np.median(np.linalg.norm(car, axis=1)), abs=0.1)
    labelled = result.instance == 7
    # What is behind keeps no label.
    assert labelled[: len(wall(35.0))].sum() == 0
    assert labelled.sum() > 0.95 * len(car)
    assert set(result.group[labelled]) == {2}
    assert result.unplaced == {"front": 0}


def test_of_two_things_under_one_mask_the_nearer_is_the_object() -> None:
    near, far = (
        box_points((12.0, 0.0, 0.0), (0.5, 0.6, 1.7), 0.0, 60),
        box_points((18.0, 0.2, 0.0), (0.5, 1, 2), 0.0, 60),
    )
    result = fused(cloud_of(far, near), view(mask_of(np.concatenate([near, far]), 1), row(1, "pedestrian")))
    assert result.objects[0].centre[0] == pytest.approx(11.75, abs=0.1)


def test_a_few_points_in_front_are_not_the_object() -> None:
    """A twig before a car, or rain."""
    car, twig = box_points((20.0, 0.0, 0.0), (4.4, 1.8, 1.5), 1.5, 300), np.full((20, 3), 0.0, np.float32)
    twig[:] = np.random.default_rng(1).normal([8.0, 0.0, 0.0], 0.05, (20, 3))
    result = fused(cloud_of(car, twig), view(mask_of(car, 1), row(1)))
    assert result.objects[0].centre[0] == pytest.approx(20.0, abs=1.0)


def test_ground_that_runs_on_from_the_feet_does_not_move_a_person() -> None:
    person = box_points((15.0, 0.0, 0.0), (0.3, 0.6, 1.7), 0.0, 200)
    ahead, across = np.meshgrid(np.linspace(11, 15, 30), np.linspace(-0.2, 0.2, 3))
    ground = np.stack([ahead.reshape(-1), across.reshape(-1), np.full(ahead.size, -0.85)], -1).astype(np.float32)
    result = fused(cloud_of(person, ground), view(mask_of(np.concatenate([person, ground]), 1), row(1, "pedestrian")))
    assert result.objects[0].centre[0] == pytest.approx(14.9, abs=0.5)


def test_instances_with_too_few_points_are_counted() -> None:
    car = box_points((20.0, 0.0, 0.0), (4.4, 1.8, 1.5), 0.0, 300)
    both = mask_of(car, 1)
    both[0:9, 0:9] = 2
    result = fused(cloud_of(car), view(both, row(1), row(2)))
    assert [each.identity for each in result.objects] == ["1"]
    assert result.unplaced == {"front": 1}
    assert fused(cloud_of(np.zeros((0, 3), np.float32)), view(both, row(1), row(2))).unplaced == {"front": 2}


def test_of_two_cameras_the_one_that_looks_at_a_point_has_it() -> None:
    car = box_points((20.0, 6.0, 0.0), (4.4, 1.8, 1.5), 0.0, 300)
    ahead = view(mask_of(car, 1), row(1))
    angle = np.arctan2(6.0, 20.0)
    aside = RigidTransform(
        np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]), np.zeros(3)
    )
    turned = LIDAR_TO_CAMERA @ aside
    other = view(np.full((HEIGHT, WIDTH), 9, np.uint16), row(9), camera="left")
    result = fuse_cloud(
        cloud_of(car), [(ahead, LIDAR_TO_CAMERA), (other, turned)], ("lidar", RigidTransform.identity()), OPTIONS
    )
    assert [each.identity for each in result.objects] == ["left/9"]
    assert set(result.camera.tolist()) == {1}
    names = read_fields(result.points_message(all_points=False))
    assert names == ["x", "y", "z", "instance", "group", "camera"]


def test_ids_say_their_camera_also_while_others_are_silent() -> None:
    car = box_points((20.0, 3.0, 0.0), (4.4, 1.8, 1.5), 0.3, 300)
    result = fuse_cloud(
        cloud_of(car), [(view(mask_of(car, 7), row(7), camera="left"), LIDAR_TO_CAMERA)],
        ("lidar", RigidTransform.identity()), OPTIONS, cameras=["front", "left"],
    )  # fmt: skip
    assert [each.identity for each in result.objects] == ["left/7"]
    assert set(result.camera[result.instance > 0].tolist()) == {1}


def read_fields(message: bytes) -> list[str]:
    from rosbags.typesys import Stores, get_typestore

    cloud = get_typestore(Stores.ROS2_JAZZY).deserialize_cdr(message, "sensor_msgs/msg/PointCloud2")
    return [each.name for each in cloud.fields]  # type: ignore[attr-defined]


def test_a_camera_that_looks_away_sees_nothing() -> None:
    car = box_points((20.0, 0.0, 0.0), (4.4, 1.8, 1.5), 0.0, 300)
    back = RigidTransform(np.diag([-1.0, -1.0, 1.0]), np.zeros(3))
    result = fuse_cloud(
        cloud_of(car), [(view(np.full((HEIGHT, WIDTH), 1, np.uint16), row(1)), LIDAR_TO_CAMERA @ back)],
        ("lidar", RigidTransform.identity()), OPTIONS,
    )  # fmt: skip
    assert not result.objects
    assert not result.instance.any()


def test_an_object_that_fills_the_image_is_one() -> None:
    truck = wall(4.0)
    result = fused(cloud_of(truck), view(np.full((HEIGHT, WIDTH), 65535, np.uint16), row(65535)))
    assert result.objects[0].identity == "65535"
    assert result.distances[0] == pytest.approx(4.5, abs=0.5)


def test_results_are_in_the_frame_that_is_wanted() -> None:
    car = box_points((20.0, 3.0, 0.0), (4.4, 1.8, 1.5), 0.3, 300)
    up = RigidTransform(np.eye(3), np.array([1.0, 0.0, 2.0]))
    result = fuse_cloud(cloud_of(car), [(view(mask_of(car, 7), row(7)), LIDAR_TO_CAMERA)], ("base_link", up), OPTIONS)
    np.testing.assert_allclose(result.objects[0].centre, [21.0, 3.0, 2.0], atol=0.1)
    cloud = read_point_cloud(result.points_message(all_points=True))
    assert (cloud.frame_id, len(cloud)) == ("base_link", len(car))


def depth_of(
    points: NDArray[np.float32], shape: tuple[int, int] = (HEIGHT, WIDTH), background: float = 0.0
) -> DepthImage:
    """An aligned depth image in millimetres of points that are all in view, each as a small square."""
    projection = Projection(CameraModel.of(CALIBRATION, shape[1], shape[0]))
    local = LIDAR_TO_CAMERA.points(points)
    rows, columns, lines = projection.seen(local)
    values = np.full(shape, background * 1000, np.uint16)
    for k, u, v in zip(rows[np.argsort(-local[rows, 2])], columns, lines, strict=True):
        values[max(0, v - 1) : v + 2, max(0, u - 1) : u + 2] = round(local[k, 2] * 1000)
    return DepthImage(1_000, "camera", values, 1e-3)


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 2), (HEIGHT * 2, WIDTH * 2)])
def test_depth_images_of_any_size_of_the_same_shape(shape: tuple[int, int]) -> None:
    plate = wall(12.0)
    plate = plate[(np.abs(plate[:, 1]) < 0.9) & (np.abs(plate[:, 2]) < 0.8)]
    seen = view(mask_of(plate, 3, 4), row(3))
    projection = Projection(CameraModel.of(CALIBRATION, shape[1], shape[0]))
    seen = View("front", "camera_optical_frame", 0, projection, seen.instance_map, seen.rows)
    depth = np.full(shape, 30_000, np.uint16)
    inner = cv2.resize(mask_of(plate, 1).astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST)
    depth[inner > 0] = 12_000
    result = fuse_depth(
        DepthImage(1_000, "camera_optical_frame", depth, 1e-3), seen,
        ("camera_optical_frame", RigidTransform.identity()), OPTIONS,
    )  # fmt: skip
    (found,) = result.objects
    np.testing.assert_allclose(found.centre, [0.0, -0.0, 12.0], atol=0.1)
    assert found.size[2] == pytest.approx(1.5, abs=0.2)  # upright along -y of the image's frame
    assert (result.instance != 0).sum() == np.count_nonzero(depth == 12_000)


@pytest.mark.parametrize("nothing", [0.0, np.nan, np.inf, -1.0])
def test_depth_that_is_no_measurement_is_left_out(nothing: float) -> None:
    values = np.full((HEIGHT, WIDTH), nothing, np.float32)
    values[100:120, 100:120] = 5.0
    seen = view(np.full((HEIGHT, WIDTH), 1, np.uint16), row(1))
    result = fuse_depth(
        DepthImage(0, "c", values, 1.0), seen, ("c", RigidTransform.identity()), OPTIONS, all_points=True
    )
    assert len(result.cloud) == 400
    assert result.cloud.left_out == HEIGHT * WIDTH - 400


def test_a_depth_image_of_another_shape_is_refused() -> None:
    depth = DepthImage(0, "c", np.ones((480, 640), np.uint16), 1e-3)
    with pytest.raises(FrameError, match="aligned with the camera"):
        fuse_depth(depth, view(np.ones((HEIGHT, WIDTH), np.uint16), row(1)), ("c", RigidTransform.identity()), OPTIONS)


def test_a_sweep_is_put_where_it_is_at_its_stamp() -> None:
    """A car drives towards a wall while the lidar turns."""
    buffer, second = TransformBuffer(), 10**9
    turn = np.array([0.0, 0.0, 0.0, 1.0])
    for t in (0.9, 1.0):
        buffer.add([StampedTransform(round(t * second), "odom", "lidar", np.array([15 * t, 0, 0]), turn)], static=False)
    offsets = np.linspace(-0.0999, 0, 50).astype(np.float32)
    xyz = np.stack([40 - 15 * (1.0 + offsets), np.zeros(50), np.zeros(50)], -1).astype(np.float32)
    cloud = PointCloud(second, "lidar", xyz, offsets=offsets)
    assert np.ptp(xyz[:, 0]) > 1.4
    np.testing.assert_allclose(deskewed(cloud, buffer, "odom").xyz[:, 0], 25.0, atol=0.08)


def test_headings_turn_boxes() -> None:
    """The rear of a car, seen alone, says nothing of where it goes."""
    rear = wall(10.0)
    rear = rear[(np.abs(rear[:, 1]) < 0.9) & (np.abs(rear[:, 2]) < 0.7)]
    result = fuse_cloud(
        cloud_of(rear), [(view(mask_of(rear, 1), row(1)), LIDAR_TO_CAMERA)], ("lidar", RigidTransform.identity()),
        OPTIONS, lambda identity, centre: np.array([1.0, 0.0, 0.0]),
    )  # fmt: skip
    length, width, _ = result.objects[0].size
    assert length < 0.1 < 1.5 < width


@pytest.mark.parametrize("axes", [UPRIGHT, OPTICAL])
def test_a_rotation_is_the_same_as_quaternion(axes: NDArray[np.float64]) -> None:
    box = box_around(box_points((9.0, 1.0, 0.0), (4.0, 2.0, 1.0), 0.7, 80) @ axes.T.astype(np.float32), axes)
    x, y, z, w = box.quaternion()
    points = np.random.default_rng(1).normal(size=(20, 3))
    vector = np.array([x, y, z])
    turned = points + 2 * np.cross(vector, np.cross(vector, points) + w * points)
    np.testing.assert_allclose(turned, points @ box.rotation.T, atol=1e-9)
    np.testing.assert_allclose(quaternion_of(np.diag([-1.0, -1.0, 1.0])), [0, 0, 1, 0], atol=1e-9)


def test_frames_of_images_look_along_z() -> None:
    assert axes_of("front_camera_optical_frame") is OPTICAL
    assert axes_of("base_link") is UPRIGHT


def test_intervals_of_few_and_many_points() -> None:
    assert depth_interval(np.full(4, 5.0, np.float32), "vehicle", OPTIONS) is None
    scattered = np.linspace(5, 50, 9).astype(np.float32)
    assert depth_interval(scattered, "vehicle", OPTIONS) is None
    many = np.concatenate([np.random.default_rng(1).normal(10, 0.1, 50_000), np.full(20_000, 30.0)]).astype(np.float32)
    low, high = depth_interval(many, "vehicle", OPTIONS) or (0, 0)
    assert 9.4 < low < 9.9
    assert 10.1 < high < 10.6


@pytest.mark.parametrize("wrong", [{"min_points": 0}, {"cluster_gap": 0.0}, {"cluster_share": 1.5}])
def test_options_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="cluster_gap above 0"):
        FusionOptions(**wrong)  # type: ignore[arg-type]
