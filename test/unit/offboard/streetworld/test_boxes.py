"""True boxes are where actors are put, also on a road that bends."""

from __future__ import annotations

import numpy as np
import pytest

from seg_perception.offboard.streetworld.actors.vehicles import VehicleDesign, vehicle_mesh
from seg_perception.offboard.streetworld.boxes import TrueBox, true_box
from seg_perception.offboard.streetworld.camera import Pose
from seg_perception.offboard.streetworld.raster import Placement, placed

BUS = VehicleDesign("bus", 11.5, 2.5, 3.1, (200, 200, 200), (40, 40, 40))
VAN = VehicleDesign("van", 5.4, 2.0, 2.3, (200, 200, 200), (40, 40, 40))


def box_of(design: VehicleDesign, placement: Placement, pose: Pose) -> TrueBox:
    return true_box(vehicle_mesh(design), placement, pose, np.zeros(3))


def test_a_van_ahead_of_us():
    box = box_of(VAN, Placement(4.0, 0, 30.0), Pose(1.0, 1.5, 10.0))
    assert box.centre == pytest.approx((20.0, -3.0, 1.15), abs=0.06)
    # Its mirrors reach out of its width on both sides.
    assert box.size == pytest.approx((5.4, 2.35, 2.3), abs=0.06)
    assert box.yaw == pytest.approx(0)
    assert box.centre_distance == pytest.approx(np.linalg.norm((20.0, 3.0, 0.35)), abs=0.06)


@pytest.mark.parametrize(
    ("actor", "camera", "expected"), [(0.3, 0.0, -0.3), (np.pi / 2, 0.0, -np.pi / 2), (0.0, 0.1, 0.1), (0.2, 0.2, 0.0)]
)
def test_a_right_turn_is_negative_and_counts_from_where_we_look(actor: float, camera: float, expected: float):
    box = box_of(BUS, Placement(0, 0, 20.0, actor), Pose(0, 1.5, 0, yaw=camera))
    assert box.yaw == pytest.approx(expected)
    assert box.size == pytest.approx((11.54, 3.02, 3.1), abs=0.1)
    assert np.linalg.norm(box.centre[:2]) == pytest.approx(20.0, abs=0.15)
    # What is right ahead on the street is to our left if we look to the right.
    assert box.centre[1] == pytest.approx(20 * np.sin(camera), abs=0.15)


def test_nodding_and_rolling_move_no_box():
    flat, tilted = (
        box_of(BUS, Placement(3, 0, 20.0), Pose(0, 1.5, 0, 0.05, pitch, roll)) for pitch, roll in ((0, 0), (0.05, 0.04))
    )
    assert flat == tilted


@pytest.mark.parametrize("bend", [0.004, -0.004])
def test_a_bend_moves_and_turns_the_box_as_it_does_the_body(bend: float):
    pose, place = Pose(0, 1.5, 0, bend=bend), Placement(0, 0, 40.0)
    box = box_of(BUS, place, pose)
    # x + bend * 40^2 / 2, to the right if positive; the road's direction there is bend * 40.
    assert box.centre[1] == pytest.approx(-bend * 800, abs=0.15)
    assert box.yaw == pytest.approx(-np.arctan(bend * 40))
    points = pose.to_base(pose.bent(placed(vehicle_mesh(BUS).vertices, place)))
    assert box.contains(points, 1e-6).all()
    assert not box.contains(points, -0.05).all()
    assert np.abs(box.local(points)).max(0) == pytest.approx(np.array(box.size) / 2, abs=1e-6)
    assert box.size[1] < 3.6


def test_what_is_beyond_a_side_is_not_contained():
    box = TrueBox((10.0, 2.0, 1.0), (4.0, 2.0, 1.5), np.pi / 2, (0, 0, 0), 0, 0)
    points = np.array([[10, 2, 1], [10, 3.9, 1], [11.1, 2, 1], [10, 2, 1.8], [10.9, 3.9, 1.7]])
    assert box.contains(points).tolist() == [True, True, False, False, True]
    assert box.contains(points, 0.2).all()
