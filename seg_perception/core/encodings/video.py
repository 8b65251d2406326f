"""Compressed video (H.264, H.265, VP9, AV1): packets become images, from a key frame on.

A packet can only be decoded after all packets since the key frame before it. After a lost or damaged packet a decoder
would go on with the wrong reference images and not say so. Decoding therefore begins again at the next key frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from errno import EINVAL, ERANGE
from typing import Any, NamedTuple

from ..errors import BackendUnavailable, FrameError, is_out_of_memory
from ..frame import Frame, check_size
from .compressed import out_of_memory

# FFmpeg takes memory for an image as soon as a packet says how large it is; 16K video has as many.
MOST_PIXELS = 1 << 27
# By what formats and encoders are called: h264, h264_nvenc, libx265, hevc_vaapi, ...
_CODECS = ((r"h\.?264|x264|avc", "h264"), (r"h\.?265|x265|hevc", "hevc"), (r"vp9", "vp9"), (r"av1", "av1"))
# Decoders of FFmpeg, the best first. Its own `av1` is only a front end of graphics cards.
_DECODERS = {"h264": ("h264",), "hevc": ("hevc",), "vp9": ("vp9", "libvpx-vp9"), "av1": ("libdav1d", "libaom-av1")}
_START_CODE = b"\x00\x00\x01"
# A packet has a unit for each slice; no encoder makes as many, and a hostile packet could have millions.
_MOST_UNITS = 256
# NAL units of H.264: slices of images, those of a key frame, supplemental information, sequence parameter set.
_H264_SLICES, _H264_KEY, _H264_SEI, _H264_SPS = range(1, 6), 5, 6, 7
_RECOVERY_POINT = 6
# NAL units of H.265: slices of images, those of a key frame, sequence parameter set.
_HEVC_SLICES, _HEVC_KEYS, _HEVC_SPS = range(32), range(16, 24), 33
# Units (OBU) of AV1: the header of a sequence, which key frames have.
_AV1_SEQUENCE = 1
# Bytes of parameter sets in packets of their own.
_MOST_PREFIX = 1 << 16
# FFmpeg counts an image's size rounded up to whole blocks.
_ROUNDED_UP = 1 << 21
_REMEDY = "the recording or the link lost packets, or what was read begins between two key frames"


class PacketContent(NamedTuple):
    """What a packet of a video holds.

    Attributes:
        starts: whether a decoder can begin with it.
        parameters: whether it has the parameter sets without which H.264 and H.265 cannot be decoded.
        image: whether it has an image, or a part of one.
    """

    starts: bool
    parameters: bool = True
    image: bool = True


class VideoImage(NamedTuple):
    """A decoded image, still in the decoder's format.

    Attributes:
        number: of the packet from which it comes.
        image: `av.VideoFrame`.
    """

    number: int
    image: Any

    def frame(self, stamp_ns: int, frame_id: str, camera: str) -> Frame:
        """Return it as a frame.

        Raises:
            FrameError: kind `size`, it is too large; kind `memory`, there is too little memory for it.
        """
        image = self.image
        check_size("video frame", image.width, image.height, "scale it down")
        try:
            bgr = image.to_ndarray(format="bgr24")
        except Exception as error:
            if is_out_of_memory(error):
                raise out_of_memory(image.width, image.height) from error
            raise FrameError("compressed", f"a video frame cannot be converted to bgr ({error})") from error
        return Frame.from_bgr(bgr, stamp_ns=stamp_ns, frame_id=frame_id, camera=camera)


def video_codec(described: str, data: Any) -> str | None:
    """Return the codec of a packet of a video; None for a still image, or a codec that is not read.

    Args:
        described: `format` or `encoding` of the message.
        data: its bytes.
    """
    for pattern, codec in _CODECS:
        if re.search(pattern, described.lower()):
            # Some drivers name the format of the camera, though they send JPEG.
            return None if bytes(data[:4]).startswith((b"\xff\xd8", b"\x89PNG")) else codec
    return None


def check_decoder() -> None:
    """See that videos can be decoded.

    Raises:
        BackendUnavailable: PyAV is not installed.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(f"video needs the Python package av ({error}): pip install av") from error


class VideoDecoder:
    """Decodes the packets of one video, which come in their order.

    Attributes:
        codec: `h264`, `hevc`, `vp9` or `av1`.
        max_pixels: most pixels of an image; a larger one is refused before it is decoded.
        waiting: whether no image has come since the beginning or the last `restart`.
    """

    def __init__(self, codec: str, max_pixels: int = MOST_PIXELS) -> None:
        """Open a decoder.

        Raises:
            BackendUnavailable: PyAV is not installed, or its FFmpeg cannot decode this codec.
        """
        check_decoder()
        import av

        self.codec = codec
        self.max_pixels = max_pixels
        self.waiting = True
        self._av = av
        name = next((name for name in _DECODERS[codec] if name in av.codecs_available), None)
        if name is None:
            raise BackendUnavailable(f"this PyAV has no decoder of {codec}: pip install av, which brings one")
        self._context: Any = av.CodecContext.create(name, "r")
        # Threads would hold frames back, and the model has use for the cores.
        self._context.thread_count = 1
        self._context.options = {"max_pixels": str(max_pixels + _ROUNDED_UP)}
        self._begun = False
        self._has_parameters = False
        self._parameters_missing = False
        # Packets without an image go to the decoder together with the next one.
        self._prefix = b""

    @property
    def awaited(self) -> str:
        """Return what is waited for while `waiting`, human-readable."""
        if self._parameters_missing:
            return "a key frame with its parameter sets (SPS, PPS); let the encoder repeat them at each key frame"
        return "a key frame"

    def restart(self) -> None:
        """Wait for the next key frame; to be called when packets were lost."""
        if self._begun:
            self._context.flush_buffers()
        self._begun, self.waiting = False, True

    def look(self, data: bytes) -> PacketContent:
        """Return what the next packet holds.

        Raises:
            FrameError: kind `compressed`, it is no packet of this codec; the next key frame is waited for.
        """
        try:
            content = packet_content(self.codec, data)
        except FrameError:
            self.restart()
            raise
        if not content.image:
            self._prefix = (self._prefix + data)[-_MOST_PREFIX:]
        return content

    def skips(self, content: PacketContent) -> bool:
        """Return whether a packet cannot be decoded, because no key frame came before it."""
        self._has_parameters |= content.parameters
        if not self._begun and content.starts:
            self._begun = self._has_parameters
            self._parameters_missing = not self._begun
        return not self._begun

    def decode(self, number: int, data: bytes, content: PacketContent) -> list[VideoImage]:
        """Decode a packet that is not to be skipped, and return the images that are ready.

        Args:
            number: of the packet; its image has the same.
            data: the packet.
            content: what `look` returned.

        Raises:
            FrameError: kind `size`, its image has more than `max_pixels`; kind `compressed`, it cannot be decoded.
                The next key frame is waited for.
        """
        if not content.image:
            return []
        packet = self._av.Packet(self._prefix + data)
        self._prefix = b""
        packet.pts = packet.dts = number
        try:
            images = [VideoImage(image.pts, image) for image in self._context.decode(packet) if image.pts is not None]
        # FFmpeg's errors, each of which has a class.
        except (self._av.FFmpegError, ValueError) as error:
            # Those of the images that were lost with it come no more.
            refused = self._refused(error)
            self.restart()
            raise refused from error
        for image in images:
            self._check(image)
        self.waiting = self.waiting and not images
        return images

    def finish(self) -> list[VideoImage]:
        """Return the images that the decoder still holds back."""
        if not self._begun:
            return []
        try:
            return [VideoImage(image.pts, image) for image in self._context.decode(None) if image.pts is not None]
        except (self._av.FFmpegError, ValueError):
            return []

    def _check(self, image: VideoImage) -> None:
        if image.image.width * image.image.height > self.max_pixels:
            self.restart()
            raise self._too_large(f"{image.image.width} x {image.image.height} pixels")
        if image.image.is_corrupt:
            self.restart()
            raise FrameError("compressed", f"an image of {self.codec} is damaged; {_REMEDY}")

    def _refused(self, error: Exception) -> FrameError:
        """Return what an error of the decoder means."""
        width, height = self._context.width, self._context.height
        if width * height > self.max_pixels:
            return self._too_large(f"{width} x {height} pixels")
        # Those of VP9 and AV1 do not say how large it is.
        if getattr(error, "errno", 0) in (EINVAL, ERANGE):
            return self._too_large("a size that the decoder refuses, or damage")
        return FrameError("compressed", f"a packet of {self.codec} cannot be decoded ({error}); {_REMEDY}")

    def _too_large(self, what: str) -> FrameError:
        return FrameError("size", f"video frame: expected at most {self.max_pixels} pixels, got {what}")


def packet_content(codec: str, data: bytes) -> PacketContent:
    """Return what a packet holds.

    Raises:
        FrameError: kind `compressed`, H.264 or H.265 without start codes.
    """
    if codec == "vp9":
        return PacketContent(_is_vp9_key(data))
    if codec == "av1":
        return PacketContent(_AV1_SEQUENCE in _av1_units(data))
    units = list(_nal_units(data))
    if not units:
        raise FrameError(
            "compressed",
            f"a packet of {codec}: expected NAL units behind start codes (Annex B), got "
            f"{data[:8].hex(' ') or 'nothing'}; have the encoder write a byte stream",
        )
    if codec == "h264":
        kinds = {data[unit] & 0x1F for unit in units}
        recovers = any(data[unit] & 0x1F == _H264_SEI and _has_recovery_point(data, unit + 1) for unit in units)
        starts = recovers or _H264_KEY in kinds or _H264_SPS in kinds
        return PacketContent(starts, _H264_SPS in kinds, not kinds.isdisjoint(_H264_SLICES))
    kinds = {data[unit] >> 1 & 0x3F for unit in units}
    starts = _HEVC_SPS in kinds or not kinds.isdisjoint(_HEVC_KEYS)
    return PacketContent(starts, _HEVC_SPS in kinds, not kinds.isdisjoint(_HEVC_SLICES))


def _nal_units(data: bytes) -> Iterator[int]:
    """Yield where the first units of H.264 and H.265 begin."""
    position = data.find(_START_CODE)
    for _ in range(_MOST_UNITS):
        if not 0 <= position < len(data) - 3:
            return
        yield position + 3
        position = data.find(_START_CODE, position + 3)


def _has_recovery_point(data: bytes, position: int) -> bool:
    """Return whether supplemental information of H.264 names a point from which the images are whole."""
    for _ in range(_MOST_UNITS):
        kind, position = _sei_number(data, position)
        if kind == _RECOVERY_POINT:
            return True
        size, position = _sei_number(data, position)
        position += size
        # 0x80 ends the unit.
        if position >= len(data) or data[position] == 0x80:
            return False
    return False


def _sei_number(data: bytes, position: int) -> tuple[int, int]:
    """Return a number that is the sum of bytes up to the first below 255, and the position behind it."""
    value = 0
    while position < len(data) and data[position] == 0xFF:
        value, position = value + 255, position + 1
    return (value + data[position], position + 1) if position < len(data) else (-1, position)


def _is_vp9_key(data: bytes) -> bool:
    """Return whether the uncompressed header of VP9 is one of a key frame."""
    first = data[0] if data else 0
    # Two bits of marker, two of profile, and one more for profile 3; then: is an earlier frame shown, is it no key.
    behind = 5 if first & 0x30 == 0x30 else 4
    return first >> 6 == 2 and first >> (7 - behind) & 1 == 0 and first >> (6 - behind) & 1 == 0


def _av1_units(data: bytes) -> set[int]:
    """Return the kinds of the first units of a packet of AV1."""
    kinds, position = set(), 0
    for _ in range(_MOST_UNITS):
        if position >= len(data):
            break
        head = data[position]
        kinds.add(head >> 3 & 0xF)
        # An extension has a byte; without a size the unit goes to the end.
        position += 2 if head & 4 else 1
        if not head & 2:
            break
        size = shift = 0
        while position < len(data) and shift < 56:
            size |= (data[position] & 0x7F) << shift
            shift, position = shift + 7, position + 1
            if data[position - 1] < 0x80:
                break
        position += size
    return kinds
