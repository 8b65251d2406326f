"""The letterbox kernel, compiled for the CPU, against the CPU's letterbox."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from cuda_host import HostKernels
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seg_perception.core.encodings.raw import view
from seg_perception.core.errors import FrameError
from seg_perception.core.frame import ENCODINGS as LAYOUTS
from seg_perception.core.frame import Frame
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.onboard.backend.host.letterbox import letterbox
from seg_perception.onboard.backend.tensorrt.cuda.device import Grid, Stream
from seg_perception.onboard.backend.tensorrt.cuda.letterbox import describe, launch_letterbox
from seg_perception.onboard.backend.tensorrt.cuda.records import CAMERA, ENCODINGS

MARGIN = 64  # bytes around what may be written, and around each frame


class HostLetterbox:
    """The kernel as `launch_letterbox` wants it."""

    def __init__(self) -> None:
        self._kernels = HostKernels.load()

    def launch(self, grid: Grid, block: Grid, arguments: Sequence[np.generic], stream: Stream) -> None:
        self._kernels.launch("letterbox", grid, block, arguments)


def on_host(frames: Sequence[Frame], spec: ResizeSpec, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The network inputs of a batch, made by the kernel; nothing else may be written."""
    height, width = size
    cameras = np.zeros(len(frames), CAMERA)
    block: NDArray[np.uint8] = np.full(MARGIN, 0x5A, np.uint8)
    for record, frame in zip(cameras, frames, strict=True):
        geometry = ResizeGeometry.fit(spec, frame.width, frame.height, width, height)
        describe(record, frame, geometry, spec.pad_value, block.size)
        block = np.concatenate([block, frame.data, np.full(MARGIN, 0x5A, np.uint8)])
    images = np.full(len(frames) * height * width * 3 + 2 * MARGIN, 0xCD, np.uint8)
    address = images.ctypes.data + MARGIN
    launch_letterbox(HostLetterbox(), block.ctypes.data, cameras.ctypes.data, address, len(frames), size, None)
    assert (images[:MARGIN] == 0xCD).all()
    assert (images[-MARGIN:] == 0xCD).all()
    return images[MARGIN:-MARGIN].reshape(len(frames), height, width, 3)


def check(frames: Sequence[Frame], spec: ResizeSpec, size: tuple[int, int]) -> None:
    """Hold the kernel's images against those of the CPU."""
    for frame, image in zip(frames, on_host(frames, spec, size), strict=True):
        expected = np.zeros_like(image)
        pixels, order = view(frame)
        geometry = ResizeGeometry.fit(spec, frame.width, frame.height, size[1], size[0])
        letterbox(pixels, order, geometry, spec.pad_value, expected)
        worst = np.abs(image.astype(int) - expected).max(axis=2)
        if frame.encoding.startswith(("bayer", "yuv", "uyvy", "nv")):
            assert np.mean(worst <= 2) >= 0.999, frame.encoding
        else:
            assert worst.max() <= 1, frame.encoding


def noise(encoding: str, width: int, height: int, padding: int = 0, cropped: bool = False) -> Frame:
    """A frame of random bytes; `width` and `height` are rounded up to what the encoding needs."""
    layout = LAYOUTS[encoding]
    width += -width % layout.width_multiple
    height += -height % layout.height_multiple
    step = width * layout.bytes_per_pixel + padding
    size = height * layout.rows_per_two // 2 * step - (padding if cropped else 0)
    data = np.random.default_rng([width, height, padding]).integers(0, 256, size, np.uint8)
    return Frame(data, width, height, step, encoding)


SIDES = st.integers(1, 90)
FRAMES = st.builds(noise, st.sampled_from(sorted(ENCODINGS)), SIDES, SIDES, st.integers(0, 9), st.booleans())
SPECS = st.builds(
    ResizeSpec,
    st.sampled_from(["letterbox", "stretch"]),
    pad_value=st.sampled_from([0, 114, 255]),
    anchor=st.sampled_from(["center", "top_left"]),
)


@given(
    frames=st.lists(FRAMES, min_size=1, max_size=3), spec=SPECS, width=st.integers(1, 280), height=st.integers(1, 40)
)
@example(frames=[noise("bgr8", 64, 48, 5, True)], spec=ResizeSpec(), width=32, height=24)  # OpenCV takes means
@example(frames=[noise("bgr8", 64, 48)], spec=ResizeSpec(), width=64, height=48)
def test_every_pixel_as_on_the_cpu(frames: list[Frame], spec: ResizeSpec, width: int, height: int) -> None:
    check(frames, spec, (height, width))


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("camera", [(1, 1), (2, 2), (2, 6), (6, 2), (4, 4)])
def test_smallest_images(encoding: str, camera: tuple[int, int]) -> None:
    check([noise(encoding, *camera)], ResizeSpec(), (12, 20))


def test_every_encoding_at_the_size_of_cameras_in_one_launch() -> None:
    sizes = [(1280, 720), (1920, 1080), (640, 480)]
    frames = [noise(encoding, *sizes[i % 3], padding=i) for i, encoding in enumerate(sorted(ENCODINGS))]
    check(frames, ResizeSpec(), (384, 640))


def test_an_encoding_that_the_kernel_lacks_is_refused() -> None:
    frame = noise("mono16", 4, 4)
    geometry = ResizeGeometry.fit(ResizeSpec(), 4, 4, 32, 32)
    with pytest.raises(FrameError, match="mono16"):
        describe(np.zeros((), CAMERA)[()], frame, geometry, 114, 0)


def test_the_step_of_an_only_row_may_be_anything() -> None:
    check([Frame(np.arange(30, dtype=np.uint8), 10, 1, 2**40, "rgb8")], ResizeSpec(), (8, 32))
