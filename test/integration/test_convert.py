"""Messages become frames: what passes as it is, what cv_bridge is asked for, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from integration.harness import image_message
from numpy.typing import NDArray
from rclpy.serialization import serialize_message

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import FrameError
from seg_perception.core.frame import ENCODINGS, Frame
from seg_perception.core.messages.serialized import frame_from_image
from seg_perception.onboard.ros import convert


def frame_of(pixels: NDArray[np.generic], encoding: str, **options: object) -> Frame:
    serialized = serialize_message(image_message(pixels, encoding, **options))
    return frame_from_image(serialized, "front", convert.through_cv_bridge)


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 7), st.booleans(), st.integers(0, 5))
def test_byte_order_and_step_of_a_message_reach_the_decoder(
    seed: int, height: int, width: int, big: bool, padding: int
) -> None:
    words = np.random.default_rng(seed).integers(0, 2**16, (height, width, 3), np.uint16)
    expected = np.rint(words * (255 / 65535)).astype(np.uint8)
    frame = frame_of(words.astype(">u2" if big else "<u2"), "bgr16", big=big, step=6 * width + padding)
    assert (frame.encoding, frame.width, frame.height, frame.big_endian) == ("bgr16", width, height, big)
    np.testing.assert_array_equal(to_bgr(frame), expected)
    rgb = frame_of(words.astype(">u2" if big else "<u2"), "rgb16", big=big)
    np.testing.assert_array_equal(to_bgr(rgb), to_bgr(frame)[..., ::-1])


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_what_is_decoded_without_ros_is_not_copied_and_needs_no_cv_bridge(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "_cv_bridge", lambda: pytest.fail("cv_bridge was asked"))
    layout = ENCODINGS[encoding]
    rows = 4 * layout.rows_per_two // 2
    octets = np.random.default_rng(5).integers(0, 256, (rows, 6 * layout.bytes_per_pixel), np.uint8)
    serialized = bytes(serialize_message(image_message(octets, encoding, width=6, height=4)))
    frame = frame_from_image(serialized, "front", convert.through_cv_bridge)
    assert np.shares_memory(frame.data, np.frombuffer(serialized, np.uint8))
    alone = Frame(octets.reshape(-1), 6, 4, octets.shape[1], encoding)
    np.testing.assert_array_equal(to_bgr(frame), to_bgr(alone))


@pytest.mark.parametrize("encoding", ["32FC1", "64FC3", "8SC1", "16SC1", "32SC1"])
def test_images_without_a_brightness_are_refused(encoding: str) -> None:
    with pytest.raises(FrameError, match="let the camera driver publish one of these") as caught:
        frame_of(np.zeros((2, 2, 8), np.uint8), encoding)
    assert caught.value.kind == "encoding"


def test_other_encodings_go_through_cv_bridge_where_it_is_able(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    class Bridge:
        def imgmsg_to_cv2(self, message: Any, encoding: str) -> NDArray[np.uint8]:
            seen.update(step=message.step, encoding=message.encoding, wanted=encoding)
            return np.full((message.height, message.width, 3), 7, np.uint8)

    monkeypatch.setattr(convert, "_cv_bridge", Bridge)
    frame = frame_of(np.zeros((2, 5), np.uint8), "new5", width=3)
    assert seen == {"step": 5, "encoding": "new5", "wanted": "bgr8"}
    assert to_bgr(frame).shape == (2, 3, 3)
    assert frame.frame_id == "camera_optical"
    monkeypatch.setattr(convert, "_cv_bridge", lambda: None)
    with pytest.raises(FrameError, match="cv_bridge is not installed"):
        frame_of(np.zeros((2, 5), np.uint8), "new5", width=3)


@pytest.mark.parametrize("result", [KeyError("new5"), np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3, 3), np.uint16)])
def test_what_cv_bridge_cannot_convert_is_refused(result: object, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bridge:
        def imgmsg_to_cv2(self, message: object, encoding: str) -> object:
            if isinstance(result, Exception):
                raise result
            return result

    monkeypatch.setattr(convert, "_cv_bridge", Bridge)
    with pytest.raises(FrameError, match="'new5' cannot be converted") as caught:
        frame_of(np.zeros((2, 5), np.uint8), "new5", width=3)
    assert caught.value.kind == "encoding"
