"""The orientation that a camera noted in its EXIF data, and images turned by it."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXIF_START = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_SHORT = 3
# Turned by a quarter: width and height change places.
QUARTER_TURNS = (5, 6, 7, 8)
_INVERSE = {6: 8, 8: 6}


def orientation_of(exif: bytes | memoryview) -> int:
    """Return the orientation, 1 to 8, in EXIF data with or without the prefix of JPEG; 1 where there is none."""
    data = bytes(exif[len(EXIF_START) :]) if bytes(exif[: len(EXIF_START)]) == EXIF_START else bytes(exif)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 10:
        return 1
    begin = struct.unpack_from(order + "I", data, 4)[0]
    if begin + 2 > len(data):
        return 1
    count = struct.unpack_from(order + "H", data, begin)[0]
    for at in range(begin + 2, min(begin + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", data, at)
        if tag == _ORIENTATION_TAG:
            return int(value) if kind == _SHORT and 1 <= value <= 8 else 1
    return 1


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return an image `[H, W, ...]` turned to be upright, contiguous.

    Args:
        pixels: as stored.
        orientation: 1 to 8, as EXIF numbers it.
    """
    if orientation in QUARTER_TURNS:
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def unturned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return an upright image as it was stored; the inverse of `turned`."""
    return turned(pixels, _INVERSE.get(orientation, orientation))
