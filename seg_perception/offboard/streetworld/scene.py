"""One drive: the street, its weather, the camera's way and everybody on it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from .actors.actor import Actor
from .camera import Pose
from .crowd import Crowd
from .ego import EgoPose
from .layout import Street, random_street
from .light import Light, random_light

# How fast the bend of the road changes, in rad/s, and in which steps the way is summed up, in seconds.
_WINDING, _STEP = 0.05, 0.02


@dataclass(frozen=True, slots=True)
class Scene:
    """One drive.

    Attributes:
        street, light: what there is.
        actors: everybody, scenery included.
        lane: x of our own lane's middle.
        speed: our own, in m/s.
        camera_height: in metres.
        bend: curvature of the road in 1/m.
        seconds: how long the drive may last.
    """

    street: Street
    light: Light
    actors: tuple[Actor, ...]
    lane: float
    speed: float
    camera_height: float
    bend: float
    seconds: float

    def pose(self, second: float) -> Pose:
        """The camera's, with the slow sway and the fast nodding of a car."""
        s = second
        return Pose(
            self.lane + 0.25 * float(np.sin(0.35 * s)),
            self.camera_height + 0.012 * float(np.sin(9 * s)),
            self.speed * s,
            self.bend * 6 + 0.012 * float(np.sin(0.5 * s)),
            0.01 + 0.004 * float(np.sin(7.3 * s)),
            0.006 * float(np.sin(1.1 * s)),
            self._bend(s),
        )

    def ego(self, second: float) -> EgoPose:
        """The same in frames of ROS, on a map that begins in the middle of the street where the drive begins.

        The road bends ahead of the camera wherever it is, so that the street's middle turns by the bend with every
        metre that we drive; what stands still then stands still on the map, too, as far as a parabola is an arc.
        """
        pose = self.pose(second)
        steps = 1 + int(abs(second) / _STEP)
        headings = self._street_heading((np.arange(steps, dtype=np.float64) + 0.5) * (second / steps))
        x, y = self.speed * second * np.cos(headings).mean(), self.speed * second * np.sin(headings).mean()
        heading = float(self._street_heading(second))
        return EgoPose(
            float(x + pose.x * np.sin(heading)), float(y - pose.x * np.cos(heading)), heading - pose.yaw,
            pose.y, -pose.roll, pose.pitch,
        )  # fmt: skip

    def _bend(self, second: float) -> float:
        return self.bend * float(np.cos(_WINDING * second))

    def _street_heading(self, seconds: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Of the street's middle where we are: minus the integral of the bend over the way, positive to the left."""
        return np.asarray(-self.speed * self.bend * np.sin(_WINDING * seconds) / _WINDING, np.float64)


def random_scene(seed: int, number: int, seconds: float, weather: str, first_track: int, designs: str = "all") -> Scene:
    """A scene by its seed and number.

    Args:
        seed, number: which one.
        seconds: how long it lasts.
        weather: one of `light.WEATHERS`.
        first_track: number of the first actor.
        designs: one of `designs.DESIGNS`: which actors there may be.
    """
    random = np.random.default_rng((seed, number, 1))
    street, light = random_street(random), random_light(random, weather)
    own = street.lane_centres()[street.lanes :]
    lane, speed = own[int(random.integers(len(own)))], float(random.uniform(3.0, 13.0))
    crowd = Crowd(random, street, light, lane, speed, seconds, count(first_track), designs)
    return Scene(
        street, light, tuple(crowd.everybody()), lane, speed, float(random.uniform(1.25, 2.1)),
        float(random.normal(0, 0.0018)), seconds,
    )  # fmt: skip
