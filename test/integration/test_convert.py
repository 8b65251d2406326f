"""Messages become frames: what is scaled, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from integration.harness import image_message
from numpy.typing import NDArray
from rclpy.serialization import serialize_message

from seg_perception.errors import FrameError
from seg_perception.frame import Frame
from seg_perception.ros import convert
from seg_perception.sources.encodings import to_bgr


def frame_of(pixels: NDArray[np.generic], encoding: str, **options: object) -> Frame:
    return convert.frame_from_image(serialize_message(image_message(pixels, encoding, **options)), "front")


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 7), st.booleans(), st.integers(0, 5))
def test_sixteen_bits_are_scaled_as_cv_bridge_scales_them(
    seed: int, height: int, width: int, big: bool, padding: int
) -> None:
    words = np.random.default_rng(seed).integers(0, 2**16, (height, width, 3), np.uint16)
    expected = np.rint(words * (255 / 65535)).astype(np.uint8)
    frame = frame_of(words.astype(">u2" if big else "<u2"), "bgr16", big=big, step=6 * width + padding)
    # Halves between two values may fall to either side.
    assert np.abs(to_bgr(frame).astype(int) - expected).max() <= 1
    assert (to_bgr(frame) == expected).mean() > 0.99 or words.size < 200
    rgb = frame_of(words.astype(">u2" if big else "<u2"), "rgb16", big=big)
    np.testing.assert_array_equal(to_bgr(rgb), to_bgr(frame)[..., ::-1])


@pytest.mark.parametrize(("word", "byte"), [(0, 0), (257, 1), (65535, 255), (32896, 128), (255, 1), (128, 0)])
def test_grey_of_sixteen_bits(word: int, byte: int) -> None:
    for encoding in ("mono16", "16UC1"):
        frame = frame_of(np.full((2, 4), word, np.uint16), encoding)
        assert (frame.encoding, frame.width, frame.height) == ("mono8", 4, 2)
        assert set(to_bgr(frame).reshape(-1)) == {byte}


def test_mosaics_of_sixteen_bits_keep_their_pattern() -> None:
    bytes_ = np.random.default_rng(1).integers(0, 256, (8, 8), np.uint8)
    for order in ("rggb", "bggr", "gbrg", "grbg"):
        wide = to_bgr(frame_of(bytes_.astype(np.uint16) * 257, f"bayer_{order}16"))
        np.testing.assert_array_equal(wide, to_bgr(frame_of(bytes_, f"bayer_{order}8")))


@pytest.mark.parametrize("encoding", ["32FC1", "64FC3", "8SC1", "16SC1", "32SC1"])
def test_images_without_a_brightness_are_refused(encoding: str) -> None:
    with pytest.raises(FrameError, match="let the camera driver publish one of these") as caught:
        frame_of(np.zeros((2, 2, 8), np.uint8), encoding)
    assert caught.value.kind == "encoding"


def test_other_encodings_go_through_cv_bridge_where_it_is_able(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    class Bridge:
        def imgmsg_to_cv2(self, message: object, encoding: str) -> NDArray[np.uint8]:
            seen.update(step=message.step, encoding=message.encoding, wanted=encoding)
            return np.full((message.height, message.width, 3), 7, np.uint8)

    monkeypatch.setattr(convert, "_cv_bridge", Bridge)
    frame = frame_of(np.zeros((2, 5), np.uint8), "new5", width=3)
    assert seen == {"step": 5, "encoding": "new5", "wanted": "bgr8"}
    assert to_bgr(frame).shape == (2, 3, 3)
    assert frame.frame_id == "camera_optical"
    monkeypatch.setattr(convert, "_cv_bridge", lambda: None)
    with pytest.raises(FrameError):
        frame_of(np.zeros((2, 5), np.uint8), "new5", width=3)
