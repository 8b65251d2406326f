"""Where a camera pixel lies in the network input, and back.

Coordinates are continuous: pixel (u, v) covers [u, u + 1) x [v, v + 1) and has its centre at (u + 0.5, v + 0.5),
in the camera image, the output map and the network input alike. Each resize is, per axis,

    network = camera * scale + offset        scale = content size / camera size, offset = padding

with an integer content size and integer padding, which is exactly what an image resize followed by padding does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigurationError
from .text import printable

RESIZE_MODES = ("letterbox", "stretch")
ROUNDINGS = ("nearest", "floor")
ANCHORS = ("center", "top_left")


@dataclass(frozen=True, slots=True)
class ResizeSpec:
    """The resize that a model wants for its input; part of its contract.

    Attributes:
        mode: `letterbox` keeps the aspect ratio and pads, `stretch` fills the network size.
        pad_value: grey level of the padding, 0-255 (letterbox only).
        rounding: how the shorter side of the content is rounded to whole pixels (letterbox only).
        anchor: where the content lies within the padding (letterbox only).
    """

    mode: str = "letterbox"
    pad_value: int = 114
    rounding: str = "nearest"
    anchor: str = "center"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("mode", self.mode, RESIZE_MODES),
            ("rounding", self.rounding, ROUNDINGS),
            ("anchor", self.anchor, ANCHORS),
        ):
            if value not in allowed:
                shown = printable(repr(value))
                raise ConfigurationError(f"resize {name}: expected one of {', '.join(allowed)}, got {shown}")
        # It may come out of JSON, which has more kinds of numbers.
        if type(self.pad_value) is not int or not 0 <= self.pad_value <= 255:
            shown = printable(repr(self.pad_value))
            raise ConfigurationError(f"resize pad_value: expected a whole number from 0 to 255, got {shown}")


@dataclass(frozen=True, slots=True)
class ResizeGeometry:
    """One camera size on one network size. All sizes and paddings are whole pixels.

    Attributes:
        camera_width, camera_height: size of the camera image.
        network_width, network_height: size of the network input.
        content_width, content_height: size of the resized image within the network input.
        left, top: padding before the content.
    """

    camera_width: int
    camera_height: int
    network_width: int
    network_height: int
    content_width: int
    content_height: int
    left: int
    top: int

    @classmethod
    def fit(
        cls, resize: ResizeSpec, camera_width: int, camera_height: int, network_width: int, network_height: int
    ) -> ResizeGeometry:
        """Lay a camera image out on the network input as `resize` says.

        Raises:
            ConfigurationError: a size is not positive.
        """
        sizes = (camera_width, camera_height, network_width, network_height)
        if min(sizes) <= 0:
            raise ConfigurationError(f"image sizes: expected positive widths and heights, got {sizes}")
        if resize.mode == "stretch":
            content_width, content_height = network_width, network_height
        elif network_width * camera_height <= network_height * camera_width:
            content_width = network_width
            content_height = _scaled(camera_height, network_width, camera_width, resize.rounding)
        else:
            content_width = _scaled(camera_width, network_height, camera_height, resize.rounding)
            content_height = network_height
        centred = resize.anchor == "center"
        return cls(
            camera_width,
            camera_height,
            network_width,
            network_height,
            content_width,
            content_height,
            left=(network_width - content_width) // 2 if centred else 0,
            top=(network_height - content_height) // 2 if centred else 0,
        )

    @property
    def scale_x(self) -> float:
        """Network pixels per camera pixel, horizontally."""
        return self.content_width / self.camera_width

    @property
    def scale_y(self) -> float:
        """Network pixels per camera pixel, vertically."""
        return self.content_height / self.camera_height

    def boxes_to_camera(self, boxes_network: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map boxes `[N, 4]` (x1 y1 x2 y2, network pixels) to camera pixels, clipped to the image."""
        offset = np.array([self.left, self.top] * 2, np.float64)
        scale = np.array([self.scale_x, self.scale_y] * 2)
        limit = np.array([self.camera_width, self.camera_height] * 2, np.float64)
        clipped: NDArray[np.float64] = np.clip((boxes_network - offset) / scale, 0.0, limit)
        return clipped.astype(np.float32)


def _scaled(length: int, numerator: int, denominator: int, rounding: str) -> int:
    """`length * numerator / denominator` in whole pixels, at least 1, in exact integer arithmetic."""
    if rounding == "floor":
        return max(1, length * numerator // denominator)
    return max(1, (2 * length * numerator + denominator) // (2 * denominator))
