"""Class maps become instances, and both become images of the camera's size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seg_perception.core.contract import FAULTY_CELL, NO_CLASS
from seg_perception.core.errors import ModelOutputError
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.onboard.backend.host.cells import at_output, content_cells
from seg_perception.onboard.backend.host.components import MOST_COMPONENTS, Components, check_class_map

THINGS = (False, True, True)


def geometry(camera: tuple[int, int], network: tuple[int, int], mode: str = "letterbox") -> ResizeGeometry:
    """Sizes are width and height."""
    return ResizeGeometry.fit(ResizeSpec(mode), *camera, *network)


def drawing(*lines: str) -> NDArray[np.uint8]:
    return np.array([[int(cell) for cell in line] for line in lines], np.uint8)


def numbered(found: Components) -> NDArray[np.uint16]:
    return np.arange(1, len(found.labels) + 1, dtype=np.uint16)


def test_components_of_each_class_largest_first() -> None:
    class_map = drawing(
        "00002200",
        "01100220",
        "01100000",
        "00010022",
    )
    found = Components.of(class_map, THINGS, geometry((80, 40), (80, 40)))
    # The single cell of class 1 touches the square diagonally and belongs to it.
    assert found.labels.tolist() == [1, 2, 2]
    assert found.boxes_network.tolist() == [[10, 10, 40, 40], [40, 0, 70, 20], [60, 30, 80, 40]]
    expected = drawing("00002200", "01100220", "01100000", "00010033")
    np.testing.assert_array_equal(found.cells, expected)


def test_stuff_and_cells_of_no_class_have_no_instances() -> None:
    class_map = np.full((6, 8), NO_CLASS, np.uint8)
    class_map[:3] = 0
    found = Components.of(class_map, THINGS, geometry((80, 60), (80, 60)))
    assert found.labels.shape == (0,)
    assert found.boxes_network.shape == (0, 4)
    painted = found.paint(np.zeros(0, np.uint16), geometry((80, 60), (80, 60)), (60, 80))
    assert not painted.pixels.any()
    assert painted.areas.shape == (0,)


def test_the_padding_is_not_looked_at() -> None:
    # The camera is twice as wide as high: of eight rows, two above and two below are padding.
    layout = geometry((160, 80), (80, 80))
    assert content_cells(layout, (8, 8)) == (slice(2, 6), slice(0, 8))
    class_map = np.zeros((8, 8), np.uint8)
    class_map[:, 1] = class_map[:, 6] = class_map[:2] = 1
    found = Components.of(class_map, THINGS, layout)
    # Through the padding above the two were one.
    assert found.boxes_network.tolist() == [[10, 20, 20, 60], [60, 20, 70, 60]]
    painted = found.paint(numbered(found), layout, (80, 160))
    expected = np.zeros((80, 160), np.uint16)
    expected[:, 20:40], expected[:, 120:140] = 1, 2
    np.testing.assert_array_equal(painted.pixels, expected)
    assert painted.areas.tolist() == [1600, 1600]


def test_rows_may_be_left_out_and_numbered_freely() -> None:
    class_map = drawing("1102", "1100")
    layout = geometry((4, 2), (4, 2))
    found = Components.of(class_map, THINGS, layout)
    painted = found.paint(np.array([0, 700], np.uint16), layout, (2, 4))
    assert painted.pixels.tolist() == [[0, 0, 0, 700], [0, 0, 0, 0]]
    assert painted.areas.tolist() == [0, 1]


def test_of_many_specks_the_largest_stay() -> None:
    class_map = np.zeros((40, 40), np.uint8)
    class_map[::2, ::2] = 1
    class_map[10:20, 10:20] = 2
    class_map[10:20, 30:34] = 2
    found = Components.of(class_map, THINGS, geometry((40, 40), (40, 40)))
    assert len(found.labels) == MOST_COMPONENTS
    assert found.labels[:3].tolist() == [2, 2, 1]
    assert found.cells.max() == MOST_COMPONENTS


@pytest.mark.parametrize("size", [(511, 1023), (600, 1100)])
def test_as_many_components_as_a_grid_can_have(size: tuple[int, int]) -> None:
    # The second has more than 16 bits can count.
    class_map = np.zeros(size, np.uint8)
    class_map[::2, ::2] = 1
    class_map[-4:, -3:] = 1
    found = Components.of(class_map, THINGS, geometry((size[1], size[0]), (size[1], size[0])))
    assert found.boxes_network[0, 2:].tolist() == [size[1], size[0]]
    areas = np.bincount(found.cells.reshape(-1))[1:]
    assert areas[0] >= 12
    assert areas[1:].tolist() == [1] * (MOST_COMPONENTS - 1)


def test_impossible_cells_are_reported() -> None:
    usable = np.array([[0, 1, 2, NO_CLASS]], np.uint8)
    check_class_map(usable, 3)
    with pytest.raises(ModelOutputError, match="classes from 0 to 1 or 255 in the class map, got 2"):
        check_class_map(usable, 2)
    with pytest.raises(ModelOutputError, match="NaN or infinity"):
        check_class_map(np.full((2, 2), FAULTY_CELL, np.uint8), 3)


sizes = st.integers(1, 40)


@given(sizes, sizes, sizes, sizes, sizes, sizes, st.sampled_from(["letterbox", "stretch"]), st.integers(1, 4))
def test_a_pixel_has_the_value_of_the_cell_under_its_centre(
    camera_width: int,
    camera_height: int,
    output_width: int,
    output_height: int,
    grid_width: int,
    grid_height: int,
    mode: str,
    stride: int,
) -> None:
    layout = geometry((camera_width, camera_height), (grid_width * stride, grid_height * stride), mode)
    cells = np.arange(grid_width * grid_height, dtype=np.uint16).reshape(grid_height, grid_width)
    found = at_output(cells, layout, (output_height, output_width))
    assert found.shape == (output_height, output_width)
    rows, columns = content_cells(layout, cells.shape)
    assert np.isin(found, cells[rows, columns]).all()
    for v, u in {(0, 0), (output_height - 1, output_width - 1), (output_height // 2, output_width // 3)}:
        x = layout.left + (u + 0.5) * layout.content_width / output_width
        y = layout.top + (v + 0.5) * layout.content_height / output_height
        # On the border between two cells, rounding may take either.
        near = {
            int(cells[min(int(y / stride + dy), grid_height - 1), min(int(x / stride + dx), grid_width - 1)])
            for dx in (-1e-9, 1e-9)
            for dy in (-1e-9, 1e-9)
        }
        assert int(found[v, u]) in near
