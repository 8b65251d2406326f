"""Images of bags as frames, those of compressed video (H.264, H.265, VP9, AV1) among them.

A packet of a video can only be decoded after the key frame before it. What comes before the first key frame of a topic
is left out, counted and named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from seg_perception.core.errors import BackendUnavailable, FrameError
from seg_perception.core.frame import Frame, check_size
from seg_perception.core.messages.images import COMPRESSED_IMAGE, CompressedImageMessage, read_compressed_image
from seg_perception.core.messages.serialized import frame_from_message

from .storage import BagMessage

# Decoders of FFmpeg by what formats and encoders are called: h264, h264_nvenc, libx265, hevc_vaapi, ...
_CODECS = ((r"h\.?264|x264|avc", "h264"), (r"h\.?265|x265|hevc", "hevc"), (r"vp9", "vp9"), (r"av1", "av1"))
_START_CODE = b"\x00\x00\x01"
# Instantaneous refresh of H.264, intra random access of H.265: NAL units that begin a key frame.
_H264_KEY, _HEVC_KEY = 5, range(16, 22)
# FFmpeg takes memory for an image as soon as a packet says how large it is; 16K video has as many.
_MOST_PIXELS = 1 << 27
_REMEDY = "the recording lost packets, or began between two key frames"


class Decoded(NamedTuple):
    """What came of an image message: the number it was given, the message, and its frame or why there is none."""

    number: int
    message: BagMessage
    frame: Frame | FrameError


class ImageDecoder:
    """Makes frames of the image messages of a bag, in the order in which they come."""

    def __init__(self, cameras: Mapping[str, str]) -> None:
        """Take the name of the camera of each topic."""
        self._cameras = cameras
        self._videos: dict[str, _Video] = {}

    def decode(self, index: int, message: BagMessage) -> Iterator[Decoded]:
        """Yield what is ready: one for a message with an image of its own, none or several for a packet of a video.

        Raises:
            BackendUnavailable: it is a video, and PyAV is not installed.
        """
        camera = self._cameras[message.topic]
        try:
            packet = read_compressed_image(message.data) if message.kind == COMPRESSED_IMAGE else None
            codec = video_codec(packet) if packet is not None else None
            if codec is None or packet is None:
                yield Decoded(index, message, frame_from_message(message.data, message.kind, camera))
                return
        except FrameError as error:
            yield Decoded(index, message, error)
            return
        video = self._videos.get(message.topic)
        if video is None or video.codec != codec:
            video = self._videos[message.topic] = _Video(codec, camera)
        yield from video.decode(index, message, packet)

    def finish(self) -> Iterator[Decoded]:
        """Yield what videos still hold back."""
        for video in self._videos.values():
            yield from video.finish()

    def faults(self) -> list[str]:
        """Return what was left out without a message of its own, for people."""
        return [
            f"{topic}: {video.before} packets of {video.codec} come before the first key frame and cannot be decoded"
            for topic, video in self._videos.items()
            if video.before
        ]


def video_codec(message: CompressedImageMessage) -> str | None:
    """Return FFmpeg's name of the decoder that a packet of a video needs; None for a still image."""
    start = bytes(message.data[:4])
    for pattern, codec in _CODECS:
        if re.search(pattern, message.format.lower()):
            # Some drivers name the format of the camera, though they send JPEG.
            return None if start.startswith((b"\xff\xd8", b"\x89PNG")) else codec
    return None


class _Video:
    """The video of one topic.

    Attributes:
        codec: FFmpeg's name of it.
        before: packets that came before the first key frame.
    """

    def __init__(self, codec: str, camera: str) -> None:
        try:
            import av
        except ImportError as error:
            raise BackendUnavailable(
                f"{camera}: images are packets of {codec}, which need the Python package av ({error}): pip install av"
            ) from error
        self.codec = codec
        self.before = 0
        self._camera = camera
        self._av = av
        self._context: Any = av.CodecContext.create(codec, "r")
        # Threads would hold frames back, and the model has use for the cores.
        self._context.thread_count = 1
        self._context.options = {"max_pixels": str(_MOST_PIXELS)}
        self._waiting: dict[int, tuple[int, BagMessage, CompressedImageMessage]] = {}
        self._begun = False

    def decode(self, index: int, message: BagMessage, packet: CompressedImageMessage) -> Iterator[Decoded]:
        """Decode a packet, and yield the frames that are ready."""
        data = bytes(packet.data)
        if not self._begun and not _is_key(self.codec, data):
            self.before += 1
            return
        self._begun = True
        self._waiting[index] = index, message, packet
        coded = self._av.Packet(data)
        coded.pts = coded.dts = index
        yield from self._run(coded, index)

    def finish(self) -> Iterator[Decoded]:
        """Yield the frames that the decoder held back; packets without one are faults."""
        if self._begun:
            yield from self._run(None, None)
        for index, message, _ in self._waiting.values():
            yield Decoded(index, message, FrameError("compressed", f"no image comes of this packet; {_REMEDY}"))
        self._waiting.clear()

    def _run(self, coded: Any, index: int | None) -> Iterator[Decoded]:
        try:
            frames = self._context.decode(coded)
        # FFmpeg's errors, of which each has a class.
        except (self._av.FFmpegError, ValueError) as error:
            lost = self._waiting.pop(index, None) if index is not None else None
            if lost is not None:
                text = f"a packet of {self.codec} cannot be decoded ({error}); {_REMEDY}"
                yield Decoded(lost[0], lost[1], FrameError("compressed", text))
            return
        for frame in frames:
            known = self._waiting.pop(frame.pts, None)
            if known is not None:
                yield Decoded(known[0], known[1], self._frame(frame, known[2]))

    def _frame(self, frame: Any, packet: CompressedImageMessage) -> Frame | FrameError:
        if frame.is_corrupt:
            return FrameError("compressed", f"a frame of {self.codec} is damaged; {_REMEDY}")
        try:
            check_size("video frame", frame.width, frame.height, "scale it down")
        except FrameError as error:
            return error
        return Frame.from_bgr(
            frame.to_ndarray(format="bgr24"), stamp_ns=packet.stamp_ns, frame_id=packet.frame_id, camera=self._camera
        )


def _is_key(codec: str, data: bytes) -> bool:
    """Return whether a packet begins a key frame; where only the decoder can tell, it is asked."""
    if codec not in ("h264", "hevc"):
        return True
    position = data.find(_START_CODE)
    while 0 <= position < len(data) - 3:
        head = data[position + 3]
        if head & 0x1F == _H264_KEY if codec == "h264" else head >> 1 & 0x3F in _HEVC_KEY:
            return True
        position = data.find(_START_CODE, position + 3)
    return False
