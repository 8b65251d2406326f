"""Bicycles and motorcycles, without their riders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .. import colours as c
from ..colours import Colour
from ..mesh import Mesh, MeshBuilder, ring

BICYCLE_SEAT, MOTORCYCLE_SEAT = 0.97, 0.85


@dataclass(frozen=True, slots=True)
class CycleDesign:
    """What a cycle looks like.

    Attributes:
        style: `bicycle`, `motorcycle` or `scooter`.
        paint: of frame or tank.
        lamps: its lights are on.
    """

    style: str
    paint: Colour
    lamps: bool = False

    @property
    def class_name(self) -> str:
        """The class of the ground truth."""
        return "bicycle" if self.style == "bicycle" else "motorcycle"


def random_cycle(random: np.random.Generator, lamps: bool, style: str = "") -> CycleDesign:
    """A cycle of any style, or of the given one."""
    style = style or str(random.choice(("bicycle", "motorcycle", "scooter"), p=(0.55, 0.27, 0.18)))
    return CycleDesign(style, c.pick(random, c.PAINTS), lamps)


@lru_cache(maxsize=256)
def cycle_mesh(design: CycleDesign) -> Mesh:
    """It stands on the origin and looks along +z."""
    b = MeshBuilder()
    (_bicycle if design.style == "bicycle" else _motorcycle)(b, design)
    return b.build()


def _bicycle(b: MeshBuilder, d: CycleDesign) -> None:
    for z in (-0.52, 0.52):
        _wheel(b, z, 0.34, 0.035, 0.02)
    saddle, bars = (0, 0.92, -0.22), (0, 0.98, 0.36)
    hub, rear, front = (0, 0.30, -0.05), (0, 0.34, -0.52), (0, 0.34, 0.52)
    frame = [(hub, saddle), (hub, (0, 0.75, 0.37)), ((0, 0.78, -0.18), (0, 0.82, 0.35)), (rear, hub),
             (rear, (0, 0.78, -0.18)), (front, bars)]  # fmt: skip
    b.part()
    for start, end in frame:
        b.tube(start, end, (0.024, 0.024), d.paint, 5, 0.3)
    b.part()
    b.box(saddle, (0.14, 0.06, 0.27), c.BLACK)
    b.tube((-0.3, 1.02, 0.30), (0.3, 1.02, 0.30), (0.02, 0.02), c.BLACK, 5)
    b.tube((-0.12, 0.2, -0.05), (0.12, 0.4, -0.05), (0.025, 0.025), c.DARK, 5)
    b.box((0, 0.60, -0.42), (0.06, 0.07, 0.03), c.LAMP_RED, 0, 0.9 if d.lamps else 0.1)
    b.box((0, 0.92, 0.44), (0.08, 0.09, 0.05), c.LAMP_WHITE, 0, 1.0 if d.lamps else 0.1)


def _motorcycle(b: MeshBuilder, d: CycleDesign) -> None:
    scooter = d.style == "scooter"
    radius, base = (0.24, 0.62) if scooter else (0.31, 0.70)
    for z in (-base, base):
        _wheel(b, z, radius, 0.09, 0.075)
        b.disc((0.06, radius, z), (1, 0, 0), radius * 0.55, c.GREY, 1, 0.3, corners=8)
        b.disc((-0.06, radius, z), (-1, 0, 0), radius * 0.55, c.GREY, 1, 0.3, corners=8)
    b.part()
    body = ((-0.75, 0.62, 0.80, 0.10), (-0.35, 0.42, 0.84, 0.15), (0.0, 0.34, 0.80, 0.17), (0.28, 0.42, 0.98, 0.19),
            (0.50, 0.60, 0.98, 0.14))  # fmt: skip
    if scooter:
        body = (
            (-0.80, 0.35, 0.80, 0.15),
            (-0.35, 0.25, 0.82, 0.19),
            (-0.05, 0.22, 0.50, 0.19),
            (0.25, 0.22, 0.45, 0.19),
            (0.42, 0.30, 1.02, 0.17),
        )
    rings = [ring((0, (low + top) / 2, z), (0, 0, 1), wide, (top - low) / 2, 8) for z, low, top, wide in body]
    hues = np.broadcast_to(np.asarray(d.paint, np.float32), (len(rings) - 1, 8, 3)).copy()
    hues[:2, [1, 2]] = c.BLACK
    if not scooter:
        hues[1:3, [5, 6]] = c.GREY
    b.loft(rings, hues, 0.4)
    b.part()
    b.tube((0, radius, base), (0, 1.0, base - 0.25), (0.06, 0.06), c.SILVER, 6, 0.5)
    b.tube((-0.36, 1.05, base - 0.30), (0.36, 1.05, base - 0.30), (0.022, 0.022), c.BLACK, 5)
    b.part()
    b.disc((0, 0.88, base - 0.08), (0, 0, 1), 0.11, c.LAMP_WHITE if d.lamps else c.LAMP_OFF, 1, 0.5, float(d.lamps), 10)
    b.box((0, 0.90, base - 0.17), (0.2, 0.2, 0.16), d.paint, 0.3)
    b.part()
    b.box((0, 0.74, -0.84), (0.18, 0.07, 0.05), c.LAMP_RED, 0, 0.8 if d.lamps else 0.2)
    b.polygon([(-0.1, 0.5, -0.87), (0.1, 0.5, -0.87), (0.1, 0.64, -0.88), (-0.1, 0.64, -0.88)], (0, 0, -1), c.WHITE)
    for side in (-1, 1):
        b.part()
        b.box((side * 0.32, 1.17, base - 0.3), (0.14, 0.09, 0.03), c.BLACK)


def _wheel(b: MeshBuilder, z: float, radius: float, thick: float, wide: float) -> None:
    """A ring that can be looked through."""
    b.part()
    outer = ring((0, radius, z), (1, 0, 0), radius, radius, 16)
    inner = ring((0, radius, z), (1, 0, 0), radius - thick, radius - thick, 16)
    for k in range(16):
        n = (k + 1) % 16
        b.polygon([outer[k], outer[n], inner[n], inner[k]], (1, 0, 0), c.TYRE, 0, two_sided=True)
        out = outer[k] + outer[n] - (0, 2 * radius, 2 * z)
        half = np.array([wide / 2, 0, 0])
        b.polygon([outer[k] - half, outer[n] - half, outer[n] + half, outer[k] + half], out, c.TYRE, 0)
    for k in range(0, 16, 4):
        b.polygon([inner[k], inner[k] + (0, 0.008, 0.008), inner[k - 8], inner[k - 8] - (0, 0.008, 0.008)], (1, 0, 0),
                  c.GREY, 0, two_sided=True)  # fmt: skip
