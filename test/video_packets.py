"""Compressed video made in the tests: images whose numbers can be read from their brightness."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

# Frames between two key frames.
GROUP = 5
SIZE = (64, 48)
_OPTIONS = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
    "libsvtav1": {"preset": "11", "svtav1-params": "pred-struct=1:lookahead=0"},
}


def grey(index: int) -> int:
    return 20 + 10 * (index % 20)


def packets(
    codec: str, count: int, b_frames: int = 0, size: tuple[int, int] = SIZE, extra: str = ""
) -> list[tuple[int, bytes]]:
    """Flat images, each brighter than the one before, as packets: number of the image, and its bytes."""
    width, height = size
    flat = (np.full((height, width, 3), grey(index), np.uint8) for index in range(count))
    return encode(codec, flat, size, b_frames, extra)


def encode(
    codec: str, images: Iterable[NDArray[np.uint8]], size: tuple[int, int], b_frames: int = 0, extra: str = ""
) -> list[tuple[int, bytes]]:
    """Images (bgr) as packets: number of the image, and its bytes."""
    av = pytest.importorskip("av")
    av.logging.set_level(av.logging.PANIC)
    try:
        context = av.CodecContext.create(codec, "w")
    except Exception:
        pytest.skip(f"this FFmpeg does not write {codec}")
    context.width, context.height = size
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 10)
    context.gop_size, context.max_b_frames = GROUP, b_frames
    options = dict(_OPTIONS[codec])
    if codec == "libx264":
        options["x264-params"] = f"keyint={GROUP}:scenecut=0:bframes={b_frames}{extra}"
    elif codec == "libx265":
        options["x265-params"] = f"keyint={GROUP}:scenecut=0:bframes=0:log-level=none"
    context.options = options
    coded: list[Any] = []
    for index, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts = index
        coded += context.encode(frame)
    coded += context.encode(None)
    return [(packet.pts, bytes(packet)) for packet in coded]


def units(packet: bytes) -> Sequence[bytes]:
    """The NAL units of a packet, each with a start code."""
    return [b"\x00\x00\x01" + part.rstrip(b"\x00") for part in packet.split(b"\x00\x00\x01")[1:]]
