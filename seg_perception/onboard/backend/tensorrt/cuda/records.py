"""What travels between host and GPU in addition to pixels: the same bytes as in `kernels/records.cuh`."""

from __future__ import annotations

from enum import IntFlag

import numpy as np

# What the letterbox kernel decodes by itself: the value of `Camera.encoding`.
ENCODINGS = {
    "bgr8": 0,
    "8UC3": 0,
    "rgb8": 1,
    "bgra8": 2,
    "8UC4": 2,
    "rgba8": 3,
    "mono8": 4,
    "8UC1": 4,
    "yuv422": 5,
    "uyvy": 5,
    "yuv422_yuy2": 6,
    "yuyv": 6,
    "nv12": 7,
    "nv21": 8,
    "bayer_rggb8": 9,
    "bayer_bggr8": 10,
    "bayer_gbrg8": 11,
    "bayer_grbg8": 12,
}

CAMERA = np.dtype(
    [
        ("pixels", np.uint64),
        ("ignore", np.uint64),
        ("width", np.int32),
        ("height", np.int32),
        ("step", np.int32),
        ("encoding", np.int32),
        ("content_width", np.int32),
        ("content_height", np.int32),
        ("left", np.int32),
        ("top", np.int32),
        ("pad_value", np.int32),
        ("map_width", np.int32),
        ("map_height", np.int32),
        ("ignore_width", np.int32),
        ("ignore_height", np.int32),
        ("min_pixels", np.int32),
        ("group_iou", np.float64),
    ]
)


class Fault(IntFlag):
    """Faults that make the result of a frame worthless; the bits that kernels set."""

    FAULTY_LOGIT = 1
    FAULTY_CLASS = 2
    UNKNOWN_CLASS = 4
