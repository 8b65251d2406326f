"""How large the instance map is: what the option may say, and what follows from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.onboard.pipeline.output_size import OutputSize

SIDES = st.integers(1, 8000)


def geometry(width: int, height: int, mode: str = "letterbox") -> ResizeGeometry:
    return ResizeGeometry.fit(ResizeSpec(mode), width, height, 640, 384)


@given(width=SIDES, height=SIDES, mode=st.sampled_from(["letterbox", "stretch"]))
def test_camera_is_the_size_of_the_image(width: int, height: int, mode: str) -> None:
    assert OutputSize.parse("camera").of(geometry(width, height, mode)) == (height, width)
    assert OutputSize().of(geometry(width, height, mode)) == (height, width)


@given(width=SIDES, height=SIDES)
def test_network_is_the_image_without_its_padding(width: int, height: int) -> None:
    laid_out = geometry(width, height)
    assert OutputSize.parse("network").of(laid_out) == (laid_out.content_height, laid_out.content_width)
    assert OutputSize.parse("network").of(geometry(width, height, "stretch")) == (384, 640)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5", (540, 960)), ("1", (1080, 1920)), ("1.0", (1080, 1920)), ("2", (2160, 3840)), ("4", (4320, 7680)),
     ("0.01", (11, 19)), ("5e-1", (540, 960)), (" 0.5 ", (540, 960))],
)  # fmt: skip
def test_scales(text: str, expected: tuple[int, int]) -> None:
    assert OutputSize.parse(text).of(geometry(1920, 1080)) == expected


@given(width=SIDES, height=SIDES, scale=st.floats(0.01, 4.0))
def test_a_scaled_map_is_never_empty_and_right_to_half_a_pixel(width: int, height: int, scale: float) -> None:
    rows, columns = OutputSize.parse(repr(scale)).of(geometry(width, height))
    assert rows >= 1
    assert columns >= 1
    assert abs(rows - height * scale) <= 0.5 or rows == 1
    assert abs(columns - width * scale) <= 0.5 or columns == 1


@pytest.mark.parametrize("text", ["", "Camera", "cam", "0", "0.0099", "4.01", "-1", "nan", "inf", "-inf", "50%", "1,5"])
def test_what_is_no_size_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OutputSize.parse(text)
    for words in ("'camera'", "'network'", "0.01 to 4", repr(text)):
        assert words in str(caught.value)
