"""Headers and chunks of a PNG: checked, and reduced to what a decoder needs.

Format: the PNG specification (third edition), sections 5 and 11.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from .exif import orientation_of
from .header import ImageHeader, damaged, several

PNG_START = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# An IDAT chunk has 8 kB or more with every usual encoder, so that the largest image needs fewer.
_MOST_CHUNKS = 32_768
# The most bytes that deflate makes of one, and how much longer than its output its input may be: a decoder inflates
# all of it, whatever the image needs.
_DEFLATE_RATIO = 1032
_IDAT_SLACK = 65536
# Without an intact one of these nothing can be decoded.
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT")
# Text and colour profiles inflate without bound, animations have sizes of their own; no decoder gets to see them.
_KEPT = {b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs", b"tIME", b"eXIf"}


class _Chunk(NamedTuple):
    kind: bytes
    begin: int
    length: int


def read_png(data: memoryview, remedy: str) -> ImageHeader:
    """Read the header and walk over the chunks.

    Raises:
        FrameError: kind `compressed`, it is damaged, truncated, or its sizes contradict each other.
    """
    if len(data) < 33 or bytes(data[8:16]) != b"\0\0\0\x0dIHDR":
        raise damaged(f"a PNG without a header ({len(data)} bytes)", remedy)
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if depth not in _DEPTHS.get(colour, ()):
        raise damaged(f"a PNG with {depth} bits of colour type {colour}, which does not exist", remedy)
    orientation, stored, count, frames, ended = 1, 0, 0, 0, False
    for kind, begin, length in _chunks(data):
        count += 1
        if kind in _CRITICAL and not _is_intact(data, begin, length):
            # libpng would say so, too, but with a line on stderr for each image.
            raise damaged(f"a PNG whose {kind.decode()} chunk is damaged (its checksum is another)", remedy)
        if kind == b"IDAT":
            stored += length
        elif kind == b"eXIf":
            orientation = orientation_of(data[begin : begin + length])
        frames += kind == b"fcTL"
        ended |= kind == b"IEND"
    if count == _MOST_CHUNKS and not ended:
        raise damaged(f"a PNG of more than {_MOST_CHUNKS} chunks", remedy)
    needed = height * (1 + (width * depth * _CHANNELS[colour] + 7) // 8)
    complete = ended and needed <= _DEFLATE_RATIO * stored
    warnings = several("PNG", frames)
    header = ImageHeader("PNG", width, height, depth, _CHANNELS[colour], orientation, complete, warnings=warnings)
    # Seven passes have more filter bytes and partial bytes than the rows of one.
    if stored > 2 * needed * (2 if interlaced else 1) + _IDAT_SLACK:
        raise damaged(f"a PNG of {width} x {height} pixels has {stored} bytes of image data, too many for it", remedy)
    return header


def without_extras(data: memoryview) -> bytes | memoryview:
    """Return a PNG without the chunks that a decoder of one still image does not need; itself if it has none."""
    chunks = list(_chunks(data))
    # The first letter of a chunk that a decoder must understand is a capital.
    kept = [chunk for chunk in chunks if chunk.kind in _KEPT or chunk.kind[:1].isupper()]
    if len(kept) == len(chunks):
        return data
    return b"".join((PNG_START, *(data[chunk.begin - 8 : chunk.begin + chunk.length + 4] for chunk in kept)))


def _is_intact(data: memoryview, begin: int, length: int) -> bool:
    """Return whether the checksum of a chunk, over its kind and its data, is the one that follows it."""
    end = begin + length
    return zlib.crc32(data[begin - 4 : end]) == int.from_bytes(data[end : end + 4], "big")


def _chunks(data: memoryview) -> Iterator[_Chunk]:
    """Yield the chunks up to the last one that is complete, or up to the end chunk."""
    position = len(PNG_START)
    for _ in range(_MOST_CHUNKS):
        if position + 12 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            return
        yield _Chunk(kind, position + 8, length)
        if kind == b"IEND":
            return
        position += 12 + length
