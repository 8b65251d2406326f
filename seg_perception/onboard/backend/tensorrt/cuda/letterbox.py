"""Camera images to network inputs on the GPU: what `kernels/letterbox.cu` is told, and its launch."""

from __future__ import annotations

import numpy as np

from seg_perception.core.errors import FrameError
from seg_perception.core.frame import Frame
from seg_perception.core.geometry import ResizeGeometry

from .device import Grid, Kernel, Stream, address
from .records import ENCODINGS

# Threads of a block, as the kernel has them, and the network pixels that a block fills.
_BLOCK: Grid = (32, 8, 1)
_TILE_WIDTH, _TILE_HEIGHT = 128, 8


def describe(record: np.void, frame: Frame, geometry: ResizeGeometry, pad_value: int, offset: int) -> None:
    """Write what the kernels need to know of a frame and of its place in the network input.

    Args:
        record: an element of an array of `records.CAMERA`; its other fields stay as they are.
        frame: of an encoding in `records.ENCODINGS`; decode others with `core.encodings.raw.to_bgr` before.
        geometry: of this frame's size on the network size.
        pad_value: grey level around the content, 0-255.
        offset: where the frame's data begin in the block of frames, in bytes.

    Raises:
        FrameError: kind `encoding`, the kernel does not decode it.
    """
    if frame.encoding not in ENCODINGS:
        raise FrameError(
            "encoding",
            f"image encoding: on the GPU expected one of {', '.join(ENCODINGS)}; got {frame.encoding!r}; "
            "decode it to bgr8 on the CPU before",
        )
    record["pixels"] = offset
    record["width"], record["height"] = frame.width, frame.height
    # Nothing lies a step away from the only row, and its step may be any number.
    record["step"] = frame.step if frame.rows > 1 else 0
    record["encoding"] = ENCODINGS[frame.encoding]
    record["content_width"], record["content_height"] = geometry.content_width, geometry.content_height
    record["left"], record["top"] = geometry.left, geometry.top
    record["pad_value"] = pad_value


def launch_letterbox(
    kernel: Kernel, frames: int, cameras: int, images: int, batch: int, network_size: tuple[int, int], stream: Stream
) -> None:
    """Queue the letterbox of a batch of frames.

    Args:
        kernel: `letterbox`.
        frames: address of the block of frames.
        cameras: address of `batch` records of `records.CAMERA`, one for each frame.
        images: address of the network inputs, uint8 `[batch, height, width, 3]`, RGB; every byte is written.
        batch: number of frames, at least 1.
        network_size: height and width of a network input.
        stream: where.
    """
    height, width = network_size
    grid = (-(-width // _TILE_WIDTH), -(-height // _TILE_HEIGHT), batch)
    arguments = (address(frames), address(cameras), address(images), np.int32(width), np.int32(height))
    kernel.launch(grid, _BLOCK, arguments, stream)
