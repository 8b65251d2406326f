"""Paint: time by number of instances and output size, and how it grows with the painted area."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.table import interleaved, show
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.onboard.backend.host.paint import paint

SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
COUNTS = (1, 10, 50, 100)
# Share of the image that the box of one instance covers: a car at middle distance.
BOX_SHARE = 0.02


def blobs(count: int, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32], ResizeGeometry]:
    """Elliptic masks `[K, 160, 160]` with ragged edges and their boxes, anywhere in the image."""
    rng = np.random.default_rng(0)
    geometry = ResizeGeometry.fit(ResizeSpec(), width, height, 640, 640)
    half = np.sqrt(BOX_SHARE * geometry.content_width * geometry.content_height) / 2
    aspect = rng.uniform(0.7, 1.4, count)
    halves = np.stack([half * aspect, half / aspect], axis=1)
    low = np.array([geometry.left, geometry.top]) + halves
    high = low - halves + (geometry.content_width, geometry.content_height) - halves
    centres = rng.uniform(low, high)
    y, x = np.mgrid[0:160, 0:160] * 4.0 + 2.0
    masks = [
        8 * (1 - ((x - c[0]) / h[0]) ** 2 - ((y - c[1]) / h[1]) ** 2) + rng.normal(0, 0.3, x.shape)
        for c, h in zip(centres, halves, strict=True)
    ]
    boxes = np.concatenate([centres - halves, centres + halves], axis=1)
    return np.asarray(masks, np.float32), boxes.astype(np.float32), geometry


def measure(name: str, width: int, height: int, count: int) -> list[object]:
    """One row of the table."""
    masks, boxes, geometry = blobs(count, width, height)
    numbers = np.arange(1, count + 1, dtype=np.uint16)
    boxed = float(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum()) / geometry.scale_x / geometry.scale_y
    (seconds,) = interleaved([lambda: paint(masks, boxes, numbers, geometry, (height, width))], 21)
    return [name, count, f"{boxed / 1e6:.2f}", f"{1e3 * seconds:.2f}", f"{1e9 * seconds / boxed:.1f}"]


def main() -> None:
    """Print the table."""
    rows = [measure(name, *size, count) for name, size in SIZES.items() for count in COUNTS]
    show("Paint on the host", ["output", "instances", "Mpx in boxes", "ms", "ns per px"], rows)


if __name__ == "__main__":
    main()
