"""The kernels of class maps, compiled for the CPU, against the CPU's code."""

from __future__ import annotations

import numpy as np
import pytest
from host_maps import POISON, GuardedArrays, camera_record, map_kernels
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.core.contract import FAULTY_CELL, NO_CLASS
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.onboard.backend.host.cells import at_output
from seg_perception.onboard.backend.tensorrt.cuda.records import Fault

CAMERA_SIDES = st.integers(1, 400)


@given(
    camera=st.tuples(CAMERA_SIDES, CAMERA_SIDES),
    network=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    output_size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    mode=st.sampled_from(["letterbox", "stretch"]),
    index=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_class_of_each_pixel(
    camera: tuple[int, int],
    network: tuple[int, int],
    output_size: tuple[int, int],
    mode: str,
    index: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    grid = tuple(int(side) for side in rng.integers(1, 60, 2))
    class_map = rng.integers(0, 256, (3, *grid), np.uint8)
    geometry = ResizeGeometry.fit(ResizeSpec(mode), *camera, *network)
    cameras = np.concatenate([camera_record(geometry, output_size)] * 3)
    pixels = output_size[0] * output_size[1] + 77
    maps = GuardedArrays(semantic=np.full((3, pixels), POISON, np.uint8))
    inner, request = GuardedArrays(class_map=class_map), GuardedArrays(cameras=cameras)
    map_kernels(geometry, 1, grid, class_map=True).class_cells(inner, request, maps, index, pixels, None)
    maps.check_guards()
    expected = np.full((3, pixels), POISON, np.uint8)
    expected[index, :-77] = at_output(class_map[index], geometry, output_size).reshape(-1)
    np.testing.assert_array_equal(maps["semantic"], expected)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (0, 0),
        (4, 0),
        (NO_CLASS, 0),
        (5, Fault.UNKNOWN_CLASS),
        (FAULTY_CELL - 1, Fault.UNKNOWN_CLASS),
        (FAULTY_CELL, Fault.FAULTY_CLASS),
    ],
)
@pytest.mark.parametrize("cell", [(0, 0), (70, 90)])
def test_faults_of_class_maps(value: int, fault: int, cell: tuple[int, int]) -> None:
    class_map = np.ones((3, 71, 91), np.uint8)
    class_map[1][cell] = value
    inner = GuardedArrays(class_map=class_map)
    found = GuardedArrays(faults=np.array([0, 0, Fault.FAULTY_LOGIT], np.uint32))
    geometry = ResizeGeometry.fit(ResizeSpec(), 64, 64, 64, 64)
    kernels = map_kernels(geometry, 1, (71, 91), classes=5, class_map=True)
    kernels.check_classes(inner, found, 3, None)
    found.check_guards()
    assert found["faults"].tolist() == [0, fault, Fault.FAULTY_LOGIT]
