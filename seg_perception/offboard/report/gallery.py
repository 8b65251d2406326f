"""Images of a report: several layers of one frame, two of which share the place on both sides of a slider."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .html import Content, Html, element

# A report stays well below 20 MB: base64 adds a third to this, tables and plots need little.
IMAGE_BYTES = 13_000_000
WIDTH = 800  # of images, at most: what is drawn on them stays readable
# What is tried until an image is small enough: its width in pixels, the quality of the JPEG file.
_STEPS = ((WIDTH, 85), (WIDTH, 70), (640, 70), (640, 50), (480, 50), (320, 40), (240, 40), (160, 30))


@dataclass(frozen=True, slots=True)
class Layer:
    """One image of a frame.

    Attributes:
        name: what it shows: `truth`, `f16`.
        image_bgr: uint8 `[H, W, 3]`; all layers of a frame have one size.
    """

    name: str
    image_bgr: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shot:
    """A frame of a gallery.

    Attributes:
        title: name of the frame.
        text: what there is to see.
        layers: its images.
        left, right: which of them are on the sides of the slider; where there are more than two, one can choose.
    """

    title: str
    text: Content
    layers: Sequence[Layer]
    left: int = 0
    right: int = 1


def share_of_bytes(images: int) -> int:
    """Bytes that each image of a report may have, so that all of them stay within `IMAGE_BYTES`."""
    return IMAGE_BYTES // max(1, images)


def gallery(shots: Iterable[Shot], most_bytes: int) -> Html:
    """Frames, one after another.

    Args:
        shots: the frames; taken one at a time, so that they need not all be in memory.
        most_bytes: of each image; see `share_of_bytes`.
    """
    return element("div", (shot_block(each, most_bytes) for each in shots), class_="gallery")


def shot_block(shot: Shot, most_bytes: int) -> Html:
    """One frame: title, text, slider and, with more than two layers, the choice of what is on its sides."""
    layers = [_layer(shot, place, most_bytes) for place in range(len(shot.layers))]
    slider = element(
        "input", type="range", min=0, max=100, step="any", value=50, autocomplete="off",
        aria_label=f"{shot.title}: how much of the left image is shown",
    )  # fmt: skip
    movable = [element("div", class_="handle"), slider] if len(layers) > 1 else []
    stage = element("div", layers, movable, class_="stage")
    heading = element("h3", shot.title)
    text = element("div", shot.text, class_="about")
    return element("article", heading, text, _picks(shot), stage, class_="shot compare")


def data_uri(image_bgr: NDArray[np.uint8], most_bytes: int) -> str:
    """An image as a JPEG file within a URI: as good as `most_bytes` allows, and never wider than `WIDTH`."""
    data = b""
    for width, quality in _STEPS:
        data = _jpeg(narrowed(image_bgr, width), quality)
        if len(data) <= most_bytes:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"


def narrowed(image_bgr: NDArray[np.uint8], most: int = WIDTH) -> NDArray[np.uint8]:
    """The image at a width of `most` pixels, if it is wider."""
    height, width = image_bgr.shape[:2]
    if width <= most:
        return image_bgr
    size = (most, max(1, round(height * most / width)))
    return cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA).view(np.uint8)


def _layer(shot: Shot, place: int, most_bytes: int) -> Html:
    layer = shot.layers[place]
    # A single image is on both sides.
    sides = ("left", "right") if len(shot.layers) == 1 else _sides(shot, place)
    height, width = layer.image_bgr.shape[:2]
    source, name = data_uri(layer.image_bgr, most_bytes), f"{shot.title}: {layer.name}"
    image = element("img", src=source, alt=name, width=width, height=height)
    return element("figure", image, element("figcaption", layer.name), class_=" ".join(["layer", *sides]))


def _sides(shot: Shot, place: int) -> list[str]:
    return [side for side, chosen in (("left", shot.left), ("right", shot.right)) if chosen == place]


def _picks(shot: Shot) -> Html:
    """The choice of the layers on both sides of the slider; those on the right at one click, to flip between them."""
    if len(shot.layers) < 3:
        return Html()
    names = [layer.name for layer in shot.layers]
    options = (element("option", name, value=n, selected=n == shot.left) for n, name in enumerate(names))
    left = element("label", element("span", "left", class_="faint"), element("select", options, autocomplete="off"))
    buttons = (
        element("button", name, type="button", value=n, aria_pressed=str(n == shot.right).lower())
        for n, name in enumerate(names)
    )
    right = element("div", element("span", "right", class_="faint"), buttons, role="group", aria_label="right")
    return element("div", left, right, class_="picks")


def _jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()
