"""Where things are seen: projection, bending roads, near planes, moving actors."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from seg_perception.offboard.streetworld.actors.actor import Actor
from seg_perception.offboard.streetworld.actors.vehicles import VehicleDesign, random_vehicle, vehicle_mesh
from seg_perception.offboard.streetworld.camera import Camera, Pose
from seg_perception.offboard.streetworld.light import random_light
from seg_perception.offboard.streetworld.raster import Placement, SeenBody, look_at, owners, paint, whole_mask

CAMERA = Camera(320, 192, 280.0, -0.1, 0.01)
RANDOM = np.random.default_rng(3)
LIGHT = random_light(RANDOM, "day")
CAR: VehicleDesign = random_vehicle(RANDOM, False, "sedan")


def seen(place: Placement, pose: Pose | None = None, camera: Camera = CAMERA) -> SeenBody:
    body = look_at(vehicle_mesh(CAR), place, camera, pose or Pose(0, 1.4, 0), LIGHT)
    assert body is not None
    return body


def test_points_are_projected_as_opencv_projects_them():
    points = RANDOM.uniform((-3, -2, 4), (3, 2, 40), (50, 3))
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), CAMERA.matrix(), CAMERA.distortion())
    assert CAMERA.pixels(points.astype(np.float32)) == pytest.approx(expected.reshape(-1, 2), abs=1e-2)


def test_rays_lead_back_to_their_pixels():
    rays = CAMERA.rays()
    pixels = CAMERA.pixels(rays)
    columns, rows = np.meshgrid(np.arange(320), np.arange(192))
    assert np.abs(pixels - np.dstack([columns, rows])).max() < 0.05


def test_yaw_turns_the_view_to_the_right_and_pitch_down():
    ahead = np.array([[0, 1.4, 20]], np.float32)
    left_of_middle = CAMERA.pixels(Pose(0, 1.4, 0, yaw=0.1).bent(ahead) @ Pose(0, 1.4, 0, yaw=0.1).rotation().T)
    above_middle = CAMERA.pixels(Pose(0, 1.4, 0, pitch=0.1).bent(ahead) @ Pose(0, 1.4, 0, pitch=0.1).rotation().T)
    assert left_of_middle[0, 0] < CAMERA.centre[0] - 20
    assert above_middle[0, 1] < CAMERA.centre[1] - 20


def test_a_box_follows_its_actor():
    """A car that drives away to the right is seen smaller, further right and higher; its box is what is painted."""
    actor = Actor(1, "car", CAR, Placement(1.0, 0, 8.0, 0.3), 8.0)
    before, after = seen(actor.at(0.0)), seen(actor.at(1.0))
    assert after.box[2] - after.box[0] < before.box[2] - before.box[0]
    assert after.box[0] > before.box[0]
    assert after.box[3] < before.box[3]
    assert after.distance == pytest.approx(before.distance + 8, abs=1.0)
    for body in (before, after):
        canvas = np.zeros((384, 640, 4), np.uint8)
        paint(canvas, body, 7)
        rows, columns = np.nonzero(owners(canvas) == 7)
        painted = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        clipped = np.clip(body.box, 0, (320, 192, 320, 192))
        assert np.abs(np.array(painted) - clipped).max() <= 1.5


def test_the_whole_mask_is_what_is_painted_alone():
    body = seen(Placement(-1.5, 0, 6, 0.6))
    canvas = np.zeros((384, 640, 4), np.uint8)
    paint(canvas, body, 9)
    left, top, region = whole_mask(body, 320, 192)
    mask = np.zeros((192, 320), bool)
    mask[top : top + region.shape[0], left : left + region.shape[1]] = region
    assert np.array_equal(mask, owners(canvas) == 9)
    assert mask.sum() > 1000


def test_a_bending_road_takes_actors_along():
    straight, bent = seen(Placement(0, 0, 40)), seen(Placement(0, 0, 40), Pose(0, 1.4, 0, bend=0.004))
    # x + 0.004 * 40^2 / 2 = 3.2 m at 40 m.
    assert bent.box[0] - straight.box[0] == pytest.approx(280 * 3.2 / 40, rel=0.15)


def test_what_reaches_behind_the_camera_is_cut():
    body = seen(Placement(1.6, 0, 0.5))
    assert body.box[2] > 320
    assert all(np.abs(polygon).max() < 2**31 / 2 for polygon in body.polygons)
    assert whole_mask(body, 320, 192)[2].any()


@pytest.mark.parametrize("place", [Placement(0, 0, -10), Placement(60, 0, 10)])
def test_what_is_behind_or_beside_is_not_seen(place: Placement):
    assert look_at(vehicle_mesh(CAR), place, CAMERA, Pose(0, 1.4, 0), LIGHT) is None


def test_a_turning_actor_stays_on_its_arc():
    actor = Actor(1, "car", CAR, Placement(20, 0, 30, -np.pi / 2), 5.0, turn_at=3.0, turn=np.pi / 2, radius=5.0)
    places = [actor.at(t) for t in np.arange(0, 8, 0.05)]
    steps = [np.hypot(b.x - a.x, b.z - a.z) for a, b in pairwise(places)]
    assert steps == pytest.approx([0.25] * len(steps), rel=0.01)
    assert places[0].yaw == pytest.approx(-np.pi / 2)
    assert places[-1].yaw == pytest.approx(0.0)
    assert places[-1].x == pytest.approx(0.0, abs=1e-6)


def test_faces_look_outwards():
    """Every normal of a car's body points away from its middle line, so that culling hides the right half."""
    mesh = vehicle_mesh(CAR)
    side = np.abs(mesh.normals[:, 0]) > 0.9
    wide = np.abs(mesh.centres[:, 0]) > 0.8 * CAR.width / 2
    assert (np.sign(mesh.normals[side & wide, 0]) == np.sign(mesh.centres[side & wide, 0])).mean() > 0.95
    assert np.linalg.norm(mesh.normals, axis=1) == pytest.approx(np.ones(len(mesh.normals)), abs=1e-4)
