"""A lidar's points lie where its rays meet the world."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from seg_perception.offboard.streetworld.actors.actor import Actor
from seg_perception.offboard.streetworld.actors.vehicles import VehicleDesign, vehicle_mesh
from seg_perception.offboard.streetworld.background import Background
from seg_perception.offboard.streetworld.camera import Camera
from seg_perception.offboard.streetworld.layout import Street
from seg_perception.offboard.streetworld.lidar import (
    MODELS,
    MOUNT,
    RANGE_NOISE,
    SWEEP,
    Cloud,
    LidarModel,
    lidar_model,
    sweep,
)
from seg_perception.offboard.streetworld.light import random_light
from seg_perception.offboard.streetworld.mesh import Mesh
from seg_perception.offboard.streetworld.raster import Placement, placed
from seg_perception.offboard.streetworld.scene import Scene

STREET = Street(1, 3.3, 0.4, 3.0, 7.0)
LIGHT = random_light(np.random.default_rng(3), "day")
VAN = VehicleDesign("van", 5.4, 2.0, 2.3, (230, 230, 230), (230, 230, 230))
COARSE = LidarModel(24, -20.0, 15.0, 240)

Matrix = NDArray[np.float64]


@pytest.fixture(scope="module")
def background() -> Background:
    return Background(np.random.default_rng(1), STREET, LIGHT, Camera(64, 64, 60.0))


def scene(*actors: Actor, speed: float = 0.0, weather: str = "day", bend: float = 0.0) -> Scene:
    light = random_light(np.random.default_rng(3), weather)
    return Scene(STREET, light, actors, 1.65, speed, 1.5, bend, 1.0)


def cloud_of(background: Background, made: Scene, model: LidarModel = COARSE, seed: int = 0) -> Cloud:
    return sweep(model, made, background, 0.0, SWEEP, np.random.default_rng(seed))


@pytest.mark.parametrize("rings", [16, 32, 64])
def test_points_lie_on_rings_in_the_order_of_their_times(background: Background, rings: int):
    model = lidar_model(rings)
    cloud = cloud_of(background, scene(), model)
    points = cloud.points.astype(float)
    elevations = np.arctan2(points[:, 2], np.linalg.norm(points[:, :2], axis=1))
    assert np.abs(elevations - model.elevations()[cloud.ring]).max() < 1e-5
    assert cloud.ring.max() < rings
    assert (np.diff(cloud.time) >= 0).all()
    assert -SWEEP < cloud.time[0] < -0.09
    assert cloud.time[-1] <= 0
    # Clockwise from behind: left at a quarter of the sweep, ahead in its middle, right at three quarters.
    azimuths = np.arctan2(points[:, 1], points[:, 0])
    expected = np.pi - 2 * np.pi * (cloud.time / SWEEP + 1)
    assert np.abs(azimuths - expected).max() < 2 * np.pi / model.columns
    assert len(cloud) > 0.3 * rings * model.columns * 0.5


def test_the_road_is_flat_and_ranges_are_noisy(background: Background):
    cloud = cloud_of(background, scene(), MODELS[64])
    points = cloud.points.astype(float)
    ranges = np.linalg.norm(points, axis=1)
    rise = points[:, 2] / ranges
    ground = (rise < -0.2) & (np.abs(points[:, 1] - 1.65) < 6)
    error = ranges[ground] - MOUNT.translation[2] / -rise[ground]
    assert ground.sum() > 2000
    assert np.abs(error).max() < 6 * RANGE_NOISE
    assert error.std() == pytest.approx(RANGE_NOISE, rel=0.1)
    assert abs(error.mean()) < 0.002


def test_points_come_from_all_sides(background: Background):
    cloud = cloud_of(background, scene())
    quadrants = np.arctan2(cloud.points[:, 1], cloud.points[:, 0]) // (np.pi / 2)
    assert (np.unique(quadrants, return_counts=True)[1] > 200).all()


def test_walls_stand_at_the_fronts_of_the_houses(background: Background):
    points = cloud_of(background, scene(), MODELS[32]).points.astype(float)
    for side, y in ((1, 7.0 - 1.65), (-1, 7.0 + 1.65)):
        wall = (points[:, 2] > 0) & (points[:, 1] * -side > 0)
        assert wall.sum() > 300
        assert np.abs(np.abs(points[wall, 1]) - y).max() < 0.12


def test_a_bending_street_has_bending_walls(background: Background):
    made = scene(bend=0.004)
    pose = made.pose(0.0)
    points = cloud_of(background, made, MODELS[32]).points.astype(float)
    points = points[(points[:, 2] > 0)]
    x, z = points[:, 0] + MOUNT.translation[0], points[:, 1]
    across = np.sin(pose.yaw) * x - np.cos(pose.yaw) * z
    ahead = np.cos(pose.yaw) * x + np.sin(pose.yaw) * z
    straight = across - 0.002 * ahead**2 + 1.65
    assert (np.abs(ahead) > 20).sum() > 50
    assert np.abs(np.abs(straight) - 7.0).max() < 0.15


def met(mesh: Mesh, place: Placement, directions: Matrix, height: float) -> Matrix:
    """Every ray against every face, fan by fan: the range in front of each ray, infinite for none."""
    world = placed(mesh.vertices, place).astype(float)
    # Of base_link as seen from the lidar, for a camera at x = 1.65, z = 0.
    points = np.stack([world[:, 2] - MOUNT.translation[0], 1.65 - world[:, 0], world[:, 1] - height], 1)
    best: Matrix = np.full(len(directions), np.inf)
    for face, count in zip(mesh.faces, mesh.counts, strict=True):
        for k in range(1, count - 1):
            a, b, c = points[face[0]], points[face[k]], points[face[k + 1]]
            normal = np.cross(b - a, c - a)
            with np.errstate(all="ignore"):
                ranges = normal @ a / (directions @ normal)
                hits = directions * ranges[:, None]
                inside = np.ones(len(directions), bool)
                for start, end in ((a, b), (b, c), (c, a)):
                    inside &= np.cross(end - start, hits - start) @ normal >= 0
            best = np.where(inside & (ranges > 0), np.fmin(best, ranges), best)
    return best


@pytest.mark.parametrize(
    "place",
    [Placement(1.65, 0, 9.0), Placement(-1.0, 0, 0.3, np.pi), Placement(1.7, 0, -8.0, 0.1), Placement(4.3, 0, 3.0, 0.7),
     Placement(-3.0, 0, 25.0, 2.0)],
    ids=["ahead", "beside", "behind", "turned", "far"],
)  # fmt: skip
def test_no_ray_misses_what_it_meets(background: Background, place: Placement):
    """Only rays near a face are tried, which must be all that meet it: also next to us, and where a sweep begins."""
    cloud = cloud_of(background, scene(Actor(5, "car", VAN, place)))
    azimuths, elevations = np.meshgrid(COARSE.azimuths(), COARSE.elevations(), indexing="ij")
    directions = np.stack(
        [np.cos(elevations) * np.cos(azimuths), np.cos(elevations) * np.sin(azimuths), np.sin(elevations)], -1
    ).reshape(-1, 3)
    expected = met(vehicle_mesh(VAN), place, directions, MOUNT.translation[2])
    column = np.rint((cloud.time / SWEEP + 1) * COARSE.columns - 1).astype(int)
    ray = column * COARSE.rings + cloud.ring
    mine = cloud.instance == 5
    assert mine.sum() > 5
    errors = np.linalg.norm(cloud.points[mine], axis=1) - expected[ray[mine]]
    # The camera sways by some millimetres while the sweep lasts, so that a ray on an outline may miss.
    assert (np.abs(errors) < 6 * RANGE_NOISE).mean() > 0.97
    missed = np.linalg.norm(cloud.points[~mine], axis=1) > expected[ray[~mine]] + 0.2
    assert missed.sum() <= 0.03 * mine.sum()


def test_what_hides_something_takes_its_points(background: Background):
    near, far = (Actor(k, "car", VAN, Placement(1.65, 0, z)) for k, z in ((1, 10.0), (2, 30.0)))
    alone = cloud_of(background, scene(far), MODELS[32])
    both = cloud_of(background, scene(near, far), MODELS[32])
    assert (alone.instance == 2).sum() > 50
    assert (both.instance == 2).sum() < 0.2 * (alone.instance == 2).sum()


def test_driving_bends_what_is_measured(background: Background):
    """The van ahead is measured half a sweep before the end, when we were that much farther away."""
    made = scene(Actor(5, "car", VAN, Placement(1.65, 0, 20.0)), speed=12.0)
    still = scene(Actor(5, "car", VAN, Placement(1.65, 0, 20.0)))
    fast, slow = (cloud_of(background, each, MODELS[32]) for each in (made, still))
    backs = [np.median(each.points[each.instance == 5, 0]) for each in (fast, slow)]
    assert backs[0] - backs[1] == pytest.approx(12.0 * SWEEP / 2, abs=0.05)


def test_what_drives_as_we_do_is_not_moved(background: Background):
    van = Actor(5, "car", VAN, Placement(1.65, 0, 20.0), 12.0)
    together, still = scene(van, speed=12.0), scene(Actor(5, "car", VAN, Placement(1.65, 0, 20.0)))
    backs = [
        np.median(cloud.points[cloud.instance == 5, 0])
        for cloud in (cloud_of(background, made, MODELS[32]) for made in (together, still))
    ]
    assert backs[0] == pytest.approx(backs[1], abs=0.02)


def test_fog_and_dark_surfaces_return_less(background: Background):
    bright = scene(Actor(5, "car", VAN, Placement(1.65, 0, 50.0)))
    dark = scene(Actor(5, "car", VehicleDesign("van", 5.4, 2.0, 2.3, (8, 8, 8), (8, 8, 8)), Placement(1.65, 0, 50.0)))
    counts = [(cloud_of(background, made, MODELS[32]).instance == 5).sum() for made in (bright, dark)]
    assert counts[1] < 0.7 * counts[0]
    fog = cloud_of(background, scene(weather="fog"), MODELS[32])
    assert len(fog) < len(cloud_of(background, scene(), MODELS[32]))
    ranges = np.linalg.norm(fog.points, axis=1)
    assert ranges.min() > 0.4
    assert ranges.max() < 80.2


def test_noise_follows_from_the_seed(background: Background):
    first, again, other = (cloud_of(background, scene(), seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.points, again.points)
    assert not np.array_equal(first.points[:100], other.points[:100])
