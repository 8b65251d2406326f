"""The images that ground, house fronts and sky are covered with, drawn again for each scene."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .colours import floats
from .layout import Street

Texture = NDArray[np.uint8]
# Pixels per metre: across and along the road, and on house fronts.
GROUND_X, GROUND_Z = 20, 10
FRONT = 16
FRONT_HEIGHT = 20.0
GROUND_HALF = 24.0
# Copies that are blurred along the road by 1, 2, 4, ... pixels stand for distance.
LEVELS = 5
_BRICKS = ((96, 110, 150), (120, 140, 170), (150, 160, 170), (170, 182, 190), (130, 130, 134), (84, 96, 120),
           (176, 196, 206), (110, 120, 116), (150, 170, 196), (90, 100, 170))  # fmt: skip


def noise(random: np.random.Generator, height: int, width: int, coarse: int, depth: float) -> NDArray[np.float32]:
    """Smooth noise around 0, float32 `[height, width]`, that goes on seamlessly downwards."""
    rows, columns = max(2, height // coarse), max(2, width // coarse)
    field = random.normal(0, depth, (rows, columns)).astype(np.float32)
    field = np.vstack([field, field[:1]])
    grown = cv2.resize(field, (width, height * (rows + 1) // rows), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grown[:height], np.float32)


def levels(texture: Texture, axis: int) -> Texture:
    """The texture and copies blurred along an axis, along which it repeats (0 rows, 1 columns), side by side."""
    result = [texture]
    for level in range(1, LEVELS):
        size = 2**level + 1
        kernel = (1, size) if axis == 0 else (size, 1)
        result.append(cv2.blur(texture, kernel, borderType=cv2.BORDER_REFLECT).view(np.uint8))
    return np.concatenate(result, 1 - axis)


def ground_texture(random: np.random.Generator, street: Street) -> Texture:
    """One period of the ground from above, uint8 `[period, 2 * GROUND_HALF, 3]` in pixels; row 0 is z = 0."""
    rows, columns = int(street.period * GROUND_Z), int(2 * GROUND_HALF * GROUND_X)
    image = np.empty((rows, columns, 3), np.float32)
    image[:] = (78, 98, 88) if random.random() < 0.5 else (120, 122, 124)
    walk, edge = street.half_road + street.walk, street.half_road
    _area(image, -walk, walk, None, (138, 142, 146))
    for x in np.arange(-walk, walk, 0.9).tolist():
        _area(image, x, x + 0.05, None, (120, 124, 128))
    image[:: int(0.9 * GROUND_Z)] *= 0.94
    _area(image, -edge - 0.25, edge + 0.25, None, (160, 162, 164))
    tone = float(random.uniform(68, 104))
    asphalt = (tone * 1.02, tone, tone * 0.98)
    _area(image, -edge, edge, None, asphalt)
    crossing = (street.crossing - street.cross_half, street.crossing + street.cross_half)
    image[int(crossing[0] * GROUND_Z) : int(crossing[1] * GROUND_Z)] = asphalt
    for _ in range(14):
        x, z = random.uniform(-edge, edge - 1), random.uniform(0, street.period - 5)
        shade = tuple(float(v) * random.uniform(0.82, 1.12) for v in asphalt)
        _area(image, x, x + random.uniform(0.4, 2.5), (z, z + random.uniform(0.6, 5)), shade)
    for lane in street.lane_centres():
        for side in (-0.8, 0.8):
            _area(image, lane + side - 0.25, lane + side + 0.25, None, None, 0.94)
    _markings(image, street)
    image *= 1 + noise(random, rows, columns, 40, 0.05)[..., None]
    image += random.normal(0, 5, (rows, columns, 1)).astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def _area(
    image: NDArray[np.float32], left: float, right: float, along: tuple[float, float] | None,
    colour: tuple[float, ...] | None, gain: float = 1.0,
) -> None:  # fmt: skip
    """Fill a rectangle given in metres, or darken it."""
    columns = slice(round((left + GROUND_HALF) * GROUND_X), round((right + GROUND_HALF) * GROUND_X))
    rows = slice(None) if along is None else slice(round(along[0] * GROUND_Z), round(along[1] * GROUND_Z))
    if colour is None:
        image[rows, columns] *= gain
    else:
        image[rows, columns] = colour


def _markings(image: NDArray[np.float32], street: Street) -> None:
    white = (208, 210, 212)
    low, high = street.crossing - street.cross_half, street.crossing + street.cross_half
    stretches = ((0.0, low - 5), (high + 5, street.period))
    for start, end in stretches:
        for x in street.lane_borders():
            if x == 0 and street.lanes > 1:
                for shift in (-0.15, 0.15):
                    _area(image, shift - 0.06, shift + 0.06, (start, end), white)
                continue
            for z in np.arange(start, end - 3, 7.5).tolist():
                _area(image, x - 0.07, x + 0.07, (z, z + 3), white)
        for side in (-1, 1):
            edge = side * (street.lanes * street.lane_width + 0.1)
            _area(image, edge - 0.07, edge + 0.07, (start, end), white)
    for z in (low - 4.0, high + 1.0):
        for x in np.arange(-street.half_road + 0.3, street.half_road - 0.3, 1.0).tolist():
            _area(image, x, x + 0.5, (z, z + 3), white)
    _area(image, 0.2, street.half_road, (low - 5.0, low - 4.6), white)
    _area(image, -street.half_road, -0.2, (high + 4.6, high + 5.0), white)


def front_texture(random: np.random.Generator, street: Street, lit: bool) -> NDArray[np.uint8]:
    """House fronts along one side with alpha, uint8 `[FRONT_HEIGHT, 2 periods, 4]` in pixels; the last row is y = 0."""
    rows, columns = int(FRONT_HEIGHT * FRONT), int(2 * street.period * FRONT)
    image = np.zeros((rows, columns, 4), np.uint8)
    for period in range(2):
        z = period * street.period + (street.crossing + street.cross_half + street.walk - street.period)
        end = period * street.period + street.crossing - street.cross_half - street.walk
        while z < end - 6:
            width = min(float(random.uniform(8, 20)), end - z)
            if random.random() < 0.78:
                _house(image, random, z, width, lit)
            else:
                _hedge(image, random, z, width)
            z += width + (random.uniform(2, 6) if random.random() < 0.25 else 0)
    return image


def _rectangle(image: Texture, z: float, y: float, width: float, height: float, colour: tuple[float, ...]) -> None:
    rows, columns = image.shape[:2]
    top, bottom = rows - round((y + height) * FRONT), rows - round(y * FRONT)
    left, right = round(z * FRONT), round((z + width) * FRONT)
    for shift in (0, columns) if left < 0 else (0,):
        region = image[max(0, top) : max(0, bottom), max(0, left + shift) : max(0, right + shift)]
        region[..., :3] = colour
        region[..., 3] = 255


def _house(image: Texture, random: np.random.Generator, z: float, width: float, lit: bool) -> None:
    floors = int(random.integers(2, 6))
    storey = float(random.uniform(2.8, 3.3))
    ground, wall = float(random.uniform(3.2, 4.2)), _BRICKS[int(random.integers(len(_BRICKS)))]
    height = min(ground + floors * storey + 0.8, FRONT_HEIGHT - 0.2)
    _rectangle(image, z, 0, width, height, wall)
    _rectangle(image, z, height - 0.5, width, 0.5, tuple(v * 0.7 for v in wall))
    shop = random.random() < 0.5
    _rectangle(image, z, 0, width, ground * 0.95, tuple(v * random.uniform(0.6, 0.95) for v in wall))
    pitch = float(random.uniform(2.2, 3.6))
    wide, high = pitch * random.uniform(0.35, 0.6), storey * random.uniform(0.45, 0.6)
    columns = max(1, int((width - 0.8) / pitch))
    margin = (width - columns * pitch) / 2
    for k in range(columns):
        left = z + margin + k * pitch + (pitch - wide) / 2
        for floor in range(floors):
            _window(image, random, left, ground + floor * storey + 0.9, wide, high, lit)
        if shop:
            _window(image, random, z + margin + k * pitch + 0.2, 0.5, pitch - 0.4, ground - 1.3, lit, large=True)
        elif random.random() < 0.3:
            _rectangle(image, left, 0, 1.1, 2.3, tuple(random.uniform(20, 110, 3)))
        else:
            _window(image, random, left, 1.1, wide, high, lit)
    if shop:
        _rectangle(image, z + 0.3, ground - 0.7, width - 0.6, 0.55, tuple(random.uniform(20, 200, 3)))


def _window(
    image: Texture, random: np.random.Generator, z: float, y: float, width: float, height: float, lit: bool,
    large: bool = False,
) -> None:  # fmt: skip
    glow = lit and random.random() < (0.7 if large else 0.3)
    pane = (120, 190, 240) if glow else tuple(np.array((96, 88, 78)) * random.uniform(0.4, 1.2))
    _rectangle(image, z - 0.08, y - 0.08, width + 0.16, height + 0.16, (205, 208, 210))
    _rectangle(image, z, y, width, height, pane)
    _rectangle(image, z, y + height * 0.55, width, height * 0.45, tuple(v * 0.8 for v in pane))
    if not large:
        _rectangle(image, z + width / 2 - 0.03, y, 0.07, height, (200, 200, 200))


def _hedge(image: Texture, random: np.random.Generator, z: float, width: float) -> None:
    rows, columns = image.shape[:2]
    for _ in range(int(width * 14)):
        u, height = z + random.uniform(0, width), random.uniform(0.2, 1) ** 1.5 * random.uniform(1.5, 8)
        green = random.uniform(0.35, 1.0)
        centre = (int(u * FRONT) % columns, int(rows - height * FRONT * 0.8))
        colour = (int(58 * green), int(112 * green), int(74 * green), 255)
        cv2.circle(image, centre, int(random.uniform(0.3, 0.9) * FRONT), colour, -1)
    _rectangle(image, z, 0, width, 1.1, (46, 84, 58))


def grain(texture: Texture, random: np.random.Generator) -> Texture:
    """Dirt and stone on a texture, its alpha kept."""
    height, width = texture.shape[:2]
    gain = 1 + noise(random, height, width, 24, 0.07) + noise(random, height, width, 3, 0.035)
    result = texture.copy()
    result[..., :3] = np.clip(texture[..., :3] * gain[..., None], 0, 255)
    return result


def sky_texture(
    random: np.random.Generator, zenith: tuple[float, ...], horizon: tuple[float, ...], clouds: float
) -> Texture:
    """Sky and what stands far away, uint8 `[256, 1024, 3]`: rows 60 to -4 degrees, columns -128 to 128 degrees."""
    height, width = 256, 1024
    elevation = np.linspace(60, -4, height, dtype=np.float32)[:, None, None]
    share = np.clip(elevation / 45, 0, 1) ** 0.7
    image = floats(horizon) * (1 - share) + floats(zenith) * share
    image = np.repeat(image, width, 1)
    cover = sum(noise(random, height, width, size, 1.0) * size for size in (96, 48, 24, 12)) / 100
    cover = np.clip((np.asarray(cover) + clouds) * 1.6, 0, 1)[..., None] * 0.75
    image = image * (1 - cover) + floats(horizon) * cover * 1.04
    rows = 256 * 60 / 64
    columns = np.arange(width)
    for depth, tall in ((0.75, 2.2), (0.55, 1.2)):
        outline = 3 + tall * 3 * np.abs(np.cumsum(random.normal(0, 0.25, width)) % 4 - 2)
        outline += random.choice([0, 4, 8], width // 16, p=[0.6, 0.25, 0.15]).repeat(16)
        top = np.clip(rows - outline, 0, height - 1)
        below = np.arange(height)[:, None] > top[None, columns]
        far = floats(horizon) * depth + floats((58, 74, 64)) * (1 - depth) * floats(horizon).mean() / 220
        image[below] = far
    return np.clip(image, 0, 255).astype(np.uint8)


def tree_sprites(random: np.random.Generator, count: int) -> list[Texture]:
    """Trees and bushes, uint8 `[256, 192, 4]` each, with alpha 0 or 255."""
    return [_tree(random, bush=k % 4 == 3) for k in range(count)]


def _tree(random: np.random.Generator, bush: bool) -> Texture:
    image = np.zeros((256, 192, 4), np.uint8)
    hue = np.array((50, 112, 70)) * random.uniform(0.7, 1.2, 3)
    if not bush:
        cv2.line(image, (96, 255), (96 + int(random.normal(0, 4)), 110), (48, 62, 76, 255), int(random.integers(8, 15)))
        for _ in range(5):
            tip = (96 + int(random.normal(0, 40)), int(random.uniform(60, 120)))
            cv2.line(image, (96, int(random.uniform(120, 170))), tip, (44, 58, 70, 255), 4)
    middle, tall, wide = (170, 80, 80) if bush else (88, 78, random.uniform(48, 80))
    for k in range(650):
        angle, radius = random.uniform(0, 2 * np.pi), np.sqrt(random.uniform(0, 1))
        x, y = 96 + wide * radius * np.cos(angle), middle + tall * radius * np.sin(angle)
        # Leaves above and to the outside catch more light.
        light = 0.45 + 0.45 * (1 - y / 256) + 0.35 * k / 650 + random.normal(0, 0.1)
        colour = tuple(int(v) for v in np.clip(hue * light, 5, 250))
        cv2.circle(image, (int(x), int(y)), int(random.integers(3, 9)), (*colour, 255), -1)
    return image
