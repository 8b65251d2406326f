"""What the header of an image file or message says, and the limits that every format shares."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import FrameError
from ..frame import FULL_DEPTH, MAX_PIXELS, FrameWarning, check_size

CAMERA_REMEDY = "check the camera driver, its transport (JPEG, PNG or TIFF) and the link"
_SMALLER = "let the camera send smaller images or raise the limit, or, if it does not send such images"
# Bytes of decoded data that each of the allowed pixels may have: 8 bits in four channels, or 16 bits in two.
_BYTES_PER_PIXEL = 4


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a compressed image says of itself.

    Attributes:
        format: `JPEG`, `PNG`, `TIFF`, `WebP`, `BMP` or `PNM`.
        width, height: size in pixels as stored, before the image is turned.
        bits: bits of a channel as stored.
        channels: channels as stored.
        depth: bits that channels of 16 bits use, as far as the header says.
        orientation: 1 to 8, how the image is to be turned to be upright, as EXIF numbers it.
        complete: whether there can be enough bytes for an image of this size.
        ended: False for a JPEG without an end-of-image marker.
        variant: a kind of the format that not every decoder reads; empty for the usual one.
        warnings: what is odd about it.
    """

    format: str
    width: int
    height: int
    bits: int = 8
    channels: int = 3
    orientation: int = 1
    complete: bool = True
    ended: bool = True
    variant: str = ""
    warnings: tuple[FrameWarning, ...] = ()
    depth: int = FULL_DEPTH

    @property
    def pixels(self) -> int:
        """Return the number of pixels."""
        return self.width * self.height


def damaged(reason: str, remedy: str) -> FrameError:
    """Return the error of an image whose bytes cannot be decoded."""
    return FrameError("compressed", f"compressed image: {reason}; {remedy}")


def truncated(header: ImageHeader, length: int, remedy: str) -> FrameError:
    """Return the error of an image of which only `length` bytes are there."""
    return damaged(
        f"a {header.format} of {header.width} x {header.height} pixels is truncated after {length} bytes", remedy
    )


def several(name: str, count: int) -> tuple[FrameWarning, ...]:
    """Return the warning of a file with more than one image; none where `count` is 0 or 1."""
    text = f"{name}: the file has several images and only the first one is used; split it"
    return (FrameWarning("pages", text),) if count > 1 else ()


def check_limits(header: ImageHeader, length: int, remedy: str, max_pixels: int = MAX_PIXELS) -> None:
    """See that an image of `length` bytes is complete and can be decoded within the limits of memory and time.

    Raises:
        FrameError: kind `size`, a side, the pixels or the bytes of the pixels are too many; kind `compressed`, it is
            truncated.
    """
    stored = header.bits * header.channels / 8
    allowed = int(max_pixels * min(1.0, _BYTES_PER_PIXEL / stored)) if stored else max_pixels
    subject = "compressed image"
    absurd = not (header.width > 0 and header.height > 0)
    check_size(subject, header.width, header.height, remedy if absurd or remedy == CAMERA_REMEDY else "scale it down")
    if not header.complete:
        raise truncated(header, length, remedy)
    remedy = f"{_SMALLER}; {remedy}" if remedy == CAMERA_REMEDY else "scale it down"
    if stored > _BYTES_PER_PIXEL:
        subject += f" of {header.channels} channels of {header.bits} bits"
    check_size(subject, header.width, header.height, remedy, allowed)
