"""Headers of BMP, PNM, WebP and TIFF, and the names of the formats that are not read.

OpenCV allocates what these headers claim, so each is read before it is decoded.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from ..frame import FULL_DEPTH, FrameWarning
from .exif import orientation_of
from .header import ImageHeader, damaged, several
from .jpeg import most_scans

# Beginnings of formats that are not read, and what to call them.
_NOT_READ = (
    (b"GIF8", "a GIF"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"#?RGBE", "a Radiance HDR image"),
    (b"8BPS", "a Photoshop document"),
    (b"P7", "a PAM"),
    (b"PF", "a floating-point PFM"),
    (b"Pf", "a floating-point PFM"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer in place of the file (run: git lfs pull)"),
    (b"<", "a text of HTML or XML"),
    (b"{", "a text of JSON"),
)
_ISO_BRANDS = {b"avif": "an AVIF", b"avis": "an AVIF", b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIF"}
_ISO_BOX = b"ftyp"

_PNM_HEADER = re.compile(rb"P([1-6])((?:\s|#[^\r\n]*[\r\n])+)(\d{1,9})\s((?:\s|#[^\r\n]*[\r\n])*)(\d{1,9})\s")
_PNM_HIGHEST = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*(\d{1,9})\s")
_PNM_HEADER_BYTES = 65536

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 16: 8}
_TIFF_CODES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 16: "u8"}
_JPEG_IN_TIFF, _UNCOMPRESSED, _YCBCR, _WHITE_IS_ZERO, _UNASSOCIATED = 7, 1, 6, 0, 2
_SIGNED_OR_FLOAT = (2, 3)
_LOGARITHMIC = (32844, 32845)
_MOST_SAMPLES = 4
# Chunks of a WebP, strips of JPEG in a TIFF.
_MOST_PARTS = 16384
# A tile may be larger than a small image.
_USUAL_TILE = 1024 * 1024


def name_of_other(start: bytes) -> str:
    """Return what a file or message is that begins so and is not read; empty where that is unknown."""
    if start[4:8] == _ISO_BOX:
        return _ISO_BRANDS.get(start[8:12], "an MP4 or HEIF container")
    return next((name for magic, name in _NOT_READ if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(magic)), "")


def is_webp(start: bytes) -> bool:
    """Return whether bytes begin as a WebP."""
    return start[:4] == b"RIFF" and start[8:12] == b"WEBP"


def is_pnm(start: bytes) -> bool:
    """Return whether bytes begin as a PBM, PGM or PPM."""
    return re.match(rb"P[1-6][\s#]", start) is not None


def is_tiff(start: bytes) -> bool:
    """Return whether bytes begin as a TIFF or BigTIFF."""
    return start[:4] in _TIFF_STARTS


def read_bmp(data: memoryview, remedy: str) -> ImageHeader:
    """Read the header of a BMP.

    Raises:
        FrameError: kind `compressed`, it is damaged or truncated.
    """
    if len(data) < 26:
        raise damaged(f"a BMP without a header ({len(data)} bytes)", remedy)
    begin, size = struct.unpack_from("<II", data, 10)
    compression = 0
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    elif len(data) >= 34:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        raise damaged(f"a BMP without a header ({len(data)} bytes)", remedy)
    # The padding of the last row may be absent. Run-length coding (1, 2) may leave out whole areas.
    needed = begin + (abs(height) - 1) * ((width * bits + 31) // 32 * 4) + (width * bits + 7) // 8
    complete = compression in (1, 2) or needed <= len(data)
    return ImageHeader("BMP", width, abs(height), 8, 4 if bits == 32 else 3, complete=complete)


def read_pnm(data: memoryview, remedy: str) -> ImageHeader:
    """Read the header of a PBM, PGM or PPM, and compare its size with its data.

    Raises:
        FrameError: kind `compressed`, it is damaged or truncated.
    """
    start = bytes(data[:_PNM_HEADER_BYTES])
    match = _PNM_HEADER.match(start)
    if match is None:
        raise damaged(f"a PNM without a header ({len(data)} bytes)", remedy)
    kind, width, height = int(match[1]), int(match[3]), int(match[5])
    end, highest = match.end(), 1
    if kind not in (1, 4):
        more = _PNM_HIGHEST.match(start, end)
        if more is None or not 0 < int(more[1]) < 1 << 16:
            raise damaged("a PNM whose highest value is not 1 to 65535", remedy)
        end, highest = more.end(), int(more[1])
    channels = 3 if kind in (3, 6) else 1
    bits = 16 if highest > 255 else 8
    samples = width * height * channels
    # Numbers written out have at least one digit and one space each.
    needed = {1: samples, 2: 2 * samples - 1, 3: 2 * samples - 1, 4: height * ((width + 7) // 8)}
    complete = needed.get(kind, samples * bits // 8) <= len(data) - end
    # A highest value of 4095 and the like says how many bits are used.
    used = highest.bit_length()
    depth = used if bits == 16 and highest == (1 << used) - 1 else FULL_DEPTH
    return ImageHeader("PNM", width, height, bits, channels, complete=complete, depth=depth)


def read_webp(data: memoryview, remedy: str) -> ImageHeader:
    """Read the header of a WebP: the largest of its sizes, its orientation, whether it is animated.

    Raises:
        FrameError: kind `compressed`, it is damaged or truncated.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    sizes, orientation, frames, position = [], 1, 0, 12
    for _ in range(_MOST_PARTS):
        if position + 8 > min(end, len(data)):
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        body = data[position + 8 : position + 8 + length]
        frames += kind == b"ANMF"
        sizes += _webp_size(kind, bytes(body[:16]))
        if kind == b"EXIF":
            orientation = orientation_of(body)
        position += 8 + length + (length & 1)
    if not sizes:
        raise damaged(f"a WebP without an image ({len(data)} bytes)", remedy)
    width, height = max(size[0] for size in sizes), max(size[1] for size in sizes)
    if position + 8 <= min(end, len(data)):
        raise damaged(f"a WebP of more than {_MOST_PARTS} chunks", remedy)
    # Some writers leave out the padding of the last chunk.
    complete = end <= len(data) + 1
    return ImageHeader("WebP", width, height, 8, 4, orientation, complete, warnings=several("WebP", frames))


def _webp_size(kind: bytes, body: bytes) -> list[tuple[int, int]]:
    """Return the size that a chunk states, if it states one."""
    if kind == b"VP8X" and len(body) >= 10:
        return [(1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))]
    if kind == b"ANMF" and len(body) >= 12:
        return [(1 + int.from_bytes(body[6:9], "little"), 1 + int.from_bytes(body[9:12], "little"))]
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) >= 10:
        width, height = struct.unpack_from("<HH", body, 6)
        return [(width & 0x3FFF, height & 0x3FFF)]
    if kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        packed = int.from_bytes(body[1:5], "little")
        return [(1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF))]
    return []


class _Tiff(NamedTuple):
    """A TIFF's first directory: byte order of its numbers, and kind, count and position of the values of each tag."""

    data: memoryview
    order: str
    entries: dict[int, tuple[int, int, int]]
    following: int

    def values(self, tag: int, default: int | None = None) -> NDArray[np.int64]:
        """Return the values of a tag, as far as the data go, int64."""
        kind, count, at = self.entries.get(tag, (0, 0, 0))
        size = _TIFF_SIZES.get(kind, 0)
        at = min(at, len(self.data))
        count = min(count, max(0, len(self.data) - at) // size) if size else 0
        if not count:
            return np.array([] if default is None else [default], np.int64)
        code = self.order + _TIFF_CODES[kind]
        return np.frombuffer(self.data, code, count, at).astype(np.int64)

    def value(self, tag: int, default: int) -> int:
        """Return the first value of a tag."""
        return int(self.values(tag, default)[0])


def read_tiff(data: memoryview, remedy: str) -> ImageHeader:
    """Read the first directory of a TIFF and see that its strips or tiles are there.

    Raises:
        FrameError: kind `compressed`, it is damaged or truncated; kind `encoding`, its pixels are no brightness.
    """
    tiff = _read_directory(data, remedy)
    width, height = tiff.value(256, 0), tiff.value(257, 0)
    samples, bits = tiff.value(277, 1), int(tiff.values(258, 1).max())
    # OpenCV unpacks 10, 12 and 14 bits without regard to how they are packed, and other numbers to floating point.
    unknown = tiff.value(339, 1) in _SIGNED_OR_FLOAT or tiff.value(262, 1) in _LOGARITHMIC
    if unknown or (bits > 8 and bits != 16) or samples > _MOST_SAMPLES:
        raise FrameError(
            "encoding",
            f"compressed image: expected a TIFF of 1 to {_MOST_SAMPLES} channels of 8 or 16 bits, positive, "
            f"got {samples} of {bits} bits, {'signed, floating-point or logarithmic' if unknown else 'positive'}; "
            "write it as 8 or 16 bits",
        )
    offsets, counts = (tiff.values(273), tiff.values(279)) if 273 in tiff.entries else (
        tiff.values(324), tiff.values(325)
    )  # fmt: skip
    raw = width * height * int(tiff.values(258, 1)[:samples].sum()) // 8
    short = tiff.value(259, 1) == _UNCOMPRESSED and tiff.value(262, 1) != _YCBCR and raw > len(data)
    # OpenCV reads channels that lie in planes, and those where 0 is white, only with 8 bits.
    wide = bits > 8 and (samples == 1 or tiff.value(284, 1) == 1) and tiff.value(262, 1) != _WHITE_IS_ZERO
    whole = not short and bool((offsets[: counts.size] + counts[: offsets.size] <= len(data)).all())
    tile = tiff.value(322, 0) * tiff.value(323, 0)
    if tile > max(_USUAL_TILE, 4 * width * height):
        raise damaged(f"a TIFF of {width} x {height} pixels in tiles of {tile} pixels", remedy)
    if tiff.value(259, 1) == _JPEG_IN_TIFF:
        _check_strips(data, offsets, counts, most_scans(width * height), remedy)
    orientation = tiff.value(274, 1)
    # libtiff multiplies colours of 8 bits by an alpha that is not in them yet; black is left of transparent ones.
    alpha = tiff.value(338, 0) == _UNASSOCIATED and not wide
    darkened = "TIFF: pixels that its alpha channel makes transparent are darkened; write it without that channel"
    return ImageHeader(
        "TIFF", width, height, 16 if wide else 8, samples, orientation if 1 <= orientation <= 8 else 1, whole,
        warnings=several("TIFF", 2 if tiff.following else 1) + (FrameWarning("alpha", darkened),) * alpha,
    )  # fmt: skip


def _read_directory(data: memoryview, remedy: str) -> _Tiff:
    order = "<" if bytes(data[:1]) == b"I" else ">"
    entries: dict[int, tuple[int, int, int]] = {}
    following = 0
    big = bytes(data[2:4]) in (b"+\0", b"\0+")
    try:
        begin = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
        count = struct.unpack_from(order + ("Q" if big else "H"), data, begin)[0]
        first, size = begin + (8 if big else 2), 20 if big else 12
        for at in range(first, first + size * min(count, 1 << 16), size):
            tag, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, at)
            place = at + (12 if big else 8)
            if number * _TIFF_SIZES.get(kind, 0) > size - (12 if big else 8):
                place = struct.unpack_from(order + ("Q" if big else "I"), data, place)[0]
            entries[tag] = (kind, number, place)
        end = first + size * count
        if end + 8 <= len(data):
            following = struct.unpack_from(order + ("Q" if big else "I"), data, end)[0]
    # A position of 64 bits is more than Python takes for one.
    except (struct.error, OverflowError) as error:
        raise damaged(f"a TIFF whose directory is damaged or truncated ({len(data)} bytes)", remedy) from error
    return _Tiff(data, order, entries, following)


def _check_strips(
    data: memoryview, offsets: NDArray[np.int64], counts: NDArray[np.int64], most: int, remedy: str
) -> None:
    """See that no strip of a TIFF is a JPEG of many scans."""
    if int(counts.sum()) > len(data) or counts.size > _MOST_PARTS:
        raise damaged(f"a TIFF whose strips overlap or are more than {_MOST_PARTS}", remedy)
    for begin, count in zip(offsets.tolist(), counts.tolist(), strict=False):
        if bytes(data[begin : begin + count]).count(b"\xff\xda") > most:
            raise damaged(f"a TIFF with a JPEG of more than {most} scans", remedy)
