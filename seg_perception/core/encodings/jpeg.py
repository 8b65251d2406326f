"""Segments and scans of a JPEG, followed as libjpeg follows them.

Format: ITU-T T.81 annex B. libjpeg looks for the next marker wherever a segment ends, so bytes between segments and
segments of a wrong length do not stop it; neither do they stop this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from ..frame import MAX_PIXELS, FrameWarning
from .exif import EXIF_START, orientation_of
from .header import ImageHeader, damaged

JPEG_START = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"
# Each scan walks over all coefficients of the image, however few bytes it has. Usual encoders write up to 12 scans;
# smaller images may have more.
MAX_SCANS = 32
_USUAL_SCANS = 12
# Profiles and previews of several megabytes have hundreds.
_MOST_SEGMENTS = 4096

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_START_OF_SCAN = re.compile(rb"\xff\xda")
_END = re.compile(JPEG_END)
# Within a scan, 0xFF is followed by zero or a restart marker.
_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
_AFTER_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_APP1, _SCAN, _DRI, _SOI, _EOI = 0xE1, 0xDA, 0xDD, 0xD8, 0xD9
_PASSED_OVER = frozenset((*range(0xE0, 0xF0), 0xFE))
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))
# Start-of-frame markers: 0xC0 to 0xCF without DHT (C4), JPG (C8) and DAC (CC).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
# At least one bit for each block of 64 pixels, doubled for odd subsampling.
_PIXELS_PER_BYTE = 1024
_COEFFICIENTS = 64


class _Component(NamedTuple):
    number: int
    across: int
    down: int


@dataclass
class _Segments:
    """What the segments before the first scan say."""

    frame_marker: int = 0
    precision: int = 8
    width: int = 0
    height: int = 0
    components: list[_Component] = field(default_factory=list)
    restart_interval: int = 0
    orientation: int = 1
    stray: int = 0
    scan: int = 0


class _Scan(NamedTuple):
    components: tuple[int, ...]
    first: int
    last: int
    low: int
    restarts: int
    interval: int


def read_jpeg(data: memoryview, remedy: str, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Read the header, count the scans and look for the end.

    Args:
        data: the bytes of the image.
        remedy: what to do about an image that cannot be used, for the message.
        max_pixels: most pixels that it may have, which bounds the scans, too.

    Raises:
        FrameError: kind `compressed`, it is damaged, truncated, or has too many scans.
    """
    segments = _read_segments(data, remedy)
    warnings = []
    if segments.stray:
        text = f"JPEG: {segments.stray} bytes that belong to no segment were passed over, as libjpeg does"
        warnings.append(FrameWarning("stray_bytes", f"{text}; check the firmware or program that wrote it"))
    ended = bytes(data[-2:]) == JPEG_END or _END.search(data, segments.scan) is not None
    if not ended:
        text = "JPEG: the end-of-image marker is missing, although all of the image is there"
        warnings.append(FrameWarning("no_end", f"{text}; check the firmware or program that wrote it"))
    header = ImageHeader(
        "JPEG", segments.width, segments.height, 8, max(1, len(segments.components)), segments.orientation,
        segments.width * segments.height <= _PIXELS_PER_BYTE * len(data), ended, _variant(segments), tuple(warnings),
    )  # fmt: skip
    # Where few places look like the start of a scan, the scans need not be told from what follows the image.
    most = most_scans(header.pixels, max_pixels)
    likely = sum(1 for _ in islice(_START_OF_SCAN.finditer(data, segments.scan), most + 1))
    if likely > most and sum(1 for _ in _scans(data, segments, remedy)) > most:
        raise damaged(f"a JPEG of more than {most} scans, which no camera writes", remedy)
    return header


def most_scans(pixels: int, max_pixels: int = MAX_PIXELS) -> int:
    """Return how many scans a JPEG of so many pixels may have: together no more than a usual one of `max_pixels`."""
    return max(_USUAL_SCANS, min(MAX_SCANS, _USUAL_SCANS * max_pixels // max(1, pixels)))


def may_be_complete(data: memoryview, remedy: str) -> bool:
    """Return whether a JPEG without an end has all its scans and restart intervals; the last one may be cut off."""
    segments = _read_segments(data, remedy)
    scans = list(_scans(data, segments, remedy))
    for scan in scans:
        expected = (_units(segments, scan) - 1) // scan.interval if scan.interval else 0
        if scan.restarts < expected:
            return False
    if segments.frame_marker not in _PROGRESSIVE:
        return {number for scan in scans for number in scan.components} >= {each.number for each in segments.components}
    exact = {
        (number, place) for scan in scans if not scan.low
        for number in scan.components for place in range(scan.first, scan.last + 1)
    }  # fmt: skip
    return len(exact) >= _COEFFICIENTS * len(segments.components)


class _Segment(NamedTuple):
    """A marker, where it begins, its content, and how many bytes of no segment lie in front of it."""

    marker: int
    begin: int
    body: memoryview
    stray: int


def _segments(data: memoryview, position: int, remedy: str) -> Iterator[_Segment]:
    """Yield the segments from a position on, until the image ends or libjpeg would give up.

    Whoever reads a scan goes on behind it with an iterator of its own.
    """
    stray = 0
    for _ in range(_MOST_SEGMENTS):
        match = _MARKER.search(data, position)
        if match is None or match[1][0] in (_SOI, _EOI):
            return
        stray += match.start() - position
        marker, position = match[1][0], match.end()
        if marker in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if marker in _PASSED_OVER:
            # A length that is too small for itself is none.
            length = max(2, length)
        body = data[position + 2 : position + length]
        if length < 2 or len(body) < length - 2:
            return
        yield _Segment(marker, match.end() - 2, body, stray)
        position, stray = position + length, 0
    raise damaged(f"a JPEG of more than {_MOST_SEGMENTS} segments", remedy)


def _read_segments(data: memoryview, remedy: str) -> _Segments:
    """Read the segments up to the first scan."""
    found = _Segments()
    try:
        for marker, begin, body, stray in _segments(data, 2, remedy):
            found.stray += stray
            if marker == _SCAN and found.width and found.components:
                found.scan = begin
                return found
            if marker == _SCAN or (marker in _START_OF_FRAME and found.frame_marker):
                break
            if marker in _START_OF_FRAME:
                _read_frame(found, marker, body)
            elif marker == _DRI:
                found.restart_interval = int.from_bytes(body[:2], "big")
            elif marker == _APP1 and bytes(body[: len(EXIF_START)]) == EXIF_START:
                found.orientation = orientation_of(body)
    # A segment that ends in the middle of its fields.
    except IndexError:
        pass
    raise damaged(f"a JPEG whose header is damaged or truncated ({len(data)} bytes)", remedy)


def _read_frame(found: _Segments, marker: int, body: memoryview) -> None:
    found.frame_marker, found.precision = marker, body[0]
    found.height, found.width = (int.from_bytes(body[at : at + 2], "big") for at in (1, 3))
    for at in range(6, 6 + 3 * body[5], 3):
        found.components.append(_Component(body[at], body[at + 1] >> 4 or 1, body[at + 1] & 15 or 1))


def _variant(segments: _Segments) -> str:
    """Return what sets a JPEG apart from those that every decoder reads."""
    kinds = []
    if segments.precision != 8:
        kinds.append(f"{segments.precision}-bit")
    if segments.frame_marker in _LOSSLESS:
        kinds.append("lossless")
    elif segments.frame_marker > 0xC8:
        kinds.append("arithmetic-coded")
    elif segments.frame_marker in (0xC5, 0xC6):
        kinds.append("hierarchical")
    if len(segments.components) not in (1, 3):
        kinds.append(f"{len(segments.components)}-channel")
    return " ".join(kinds)


def _scans(data: memoryview, segments: _Segments, remedy: str) -> Iterator[_Scan]:
    """Yield the scans up to the end of the image or of the data, at most one more than is allowed."""
    position, interval = segments.scan, segments.restart_interval
    for _ in range(MAX_SCANS + 1):
        segment = None
        for segment in _segments(data, position, remedy):
            if segment.marker == _SCAN:
                break
            if segment.marker == _DRI:
                interval = int.from_bytes(segment.body[:2], "big")
        if segment is None or segment.marker != _SCAN:
            return
        body = segment.body
        count = body[0] if body else 0
        if len(body) < 4 + 2 * count:
            return
        entropy = segment.begin + 4 + len(body)
        match = _AFTER_SCAN.search(data, entropy)
        position = match.start() if match else len(data)
        first, last, precision = body[1 + 2 * count : 4 + 2 * count]
        restarts = sum(1 for _ in _RESTART.finditer(data, entropy, position)) if interval else 0
        yield _Scan(
            tuple(body[1 : 1 + 2 * count : 2]), first, min(last, _COEFFICIENTS - 1), precision & 15, restarts, interval
        )


def _units(segments: _Segments, scan: _Scan) -> int:
    """Return how many coded units a scan has, between which restart markers are counted."""
    across = max(each.across for each in segments.components)
    down = max(each.down for each in segments.components)
    own = [each for each in segments.components if each.number in scan.components]
    if len(own) == 1:
        width = -(-segments.width * own[0].across // across)
        height = -(-segments.height * own[0].down // down)
        return (-(-width // 8)) * (-(-height // 8))
    return (-(-segments.width // (8 * across))) * (-(-segments.height // (8 * down)))


