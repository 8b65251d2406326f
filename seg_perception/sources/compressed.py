"""What the header of a JPEG or PNG says, and whether its end is there; nothing is decoded.

Formats: ITU-T T.81 annex B (JPEG markers) and the PNG specification, section 5 (chunks).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import FrameError
from ..frame import check_size

CAMERA_REMEDY = "check the camera driver, its transport (JPEG or PNG) and the link"

_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_SCAN = 0xDA
# Start-of-frame markers: 0xC0 to 0xCF without DHT (C4), JPG (C8) and DAC (CC).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"

# The most pixels one byte can hold. JPEG: at least one bit for each block of 64 pixels (doubled for odd subsampling).
# PNG: deflate reaches 1032 : 1 at eight one-bit pixels a byte.
_JPEG_PIXELS_PER_BYTE = 1024
_PNG_PIXELS_PER_BYTE = 8 * 1032


@dataclass(frozen=True, slots=True)
class CompressedHeader:
    """What a compressed image says of itself.

    Attributes:
        format: `JPEG` or `PNG`.
        width, height: size in pixels, before any rotation.
    """

    format: str
    width: int
    height: int


def read_header(data: memoryview, remedy: str = CAMERA_REMEDY) -> CompressedHeader:
    """Read format and size of a compressed image and check that it is complete.

    Args:
        data: the bytes of the image.
        remedy: what to do about an image that cannot be used, for the message.

    Raises:
        FrameError: kind `compressed`, not a JPEG or PNG, truncated, or too few bytes for the size it claims;
            kind `size`, a size that no camera has.
    """
    start = bytes(data[:8])
    if start.startswith(_JPEG_START):
        header, complete, pixels_per_byte = *_read_jpeg(data, remedy), _JPEG_PIXELS_PER_BYTE
    elif start == _PNG_START:
        header, complete, pixels_per_byte = *_read_png(data, remedy), _PNG_PIXELS_PER_BYTE
    else:
        raise FrameError(
            "compressed",
            f"compressed image: expected a JPEG or PNG, got {len(data)} bytes that begin with {start.hex(' ') or '-'}; "
            f"{remedy}",
        )
    check_size("compressed image", header.width, header.height, remedy)
    if not complete or header.width * header.height > pixels_per_byte * len(data):
        raise FrameError(
            "compressed",
            f"compressed image: a {header.format} of {header.width} x {header.height} pixels is truncated "
            f"after {len(data)} bytes; {remedy}",
        )
    return header


def _read_jpeg(data: memoryview, remedy: str) -> tuple[CompressedHeader, bool]:
    """The header of a JPEG, and whether an end-of-image marker follows its first scan."""
    width = height = 0
    position = 2
    # A thumbnail in the EXIF segment has markers of its own, so segments are followed rather than searched.
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _START_OF_FRAME and position + 9 <= len(data):
            height, width = (int.from_bytes(data[position + at : position + at + 2], "big") for at in (5, 7))
        if marker == _SCAN and width:
            return CompressedHeader("JPEG", width, height), _ends(data, position)
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise FrameError(
        "compressed",
        f"compressed image: a JPEG whose header is damaged or truncated ({len(data)} bytes); {remedy}",
    )


def _ends(data: memoryview, scan: int) -> bool:
    """Whether a JPEG has an end-of-image marker after the start of its first scan.

    Within a scan 0xFF is always followed by zero or a restart marker, so the marker's two bytes are the marker.
    """
    if len(data) - 2 > scan and bytes(data[-2:]) == _JPEG_END:
        return True
    # Drivers may pad behind the end; only then is the whole scan searched.
    return _JPEG_END in bytes(data[scan:])


def _read_png(data: memoryview, remedy: str) -> tuple[CompressedHeader, bool]:
    """The header of a PNG, and whether its last chunk is there."""
    if len(data) < 24 or bytes(data[12:16]) != b"IHDR":
        raise FrameError("compressed", f"compressed image: a PNG without a header ({len(data)} bytes); {remedy}")
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    tail = bytes(data[-len(_PNG_END) :])
    return CompressedHeader("PNG", width, height), tail == _PNG_END or _PNG_END in bytes(data)
