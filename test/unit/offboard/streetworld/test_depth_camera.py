"""Exact depth is that of the geometry, noisy depth errs as a stereo camera does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from seg_perception.offboard.streetworld.actors.actor import Actor, TreeDesign
from seg_perception.offboard.streetworld.actors.signals import SignDesign
from seg_perception.offboard.streetworld.actors.vehicles import VehicleDesign
from seg_perception.offboard.streetworld.camera import Camera
from seg_perception.offboard.streetworld.depth_camera import BASELINE, measured
from seg_perception.offboard.streetworld.layout import Street
from seg_perception.offboard.streetworld.light import random_light
from seg_perception.offboard.streetworld.raster import Placement
from seg_perception.offboard.streetworld.render import Renderer, Sensors
from seg_perception.offboard.streetworld.scene import Scene

CAMERA = Camera(320, 192, 280.0, -0.1, 0.01)
STREET = Street(1, 3.3, 0.4, 3.0, 7.0)
LIGHT = random_light(np.random.default_rng(3), "day")
BUS = VehicleDesign("bus", 11.5, 2.5, 3.1, (200, 200, 200), (40, 40, 40))
SIGN = SignDesign("parking", 0.4)
FOCAL = 300.0


def scene(*actors: Actor, bend: float = 0.0) -> Scene:
    """A street in which we stand at x = 1.65, with the camera 1.5 m above the road."""
    return Scene(STREET, LIGHT, actors, 1.65, 0.0, 1.5, bend, 1.0)


def depth_of(made: Scene) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    rendering = Renderer(made, CAMERA, (1,), 5, Sensors(depth="exact")).render(0, 10.0)
    assert rendering.depth is not None
    return rendering.depth, rendering.truth.instance_map


def pixel_of(made: Scene, point: tuple[float, float, float]) -> tuple[float, int, int]:
    """Depth, row and column of a point of the world."""
    pose = made.pose(0.0)
    seen = pose.bent(np.array([point], np.float32)) @ pose.rotation().T
    x, y = np.rint(CAMERA.pixels(seen)[0]).astype(int).tolist()
    return float(seen[0, 2]), y, x


@pytest.mark.parametrize(("z", "bend"), [(20.0, 0.0), (45.0, 0.0), (30.0, 0.004), (30.0, -0.004)])
def test_the_back_of_a_bus_is_where_the_bus_ends(z: float, bend: float):
    made = scene(Actor(7, "bus", BUS, Placement(1.65, 0, z + 11.5 / 2)), bend=bend)
    depth, numbers = depth_of(made)
    for x, y in ((1.65, 1.2), (1.3, 2.5), (2.2, 0.9)):
        expected, row, column = pixel_of(made, (x, y, z))
        assert numbers[row, column] == 7
        assert depth[row, column] == pytest.approx(expected, abs=0.05)


def test_the_side_of_a_bus_is_farther_away_with_every_pixel():
    """One value for an object would not do: the wall next to us reaches from 6 to 17 m."""
    made = scene(Actor(7, "bus", BUS, Placement(-1.65, 0, 11.5, 0.0)))
    depth, numbers = depth_of(made)
    assert np.ptp(depth[numbers == 7]) > 9
    for z in (8.0, 11.0, 15.0):
        expected, row, column = pixel_of(made, (-1.65 + 1.25, 1.4, z))
        assert depth[row, column] == pytest.approx(expected, rel=0.03)


def test_signs_trees_walls_and_the_road_have_depth_and_the_sky_has_none():
    sign = Actor(9, "traffic sign", SIGN, Placement(3.9, 2.2, 15.0))
    tree = Actor(0, "", TreeDesign(0, 6.0), Placement(-5.0, 0, 25.0))
    made = scene(sign, tree)
    depth, numbers = depth_of(made)
    expected, row, column = pixel_of(made, (3.9, 2.2, 15.0))
    assert numbers[row, column] == 9
    assert depth[row, column] == pytest.approx(expected, abs=0.05)
    for point in ((-5.0, 4.0, 25.0), (1.65, 0.0, 8.0), (-2.0, 0.0, 20.0)):
        expected, row, column = pixel_of(made, point)
        # Between the leaves of the tree one sees through it.
        assert np.median(depth[row - 2 : row + 3, column - 2 : column + 3]) == pytest.approx(expected, rel=0.03)
    assert np.isnan(depth[0, 160])
    # What is as high as a wall and neither on the road nor in the sky stands at x = 7 or x = -7.
    depth, _ = depth_of(scene())
    rays = CAMERA.rays() @ made.pose(0.0).rotation()
    points = rays * depth[..., None]
    high = (points[..., 1] > 0.5) & (np.abs(points[..., 0] + 1.65) > 6.5)
    assert high.sum() > 500
    assert np.abs(np.abs(points[high][:, 0] + 1.65) - 7.0).max() < 0.01


def test_what_stands_before_something_has_the_depth_of_the_one_before():
    near, far = (Actor(k, "bus", BUS, Placement(1.65, 0, z)) for k, z in ((1, 18.0), (2, 40.0)))
    depth, numbers = depth_of(scene(far, near))
    assert depth[numbers == 1].max() < 24
    assert not (numbers == 2).any() or depth[numbers == 2].min() > 33


def test_errors_grow_with_the_square_of_the_depth():
    random = np.random.default_rng(0)
    deviations = {}
    for z in (5.0, 10.0, 20.0):
        found = measured(np.full((200, 300), z, np.float32), FOCAL, random)
        assert np.nanmean(found) == pytest.approx(z, rel=0.02)
        deviations[z] = np.nanstd(found)
        # A tenth of a pixel of disparity.
        assert deviations[z] == pytest.approx(0.1 * z * z / (FOCAL * BASELINE), rel=0.15)
    assert deviations[20.0] / deviations[5.0] == pytest.approx(16, rel=0.15)


def test_what_is_too_near_too_far_or_sky_is_not_measured():
    exact = np.full((60, 400), np.nan, np.float32)
    for column, z in enumerate((0.2, 5.0, 80.0)):
        exact[:, 100 * column : 100 * column + 60] = z
    found = measured(exact, FOCAL, np.random.default_rng(0))
    share = [np.isfinite(found[:, first + 5 : first + 55]).mean() for first in (0, 100, 200)]
    assert share[0] == 0
    assert share[1] > 0.95
    assert share[2] < 0.01
    assert not np.isfinite(found[:, 365:]).any()
    assert np.nanmin(found) >= 0.3
    assert np.nanmax(found) <= 40.0


@pytest.fixture(scope="module")
def edge() -> NDArray[np.float32]:
    """A post at 5 m (columns 150 to 199) before a wall at 15 m."""
    exact = np.full((100, 320), 15.0, np.float32)
    exact[:, 150:200] = 5.0
    return measured(exact, FOCAL, np.random.default_rng(0))


def test_the_wall_has_a_hole_on_the_left_of_the_post(edge: NDArray[np.float32]):
    """The right lens does not see the wall there: its shadow is as wide as the disparities differ, 12 - 4 pixels."""
    lost = np.isnan(edge).mean(0)
    assert (lost[143:149] > 0.95).all()
    assert lost[120:141].mean() < 0.05
    assert lost[202:].mean() < 0.05


def test_pixels_at_an_edge_mix_both_sides(edge: NDArray[np.float32]):
    between = (edge > 6) & (edge < 13)
    assert between[:, 199:201].mean() > 0.1
    assert not between[:, 205:].any()
    assert not between[:, :140].any()


def test_noise_follows_from_the_seed_and_differs_between_frames():
    made = scene(Actor(7, "bus", BUS, Placement(1.65, 0, 20.0)))

    def noisy(seed: int, index: int) -> NDArray[np.float32]:
        depth = Renderer(replace(made), CAMERA, (seed,), 5, Sensors(depth="noisy")).render(index, 10.0).depth
        assert depth is not None
        return depth

    first = noisy(1, 0)
    assert np.array_equal(first, noisy(1, 0), equal_nan=True)
    assert not np.array_equal(first, noisy(1, 1), equal_nan=True)
    assert not np.array_equal(first, noisy(2, 0), equal_nan=True)
