"""Paints, clothes and the like, as blue, green, red from 0 to 255."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Colour = tuple[float, float, float]

BLACK, DARK, GREY, SILVER, WHITE = (18, 18, 18), (42, 40, 38), (110, 108, 106), (176, 174, 172), (236, 236, 236)
GLASS, TYRE, RIM = (38, 34, 30), (30, 29, 28), (150, 150, 148)
RED, YELLOW, BLUE, GREEN, ORANGE = (35, 30, 190), (30, 190, 235), (165, 85, 25), (60, 130, 30), (25, 110, 235)
LAMP_OFF, LAMP_WHITE, LAMP_RED = (215, 215, 210), (225, 245, 255), (40, 40, 235)

PAINTS: tuple[Colour, ...] = (
    (232, 232, 230), (215, 214, 212), (172, 172, 170), (132, 130, 128), (86, 85, 84), (40, 40, 42), (24, 22, 22),
    (28, 24, 140), (40, 36, 170), (110, 62, 28), (140, 84, 36), (60, 40, 22), (62, 84, 36), (120, 150, 170),
    (30, 150, 210), (48, 70, 96),
)  # fmt: skip
CLOTHES: tuple[Colour, ...] = (
    (32, 30, 30), (60, 54, 50), (96, 72, 48), (118, 60, 38), (64, 44, 30), (190, 188, 186), (224, 224, 222),
    (44, 40, 150), (58, 52, 120), (70, 96, 60), (96, 128, 160), (130, 150, 176), (40, 140, 200), (120, 96, 130),
    (150, 120, 80), (50, 70, 92),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = (
    (30, 28, 28),
    (52, 46, 42),
    (96, 64, 42),
    (120, 86, 58),
    (70, 48, 34),
    (112, 130, 148),
    (84, 84, 84),
    (40, 52, 66),
)
SKINS: tuple[Colour, ...] = (
    (150, 180, 226),
    (128, 160, 212),
    (104, 136, 190),
    (72, 100, 150),
    (50, 70, 110),
    (36, 50, 82),
)
HAIRS: tuple[Colour, ...] = ((20, 20, 24), (30, 40, 60), (40, 60, 96), (90, 130, 170), (140, 140, 142), (26, 46, 100))


def pick(random: np.random.Generator, colours: Sequence[Colour], spread: float = 12.0) -> Colour:
    """One of the colours, slightly varied."""
    blue, green, red = np.clip(np.add(colours[int(random.integers(len(colours)))], random.normal(0, spread, 3)), 5, 250)
    return float(blue), float(green), float(red)


def darker(colour: Colour, share: float) -> Colour:
    """A colour times `share`."""
    return colour[0] * share, colour[1] * share, colour[2] * share


def floats(values: ArrayLike) -> NDArray[np.float32]:
    """A colour, a gain or a point as an array, float32."""
    return np.asarray(values, np.float32)
