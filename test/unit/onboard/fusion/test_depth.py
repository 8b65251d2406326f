"""Depth images as depth cameras publish them, plain and compressed."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from seg_perception.core.errors import FrameError
from seg_perception.core.messages.images import CompressedImageMessage, ImageMessage
from seg_perception.onboard.fusion.depth import read_compressed_depth, read_depth

METRES = np.array([[0.0, 0.5, 1.25], [2.0, 10.0, 60.0]])


def image(coding: str, kind: str, *, padding: int = 0, scale: float = 1.0, **changes: object) -> ImageMessage:
    values = np.round(METRES * scale, 6).astype(kind)
    data = b"".join(row.tobytes() + bytes(padding) for row in values)
    fields = {"encoding": coding, "is_bigendian": kind.startswith(">"), "height": 2, "width": 3,
              "step": 3 * values.itemsize + padding, "data": np.frombuffer(data, np.uint8), **changes}  # fmt: skip
    return ImageMessage(5, "camera", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    ("encoding", "kind", "scale"), [("16UC1", "u2", 1e3), ("mono16", "u2", 1e3), ("32FC1", "f4", 1)]
)
def test_depth_is_in_metres(order: str, padding: int, encoding: str, kind: str, scale: float) -> None:
    depth = read_depth(image(encoding, order + kind, padding=padding, scale=scale))
    np.testing.assert_allclose(depth.values * depth.metres, METRES, rtol=1e-6)
    assert depth.values.dtype.isnative
    assert (depth.stamp_ns, depth.frame_id) == (5, "camera")


@pytest.mark.parametrize(
    ("kind", "text", "changes"),
    [
        ("encoding", "16UC1 .millimetres. or 32FC1", {"encoding": "rgb8"}),
        ("layout", "rows of at least 6 bytes", {"step": 5}),
        ("layout", "got step 6 and 4 bytes", {"data": np.zeros(4, np.uint8)}),
        ("size", "sides of 1 to", {"height": 0}),
        ("size", "sides of 1 to", {"width": 2**31}),
    ],
)
def test_images_that_are_no_depth_are_refused(kind: str, text: str, changes: dict[str, object]) -> None:
    with pytest.raises(FrameError, match=text) as error:
        read_depth(image("16UC1", "<u2", **changes))
    assert error.value.kind == kind


def compressed(described: str, pixels: np.ndarray, numbers: tuple[float, float] = (0.0, 0.0)) -> CompressedImageMessage:
    body = cv2.imencode(".png", pixels)[1].tobytes()
    data = struct.pack("<iff", 0, *numbers) + body
    return CompressedImageMessage(5, "camera", described, np.frombuffer(data, np.uint8))


def test_compressed_millimetres() -> None:
    pixels = np.round(METRES * 1000).astype(np.uint16)
    depth = read_compressed_depth(compressed("16UC1; compressedDepth png", pixels))
    np.testing.assert_allclose(depth.values * depth.metres, METRES)


def test_compressed_metres_are_stored_inversely() -> None:
    """compressed_depth_image_transport: stored = A / depth + B."""
    numerator, offset = 3000.0, 20.0
    with np.errstate(divide="ignore"):
        stored = np.where(METRES > 0, numerator / METRES + offset, 0)
    depth = read_compressed_depth(
        compressed("32FC1; compressedDepth", np.round(stored).astype(np.uint16), (numerator, offset))
    )
    np.testing.assert_allclose(depth.values, METRES, rtol=0.01)


@pytest.mark.parametrize("described", ["16UC1; compressedDepth rvl", "16UC1; jpeg compressed bgr8", "", "rgb8; png"])
def test_other_compression_is_refused_with_a_remedy(described: str) -> None:
    with pytest.raises(FrameError, match=r"compressedDepth\.format to png"):
        read_compressed_depth(compressed(described, np.zeros((2, 3), np.uint16)))


def test_a_damaged_png_is_refused() -> None:
    whole = compressed("16UC1; compressedDepth png", np.ones((40, 40), np.uint16))
    cut = CompressedImageMessage(5, "camera", whole.format, whole.data[:40])
    with pytest.raises(FrameError, match="depth camera"):
        read_compressed_depth(cut)
    with pytest.raises(FrameError, match="one channel of 16 bits"):
        read_compressed_depth(compressed("16UC1; compressedDepth png", np.ones((4, 4), np.uint8)))
