"""Frames: which buffers are accepted, and why the others are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.core.errors import FrameError
from seg_perception.core.frame import ENCODINGS, MAX_SIDE, Frame


def make(encoding: str = "bgr8", width: int = 8, height: int = 6, step: int = 24, size: int = 144) -> Frame:
    return Frame(np.zeros(size, np.uint8), width, height, step, encoding)


@given(st.sampled_from(sorted(ENCODINGS)), st.integers(1, 20), st.integers(1, 20), st.integers(0, 7))
def test_exactly_enough_data_is_enough_and_one_byte_less_is_not(encoding, half_width, half_height, padding):
    layout = ENCODINGS[encoding]
    width, height = half_width * layout.width_multiple, half_height * layout.height_multiple
    row = width * layout.bytes_per_pixel
    rows = height * 3 // 2 if encoding in ("nv12", "nv21") else height
    # The padding of the last row may be absent.
    needed = (rows - 1) * (row + padding) + row
    assert make(encoding, width, height, row + padding, needed).rows == rows
    with pytest.raises(FrameError, match=f"at least {needed} bytes, got {needed - 1}") as caught:
        make(encoding, width, height, row + padding, needed - 1)
    assert caught.value.kind == "layout"


@pytest.mark.parametrize(("wrong", "kind", "message"), [
    ({"encoding": "32FC1"}, "encoding", "expected one of bgr8"),
    ({"encoding": ""}, "encoding", "got ''"),
    ({"width": 0}, "size", "got 0 x 6"),
    ({"height": 0}, "size", "got 8 x 0"),
    ({"height": -3}, "size", "got 8 x -3"),
    ({"width": 100_000, "height": 100_000, "step": 300_000}, "size", "got 100000 x 100000"),
    ({"width": MAX_SIDE + 1, "step": 3 * (MAX_SIDE + 1)}, "size", "pixels a side"),
    ({"step": 23}, "layout", "needs at least 24 bytes a row, got 23"),
    ({"step": 0}, "layout", "got 0"),
    ({"size": 10}, "layout", "truncated"),
    ({"encoding": "bayer_rggb8", "width": 7}, "size", "multiple of 2"),
    ({"encoding": "nv12", "height": 5}, "size", "multiple of 2"),
    ({"encoding": "yuyv", "width": 7}, "size", "multiple of 2"),
    ({"encoding": "bayer_grbg16", "height": 5}, "size", "multiple of 2"),
    ({"encoding": "bgr16"}, "layout", "needs at least 48 bytes a row, got 24"),
    ({"encoding": "mono16", "width": 12, "size": 143}, "layout", "need at least 144 bytes, got 143"),
])  # fmt: skip
def test_what_cannot_be_a_image_is_refused_with_its_kind(wrong, kind, message):
    with pytest.raises(FrameError) as caught:
        make(**wrong)
    assert caught.value.kind == kind
    assert message in str(caught.value)


def test_data_must_be_flat():
    with pytest.raises(FrameError, match="image data"):
        Frame(np.zeros((6, 24), np.uint8), 8, 6, 24, "bgr8")


def test_from_bgr_wraps_without_copying():
    image = np.zeros((6, 8, 3), np.uint8)
    frame = Frame.from_bgr(image, stamp_ns=5, frame_id="optical", camera="front")
    assert np.shares_memory(frame.data, image)
    assert (frame.width, frame.height, frame.step, frame.encoding) == (8, 6, 24, "bgr8")
    assert (frame.stamp_ns, frame.frame_id, frame.camera) == (5, "optical", "front")


def test_from_bgr_of_a_cut_out():
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)[1:4, 2:5]
    np.testing.assert_array_equal(Frame.from_bgr(image).data.reshape(3, 3, 3), image)
