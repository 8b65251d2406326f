"""Where frames are at a moment: chains, interpolation, two moments, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from seg_perception.core.errors import FrameError
from seg_perception.core.messages.transforms import StampedTransform
from seg_perception.onboard.fusion.transforms import TransformBuffer, TransformError

SECOND = 10**9


def place(parent: str, child: str, seconds: float, xyz: tuple[float, ...], yaw: float = 0.0) -> StampedTransform:
    turn = np.array([0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])
    return StampedTransform(round(seconds * SECOND), parent, child, np.array(xyz), turn)


def driving() -> TransformBuffer:
    """A car that drives along x with 10 m/s and turns left by a quarter in a second, with a sensor 2 m above it."""
    buffer = TransformBuffer()
    buffer.add([place("base_link", "lidar", 0.0, (0.0, 0.0, 2.0))], static=True)
    buffer.add([place("odom", "base_link", t, (10.0 * t, 0.0, 0.0), t * np.pi / 2) for t in (1.0, 2.0)], static=False)
    return buffer


def test_a_chain_is_interpolated() -> None:
    there = driving().lookup("odom", "lidar", round(1.5 * SECOND))
    np.testing.assert_allclose(there.translation, [15.0, 0.0, 2.0])
    # A quarter of a turn at 1 s, half of one at 2 s.
    np.testing.assert_allclose(there.points(np.array([[1.0, 0.0, 0.0]]))[0], [15 - 0.5**0.5, 0.5**0.5, 2.0], atol=1e-5)


def test_the_way_back_is_the_inverse() -> None:
    buffer, points = driving(), np.array([[3.0, -2.0, 1.0]], np.float32)
    there, back = buffer.lookup("odom", "lidar", SECOND), buffer.lookup("lidar", "odom", SECOND)
    np.testing.assert_allclose(back.points(there.points(points)), points, atol=1e-5)


def test_two_moments_take_the_motion_between_them_out() -> None:
    """A point that stands still on the ground is found where the sensor sees it later."""
    buffer, still = driving(), np.array([[40.0, 5.0, 1.0]], np.float32)
    early, late = (buffer.lookup("lidar", "odom", round(t * SECOND)).points(still) for t in (1.2, 1.3))
    moved = buffer.lookup_between("lidar", round(1.3 * SECOND), "lidar", round(1.2 * SECOND), "odom")
    assert np.abs(early - late).max() > 0.5
    np.testing.assert_allclose(moved.points(early), late, atol=1e-4)


def test_frames_above_what_two_have_in_common_do_not_matter() -> None:
    """`map` is published rarely, and is not needed to get from one sensor to another."""
    buffer = driving()
    buffer.add([place("map", "odom", 0.1, (5.0, 0.0, 0.0))], static=False)
    buffer.add([place("base_link", "camera", 0.0, (1.0, 0.0, 1.0))], static=True)
    np.testing.assert_allclose(buffer.lookup("camera", "lidar", 99 * SECOND).translation, [-1.0, 0.0, 1.0])


def test_a_moment_after_the_last_transform_may_be_known_soon() -> None:
    with pytest.raises(TransformError, match=r"known only until 0\.500 s before") as error:
        driving().lookup("odom", "lidar", round(2.5 * SECOND))
    assert error.value.early
    with pytest.raises(TransformError, match=r"known only from 0\.500 s after") as error:
        driving().lookup("odom", "lidar", round(0.5 * SECOND))
    assert not error.value.early


def test_the_last_transform_holds_for_the_tolerance() -> None:
    buffer = driving()
    buffer.tolerance = 0.1
    assert buffer.lookup("odom", "lidar", round(2.05 * SECOND)).translation[0] == 20.0


@pytest.mark.parametrize(("source", "text"), [("radar", "nobody publishes 'radar'"), ("loose", "two trees")])
def test_frames_without_a_way_are_named(source: str, text: str) -> None:
    buffer = driving()
    buffer.add([place("island", "loose", 0.0, (0.0, 0.0, 0.0))], static=True)
    with pytest.raises(TransformError, match=text):
        buffer.lookup("odom", source, SECOND)


def test_a_loop_of_frames_is_refused() -> None:
    buffer = TransformBuffer()
    buffer.add([place("a", "b", 0.0, (0.0,) * 3), place("b", "a", 0.0, (0.0,) * 3)], static=True)
    with pytest.raises(TransformError, match="loop"):
        buffer.lookup("c", "a", 0)
    with pytest.raises(FrameError, match="its own parent"):
        buffer.add([place("a", "a", 0.0, (0.0,) * 3)], static=False)


def test_a_bag_that_begins_again_is_followed() -> None:
    buffer = driving()
    buffer.add([place("odom", "base_link", 100.0, (7.0, 0.0, 0.0))], static=False)
    buffer.add([place("odom", "base_link", t, (-t, 0.0, 0.0)) for t in (1.0, 2.0)], static=False)
    assert buffer.lookup("odom", "base_link", round(1.5 * SECOND)).translation[0] == -1.5


def test_only_the_last_seconds_are_kept() -> None:
    buffer = TransformBuffer()
    for step in range(3000):
        buffer.add([place("odom", "base_link", step / 50, (step, 0.0, 0.0))], static=False)
    (track,) = buffer._tracks.values()
    assert len(track.stamps) == len(track.places) < 600
    assert buffer.lookup("odom", "base_link", 55 * SECOND).translation[0] == 2750


def test_what_comes_late_finds_its_place() -> None:
    buffer = TransformBuffer()
    for t in (1.0, 3.0, 2.0, 2.0):
        buffer.add([place("odom", "base_link", t, (t * t, 0.0, 0.0))], static=False)
    assert buffer.lookup("odom", "base_link", round(1.5 * SECOND)).translation[0] == 2.5
