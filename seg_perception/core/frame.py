"""A camera image with its stamp: the one form in which images travel through the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import FrameError

# More than any camera delivers; a header that claims more is a fault, not an image.
MAX_SIDE = 16384
# Most pixels of a compressed image. A few kilobytes can claim any size, so the product of the sides is bounded.
MAX_PIXELS = 8192 * 8192
# Channels of 16 bits use all of them, unless a camera says otherwise.
FULL_DEPTH = 16


class FrameWarning(NamedTuple):
    """Something odd about an image that could be used all the same.

    Attributes:
        kind: short stable name (`stray_bytes`, `no_end`, `colour_lost`, `bit_depth`, `pages`, `alpha`), to count it by.
        text: what was seen and what to do about it.
    """

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class EncodingLayout:
    """The memory layout of an encoding.

    Attributes:
        bytes_per_pixel: bytes of one pixel of the first plane.
        width_multiple, height_multiple: the image's sides must be multiples of these (chroma subsampling, mosaics).
        rows_per_two: rows of memory for every two rows of the image (2 for packed formats, 3 for nv12).
        bytes_per_channel: 1, or 2 for channels of 16 bits.
    """

    bytes_per_pixel: int
    width_multiple: int = 1
    height_multiple: int = 1
    rows_per_two: int = 2
    bytes_per_channel: int = 1


def _wide(channels: int) -> EncodingLayout:
    return EncodingLayout(2 * channels, bytes_per_channel=2)


_BAYER = EncodingLayout(1, 2, 2)
_BAYER_16 = EncodingLayout(2, 2, 2, bytes_per_channel=2)
_YUV422 = EncodingLayout(2, 2)
_NV = EncodingLayout(1, 2, 2, rows_per_two=3)

# Names as in sensor_msgs/image_encodings.hpp; `yuv422` there is UYVY and `yuv422_yuy2` is YUYV.
ENCODINGS: dict[str, EncodingLayout] = {
    "bgr8": EncodingLayout(3),
    "rgb8": EncodingLayout(3),
    "bgra8": EncodingLayout(4),
    "rgba8": EncodingLayout(4),
    "mono8": EncodingLayout(1),
    "8UC1": EncodingLayout(1),
    "8UC3": EncodingLayout(3),
    "8UC4": EncodingLayout(4),
    "bayer_rggb8": _BAYER,
    "bayer_bggr8": _BAYER,
    "bayer_gbrg8": _BAYER,
    "bayer_grbg8": _BAYER,
    "yuv422": _YUV422,
    "uyvy": _YUV422,
    "yuv422_yuy2": _YUV422,
    "yuyv": _YUV422,
    "nv12": _NV,
    "nv21": _NV,
    "mono16": _wide(1),
    "bgr16": _wide(3),
    "rgb16": _wide(3),
    "bgra16": _wide(4),
    "rgba16": _wide(4),
    "16UC1": _wide(1),
    "16UC3": _wide(3),
    "16UC4": _wide(4),
    "bayer_rggb16": _BAYER_16,
    "bayer_bggr16": _BAYER_16,
    "bayer_gbrg16": _BAYER_16,
    "bayer_grbg16": _BAYER_16,
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One camera image, undecoded and not copied.

    Attributes:
        data: uint8 `[bytes]`, the pixels as they came, rows `step` bytes apart.
        width, height: size in pixels.
        step: bytes from one row to the next (row padding included).
        encoding: a key of `ENCODINGS`.
        stamp_ns: acquisition time in nanoseconds, in the clock of the source.
        frame_id: coordinate frame of the camera.
        camera: name of the camera in the configuration.
        arrival_ns: when it arrived, on the clock of the other stamps, if its own stamp cannot be believed; else 0.
        big_endian: byte order of channels of 16 bits; without effect on the other encodings.
        bit_depth: bits that channels of 16 bits use, counted from the lowest, 8 to 16; without effect on the others.
        warnings: what was odd about the image.

    Raises:
        FrameError: the encoding is unknown, a size is impossible, or the data do not match the size.
    """

    data: NDArray[np.uint8]
    width: int
    height: int
    step: int
    encoding: str
    stamp_ns: int = 0
    frame_id: str = ""
    camera: str = ""
    big_endian: bool = False
    arrival_ns: int = 0
    bit_depth: int = FULL_DEPTH
    warnings: tuple[FrameWarning, ...] = ()

    def __post_init__(self) -> None:
        layout = ENCODINGS.get(self.encoding)
        if layout is None:
            raise FrameError(
                "encoding",
                f"image encoding: expected one of {', '.join(ENCODINGS)}; got {self.encoding!r}; "
                "let the camera driver publish one of these",
            )
        check_size("image size", self.width, self.height)
        if self.width % layout.width_multiple or self.height % layout.height_multiple:
            raise FrameError(
                "size",
                f"image size: {self.encoding} needs a width that is a multiple of {layout.width_multiple} and a "
                f"height that is a multiple of {layout.height_multiple}, got {self.width} x {self.height}",
            )
        if self.step < self.width * layout.bytes_per_pixel:
            raise FrameError(
                "layout",
                f"image step: {self.encoding} at width {self.width} needs at least "
                f"{self.width * layout.bytes_per_pixel} bytes a row, got {self.step}; check the camera driver",
            )
        # The padding of the last row may be absent, as when a driver publishes a cropped buffer.
        needed = (self.rows - 1) * self.step + self.width * layout.bytes_per_pixel
        if self.data.dtype != np.uint8 or self.data.ndim != 1:
            raise FrameError("layout", f"image data: expected uint8 [bytes], got {self.data.dtype} {self.data.shape}")
        if self.data.size < needed:
            raise FrameError(
                "layout",
                f"image data: {self.rows} rows of {self.step} bytes need at least {needed} bytes, "
                f"got {self.data.size}; the message is truncated or its header is wrong",
            )

    @property
    def time_ns(self) -> int:
        """When it was taken, as far as that can be told: by its stamp, or by its arrival."""
        return self.arrival_ns or self.stamp_ns

    @property
    def rows(self) -> int:
        """Rows of memory, chroma planes included."""
        return self.height * ENCODINGS[self.encoding].rows_per_two // 2

    @classmethod
    def from_bgr(cls, image: NDArray[np.uint8], *, stamp_ns: int = 0, frame_id: str = "", camera: str = "") -> Frame:
        """Wrap a bgr8 image, uint8 `[height, width, 3]`, without copying it if it is contiguous.

        Raises:
            FrameError: it has another shape or type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise FrameError("layout", f"image: expected uint8 [height, width, 3], got {image.dtype} {image.shape}")
        height, width, _ = image.shape
        data = np.ascontiguousarray(image).reshape(-1)
        return cls(data, width, height, 3 * width, "bgr8", stamp_ns, frame_id, camera)


def check_size(
    subject: str,
    width: int,
    height: int,
    remedy: str = "check the camera driver",
    max_pixels: int | None = None,
) -> None:
    """See that an image has a size that a camera may have.

    Args:
        subject: begins the message.
        width, height: size in pixels.
        remedy: ends the message.
        max_pixels: most pixels of the whole image; None where its data are at hand and in proportion to its size.

    Raises:
        FrameError: kind `size`, a side is not 1 to `MAX_SIDE` pixels, or there are too many pixels.
    """
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise FrameError(
            "size",
            f"{subject}: expected 1 to {MAX_SIDE} pixels a side, got {width} x {height}; {remedy}",
        )
    if max_pixels is not None and width * height > max_pixels:
        raise FrameError(
            "size",
            f"{subject}: expected at most {max_pixels} pixels, got {width} x {height} = {width * height}; {remedy}",
        )
