"""What a stereo camera would measure of exact depth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Between the two lenses, and from where to where it measures, in metres.
BASELINE, NEAREST, FARTHEST = 0.2, 0.3, 40.0
# Of the disparity in pixels: standard deviation, and step of the matcher.
DISPARITY_NOISE, _STEP = 0.1, 1 / 16
# Neighbours whose depths differ by this factor lie on different surfaces.
_EDGE = 1.15
_MIXED_SHARE = 0.35
# What 1 % of a standard normal variable exceeds.
_SPECKLES = 2.326


def measured(exact: NDArray[np.float32], focal: float, random: np.random.Generator) -> NDArray[np.float32]:
    """Make exact depth into that of a stereo camera whose left image this is.

    Everything happens to the disparity (`focal * BASELINE / depth`), as in such a camera: its noise is the same
    everywhere, so that the error of the depth grows with its square. Pixels at the border of two surfaces may get a
    depth between both. What the right lens cannot see behind an edge, some speckles, and what is too near or too far
    is not measured.

    Args:
        exact: float32 `[height, width]`, metres, NaN for the sky.
        focal: focal length in pixels.
        random: makes the noise.

    Returns:
        float32 `[height, width]`, metres in whole millimetres, NaN where nothing was measured.
    """
    true = np.nan_to_num(np.float32(focal * BASELINE) / exact, nan=0.0).astype(np.float32)
    disparity = _mixed(true, random)
    disparity += _smooth(random, true.shape, 0.8) * np.float32(DISPARITY_NOISE)
    disparity = np.rint(disparity / _STEP) * np.float32(_STEP)
    lost = _hidden_from_the_right(true)
    lost |= _smooth(random, true.shape, 1.5) > np.float32(_SPECKLES)
    with np.errstate(divide="ignore"):
        depth = np.float32(focal * BASELINE) / disparity
    lost |= ~((depth >= NEAREST) & (depth <= FARTHEST))
    return np.where(lost, np.float32(np.nan), np.rint(depth * 1000) / 1000).astype(np.float32)


def _mixed(disparity: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Some pixels at borders between the disparities on both sides."""
    kernel = np.ones((3, 3), np.uint8)
    front, back = cv2.dilate(disparity, kernel), cv2.erode(disparity, kernel)
    share = random.random(disparity.shape, np.float32)
    mixed = (front > back * _EDGE) & (random.random(disparity.shape, np.float32) < _MIXED_SHARE)
    return np.where(mixed, back + share * (front - back), disparity).astype(np.float32)


def _hidden_from_the_right(disparity: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which pixels of the left image something to their right covers in the right image."""
    columns = np.arange(disparity.shape[1], dtype=np.float32) - disparity
    covered = np.minimum.accumulate(columns[:, ::-1], axis=1)[:, ::-1]
    hidden = np.zeros(disparity.shape, bool)
    hidden[:, :-1] = covered[:, 1:] < columns[:, :-1] - 0.5
    return hidden


def _smooth(random: np.random.Generator, shape: tuple[int, ...], radius: float) -> NDArray[np.float32]:
    """Noise of deviation 1 that neighbours share, float32 of this shape."""
    field = cv2.GaussianBlur(random.standard_normal(shape, np.float32), (0, 0), radius)
    return np.asarray(field / field.std(), np.float32)
