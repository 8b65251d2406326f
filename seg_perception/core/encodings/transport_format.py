"""The text in `CompressedImage.format`, which says what the pixels of a compressed image are.

`compressed_image_transport` writes `ORIGINAL; CODEC compressed PIXELS`. ORIGINAL is the encoding of the camera's own
image, CODEC is jpeg, png or tiff, and PIXELS is the encoding that was handed to the codec, which is left out where the
image was not converted. Drivers that compress themselves write `jpeg` or `png`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import FrameError
from ..frame import FrameWarning
from ..text import printable

_BAYER = re.compile(r"bayer_(rggb|bggr|gbrg|grbg)(8|16)")
_ORDERED = re.compile(r"(rgb|bgr)a?(8|16)")
_YUV422 = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv")


class PixelFormat(NamedTuple):
    """What the pixels of a compressed image are.

    Attributes:
        kind: `bayer`, `yuv422`, `rgb` (red comes first where a codec has blue), or empty for what the codec says.
        encoding: of `frame.ENCODINGS`; empty for `rgb` and the usual ones.
        warnings: what is odd about it.
    """

    kind: str = ""
    encoding: str = ""
    warnings: tuple[FrameWarning, ...] = ()


def pixel_format(described: str, codec: str, channels: int, bits: int) -> PixelFormat:
    """Read what the pixels of a compressed image are.

    Args:
        described: `format` of the message.
        codec: format of its data, such as `PNG`.
        channels, bits: of the image in its data.

    Raises:
        FrameError: kind `encoding`, it is an image of distances.
    """
    original, _, rest = (part.strip() for part in described.partition(";"))
    words = rest.split()
    if words[:1] == ["compressedDepth"]:
        raise FrameError(
            "encoding",
            f"compressed image: expected an image of a camera, got distances ({printable(described)!r}); "
            "give the topic of the colour image",
        )
    if words[1:2] != ["compressed"]:
        return PixelFormat()
    handed = words[2] if len(words) > 2 else ""
    if handed.startswith("mono") and (_BAYER.fullmatch(original) or original in _YUV422):
        text = f"format {printable(described)!r}: the transport made the camera's colours grey; use png or raw images"
        return PixelFormat(warnings=(FrameWarning("colour_lost", text),))
    if handed:
        return PixelFormat("rgb") if handed.startswith("rgb") else PixelFormat()
    return _as_original(original, codec, channels, bits)


def _as_original(original: str, codec: str, channels: int, bits: int) -> PixelFormat:
    """Return the format of pixels that were handed to the codec as they came from the camera."""
    bayer = _BAYER.fullmatch(original)
    if bayer and channels == 1:
        return PixelFormat("bayer", f"bayer_{bayer[1]}{bits}")
    if original in _YUV422:
        if channels == 2 and bits == 8:
            return PixelFormat("yuv422", original)
        if channels == 1:
            text = f"format {printable(original)!r}: expected two channels, the {codec} has one; it is taken as grey"
            return PixelFormat(warnings=(FrameWarning("colour_lost", text),))
    # A TIFF is written without a conversion. JPEG and PNG without a third word have the usual order of colours.
    if codec == "TIFF" and _ORDERED.fullmatch(original) and original.startswith("rgb"):
        return PixelFormat("rgb")
    return PixelFormat()
