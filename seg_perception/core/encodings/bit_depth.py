"""How many bits the channels of 16-bit images use.

Thermal, infrared and machine-vision cameras deliver 10, 12 or 14 bits in the lower part of 16. Neither the encoding of
a message nor the header of a file says so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from ..frame import ENCODINGS, FULL_DEPTH, Frame, FrameWarning

AUTO = "auto"
_LOWEST = 8
# What cameras have; the lowest of them that holds the largest value seen is taken for it.
_USUAL_DEPTHS = (10, 12, 14, 16)
# The hint waits for so many frames, so that a dark beginning is not mistaken for a lower depth.
_FRAMES_BEFORE_HINT = 10
# The hint needs no more than every so many rows.
_ROW_STEP = 8


def check_bit_depth(text: str) -> str:
    """Return the text of an option or a parameter.

    Raises:
        ConfigurationError: it is neither 8 to 16 nor `auto`.
    """
    if text != AUTO and not (text.isdecimal() and len(text) < 3 and _LOWEST <= int(text) <= FULL_DEPTH):
        raise ConfigurationError(
            f"bit depth: expected {_LOWEST} to {FULL_DEPTH} or {AUTO}, got {text!r}; it is how many bits "
            "of its 16-bit channels the camera uses"
        )
    return text


class BitDepth:
    """The bit depth of one camera's images; with `auto`, by the largest value that was seen so far."""

    def __init__(self, setting: str = str(FULL_DEPTH)) -> None:
        """Begin a stream.

        Args:
            setting: 8 to 16, or `auto`.

        Raises:
            ConfigurationError: it is something else.
        """
        self._auto = check_bit_depth(setting) == AUTO
        self._depth = _USUAL_DEPTHS[0] if self._auto else int(setting)
        self._frames = 0
        self._highest = 0
        self._encoding = ""

    def apply(self, frame: Frame) -> Frame:
        """Return a frame with the bit depth of its stream.

        Frames of 8-bit encodings, and those whose own header says what their depth is, stay as they are.
        After some frames in a row with values that need fewer bits, one frame gets a warning that says so.
        """
        if ENCODINGS[frame.encoding].bytes_per_channel == 1 or frame.bit_depth != FULL_DEPTH:
            return frame
        self._frames += 1
        self._encoding = frame.encoding
        if not self._auto and (self._depth != FULL_DEPTH or self._frames > _FRAMES_BEFORE_HINT):
            return replace(frame, bit_depth=self._depth)
        self._highest = max(self._highest, _highest(frame, 1 if self._auto else _ROW_STEP))
        if self._auto:
            self._depth = self._needed
            return replace(frame, bit_depth=self._depth)
        if self._frames < _FRAMES_BEFORE_HINT:
            return frame
        return replace(frame, warnings=(*frame.warnings, *self._hint()))

    def at_end(self) -> tuple[FrameWarning, ...]:
        """Return the hint for a stream that has ended, such as a short bag, before enough frames for it came."""
        told = self._auto or self._depth != FULL_DEPTH or not 0 < self._frames < _FRAMES_BEFORE_HINT
        return () if told else self._hint()

    @property
    def _needed(self) -> int:
        return next(depth for depth in _USUAL_DEPTHS if self._highest < 1 << depth)

    def _hint(self) -> tuple[FrameWarning, ...]:
        if self._needed == FULL_DEPTH:
            return ()
        images = f"{self._frames} images of {self._encoding} have"
        if self._frames == 1:
            images = f"the only image, of {self._encoding}, has"
        text = (
            f"bit depth: {images} no value above {self._highest}, so their channels seem to use {self._needed} of 16 "
            "bits and the images are taken for dark; "
            f"set the bit depth to {self._needed} or auto"
        )
        return (FrameWarning("bit_depth", text),)


class BitDepths:
    """The bit depths of several cameras, one for each name."""

    def __init__(self, setting: str = str(FULL_DEPTH)) -> None:
        """Begin; arguments and errors as `BitDepth`."""
        self._setting = check_bit_depth(setting)
        self._cameras: dict[str, BitDepth] = {}

    def apply(self, frame: Frame) -> Frame:
        """Return a frame with the bit depth of its camera's stream."""
        return self._cameras.setdefault(frame.camera, BitDepth(self._setting)).apply(frame)

    def at_end(self) -> tuple[tuple[str, FrameWarning], ...]:
        """Return the hints of `BitDepth.at_end`, each with its camera."""
        return tuple((camera, hint) for camera, depth in self._cameras.items() for hint in depth.at_end())


def _highest(frame: Frame, row_step: int) -> int:
    """Return the largest value of a frame of 16-bit channels, looking at one row in `row_step`."""
    width = frame.width * ENCODINGS[frame.encoding].bytes_per_pixel
    rows: NDArray[np.uint8] = np.ndarray(
        (-(-frame.rows // row_step), width), np.uint8, np.ascontiguousarray(frame.data),
        strides=(frame.step * row_step, 1),
    )  # fmt: skip
    return int(rows.view(">u2" if frame.big_endian else "<u2").max())
