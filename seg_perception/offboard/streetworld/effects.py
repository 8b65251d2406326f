"""What lens, sensor, air and file format do to an image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .light import Light

Image = NDArray[np.uint8]


def motion_blur(image: Image, light: Light, growth: float, shift: float) -> Image:
    """Mean of four moments around the image's own, so that the truth stays in the middle of the blur.

    Args:
        image: bgr8.
        light: says how long the shutter is open.
        growth: how much nearer things come between frames, as a share of their distance.
        shift: how far they move sideways between frames, in pixels.
    """
    growth, shift = growth * light.blur, shift * light.blur
    if growth * image.shape[1] / 2 + abs(shift) < 0.6:
        return image
    # Two moments each a quarter of the way before and after; then each of these an eighth.
    for share in (0.25, 0.125):
        before, after = (_moved(image, 1 + sign * share * growth, sign * share * shift) for sign in (-1, 1))
        image = cv2.addWeighted(before, 0.5, after, 0.5, 0).view(np.uint8)
    return image


def _moved(image: Image, scale: float, shift: float) -> Image:
    height, width = image.shape[:2]
    cx, cy = (width - 1) / 2, (height - 1) / 2
    matrix = np.array([[scale, 0, cx - scale * cx + shift], [0, scale, cy - scale * cy]])
    moved = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved.view(np.uint8)


def bloom(image: Image, strength: float) -> Image:
    """Let what is very bright shine over its edges."""
    small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    bright = cv2.threshold(small, 205, 0, cv2.THRESH_TOZERO)[1]
    halo = cv2.GaussianBlur(bright, (0, 0), 4)
    halo = cv2.resize(halo, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return cv2.addWeighted(image, 1.0, halo, strength, 0).view(np.uint8)


def rain(image: Image, random: np.random.Generator) -> Image:
    """Streaks of rain, and drops on the glass."""
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    for _ in range(int(90 * width / 640)):
        x, y = random.integers(0, width), random.integers(-20, height)
        length = int(random.integers(8, 26) * height / 384)
        cv2.line(layer, (int(x), int(y)), (int(x) + length // 8, int(y) + length), int(random.integers(20, 60)), 1)
    streaked = cv2.add(image, cv2.cvtColor(cv2.blur(layer, (1, 3)), cv2.COLOR_GRAY2BGR)).view(np.uint8)
    for _ in range(int(random.integers(0, 6))):
        left, top = int(random.integers(0, width)), int(random.integers(0, height))
        r = int(random.integers(3, 9) * height / 384)
        spot = streaked[max(0, top - r) : top + r, max(0, left - r) : left + r]
        if spot.size:
            spot[:] = cv2.blur(spot, (2 * r + 1, 2 * r + 1))
    return streaked


def expose(image: Image, light: Light) -> Image:
    """Gain, a soft shoulder in the highlights, and a camera's contrast."""
    level = np.arange(256) / 255 * light.exposure
    curve = np.where(level > 0.8, 0.8 + 0.2 * np.tanh((level - 0.8) / 0.25), level)
    curve = np.clip(curve * 1.04 - 0.012, 0, 1)
    return cv2.LUT(image, (curve * 255).astype(np.uint8)).view(np.uint8)


def sensor_noise(image: Image, light: Light, random: np.random.Generator, grain: NDArray[np.int16]) -> Image:
    """Noise from a prepared field, which is shifted at random instead of being drawn again."""
    height, width = image.shape[:2]
    y, x = int(random.integers(0, grain.shape[0] - height)), int(random.integers(0, grain.shape[1] - width))
    field = grain[y : y + height, x : x + width]
    return cv2.scaleAdd(field, light.noise / GRAIN_DEVIATION, image.astype(np.int16)).clip(0, 255).astype(np.uint8)


GRAIN_DEVIATION = 32.0


def grain_field(random: np.random.Generator, width: int, height: int) -> NDArray[np.int16]:
    """Noise somewhat larger than the image, int16 `[height + 64, width + 64, 3]`, a little coarser than a pixel."""
    raw = random.normal(0, 1, (height + 64, width + 64, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(raw, (0, 0), 0.6)
    return np.asarray(smooth * (GRAIN_DEVIATION / smooth.std()), np.int16)


def jpeg(image: Image, quality: int) -> Image:
    """Through JPEG and back."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
