"""Changes of images that leave their labels true: another place, size and light."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_PAD = 114


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much images are changed.

    Attributes:
        height, width: of the samples, multiples of 32.
        smallest, largest: size of the image relative to one that just fits into `full`.
        full: width and height to which sizes refer: the finished network's input.
        light: strength of changes of light and colour, 0 for none.
        rotation: in degrees, to either side.
        flip: whether half of the samples are mirrored.
        mosaic: share of the images that lend which become a mosaic with others.
        pastes: objects of other images that are pasted onto a sample, on average.
    """

    height: int
    width: int
    smallest: float = 0.6
    largest: float = 1.5
    full: tuple[int, int] = (640, 384)
    light: float = 1.0
    rotation: float = 3.0
    flip: bool = True
    mosaic: float = 0.0
    pastes: float = 0.0


def augmented(
    random: np.random.Generator, image: NDArray[np.uint8], map_: NDArray[np.uint8], options: Augmentation
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A sample of an image.

    Args:
        random: decides.
        image: uint8 `[h, w, 3]`, BGR.
        map_: uint8 `[h, w]` or `[h, w, n]`, numbers of objects and what else is of each pixel.
        options: how.

    Returns:
        The sample, uint8 `[height, width, 3]`, and its map, uint8 `[height, width]` or `[height, width, n]`.
    """
    matrix = _placement(random, image.shape[1], image.shape[0], options)
    size = (options.width, options.height)
    shrunk = np.hypot(matrix[0, 0], matrix[1, 0]) < 0.75
    image = _shrunk_warp(image, matrix, size) if shrunk else _warp(image, matrix, size, cv2.INTER_LINEAR, _PAD)
    map_ = _warp(map_, matrix, size, cv2.INTER_NEAREST, 0)
    if options.light:
        image = other_light(random, image, options.light)
    return image, map_


def _placement(random: np.random.Generator, width: int, height: int, options: Augmentation) -> NDArray[np.float64]:
    """The affine map `[2, 3]` from an image to a sample: size, rotation, mirror and place."""
    fill = min(options.full[0] / width, options.full[1] / height)
    scale = fill * float(np.exp(random.uniform(np.log(options.smallest), np.log(options.largest))))
    angle = np.deg2rad(random.uniform(-options.rotation, options.rotation))
    mirror = -1.0 if options.flip and random.random() < 0.5 else 1.0
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag([mirror, 1.0])
    # Anywhere where the image covers the sample, or where the sample covers the image.
    room = np.array([width * scale - options.width, height * scale - options.height])
    middle = np.array([options.width, options.height]) / 2 + random.uniform(-0.5, 0.5, 2) * room
    shift = middle - turn @ (np.array([width, height]) / 2)
    # OpenCV counts from the middle of the first pixel.
    shift += turn @ [0.5, 0.5] - 0.5
    return np.column_stack([turn, shift])


def _warp(
    pixels: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int], method: int, pad: int
) -> NDArray[np.uint8]:
    warped: NDArray[np.uint8] = cv2.warpAffine(
        pixels, matrix, size, flags=method, borderMode=cv2.BORDER_CONSTANT, borderValue=(pad, pad, pad)
    )  # type: ignore[assignment]
    return warped


def _shrunk_warp(image: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Without the jagged edges of images that are made much smaller at once."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    width, height = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small: NDArray[np.uint8] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    back = np.diag([image.shape[1] / width, image.shape[0] / height])
    turn = matrix[:, :2] @ back
    shift = matrix[:, 2] + matrix[:, :2] @ (back @ [0.5, 0.5] - 0.5)
    return _warp(small, np.c_[turn, shift], size, cv2.INTER_LINEAR, _PAD)


def other_light(random: np.random.Generator, image: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    """Exposure, contrast, gamma and colour as one table a channel; saturation, blur, noise and JPEG at times."""
    values = np.arange(256, dtype=np.float32) / 255
    gamma = float(np.exp(random.normal(0, 0.25 * strength)))
    gain, offset = float(np.exp(random.normal(0, 0.2 * strength))), random.normal(0, 0.04 * strength)
    tints = np.exp(random.normal(0, 0.06 * strength, 3))
    table = np.stack([(values**gamma * gain * tint + offset) * 255 for tint in tints], -1)
    image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[:, None])  # type: ignore[assignment]
    if random.random() < 0.5:
        share = float(random.uniform(max(0.0, 1 - 0.7 * strength), 1.0))
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        image = cv2.addWeighted(image, share, grey, 1 - share, 0)  # type: ignore[assignment]
    if random.random() < 0.15 * strength:
        image = cv2.GaussianBlur(image, (0, 0), float(random.uniform(0.4, 1.1)))  # type: ignore[assignment]
    if random.random() < 0.25 * strength:
        noise = np.empty(image.shape, np.int16)
        cv2.setRNGSeed(int(random.integers(2**31)))
        spread = float(random.uniform(2, 12))
        cv2.randn(noise, np.zeros(3), np.full(3, spread))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if random.random() < 0.2 * strength:
        _, file = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(30, 90))])
        image = cv2.imdecode(file, cv2.IMREAD_COLOR)  # type: ignore[assignment]
    return image
