"""Weather and time of day, and how they colour what they fall on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import ConfigurationError

from .colours import floats

WEATHERS = ("day", "overcast", "low_sun", "dusk", "night", "rain", "fog")
Gain = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Light:
    """The light of a scene; gains are for blue, green, red.

    Attributes:
        weather: one of `WEATHERS`.
        to_sun: unit vector towards the sun (or the moon).
        sun, sky, bounce: light from the sun, from above and from below.
        zenith, horizon: colours of the sky.
        fog: share of the light that is lost per metre.
        shadow: darkness of cast shadows, 0 to 1.
        lamps: vehicles and street lamps have their lights on.
        exposure: gain of the camera.
        noise: standard deviation of the camera's noise in grey levels.
        blur: how far things move while the shutter is open, as a share of the time between frames.
    """

    weather: str
    to_sun: tuple[float, float, float]
    sun: Gain
    sky: Gain
    bounce: Gain
    zenith: Gain
    horizon: Gain
    fog: float
    shadow: float
    lamps: bool
    exposure: float
    noise: float
    blur: float

    @property
    def wet(self) -> bool:
        """The road mirrors."""
        return self.weather == "rain"


# sun, sky, bounce, zenith, horizon, fog, shadow, noise, blur, elevation of the sun in degrees
_LOOKS: dict[str, tuple[Gain, Gain, Gain, Gain, Gain, float, float, float, float, tuple[float, float]]] = {
    "day": (
        (0.62, 0.66, 0.70),
        (0.52, 0.48, 0.45),
        (0.22, 0.22, 0.23),
        (215, 165, 110),
        (235, 222, 205),
        0.0012,
        0.5,
        2.5,
        0.05,
        (35, 65),
    ),
    "overcast": (
        (0.10, 0.10, 0.10),
        (0.80, 0.79, 0.78),
        (0.30, 0.30, 0.30),
        (205, 200, 195),
        (225, 222, 220),
        0.002,
        0.18,
        3.0,
        0.08,
        (40, 70),
    ),
    "low_sun": (
        (0.42, 0.62, 0.85),
        (0.48, 0.42, 0.40),
        (0.20, 0.21, 0.24),
        (205, 160, 120),
        (150, 205, 245),
        0.003,
        0.5,
        3.0,
        0.06,
        (7, 16),
    ),
    "dusk": (
        (0.08, 0.08, 0.10),
        (0.46, 0.40, 0.38),
        (0.15, 0.14, 0.14),
        (130, 90, 65),
        (120, 140, 190),
        0.003,
        0.12,
        5.0,
        0.15,
        (20, 40),
    ),
    "night": (
        (0.05, 0.05, 0.05),
        (0.17, 0.18, 0.20),
        (0.07, 0.08, 0.09),
        (30, 20, 16),
        (52, 46, 48),
        0.002,
        0.08,
        7.0,
        0.25,
        (50, 70),
    ),
    "rain": (
        (0.05, 0.05, 0.05),
        (0.60, 0.58, 0.56),
        (0.26, 0.26, 0.26),
        (160, 155, 150),
        (185, 182, 178),
        0.008,
        0.1,
        4.5,
        0.12,
        (40, 70),
    ),
    "fog": (
        (0.05, 0.05, 0.05),
        (0.72, 0.71, 0.70),
        (0.34, 0.34, 0.34),
        (200, 198, 196),
        (208, 206, 204),
        0.028,
        0.08,
        4.0,
        0.1,
        (40, 70),
    ),
}


def random_light(random: np.random.Generator, weather: str) -> Light:
    """A light of the given weather.

    Raises:
        ConfigurationError: the weather is none of `WEATHERS`.
    """
    if weather not in _LOOKS:
        raise ConfigurationError(f"weather: expected one of {', '.join(WEATHERS)}; got {weather!r}")
    sun, sky, bounce, zenith, horizon, fog, shadow, noise, blur, (low, high) = _LOOKS[weather]
    elevation, azimuth = np.radians(random.uniform(low, high)), random.uniform(-np.pi, np.pi)
    if weather == "low_sun":
        azimuth = random.uniform(-0.5, 0.5) + (np.pi if random.random() < 0.4 else 0.0)
    flat = np.cos(elevation)
    to_sun = (float(flat * np.sin(azimuth)), float(np.sin(elevation)), float(flat * np.cos(azimuth)))
    return Light(
        weather, to_sun, sun, sky, bounce, zenith, horizon, fog * float(random.uniform(0.7, 1.5)), shadow,
        weather in ("dusk", "night", "rain", "fog"), float(random.uniform(0.88, 1.14)),
        noise * float(random.uniform(0.6, 1.4)), blur,
    )  # fmt: skip


def headlight(light: Light, relative: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of our own headlights reaches points relative to the camera `[N, 3]` (world axes); float32 `[N]`."""
    if light.weather not in ("night", "dusk"):
        return np.zeros(len(relative), np.float32)
    x, z = relative[:, 0], np.maximum(relative[:, 2], 1.0)
    beam = np.exp(-((x / (0.32 * z + 1.5)) ** 2)) / (1 + (z / 17.0) ** 2)
    return np.asarray((1.1 if light.weather == "night" else 0.4) * beam, np.float32)


def shade(
    light: Light, colours: NDArray[np.float32], normals: NDArray[np.float32], relative: NDArray[np.float32],
    gloss: NDArray[np.float32], glow: NDArray[np.float32],
) -> NDArray[np.float32]:  # fmt: skip
    """Return what the camera sees of faces: Lambert's law, mirrored sky, fog.

    Args:
        light: of the scene.
        colours: float32 `[F, 3]`, of the faces.
        normals: float32 `[F, 3]`, towards the viewer.
        relative: float32 `[F, 3]`, where they are, seen from the camera in world axes.
        gloss, glow: float32 `[F]`.

    Returns:
        float32 `[F, 3]`, not yet limited to 0-255.
    """
    distance = np.sqrt((relative * relative).sum(1))
    view = relative / -distance[:, None]
    sun = floats(light.to_sun)
    facing = np.maximum((normals * view).sum(1), 0.0)
    direct = np.maximum(normals @ sun, 0.0)
    above = 0.5 + 0.5 * normals[:, 1]
    gain = direct[:, None] * floats(light.sun) + above[:, None] * floats(light.sky)
    gain += (1 - above)[:, None] * floats(light.bounce)
    gain += (headlight(light, relative) * (0.25 + 0.75 * facing))[:, None]
    seen = colours * gain
    mirrored = 2 * facing[:, None] * normals - view
    height = mirrored[:, 1:2]
    sky = floats(light.horizon) + (floats(light.zenith) - floats(light.horizon)) * np.clip(height, 0, 1)
    ground = np.float32(62.0) * floats(light.sky)
    image = np.where(height > 0.02, sky, ground)
    share = gloss * (0.10 + 0.75 * (1 - facing) ** 3)
    seen = seen * (1 - share)[:, None] + image * share[:, None]
    spark = np.maximum(mirrored @ sun, 0.0) ** 24 * gloss * light.shadow
    seen += (spark * 230)[:, None]
    seen = seen * (1 - glow)[:, None] + colours * (glow * 1.05)[:, None]
    haze = np.exp(-light.fog * distance)[:, None]
    return np.asarray(seen * haze + floats(light.horizon) * (1 - haze), np.float32)
