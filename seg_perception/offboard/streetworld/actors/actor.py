"""Somebody or something in the street: what it looks like, and where it is when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..mesh import Mesh
from ..raster import Placement
from .cycles import MOTORCYCLE_SEAT, CycleDesign, cycle_mesh
from .people import CYCLING, GAIT_STEPS, MOTORCYCLING, STANDING, PersonDesign, person_mesh, walking
from .signals import LightDesign, SignDesign, light_mesh, pole_mesh, sign_mesh  # fmt: skip
from .vehicles import VehicleDesign, vehicle_mesh

_LIGHT_TIMES = (("red", 8.0), ("red_yellow", 1.2), ("green", 9.0), ("yellow", 2.0))


@dataclass(frozen=True, slots=True)
class PoleDesign:
    """A pole, perhaps with an arm."""

    height: float
    reach: float = 0.0
    thick: float = 0.045


@dataclass(frozen=True, slots=True)
class TreeDesign:
    """A tree or bush, drawn as an image that always faces the camera.

    Attributes:
        image: number of the image.
        height: in metres.
    """

    image: int
    height: float


Design = VehicleDesign | CycleDesign | PersonDesign | SignDesign | LightDesign | PoleDesign | TreeDesign


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody or something in the street.

    Attributes:
        track: its number for ever, from 1; 0 for scenery.
        class_name: of the ground truth; empty for scenery.
        design: what it looks like.
        start: where it is at second 0.
        speed: in m/s, ahead.
        turn_at: seconds after which it turns; infinite for never.
        turn: by how many radians, to the right if positive.
        radius: of the turn in metres.
        phase: of strides, pedals and signals, 0 to 1.
        seat: height at which a rider sits; 0 for those who do not ride.
    """

    track: int
    class_name: str
    design: Design
    start: Placement
    speed: float = 0.0
    turn_at: float = float("inf")
    turn: float = 0.0
    radius: float = 7.0
    phase: float = 0.0
    seat: float = 0.0

    def at(self, second: float) -> Placement:
        """Return where it is: straight on, then along an arc, then straight on again."""
        place = self.start
        if not self.speed:
            return place
        before = min(second, self.turn_at) * self.speed
        x, z, yaw = place.x + before * np.sin(place.yaw), place.z + before * np.cos(place.yaw), place.yaw
        left = max(0.0, second - self.turn_at) * self.speed
        if left:
            side = np.sign(self.turn)
            angle = min(left / self.radius, abs(self.turn)) * side
            cx, cz = x + side * self.radius * np.cos(yaw), z - side * self.radius * np.sin(yaw)
            x, z = cx - side * self.radius * np.cos(yaw + angle), cz + side * self.radius * np.sin(yaw + angle)
            rest = left - abs(angle) * self.radius
            yaw += angle
            x, z = x + rest * np.sin(yaw), z + rest * np.cos(yaw)
        return Placement(float(x), place.y, float(z), float(yaw))

    def mesh(self, second: float) -> Mesh:
        """Its body at a moment.

        Raises:
            TypeError: it is a tree, which has none.
        """
        match self.design:
            case VehicleDesign():
                return vehicle_mesh(self.design)
            case CycleDesign():
                return cycle_mesh(self.design)
            case PersonDesign():
                return self._person(self.design, second)
            case SignDesign():
                return sign_mesh(self.design)
            case LightDesign():
                return light_mesh(self._switched(self.design, second))
            case PoleDesign(height, reach, thick):
                return pole_mesh(height, reach, thick)
        raise TypeError("a tree has no mesh")

    def _person(self, design: PersonDesign, second: float) -> Mesh:
        if self.seat == MOTORCYCLE_SEAT:
            return person_mesh(design, MOTORCYCLING, self.seat)
        if self.seat:
            return person_mesh(design, CYCLING[int(second * 2.4 + self.phase * 2) % 2], self.seat)
        if not self.speed:
            return person_mesh(design, STANDING)
        strides = second * self.speed / (0.82 * design.height * design.swing) + self.phase
        return person_mesh(design, walking(int(strides * GAIT_STEPS) % GAIT_STEPS, design.swing))

    def _switched(self, design: LightDesign, second: float) -> LightDesign:
        if design.state == "off":
            return design
        period = sum(length for _, length in _LIGHT_TIMES)
        left = (second + self.phase * period) % period
        ends = np.cumsum([length for _, length in _LIGHT_TIMES])
        state, _ = _LIGHT_TIMES[int(np.searchsorted(ends, left, side="right"))]
        return LightDesign(state, design.housing, design.board, design.scale)
