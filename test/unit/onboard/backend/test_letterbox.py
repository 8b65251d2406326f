"""The network input: content where the geometry says, padding elsewhere, channels in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.onboard.backend.host.letterbox import letterbox

SIDES = st.integers(1, 200)


def bilinear(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float64]:
    """Plain bilinear resize with clamped borders and pixel centres at +0.5, float64."""

    def axis(length: int, content: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        position = np.clip((np.arange(content) + 0.5) * length / content - 0.5, 0, length - 1)
        low = np.floor(position).astype(int)
        return low, np.minimum(low + 1, length - 1), position - low

    source = image.astype(np.float64)
    top, bottom, fy = axis(image.shape[0], height)
    left, right, fx = axis(image.shape[1], width)
    rows = source[top] * (1 - fy)[:, None, None] + source[bottom] * fy[:, None, None]
    columns: NDArray[np.float64] = rows[:, left] * (1 - fx)[:, None] + rows[:, right] * fx[:, None]
    return columns


def run(
    image: NDArray[np.uint8], order: str, spec: ResizeSpec, size: tuple[int, int]
) -> tuple[ResizeGeometry, NDArray[np.uint8]]:
    geometry = ResizeGeometry.fit(spec, image.shape[1], image.shape[0], *size)
    out = np.full((size[1], size[0], 3), 77, np.uint8)
    letterbox(image, order, geometry, spec.pad_value, out)
    return geometry, out


@given(
    width=SIDES,
    height=SIDES,
    network_width=SIDES,
    network_height=SIDES,
    mode=st.sampled_from(["letterbox", "stretch"]),
    anchor=st.sampled_from(["center", "top_left"]),
    seed=st.integers(0, 999),
)
def test_content_and_padding(
    width: int, height: int, network_width: int, network_height: int, mode: str, anchor: str, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    spec = ResizeSpec(mode, pad_value=114, anchor=anchor)
    geometry, out = run(image, "rgb", spec, (network_width, network_height))
    expected = np.full(out.shape, 114.0)
    content = expected[
        geometry.top : geometry.top + geometry.content_height, geometry.left : geometry.left + geometry.content_width
    ]
    content[...] = bilinear(image, geometry.content_width, geometry.content_height)
    assert np.abs(out - expected).max() <= 1


@pytest.mark.parametrize(
    ("order", "picked"), [("rgb", [0, 1, 2]), ("bgr", [2, 1, 0]), ("rgba", [0, 1, 2]), ("bgra", [2, 1, 0])]
)
def test_channel_order(order: str, picked: list[int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (48, 64, len(order)), dtype=np.uint8)
    _, out = run(image, order, ResizeSpec(), (64, 48))
    np.testing.assert_array_equal(out, image[..., picked])


def test_grey_fills_all_channels() -> None:
    image = np.random.default_rng(1).integers(0, 256, (48, 64), dtype=np.uint8)
    _, out = run(image, "mono", ResizeSpec(), (64, 48))
    np.testing.assert_array_equal(out, np.stack([image] * 3, axis=-1))


def test_rows_with_padding_give_the_same() -> None:
    padded = np.random.default_rng(1).integers(0, 256, (90, 200, 3), dtype=np.uint8)
    image = padded[:, :157]
    _, expected = run(np.ascontiguousarray(image), "bgr", ResizeSpec(), (96, 64))
    _, out = run(image, "bgr", ResizeSpec(), (96, 64))
    np.testing.assert_array_equal(out, expected)
