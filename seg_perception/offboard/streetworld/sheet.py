"""A contact sheet: some frames, and next to each its truth in colours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import ConfigurationError

from .world import WorldFrame

# Blue, green, red of pedestrians, vehicles, signs and lights.
_COLOURS = ((60, 60, 230), (220, 140, 40), (40, 210, 230), (80, 200, 80))
_QUALITY = 85


def write_sheet(path: Path, shots: Iterable[WorldFrame]) -> int:
    """Write a JPEG with one row for each frame: the image and its truth.

    Returns:
        How many frames it shows.

    Raises:
        ConfigurationError: it cannot be written, or there are more frames than a JPEG can hold.
    """
    rows = [np.hstack([_image(shot), truth_image(shot)]) for shot in shots]
    encoded, data = cv2.imencode(".jpg", np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not encoded:
        raise ConfigurationError(f"--sheet {path}: {len(rows)} frames are too many for one image; choose fewer")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise ConfigurationError(f"--sheet {path}: cannot be written ({error.strerror or error})") from error
    return len(rows)


def truth_image(shot: WorldFrame) -> NDArray[np.uint8]:
    """The image in grey with each visible mask in the colour of its road group and full boxes, bgr8."""
    image = _image(shot)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR).view(np.uint8)
    for instance, group in zip(shot.truth.instances, shot.truth.groups().tolist(), strict=True):
        mask = instance.visible.full()
        # Neighbours of one group differ in brightness.
        share = 0.45 + 0.1 * (instance.number % 4)
        grey[mask] = ((1 - share) * grey[mask] + share * np.array(_COLOURS[group])).astype(np.uint8)
        x1, y1, x2, y2 = (int(np.clip(value, -9, 9999)) for value in instance.full_box)
        cv2.rectangle(grey, (x1, y1), (x2, y2), _COLOURS[group], 1)
    return grey


def _image(shot: WorldFrame) -> NDArray[np.uint8]:
    return shot.frame.data.reshape(shot.frame.height, shot.frame.width, 3)
