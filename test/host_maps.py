"""The map kernels on the CPU, on arrays whose surroundings are guarded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from cuda_host import HostKernels
from numpy.typing import NDArray

from seg_perception.core.contract import ModelSpec
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.onboard.backend.tensorrt.cuda.device import Device, Grid
from seg_perception.onboard.backend.tensorrt.cuda.paint import MapKernels
from seg_perception.onboard.backend.tensorrt.cuda.records import CAMERA

GUARD = 256  # bytes before and after each array; arrays begin at multiples of it
# Before and after each array, where it makes NaN, and where nothing is known yet.
SURROUNDINGS, POISON = 0xFF, 0xCD


class GuardedArrays:
    """Named arrays as the kernels want them."""

    def __init__(self, **arrays: NDArray[Any]) -> None:
        self._blocks: dict[str, NDArray[np.uint8]] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        for name, array in arrays.items():
            block: NDArray[np.uint8] = np.full(array.nbytes + 3 * GUARD, SURROUNDINGS, np.uint8)
            block = block[-block.ctypes.data % GUARD :][: array.nbytes + 2 * GUARD]
            inner = block[GUARD : GUARD + array.nbytes].view(array.dtype).reshape(array.shape)
            inner[...] = array
            self._blocks[name], self._arrays[name] = block, inner

    def address(self, name: str) -> int:
        return self._blocks[name].ctypes.data + GUARD

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def check_guards(self) -> None:
        for name, block in self._blocks.items():
            assert (block[:GUARD] == SURROUNDINGS).all(), f"written before {name}"
            assert (block[-GUARD:] == SURROUNDINGS).all(), f"written behind {name}"


class _Kernel:
    def __init__(self, name: str) -> None:
        self._name = name

    def launch(self, grid: Grid, block: Grid, arguments: Sequence[np.generic], stream: object) -> None:
        HostKernels.load().launch(self._name, grid, block, arguments)


class _Device:
    def kernel(self, name: str) -> _Kernel:
        return _Kernel(name)


@dataclass(frozen=True)
class Part:
    """Which frames are painted."""

    first: int
    count: int
    semantic: bool = False


def map_kernels(
    geometry: ResizeGeometry,
    rows: int,
    mask_size: tuple[int, int] = (1, 1),
    mask_frame: str = "frame",
    mask_type: type = np.float32,
    classes: int = 5,
    class_map: bool = False,
) -> MapKernels:
    """The kernels for a model of these sizes."""
    names = tuple(f"class{index}" for index in range(classes))
    spec = ModelSpec(
        "test", names, (True,) * classes, ResizeSpec(), geometry.network_height, geometry.network_width,
        batch=0, max_instances=rows, mask_height=mask_size[0], mask_width=mask_size[1], mask_frame=mask_frame,
        class_map=class_map or not rows,
    )  # fmt: skip
    return MapKernels(cast(Device, _Device()), spec, np.dtype(mask_type))


def camera_record(geometry: ResizeGeometry, output_size: tuple[int, int] = (1, 1), **fields: float) -> NDArray[Any]:
    """One element of `CAMERA`; what is not named is poison, so that reading it shows."""
    record = np.full(CAMERA.itemsize, POISON, np.uint8).view(CAMERA)
    record["width"], record["height"] = geometry.camera_width, geometry.camera_height
    record["content_width"], record["content_height"] = geometry.content_width, geometry.content_height
    record["left"], record["top"] = geometry.left, geometry.top
    record["map_height"], record["map_width"] = output_size
    record["ignore"] = 0
    for name, value in fields.items():
        record[name] = value
    return record
