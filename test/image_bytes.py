"""Image files written byte by byte: such as no encoder writes, and such as cost a decoder much."""

from __future__ import annotations

import struct
import zlib

PNG_START = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png_chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
    """A chunk that may claim another length than its own."""
    claimed = len(data) if length is None else length
    return struct.pack(">I", claimed) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int = 8, colour: int = 2, *,
    between: bytes = b"", image_data: bytes | None = None, interlaced: bool = False,
) -> bytes:  # fmt: skip
    """A black PNG; `between` comes in front of its image data."""
    if image_data is None:
        packer = zlib.compressobj(9)
        bits = depth * _CHANNELS[colour]
        passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        parts = []
        for x, y, across, down in passes if interlaced else ((0, 0, 1, 1),):
            columns, rows = (width - x + across - 1) // across, (height - y + down - 1) // down
            if columns > 0:
                row = bytes(1 + (columns * bits + 7) // 8)
                parts += [packer.compress(row) for _ in range(rows)]
        image_data = b"".join(parts) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    palette = png_chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    return b"".join((
        PNG_START, png_chunk(b"IHDR", header), between, palette, png_chunk(b"IDAT", image_data), png_chunk(b"IEND", b"")
    ))  # fmt: skip


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """A marker segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_of_scans(side: int, scans: int, progressive: bool = True) -> bytes:
    """A grey JPEG of `side` x `side` pixels, a multiple of 8, whose scans have few bytes each."""
    blocks = (side // 8) ** 2
    start = jpeg_segment(0xDB, b"\0" + bytes([1] * 64))
    frame = jpeg_segment(0xC2 if progressive else 0xC0, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    # The code 0 is a difference of zero, and the end of 16384 blocks or more.
    tables = jpeg_segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00")
    tables += jpeg_segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + (b"\xe0" if progressive else b"\x00"))
    if progressive:
        first = jpeg_segment(0xDA, b"\1\1\0\0\0\0") + bytes(-(-blocks // 8))
        rest = jpeg_segment(0xDA, b"\1\1\0\1\x3f\0") + bytes(2 * -(-blocks // 16384))
    else:
        first = jpeg_segment(0xDA, b"\1\1\0\0\x3f\0") + bytes(-(-blocks // 4))
        rest = jpeg_segment(0xDA, b"\1\1\0\0\x3f\0") + b"\0"
    return b"\xff\xd8" + start + frame + tables + first + rest * (scans - 1) + b"\xff\xd9"


def bmp(width: int, height: int, data: bytes = b"\x00\x01", compression: int = 1) -> bytes:
    """A BMP of 8 bits; run-length coded, it may end at once."""
    begin = 14 + 40 + 1024
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", begin + len(data), 0, 0, begin) + header + bytes(1024) + data


def tiff(
    width: int, height: int, *, extra: dict[int, tuple[int, int]] | None = None, data: bytes | None = None
) -> bytes:
    """A grey TIFF with deflate, in strips that are all the same bytes; `extra` are more tags, their kind and value."""
    strip = zlib.compress(bytes(width * 64), 9) if data is None else data
    strips = (height + 63) // 64
    tags = {
        256: (4, width), 257: (4, height), 258: (3, 8), 259: (3, 8), 262: (3, 1), 277: (3, 1), 278: (4, 64),
        **(extra or {}),
    }  # fmt: skip
    lists = 8 + 2 + 12 * (len(tags) + 2) + 4
    begin = lists + 8 * strips if strips > 1 else lists
    tags |= {273: (4, lists if strips > 1 else begin), 279: (4, lists + 4 * strips if strips > 1 else len(strip))}
    entries = b"".join(
        struct.pack("<HHII", tag, kind, strips if tag in (273, 279) else 1, value)
        for tag, (kind, value) in sorted(tags.items())
    )
    arrays = struct.pack(f"<{2 * strips}I", *[begin] * strips, *[len(strip)] * strips) if strips > 1 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + arrays + strip


def webp_canvas(width: int, height: int, image: bytes, *chunks: bytes) -> bytes:
    """A WebP whose extended header claims a size, with the image chunk of another WebP and further chunks."""
    flags = 8 if any(chunk[:4] == b"EXIF" for chunk in chunks) else 0
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<IB3x", 10, flags) + sides + image[12:] + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a WebP."""
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) & 1)


def exif(orientation: int) -> bytes:
    """EXIF data that say how an image is turned, without a prefix."""
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0) + bytes(4)
