"""Camera image to network input: resize, channel order, padding."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.geometry import ResizeGeometry

_TO_RGB = {
    "bgr": cv2.COLOR_BGR2RGB,
    "bgra": cv2.COLOR_BGRA2RGB,
    "rgba": cv2.COLOR_RGBA2RGB,
    "mono": cv2.COLOR_GRAY2RGB,
}


def letterbox(
    image: NDArray[np.uint8], order: str, geometry: ResizeGeometry, pad_value: int, out: NDArray[np.uint8]
) -> None:
    """Write one image into the network input.

    The image is resized bilinearly in its own channel order and converted afterwards, when it is small.

    Args:
        image: uint8 `[height, width, C]` or `[height, width]`, camera pixels; rows may be padded.
        order: its channels, `bgr`, `rgb`, `bgra`, `rgba` or `mono`.
        geometry: where the image lies in the network input; also for a stretched one.
        pad_value: grey level around the content, 0-255.
        out: uint8 `[network_height, network_width, 3]`, RGB; overwritten.
    """
    right, bottom = geometry.left + geometry.content_width, geometry.top + geometry.content_height
    out[: geometry.top] = pad_value
    out[bottom:] = pad_value
    out[geometry.top : bottom, : geometry.left] = pad_value
    out[geometry.top : bottom, right:] = pad_value
    size = (geometry.content_width, geometry.content_height)
    # OpenCV takes padded rows as they are, but not a view whose pixels are apart.
    resized = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    content = out[geometry.top : bottom, geometry.left : right]
    if order == "rgb":
        content[...] = resized
    else:
        cv2.cvtColor(resized, _TO_RGB[order], dst=content)
