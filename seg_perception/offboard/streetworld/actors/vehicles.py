"""Cars, vans, trucks and buses: a lofted body with glass, wheels, lamps and plates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .. import colours as c
from ..colours import Colour
from ..mesh import Mesh, MeshBuilder

# Side views: (z, bottom, belt, top, half width at the belt, half width at the top), as shares of length, height and
# half width, from the tail to the nose. Where top is not above belt there is no window.
Profile = tuple[tuple[float, float, float, float, float, float], ...]

PROFILES: dict[str, Profile] = {
    "sedan": (
        (-0.500, 0.24, 0.50, 0.58, 0.84, 0.74), (-0.480, 0.16, 0.60, 0.69, 0.95, 0.84),
        (-0.350, 0.14, 0.64, 0.72, 1.00, 0.84), (-0.200, 0.14, 0.66, 0.965, 1.00, 0.70),
        (-0.050, 0.14, 0.66, 1.00, 1.00, 0.73), (0.080, 0.14, 0.65, 0.965, 1.00, 0.71),
        (0.250, 0.14, 0.63, 0.68, 1.00, 0.86), (0.420, 0.15, 0.55, 0.60, 0.96, 0.82),
        (0.485, 0.17, 0.42, 0.50, 0.88, 0.76), (0.500, 0.22, 0.36, 0.42, 0.78, 0.70),
    ),
    "hatchback": (
        (-0.500, 0.24, 0.48, 0.56, 0.82, 0.76), (-0.485, 0.17, 0.60, 0.66, 0.94, 0.84),
        (-0.400, 0.14, 0.64, 0.93, 0.99, 0.70), (-0.250, 0.14, 0.64, 0.985, 1.00, 0.74),
        (-0.050, 0.14, 0.63, 1.00, 1.00, 0.75), (0.100, 0.14, 0.62, 0.965, 1.00, 0.72),
        (0.290, 0.14, 0.60, 0.66, 1.00, 0.84), (0.440, 0.15, 0.54, 0.58, 0.95, 0.80),
        (0.490, 0.18, 0.40, 0.47, 0.87, 0.76), (0.500, 0.24, 0.34, 0.40, 0.76, 0.70),
    ),
    "suv": (
        (-0.500, 0.26, 0.48, 0.55, 0.86, 0.80), (-0.488, 0.20, 0.60, 0.66, 0.96, 0.86),
        (-0.430, 0.17, 0.62, 0.93, 1.00, 0.74), (-0.250, 0.17, 0.62, 0.985, 1.00, 0.78),
        (-0.050, 0.17, 0.62, 1.00, 1.00, 0.79), (0.090, 0.17, 0.61, 0.97, 1.00, 0.76),
        (0.250, 0.17, 0.60, 0.66, 1.00, 0.88), (0.440, 0.18, 0.56, 0.61, 0.97, 0.86),
        (0.492, 0.20, 0.44, 0.52, 0.90, 0.82), (0.500, 0.26, 0.38, 0.45, 0.82, 0.76),
    ),
    "van": (
        (-0.500, 0.18, 0.55, 0.93, 0.94, 0.84), (-0.490, 0.14, 0.55, 0.97, 0.98, 0.87),
        (-0.200, 0.13, 0.55, 1.00, 1.00, 0.88), (0.050, 0.13, 0.55, 1.00, 1.00, 0.88),
        (0.210, 0.13, 0.54, 0.95, 1.00, 0.84), (0.370, 0.13, 0.52, 0.57, 0.99, 0.88),
        (0.470, 0.14, 0.42, 0.47, 0.94, 0.84), (0.500, 0.18, 0.32, 0.38, 0.84, 0.78),
    ),
    "bus": (
        (-0.500, 0.14, 0.42, 0.94, 0.96, 0.93), (-0.492, 0.10, 0.42, 0.98, 1.00, 0.96),
        (-0.300, 0.09, 0.42, 1.00, 1.00, 0.97), (0.000, 0.09, 0.42, 1.00, 1.00, 0.97),
        (0.300, 0.09, 0.42, 1.00, 1.00, 0.97), (0.488, 0.10, 0.40, 0.98, 1.00, 0.96),
        (0.500, 0.14, 0.36, 0.93, 0.95, 0.92),
    ),
    "cab": (
        (-0.500, 0.18, 0.58, 0.97, 0.98, 0.92), (-0.300, 0.18, 0.58, 1.00, 1.00, 0.93),
        (0.300, 0.18, 0.57, 0.99, 1.00, 0.92), (0.470, 0.16, 0.52, 0.92, 0.99, 0.90),
        (0.500, 0.20, 0.48, 0.86, 0.94, 0.88),
    ),
}  # fmt: skip
LENGTHS = {"sedan": 4.6, "hatchback": 4.0, "suv": 4.6, "van": 5.4, "truck": 8.0, "bus": 11.5}
HEIGHTS = {"sedan": 1.45, "hatchback": 1.5, "suv": 1.72, "van": 2.3, "truck": 3.3, "bus": 3.1}
WIDTHS = {"sedan": 1.8, "hatchback": 1.74, "suv": 1.88, "van": 2.0, "truck": 2.45, "bus": 2.5}
_CLASS = {"truck": "truck", "bus": "bus"}


@dataclass(frozen=True, slots=True)
class VehicleDesign:
    """What a vehicle looks like.

    Attributes:
        style: a key of `LENGTHS`.
        length, width, height: in metres.
        paint, second: body, and cargo box or stripe.
        lamps: its lights are on.
        braking: its brake lights are on.
    """

    style: str
    length: float
    width: float
    height: float
    paint: Colour
    second: Colour
    lamps: bool = False
    braking: bool = False

    @property
    def class_name(self) -> str:
        """The class of the ground truth; vans are cars, as in BDD100K."""
        return _CLASS.get(self.style, "car")


def random_vehicle(random: np.random.Generator, lamps: bool, style: str = "") -> VehicleDesign:
    """A vehicle of any style, or of the given one."""
    styles = ("sedan", "hatchback", "suv", "van", "truck", "bus")
    style = style or str(random.choice(styles, p=(0.3, 0.22, 0.24, 0.1, 0.08, 0.06)))
    scale = random.uniform(0.93, 1.07, 3)
    return VehicleDesign(
        style,
        LENGTHS[style] * scale[0],
        WIDTHS[style] * (0.5 + 0.5 * scale[1]),
        HEIGHTS[style] * (0.4 + 0.6 * scale[2]),
        c.pick(random, c.PAINTS),
        c.pick(random, c.PAINTS),
        lamps,
        bool(random.random() < 0.3),
    )


@lru_cache(maxsize=512)
def vehicle_mesh(design: VehicleDesign) -> Mesh:
    """The body; its middle stands on the origin and looks along +z."""
    b = MeshBuilder()
    if design.style == "truck":
        _truck(b, design)
    else:
        _body(b, design, PROFILES[design.style], design.length, 0.0, design.height)
        (_bus_details if design.style == "bus" else _car_details)(b, design)
    return b.build()


def _body(b: MeshBuilder, d: VehicleDesign, profile: Profile, length: float, z0: float, height: float) -> None:
    half = d.width / 2
    rings, tops = [], []
    for z, bottom, belt, top, wide, narrow in profile:
        w, r = wide * half, narrow * half
        low, sill, mid = bottom * height, (bottom + 0.06) * height, (bottom * 0.45 + belt * 0.55) * height
        y, t = belt * height, top * height
        side = [(0.88 * w, low), (0.97 * w, sill), (w, mid), (0.97 * w, y), (r, y + (t - y) * 0.86), (0.86 * r, t)]
        rings.append([(x, v, z0 + z * length) for x, v in side] + [(-x, v, z0 + z * length) for x, v in side[::-1]])
        tops.append(t - y)
    count, around = len(rings), len(rings[0])
    hue = np.empty((count - 1, around, 3), np.float32)
    gloss = np.full((count - 1, around), 0.35, np.float32)
    hue[:] = d.paint
    hue[:, [0, around - 2]] = c.darker(d.paint, 0.55)
    hue[:, around - 1], gloss[:, around - 1] = c.BLACK, 0.0
    opaque = {"bus": 0, "cab": 0, "van": 3}.get("cab" if d.style == "truck" else d.style, -1)
    window = 0.17 * height
    for s in range(count - 1):
        if min(tops[s], tops[s + 1]) > window:
            if not (opaque > 0 and s < opaque):
                hue[s, [3, 7]], gloss[s, [3, 7]] = c.GLASS, 1.0
        elif max(tops[s], tops[s + 1]) > window:
            # The window that slopes between roof and belt: its middle, and its corners next to it.
            hue[s, 5], gloss[s, 5] = c.GLASS, 1.0
            hue[s, [4, 6]], gloss[s, [4, 6]] = c.darker(d.paint, 0.85), 0.4
            hue[s, [3, 7]], gloss[s, [3, 7]] = c.GLASS, 0.9
    b.loft(rings, hue, gloss)


def _car_details(b: MeshBuilder, d: VehicleDesign) -> None:
    x, length, height = d.width / 2, d.length, d.height
    radius = {"suv": 0.36, "van": 0.34}.get(d.style, 0.32)
    for z in (-0.30 * length, 0.31 * length):
        _wheels(b, x, z, radius)
    for side in (-1, 1):
        _side_lines(b, d, side)
        _lamps(b, d, side, front_y=0.45 * height if d.style != "van" else 0.36 * height)
    nose, tail = 0.5 * length + 0.012, -0.5 * length - 0.012
    _panel(b, (0, 0.30 * height, nose), 0.5 * x, 0.05 * height, 1, c.BLACK)
    _panel(b, (0, 0.245 * height, nose), 0.28, 0.055, 1, c.WHITE, layer=3)
    _panel(b, (0, 0.40 * height, tail), 0.28, 0.06, -1, c.WHITE, layer=3)
    _panel(b, (0, 0.25 * height, tail), 0.72 * x, 0.035 * height, -1, c.DARK)
    if d.style == "van":
        for side in (-1, 1):
            _panel(b, (side * 0.42 * x, 0.73 * height, tail + 0.005), 0.34 * x, 0.12 * height, -1, c.GLASS, gloss=0.9)


def _side_lines(b: MeshBuilder, d: VehicleDesign, side: int) -> None:
    """Pillars, doors, handles and the mirror of one side."""
    x, length, height = d.width / 2, d.length, d.height
    belt, low = 0.64 * height, 0.22 * height
    profile = PROFILES[d.style]
    roof = max(row[5] for row in profile[2:6]) * x
    for z in (-0.20, -0.055, 0.10) if d.style != "van" else (-0.05, 0.21):
        if z < 0.08:
            u, v = side * (0.975 * x + 0.005), side * (roof + 0.012)
            top = 0.95 * height
            strip = [(u, belt, z * length - 0.04), (u, belt, z * length + 0.04), (v, top, z * length + 0.04),
                     (v, top, z * length - 0.04)]  # fmt: skip
            b.polygon(strip, (side, 0.2, 0), c.darker(d.paint, 0.5), gloss=0.2)
        line = [
            (side * (x + 0.006), low, z * length - 0.012),
            (side * (x + 0.006), low, z * length + 0.012),
            (side * (x + 0.003), belt, z * length + 0.012),
            (side * (x + 0.003), belt, z * length - 0.012),
        ]
        b.polygon(line, (side, 0, 0), c.darker(d.paint, 0.35))
        handle = np.array([(0, -0.02, 0), (0, -0.02, -0.16), (0, 0.02, -0.16), (0, 0.02, 0)])
        grip = np.add(handle, (side * (x + 0.01), 0.55 * height, (z - 0.015) * length))
        b.polygon(grip, (side, 0, 0),
                  c.darker(d.paint, 0.45))  # fmt: skip
    b.part()
    b.box((side * (x + 0.09), 0.67 * height, 0.2 * length), (0.17, 0.13, 0.09), c.darker(d.paint, 0.8), 0.3)
    b.main_part()


def _lamps(b: MeshBuilder, d: VehicleDesign, side: int, front_y: float) -> None:
    x, length, height = d.width / 2, d.length, d.height
    # Lamps wrap around the corners of the body.
    zf, zr = 0.487 * length + 0.012, -0.487 * length - 0.012
    front = [(side * 0.50 * x, front_y - 0.06, zf + 0.05), (side * 0.86 * x, front_y - 0.05, zf),
             (side * 0.90 * x, front_y + 0.05, zf - 0.10), (side * 0.50 * x, front_y + 0.04, zf + 0.03)]  # fmt: skip
    glow = 1.0 if d.lamps else 0.15
    b.polygon(front, (side * 0.3, 0.2, 1), c.LAMP_WHITE if d.lamps else c.LAMP_OFF, 2, 0.6, glow)
    tall = d.style in ("van", "hatchback", "suv")
    y1, y2 = (0.42 * height, 0.60 * height) if tall else (0.46 * height, 0.57 * height)
    inner = 0.78 if tall else 0.52
    rear = [(side * inner * x, y1, zr - 0.03), (side * 0.92 * x, y1, zr + 0.05), (side * 0.92 * x, y2, zr + 0.07),
            (side * inner * x, y2, zr - 0.02)]  # fmt: skip
    lit = d.lamps or d.braking
    b.polygon(
        rear, (side * 0.3, 0.1, -1), c.LAMP_RED if lit else (30, 26, 130), 2, 0.3, 0.9 if d.braking else 0.4 * lit
    )


def _wheels(b: MeshBuilder, x: float, z: float, radius: float, double: bool = False) -> None:
    """One axle; a dark well, the tyre and the rim on each side."""
    for side in (-1, 1):
        out = (side, 0, 0)
        b.disc((side * (x * 0.995 + 0.004), radius + 0.03, z), out, radius * 1.16, c.BLACK, 1, corners=14)
        wide = [(side * u, v, w) for u, v, w in ((x * 0.7, 0.0, z - radius * 0.8), (x * 0.7, 0.0, z + radius * 0.8))]
        high = [(u, radius * 0.75, w) for u, _, w in wide[::-1]]
        # The treads, as seen from ahead and behind under the bumper.
        for edge in (-1, 1):
            zt = z + edge * radius * 0.85
            tread = [(side * x * 0.78, 0.02, zt), (side * x * 0.98, 0.02, zt), (side * x * 0.98, radius, zt),
                     (side * x * 0.78, radius, zt)]  # fmt: skip
            b.polygon(tread, (0, 0, edge), c.TYRE, -1)
        b.polygon(wide + high, out, c.BLACK, -2)
        b.disc((side * (x + 0.008), radius, z), out, radius, c.TYRE, 2, corners=14)
        b.disc((side * (x + 0.012), radius, z), out, radius * 0.64, c.RIM, 3, 0.3, corners=10)
        for k in range(5):
            a = 2 * np.pi * k / 5
            spot = (side * (x + 0.014), radius * (1 + 0.42 * np.sin(a)), z + radius * 0.42 * np.cos(a))
            b.disc(spot, out, radius * (0.12 if not double else 0.08), c.DARK, 4, corners=5)
        b.disc((side * (x + 0.015), radius, z), out, radius * 0.13, c.GREY, 4, corners=6)


def _panel(
    b: MeshBuilder, centre: tuple[float, float, float], half_wide: float, half_high: float, face: int, colour: Colour,
    layer: int = 2, gloss: float = 0.1, glow: float = 0.0,
) -> None:  # fmt: skip
    """An upright rectangle on the front (`face` 1) or the back (-1)."""
    x, y, z = centre
    a, h = half_wide, half_high
    points = [(x - a, y - h, z), (x + a, y - h, z), (x + a, y + h, z), (x - a, y + h, z)]
    b.polygon(points, (0, 0, face), colour, layer, gloss, glow)


def _side_panel(
    b: MeshBuilder, x: float, y: tuple[float, float], z: tuple[float, float], colour: Colour, layer: int = 2,
    gloss: float = 0.1,
) -> None:  # fmt: skip
    """An upright rectangle on the side at `x`."""
    points = [(x, y[0], z[0]), (x, y[0], z[1]), (x, y[1], z[1]), (x, y[1], z[0])]
    b.polygon(points, (np.sign(x), 0, 0), colour, layer, gloss)


def _bus_details(b: MeshBuilder, d: VehicleDesign) -> None:
    x, length, height = d.width / 2, d.length, d.height
    for z in (-0.26 * length, 0.27 * length):
        _wheels(b, x, z, 0.48, double=True)
    for side in (-1, 1):
        wall = side * (x + 0.005)
        _side_panel(b, wall, (0.42 * height, 0.50 * height), (-0.47 * length, 0.47 * length), d.second, 1)
        count = 7
        step = 0.92 * length / count
        for k in range(count):
            z = -0.46 * length + k * step
            door = side > 0 and k in (3, 6)
            low = 0.13 if door else 0.50
            _side_panel(b, wall, (low * height, 0.85 * height), (z + 0.06, z + step - 0.06), c.GLASS, 2, 0.9)
            if door:
                middle = z + step / 2
                _side_panel(b, wall, (low * height, 0.85 * height), (middle - 0.04, middle + 0.04), d.paint, 3)
        _lamps(b, d, side, front_y=0.24 * height)
        b.part()
        b.box((side * (x + 0.16), 0.68 * height, 0.49 * length), (0.2, 0.42, 0.14), c.BLACK, 0.2)
        b.main_part()
    nose, tail = 0.5 * length + 0.02, -0.5 * length - 0.02
    _panel(b, (0, 0.56 * height, nose), 0.86 * x, 0.23 * height, 1, c.GLASS, 1, 1.0)
    _panel(b, (0, 0.56 * height, nose), 0.02, 0.23 * height, 1, c.DARK, 2)
    _panel(b, (0, 0.86 * height, nose), 0.70 * x, 0.06 * height, 1, c.BLACK, 2)
    _panel(b, (0, 0.86 * height, nose + 0.01), 0.45 * x, 0.03 * height, 1, c.ORANGE, 3, glow=0.9)
    _panel(b, (0, 0.20 * height, nose), 0.22 * x, 0.02 * height, 1, c.WHITE, 3)
    _panel(b, (0, 0.68 * height, tail), 0.76 * x, 0.15 * height, -1, c.GLASS, 2, 0.9)
    _panel(b, (0, 0.25 * height, tail), 0.6 * x, 0.06 * height, -1, c.darker(d.paint, 0.6), 2)
    _panel(b, (0, 0.17 * height, tail), 0.25, 0.06, -1, c.WHITE, 3)


def _truck(b: MeshBuilder, d: VehicleDesign) -> None:
    x, length, height = d.width / 2, d.length, d.height
    cab = 0.26 * length
    front = length / 2
    _body(b, d, PROFILES["cab"], cab, front - cab / 2, 0.82 * height)
    nose = front + 0.02
    _panel(b, (0, 0.585 * height, nose - 0.02), 0.84 * x, 0.125 * height, 1, c.GLASS, 2, 1.0)
    _panel(b, (0, 0.32 * height, nose), 0.6 * x, 0.07 * height, 1, c.BLACK)
    _panel(b, (0, 0.20 * height, nose), 0.9 * x, 0.03 * height, 1, c.DARK)
    _panel(b, (0, 0.20 * height, nose + 0.01), 0.26, 0.06, 1, c.WHITE, 3)
    for side in (-1, 1):
        _lamps(b, d, side, front_y=0.26 * height)
        _side_panel(b, side * (x + 0.004), (0.14 * height, 0.47 * height), (front - 0.72 * cab, front - 0.70 * cab),
                    c.darker(d.paint, 0.4))  # fmt: skip
        b.part()
        b.box((side * (x + 0.18), 0.6 * height, front - 0.12), (0.2, 0.4, 0.12), c.BLACK, 0.2)
        b.main_part()
    _wheels(b, x, front - 0.6 * cab, 0.48)
    b.part()
    b.box((0, 0.22 * height, -0.1 * cab), (0.7 * d.width, 0.1 * height, length - 0.4), c.DARK)
    b.part()
    cargo, middle, bottom = length - cab - 0.25, -(cab + 0.25) / 2, 0.28 * height
    b.box((0, (bottom + height) / 2, middle), (d.width, height - bottom, cargo), d.second, 0.12)
    tail = middle - cargo / 2 - 0.01
    for side in (-1, 1):
        _panel(b, (side * 0.5 * x, 0.62 * height, tail), 0.02, 0.30 * height, -1, c.darker(d.second, 0.6))
        _panel(b, (side * 0.8 * x, 0.24 * height, tail), 0.14 * x, 0.025 * height, -1, c.LAMP_RED, 3,
               glow=0.9 if d.braking else 0.3)  # fmt: skip
        wall = side * (x + 0.005)
        _side_panel(b, wall, (bottom, bottom + 0.06), (middle - cargo / 2, middle + cargo / 2), c.GREY)
        _side_panel(b, wall, (0.5 * height, 0.78 * height), (middle - 0.3 * cargo, middle + 0.25 * cargo), d.paint)
    _panel(b, (0, 0.62 * height, tail), 0.012, 0.32 * height, -1, c.DARK)
    _panel(b, (0, 0.22 * height, tail), 0.9 * x, 0.02 * height, -1, c.DARK)
    _panel(b, (0, 0.22 * height, tail - 0.01), 0.26, 0.05, -1, c.WHITE, 4)
    b.part()
    for z in (middle - 0.32 * cargo, middle - 0.32 * cargo + 1.1):
        _wheels(b, x * 0.98, z, 0.48, double=True)
