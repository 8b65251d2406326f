"""Every kernel on the GPU, by the same checks against the CPU as in test/unit/onboard/backend/cuda."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from gpu.on_gpu import GuardedOnGpu, checks_of, patched, unit
from numpy.typing import NDArray

from seg_perception.core.frame import Frame
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.onboard.backend.tensorrt.cuda.letterbox import describe, launch_letterbox
from seg_perception.onboard.backend.tensorrt.cuda.records import CAMERA

letterbox = unit("test_letterbox_kernel")
MODULES = [letterbox, *map(unit, ("test_select_kernel", "test_paint_kernel", "test_cells_kernel"))]
globals().update(checks_of(MODULES))


def on_gpu(frames: Sequence[Frame], spec: ResizeSpec, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The network inputs of a batch, made by the kernel; nothing else may be written."""
    height, width = size
    cameras = np.zeros(len(frames), CAMERA)
    ends = np.cumsum([frame.data.size for frame in frames])
    for record, frame, end in zip(cameras, frames, ends, strict=True):
        geometry = ResizeGeometry.fit(spec, frame.width, frame.height, width, height)
        describe(record, frame, geometry, spec.pad_value, int(end) - frame.data.size)
    arrays = GuardedOnGpu(
        frames=np.concatenate([frame.data for frame in frames]),
        cameras=cameras,
        images=np.full((len(frames), height, width, 3), 0xCD, np.uint8),
    )
    block, records, images = (arrays.address(name) for name in ("frames", "cameras", "images"))
    launch_letterbox(letterbox.HostLetterbox(), block, records, images, len(frames), size, None)
    arrays.check_guards()
    return arrays["images"]


@pytest.fixture(scope="module", autouse=True)
def kernels_on_the_gpu() -> Iterator[None]:
    """Patches the unit tests."""
    from seg_perception.onboard.backend.tensorrt.cuda.pycuda_device import PycudaDevice

    device = PycudaDevice()
    with device.active(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(letterbox, "on_host", on_gpu)
        yield from patched(device, MODULES)
    device.close()
