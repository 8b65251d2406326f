"""Images for people: what they show, and what they leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import InstanceMap, Instances, Segmentation
from seg_perception.onboard.pipeline.overlay import BOTH, FILL, OUTLINE, SHAPES, OverlayStyle, colour_map, draw_overlay
from seg_perception.onboard.pipeline.overlay_panel import OverlayStats
from seg_perception.onboard.pipeline.pictograms import pictogram

NAMES = ("person", "car", "traffic light")
Box = tuple[float, float, float, float]


def segmentation(
    image: NDArray[np.uint8], pixels: NDArray[np.uint16], boxes: Sequence[Box], numbers: Sequence[int]
) -> Segmentation:
    count = len(boxes)
    rows = np.arange(count, dtype=np.int32)
    instances = Instances(
        rows,
        np.array(numbers, np.uint16),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.3, count).astype(np.float32),
        rows % len(NAMES),
        np.zeros(count, np.int32),
    )
    areas = np.array([np.count_nonzero(pixels == number) for number in numbers], np.int64)
    return Segmentation(Frame.from_bgr(image), instances, InstanceMap(pixels, areas), areas, {})


def filled(shape: tuple[int, int], boxes: Sequence[Box], numbers: Sequence[int]) -> NDArray[np.uint16]:
    """A map in which every instance fills its box, the first in front."""
    pixels = np.zeros(shape, np.uint16)
    for (x1, y1, x2, y2), number in reversed(list(zip(boxes, numbers, strict=True))):
        pixels[round(y1) : round(y2), round(x1) : round(x2)] = number
    return pixels


def photo(height: int, width: int, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def colour_of(number: int) -> NDArray[np.uint8]:
    colour: NDArray[np.uint8] = colour_map(np.array([[number]], np.uint16))[0, 0]
    return colour


def nearness(part: NDArray[np.uint8], image: NDArray[np.uint8], number: int) -> NDArray[np.float64]:
    """How far each pixel went from the image to the colour of `number`: 0 not at all, 1 all the way; NaN elsewhere."""
    start, way = image.astype(float), colour_of(number).astype(float) - image
    share = np.sum((part - start) * way, axis=-1) / np.maximum(np.sum(way * way, axis=-1), 1e-9)
    aside = np.abs(part - start - share[..., None] * way).max(axis=-1)
    return np.where(aside <= 1.5, share, np.nan)


def test_nothing_found_leaves_the_image_and_gives_a_copy() -> None:
    image = photo(90, 120)
    overlay = draw_overlay(image, segmentation(image, np.zeros((90, 120), np.uint16), [], []), NAMES)
    np.testing.assert_array_equal(overlay, image)
    assert not np.shares_memory(overlay, image)


def test_the_input_is_not_modified() -> None:
    image, boxes = photo(240, 320), [(40.0, 60.0, 160.0, 200.0)]
    pixels = filled((240, 320), boxes, [1])
    before, before_pixels = image.copy(), pixels.copy()
    found = segmentation(image, pixels, boxes, [1])
    # A camera's message is often read-only memory.
    image.flags.writeable = False
    overlay = draw_overlay(image, found, NAMES)
    assert not np.array_equal(overlay, image)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(pixels, before_pixels)


def test_a_view_with_padded_rows_gives_the_same() -> None:
    wide, boxes = photo(240, 400), [(40.0, 60.0, 160.0, 200.0)]
    image = wide[:, :320]
    found = segmentation(np.ascontiguousarray(image), filled((240, 320), boxes, [1]), boxes, [1])
    np.testing.assert_array_equal(
        draw_overlay(image, found, NAMES), draw_overlay(np.ascontiguousarray(image), found, NAMES)
    )


def test_the_inside_is_tinted_and_the_rest_of_the_box_is_not() -> None:
    image, box = photo(480, 640), (200.0, 100.0, 400.0, 400.0)
    pixels = np.zeros((480, 640), np.uint16)
    pixels[180:320, 240:360] = 5
    overlay = draw_overlay(image, segmentation(image, pixels, [box], [5]), NAMES)
    inside = np.s_[190:310, 250:350]
    share = nearness(overlay[inside], image[inside], 5)
    # On dark and bright alike the image shines through.
    assert np.isfinite(share).all()
    assert np.median(share) == pytest.approx(0.42, abs=0.02)
    # Between the instance and the frame of its box, clear of corners and label.
    for around in (np.s_[160:340, 204:230], np.s_[160:340, 370:396], np.s_[340:390, 260:340], np.s_[130:170, 260:340]):
        np.testing.assert_array_equal(overlay[around], image[around])


def test_the_outline_has_the_pure_colour() -> None:
    image, box = photo(720, 1280), (100.0, 100.0, 500.0, 500.0)
    pixels = np.zeros((720, 1280), np.uint16)
    pixels[200:400, 200:400] = 3
    overlay = draw_overlay(image, segmentation(image, pixels, [box], [3]), NAMES)
    for row, column in ((300, 200), (300, 399), (200, 300), (399, 300)):
        np.testing.assert_array_equal(overlay[row, column], colour_of(3))


@pytest.mark.parametrize("shape", [OUTLINE, FILL, BOTH])
def test_outlines_and_areas_are_drawn_as_the_style_says(shape: str) -> None:
    image, box = photo(720, 1280), (100.0, 100.0, 500.0, 500.0)
    pixels = np.zeros((720, 1280), np.uint16)
    pixels[200:400, 200:400] = 3
    overlay = draw_overlay(image, segmentation(image, pixels, [box], [3]), NAMES, OverlayStyle(shape))
    assert np.array_equal(overlay[220:380, 220:380], image[220:380, 220:380]) == (shape == OUTLINE)
    assert np.array_equal(overlay[300, 200], colour_of(3)) == (shape != FILL)


def test_there_are_three_shapes() -> None:
    with pytest.raises(ConfigurationError, match="expected outline, fill, both, got 'neon'"):
        OverlayStyle("neon")


def test_numbers_stand_in_labels_where_they_are_kept() -> None:
    image, box = np.zeros((360, 640, 3), np.uint8), (100.0, 100.0, 400.0, 300.0)
    found = segmentation(image, np.zeros((360, 640), np.uint16), [box], [1])
    plain, numbered = (draw_overlay(image, found, NAMES, OverlayStyle(numbers=each)) for each in (False, True))
    assert np.count_nonzero(numbered[:, :400].any(axis=0)) >= np.count_nonzero(plain[:, :400].any(axis=0))
    assert (numbered != plain).any()
    np.testing.assert_array_equal(numbered[110:], plain[110:])


@pytest.mark.parametrize(("name", "drawn"), [("piéton", "pieton"), ("歩行者", "pedestrian")])
def test_names_in_letters_that_the_font_lacks_stay_legible(name: str, drawn: str) -> None:
    boxes = [(20.0, 60.0, 260.0, 200.0)]
    image = photo(240, 320)
    given = segmentation(image, filled((240, 320), boxes, [4]), boxes, [4])
    overlays = [draw_overlay(image, given, (each,)) for each in (name, drawn, "another")]
    assert np.array_equal(overlays[0], overlays[1])
    assert not np.array_equal(overlays[0], overlays[2])


# The corners


FIGURED = OverlayStyle(figures=True)


def test_figures_and_legend_keep_to_their_corners() -> None:
    image = np.full((720, 1280, 3), 200, np.uint8)
    nothing = segmentation(image, np.zeros((720, 1280), np.uint16), [], [])
    overlay = draw_overlay(image, nothing, NAMES, FIGURED, OverlayStats("front", 0.062, 9.8, {"superseded": 48}, 5.0))
    changed = (overlay != 200).any(axis=-1)
    assert changed[2, 2]
    assert changed[-2, 2]
    changed[:60, :640] = changed[-30:, :640] = False
    assert not changed.any()


def test_figures_say_what_they_know() -> None:
    expected = frozenset({"superseded"})
    calm = OverlayStats("front", 0.0624, 9.84, {"superseded": 48, "too_old": 0}, 5.0, expected)
    assert [text for text, _ in calm.lines()] == [
        "front   9.8 results/s   age 62 ms",
        "dropped in 5 s: 48 superseded",
    ]
    alarmed = replace(calm, dropped={"superseded": 48, "too_old": 2})
    assert alarmed.lines()[1][0] == "dropped in 5 s: 48 superseded, 2 too old"
    assert alarmed.lines()[1][1] != calm.lines()[1][1], "what should not be is in another colour"
    assert [text for text, _ in OverlayStats("left", seconds=5.0).lines()] == [
        "left   - results/s   age -",
        "dropped in 5 s: none",
    ]


def test_labels_keep_clear_of_figures_and_legend() -> None:
    image = np.zeros((360, 640, 3), np.uint8)
    box = (0.0, 0.0, 640.0, 360.0)
    found = segmentation(image, np.zeros((360, 640), np.uint16), [box], [1])
    figures = OverlayStats("front", 0.062, 9.8, {"superseded": 48}, 5.0)
    plain = draw_overlay(image, found, NAMES, OverlayStyle(), figures)
    figured = draw_overlay(image, found, NAMES, FIGURED, figures)
    label = (plain == colour_of(1)).all(axis=-1)[:20, 10:150]
    assert label.sum() > 300
    assert not (figured == colour_of(1)).all(axis=-1)[:20, 10:150].any()


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (3840, 2160)])
def test_the_writing_grows_with_the_image(size: tuple[int, int]) -> None:
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    nothing = segmentation(image, np.zeros((height, width), np.uint16), [], [])
    overlay = draw_overlay(image, nothing, NAMES, FIGURED, OverlayStats("H"))
    lines = overlay[: height // 4, : width // 50].max(axis=(1, 2)) > 128
    # Of the strokes of a capital letter.
    assert max(7, 0.012 * height) <= np.count_nonzero(lines) <= 0.03 * height


@pytest.mark.parametrize("side", [12, 30])
def test_pictograms_differ(side: int) -> None:
    drawn = [pictogram(group, side) / 255 for group in (NO_GROUP, *range(len(ROAD_GROUPS)))]
    for index, one in enumerate(drawn):
        assert 0.1 < one.mean() < 0.7
        assert all(np.abs(one - other).mean() > 0.15 for other in drawn[:index])


def test_far_from_boxes_and_labels_nothing_changes() -> None:
    image = photo(720, 1280)
    boxes = [(100.5, 200.5, 250.2, 300.7), (600.0, 400.0, 700.0, 500.0), (1000.0, 60.0, 1279.0, 200.0)]
    overlay = draw_overlay(image, segmentation(image, filled((720, 1280), boxes, [1, 2, 3]), boxes, [1, 2, 3]), NAMES)
    allowed = np.zeros((720, 1280), bool)
    for x1, y1, x2, y2 in np.array(boxes).astype(int):
        allowed[y1 - 4 : y2 + 5, x1 - 4 : x2 + 5] = True
        allowed[y1 - 30 : y1, x1 : x1 + 200] = True  # the label
    np.testing.assert_array_equal(overlay[~allowed], image[~allowed])


def test_pixels_of_other_numbers_are_not_tinted() -> None:
    # Numbers that are in the map but not in the list belong to nobody.
    image, box = photo(240, 320), (10.0, 30.0, 300.0, 230.0)
    pixels = np.zeros((240, 320), np.uint16)
    pixels[60:120, 120:200], pixels[140:200, 120:200] = 7, 8
    overlay = draw_overlay(image, segmentation(image, pixels, [box], [7]), NAMES)
    np.testing.assert_array_equal(overlay[140:200, 120:200], image[140:200, 120:200])


@pytest.mark.parametrize("numbers", [(1, 2), (255, 256), (257, 1), (65534, 65535), (65535, 32767)])
def test_each_instance_has_the_colour_of_its_number(numbers: tuple[int, int]) -> None:
    image = np.full((300, 400, 3), 20, np.uint8)
    boxes = [(20.0, 60.0, 180.0, 280.0), (220.0, 60.0, 380.0, 280.0)]
    overlay = draw_overlay(image, segmentation(image, filled((300, 400), boxes, numbers), boxes, numbers), NAMES)
    for number, part in zip(numbers, (np.s_[120:240, 60:140], np.s_[120:240, 260:340]), strict=True):
        # Rounding to whole levels moves the share a little.
        np.testing.assert_allclose(nearness(overlay[part], image[part], number), 0.42, atol=0.01)


@pytest.mark.parametrize("scale", [0.1, 0.37, 0.5, 1.5, 2.0, 3.3])
def test_a_map_of_another_size_lands_in_the_same_place(scale: float) -> None:
    image = np.full((360, 640, 3), 128, np.uint8)
    boxes = [(100.0, 80.0, 300.0, 280.0), (400.0, 200.0, 600.0, 340.0)]
    shape = (round(360 * scale), round(640 * scale))
    scaled = [(x1 * scale, y1 * scale, x2 * scale, y2 * scale) for x1, y1, x2, y2 in boxes]
    overlay = draw_overlay(image, segmentation(image, filled(shape, scaled, [4, 9]), boxes, [4, 9]), NAMES)
    expected = draw_overlay(image, segmentation(image, filled((360, 640), boxes, [4, 9]), boxes, [4, 9]), NAMES)
    # A pixel of the map covers 1 / scale of the image, and rounding moves the border by half of that.
    margin = round(0.5 / scale) + 3
    differing = (overlay != expected).any(axis=-1)
    for x1, y1, x2, y2 in np.array(boxes).astype(int):
        assert not differing[y1 + margin : y2 - margin, x1 + margin : x2 - margin].any()
        differing[y1 - margin : y2 + margin, x1 - margin : x2 + margin] = False
    assert not differing.any()


def test_many_instances_are_all_there() -> None:
    image = np.full((1080, 1920, 3), 90, np.uint8)
    boxes = [(x + 4.0, y + 4.0, x + 60.0, y + 86.0) for y in range(0, 1080, 90) for x in range(0, 1920, 64)]
    numbers = list(range(1, 2 * len(boxes), 2))
    overlay = draw_overlay(image, segmentation(image, filled((1080, 1920), boxes, numbers), boxes, numbers), NAMES)
    for (x1, y1, _, _), number in zip(boxes, numbers, strict=True):
        # The middle of the box is free of labels, its own and those of the next.
        part = np.s_[int(y1) + 40 : int(y1) + 44, int(x1) + 20 : int(x1) + 36]
        np.testing.assert_allclose(nearness(overlay[part], image[part], number), 0.42, atol=0.02)


def test_the_label_of_the_surest_lies_on_top() -> None:
    image, box = photo(360, 640), (100.0, 100.0, 400.0, 300.0)
    alone = draw_overlay(image, segmentation(image, filled((360, 640), [box], [1]), [box], [1]), NAMES)
    label = np.zeros((360, 640), bool)
    label[:97] = (alone != image).any(axis=-1)[:97]
    assert label.sum() > 300
    boxes, numbers = [box] * 5, [1, 2, 3, 4, 5]
    crowd = draw_overlay(image, segmentation(image, filled((360, 640), boxes, numbers), boxes, numbers), NAMES)
    np.testing.assert_array_equal(crowd[label], alone[label])


def test_labels_of_one_place_move_out_of_each_others_way() -> None:
    image, box = np.zeros((360, 640, 3), np.uint8), (100.0, 100.0, 400.0, 300.0)
    boxes, numbers = [box] * 3, [1, 2, 3]
    overlay = draw_overlay(image, segmentation(image, filled((360, 640), boxes, numbers), boxes, numbers), NAMES)
    for number in numbers:
        assert np.count_nonzero((overlay == colour_of(number)).all(axis=-1)) > 300


@pytest.mark.parametrize(
    "box", [(0.0, 0.0, 640.0, 360.0), (0.0, 0.0, 50.0, 20.0), (600.0, 0.0, 640.0, 360.0), (600.0, 340.0, 640.0, 360.0)]
)
def test_the_label_at_a_border_stays_inside(box: Box) -> None:
    image = np.zeros((360, 640, 3), np.uint8)
    # The map is empty, so what is drawn in the pure colour is the label and the corners.
    overlay = draw_overlay(image, segmentation(image, np.zeros((360, 640), np.uint16), [box], [1]), NAMES)
    label = (overlay == colour_of(1)).all(axis=-1)
    # As much of it as in the middle of the image, where a label as long belongs to a box as wide.
    middle = (250.0, 200.0, 250.0 + min(150.0, box[2] - box[0]), 300.0)
    plain = draw_overlay(image, segmentation(image, np.zeros((360, 640), np.uint16), [middle], [1]), NAMES)
    expected = (plain == colour_of(1)).all(axis=-1)[:196]
    assert label.sum() >= expected.sum()


def test_small_boxes_do_not_get_corners_larger_than_themselves() -> None:
    image, box = np.zeros((360, 640, 3), np.uint8), (100.0, 100.0, 102.0, 102.0)
    overlay = draw_overlay(image, segmentation(image, filled((360, 640), [box], [1]), [box], [1]), NAMES)
    assert not overlay[106:].any()
    assert not overlay[100:106, 106:].any()


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    map_height=st.integers(1, 80),
    map_width=st.integers(1, 80),
    count=st.integers(0, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_tiny_images_and_any_boxes(
    height: int, width: int, map_height: int, map_width: int, count: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    image = photo(height, width, seed)
    corners = np.sort(random.uniform(0, 1, (count, 2, 2)), axis=1)
    # Some lie on the border, have no area or end before they begin.
    corners = np.where(random.random(corners.shape) < 0.2, np.round(corners), corners) * [width, height]
    numbers = random.choice(np.arange(1, 65536, dtype=np.uint16), count, replace=False)
    pixels = random.choice(np.append(numbers, np.uint16(0)), (map_height, map_width))
    boxes = [tuple(box) for box in corners.reshape(-1, 4).tolist()]
    style = OverlayStyle(SHAPES[seed % 3], numbers=bool(seed & 4), figures=bool(seed & 8))
    found = segmentation(image, pixels, boxes, numbers.tolist())
    overlay = draw_overlay(image, found, NAMES, style, OverlayStats("front", 0.1, 9.0, {"lost": 3}, 5.0))
    assert overlay.shape == image.shape
    assert overlay.dtype == np.uint8


def test_the_background_is_black_and_nothing_else_is_dark() -> None:
    colours = colour_map(np.arange(65536, dtype=np.uint16).reshape(256, 256)).reshape(-1, 3).astype(int)
    assert not colours[0].any()
    assert colours[1:].max(axis=1).min() > 120


def test_near_numbers_are_far_apart_in_colour() -> None:
    colours = colour_map(np.arange(1, 65536, dtype=np.uint16)[None])[0].astype(float)
    for step in range(1, 9):
        distance = np.linalg.norm(colours[step:] - colours[:-step], axis=-1)
        # 441 is from black to white.
        assert distance.min() > (130 if step == 1 else 35)


def test_the_first_hundred_numbers_have_a_hundred_colours() -> None:
    colours = colour_map(np.arange(1, 101, dtype=np.uint16)[None])[0]
    assert len(np.unique(colours, axis=0)) == 100


@given(height=st.integers(1, 30), width=st.integers(1, 30), seed=st.integers(0, 2**32 - 1), way=st.sampled_from("CFTV"))
def test_colour_map_depends_on_the_number_alone(height: int, width: int, seed: int, way: str) -> None:
    plain = np.random.default_rng(seed).integers(0, 65536, (height, width), dtype=np.uint16)
    pixels = {"C": plain, "F": np.asfortranarray(plain), "T": plain.T, "V": np.repeat(plain, 2, axis=1)[:, ::2]}[way]
    before = pixels.copy()
    colours = colour_map(pixels)
    assert colours.shape == (*pixels.shape, 3)
    assert colours.dtype == np.uint8
    assert colours.flags.c_contiguous
    np.testing.assert_array_equal(pixels, before)
    for row in range(min(3, pixels.shape[0])):
        for column in range(min(3, pixels.shape[1])):
            np.testing.assert_array_equal(colours[row, column], colour_of(int(pixels[row, column])))
