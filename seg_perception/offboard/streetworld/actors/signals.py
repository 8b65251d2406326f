"""Traffic signs of many shapes and traffic lights; their poles are scenery and have meshes of their own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi

import numpy as np
from numpy.typing import NDArray

from .. import colours as c
from ..colours import Colour
from ..mesh import Mesh, MeshBuilder, ring

SIGN_KINDS = ("stop", "yield", "warning", "prohibition", "speed", "mandatory", "priority", "parking", "crossing",
              "no_entry", "direction", "diamond")  # fmt: skip
LIGHT_STATES = ("red", "red_yellow", "yellow", "green", "off")
# Corners, turn of the first corner, border, face.
_SHAPES: dict[str, tuple[int, float, Colour, Colour]] = {
    "stop": (8, pi / 8, c.WHITE, c.RED),
    "yield": (3, -pi / 2, c.RED, c.WHITE),
    "warning": (3, pi / 2, c.RED, c.WHITE),
    "prohibition": (16, 0, c.RED, c.WHITE),
    "speed": (16, 0, c.RED, c.WHITE),
    "mandatory": (16, 0, c.WHITE, c.BLUE),
    "priority": (4, 0, c.WHITE, c.YELLOW),
    "parking": (4, pi / 4, c.WHITE, c.BLUE),
    "crossing": (4, pi / 4, c.WHITE, c.BLUE),
    "no_entry": (16, 0, c.WHITE, c.RED),
    "direction": (4, pi / 4, c.WHITE, c.GREEN),
    "diamond": (4, 0, c.BLACK, c.YELLOW),
}
# Strokes of signs and digits in a square from -1 to 1: (x, y, half width, half height).
_SEGMENTS = {
    "a": (0, 1, 1, 0.2),
    "b": (0.8, 0.5, 0.2, 0.5),
    "c": (0.8, -0.5, 0.2, 0.5),
    "d": (0, -1, 1, 0.2),
    "e": (-0.8, -0.5, 0.2, 0.5),
    "f": (-0.8, 0.5, 0.2, 0.5),
    "g": (0, 0, 1, 0.2),
    "i": (0, 0, 0.2, 1),
}
_GLYPHS = {"0": "abcdef", "3": "abgcd", "4": "fgbc", "5": "afgcd", "6": "afedcg", "8": "abcdefg", "S": "afgcd",
           "T": "ai", "O": "abcdef", "P": "abfge"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SignDesign:
    """What a sign looks like.

    Attributes:
        kind: one of `SIGN_KINDS`.
        size: its radius in metres.
        text: of a speed limit.
    """

    kind: str
    size: float
    text: str = "50"


@dataclass(frozen=True, slots=True)
class LightDesign:
    """What a traffic light looks like.

    Attributes:
        state: one of `LIGHT_STATES`.
        housing: its colour.
        board: with a dark board around it.
        scale: relative to a housing 0.95 m high.
    """

    state: str
    housing: Colour
    board: bool
    scale: float = 1.0


def random_sign(random: np.random.Generator) -> SignDesign:
    """A sign of any kind."""
    kind = str(random.choice(SIGN_KINDS))
    return SignDesign(kind, float(random.uniform(0.3, 0.46)), str(random.choice(("30", "40", "50", "60", "80"))))


def random_traffic_light(random: np.random.Generator, state: str) -> LightDesign:
    """A traffic light in black or ochre."""
    housing = (24.0, 24.0, 24.0) if random.random() < 0.7 else (40.0, 150.0, 190.0)
    return LightDesign(state, housing, bool(random.random() < 0.4), float(random.uniform(0.85, 1.2)))


@lru_cache(maxsize=512)
def sign_mesh(design: SignDesign) -> Mesh:
    """The plate around the origin; it is read from -z."""
    b = MeshBuilder()
    corners, turn, border, face = _SHAPES[design.kind]
    size = design.size * (1.25 if corners in (3, 4) else 1.0)
    wide = 1.9 if design.kind == "direction" else 1.0
    for radius, z, colour, layer in ((1.0, 0.0, border, 1), (0.82, -0.004, face, 2)):
        b.polygon(_outline(corners, turn, size * radius, wide, z), (0, 0, -1), colour, layer, 0.15)
    b.polygon(_outline(corners, turn, size, wide, 0.02), (0, 0, 1), c.GREY, 1, 0.1)
    _symbol(b, design, size, wide)
    return b.build()


def _outline(corners: int, turn: float, radius: float, wide: float, z: float) -> NDArray[np.float64]:
    angles = turn + np.arange(corners) * 2 * pi / corners
    return np.stack([wide * radius * np.cos(angles), radius * np.sin(angles), np.full(corners, z)], -1)


def _symbol(b: MeshBuilder, d: SignDesign, size: float, wide: float) -> None:
    if d.kind == "stop":
        _text(b, "STOP", size * 0.62, size * 0.22, c.WHITE)
    elif d.kind == "speed":
        _text(b, d.text, size * 0.42, size * 0.34, c.BLACK)
    elif d.kind == "parking":
        _text(b, "P", size * 0.22, size * 0.4, c.WHITE)
    elif d.kind == "direction":
        for row, share in ((0.3, 0.8), (-0.05, 0.6), (-0.4, 0.7)):
            _bar(b, 0, row * size, wide * 0.5 * share * size, 0.09 * size, c.WHITE)
    elif d.kind == "no_entry":
        _bar(b, 0, 0, 0.6 * size, 0.15 * size, c.WHITE)
    elif d.kind == "prohibition":
        _arrow(b, size, c.BLACK)
        slash = np.array([(-0.62, 0.5), (-0.5, 0.62), (0.62, -0.5), (0.5, -0.62)]) * size
        b.polygon(np.c_[slash, np.full(4, -0.010)], (0, 0, -1), c.RED, 4)
    elif d.kind == "mandatory":
        _arrow(b, size, c.WHITE)
    elif d.kind == "crossing":
        triangle = np.array([(-0.5, -0.45), (0.5, -0.45), (0, 0.55)]) * size
        b.polygon(np.c_[triangle, np.full(3, -0.006)], (0, 0, -1), c.WHITE, 3)
        _figure(b, size * 0.7, -0.1 * size)
    elif d.kind in ("warning", "diamond"):
        _figure(b, size * 0.8, -0.05 * size)


def _bar(b: MeshBuilder, x: float, y: float, half_wide: float, half_high: float, colour: Colour) -> None:
    points = [(x + u * half_wide, y + v * half_high, -0.008) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    b.polygon(points, (0, 0, -1), colour, 3)


def _arrow(b: MeshBuilder, size: float, colour: Colour) -> None:
    _bar(b, 0, -0.15 * size, 0.1 * size, 0.4 * size, colour)
    head = np.array([(-0.32, 0.15), (0.32, 0.15), (0, 0.62)]) * size
    b.polygon(np.c_[head, np.full(3, -0.008)], (0, 0, -1), colour, 3)


def _figure(b: MeshBuilder, size: float, y: float) -> None:
    """A walking figure."""
    _bar(b, 0, y + 0.05 * size, 0.08 * size, 0.2 * size, c.BLACK)
    for side in (-1, 1):
        leg = np.array([(-0.05, 0), (0.05, 0), (side * 0.25 + 0.05, -0.42), (side * 0.25 - 0.05, -0.42)]) * size
        b.polygon(np.c_[np.add(leg, (0, y - 0.1 * size)), np.full(4, -0.008)], (0, 0, -1), c.BLACK, 3)
    b.disc((0, y + 0.34 * size, -0.009), (0, 0, -1), 0.09 * size, c.BLACK, 3, corners=8)


def _text(b: MeshBuilder, text: str, half_wide: float, half_high: float, colour: Colour) -> None:
    step = 2 * half_wide / len(text)
    for k, letter in enumerate(text):
        # Seen from -z with y up, +x is on the right for somebody who looks along +z.
        middle = -half_wide + (k + 0.5) * step
        for name in _GLYPHS[letter]:
            x, y, w, h = _SEGMENTS[name]
            _bar(b, middle + x * step * 0.36, y * half_high, max(w * step * 0.36, 0.012), h * half_high, colour)


@lru_cache(maxsize=512)
def light_mesh(design: LightDesign) -> Mesh:
    """The housing around the origin; it is read from -z."""
    b = MeshBuilder()
    s = design.scale
    b.box((0, 0, 0), (0.34 * s, 0.98 * s, 0.26 * s), design.housing, 0.1)
    if design.board:
        points = [(u * 0.34 * s, v * 0.66 * s, 0.0) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        b.polygon(points, (0, 0, 1), c.BLACK, -1, two_sided=True)
    lit = {"red": (0,), "red_yellow": (0, 1), "yellow": (1,), "green": (2,), "off": ()}[design.state]
    lamps: tuple[Colour, ...] = ((40, 40, 255), (40, 190, 255), (150, 255, 70))
    for row, colour in enumerate(lamps):
        on = row in lit
        centre = (0, (0.31 - 0.31 * row) * s, -0.131 * s)
        b.disc(centre, (0, 0, -1), 0.125 * s, colour if on else c.darker(colour, 0.16), 1, 0, 1.0 if on else 0.0, 14)
        # The visor, seen from the side and from below.
        arc = ring((0, centre[1], -0.13 * s), (0, 0, 1), 0.135 * s, 0.135 * s, 12)
        far = arc - np.array([0, 0, 0.16 * s], np.float32)
        for k in range(12):
            n = (k + 1) % 12
            if (arc[k] + arc[n])[1] > 2 * centre[1]:
                middle = (arc[k] + arc[n]) / 2 - np.array([0, centre[1], -0.13 * s])
                b.polygon([arc[k], arc[n], far[n], far[k]], middle, c.DARK, 2, two_sided=True)
    return b.build()


@lru_cache(maxsize=256)
def pole_mesh(height: float, reach: float = 0.0, thick: float = 0.045) -> Mesh:
    """A pole on the origin; with `reach` an arm of that length at its top, to -x or +x."""
    b = MeshBuilder()
    b.tube((0, 0, 0), (0, height, 0), (thick, thick), c.GREY, 6, 0.1)
    if reach:
        b.part()
        b.tube((0, height - 0.1, 0), (reach, height, 0), (thick * 0.9, thick * 0.7), c.GREY, 6, 0.1)
    return b.build()
