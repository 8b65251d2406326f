"""Images of bags as frames, those of compressed video among them.

A packet of a video can only be decoded after the key frame before it. What comes before the first key frame of a topic
is left out, counted and named; what comes after a damaged packet, up to the next key frame, is an error of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from seg_perception.core.encodings.video import VideoDecoder, VideoImage, video_codec
from seg_perception.core.errors import BackendUnavailable, FrameError
from seg_perception.core.frame import Frame
from seg_perception.core.messages.images import COMPRESSED_IMAGE, CompressedImageMessage, read_compressed_image
from seg_perception.core.messages.serialized import frame_from_message

from .storage import BagMessage


class Decoded(NamedTuple):
    """The result of an image message: the number it was given, the message, and its frame or why there is none."""

    number: int
    message: BagMessage
    frame: Frame | FrameError


class ImageDecoder:
    """Makes frames of the image messages of a bag, in the order in which they come."""

    def __init__(self, cameras: Mapping[str, str]) -> None:
        """Take the name of the camera of each topic."""
        self._cameras = cameras
        self._videos: dict[str, _Video] = {}
        # Of topics whose codec changed.
        self._ended: list[tuple[str, _Video]] = []

    def decode(self, index: int, message: BagMessage) -> Iterator[Decoded]:
        """Yield what is ready: one for a message with an image of its own, none or several for a packet of a video.

        Raises:
            BackendUnavailable: it is a video, and PyAV is not installed.
        """
        camera = self._cameras[message.topic]
        try:
            packet = read_compressed_image(message.data) if message.kind == COMPRESSED_IMAGE else None
            codec = video_codec(packet.format, packet.data) if packet is not None else None
            if codec is None or packet is None:
                yield Decoded(index, message, frame_from_message(message.data, message.kind, camera))
                return
        except FrameError as error:
            yield Decoded(index, message, error)
            return
        video = self._videos.get(message.topic)
        if video is None or video.codec != codec:
            if video is not None:
                yield from video.finish()
                self._ended.append((message.topic, video))
            video = self._videos[message.topic] = _Video(codec, camera)
        yield from video.decode(index, message, packet)

    def finish(self) -> Iterator[Decoded]:
        """Yield what videos still hold back."""
        for video in self._videos.values():
            yield from video.finish()

    def faults(self) -> list[str]:
        """Return what was left out without a message of its own, human-readable."""
        return [
            f"{topic}: {video.before} packets of {video.codec} come before the first key frame and cannot be decoded"
            for topic, video in (*self._ended, *self._videos.items())
            if video.before
        ]


class _Video:
    """The video of one topic.

    Attributes:
        codec: of its packets.
        before: packets that came before the first key frame.
    """

    def __init__(self, codec: str, camera: str) -> None:
        try:
            self._decoder = VideoDecoder(codec)
        except BackendUnavailable as error:
            raise BackendUnavailable(f"{camera}: images are packets of {codec}; {error}") from error
        self.codec = codec
        self.before = 0
        self._camera = camera
        self._waiting: dict[int, tuple[int, BagMessage, CompressedImageMessage]] = {}
        self._begun = False

    def decode(self, index: int, message: BagMessage, packet: CompressedImageMessage) -> Iterator[Decoded]:
        """Decode a packet, and yield the frames that are ready."""
        data = bytes(packet.data)
        try:
            content = self._decoder.look(data)
            if self._decoder.skips(content):
                if content.image and self._begun:
                    text = f"a packet of {self.codec} after a damaged one; the next image needs {self._decoder.awaited}"
                    yield Decoded(index, message, FrameError("compressed", text))
                elif content.image:
                    self.before += 1
                return
            self._begun = True
            if content.image:
                self._waiting[index] = index, message, packet
            images = self._decoder.decode(index, data, content)
        except FrameError as error:
            self._waiting.pop(index, None)
            yield from self._lost()
            yield Decoded(index, message, error)
            return
        yield from self._frames(images)

    def finish(self) -> Iterator[Decoded]:
        """Yield the frames that the decoder held back; packets without one are faults."""
        yield from self._frames(self._decoder.finish())
        yield from self._lost()

    def _lost(self) -> Iterator[Decoded]:
        """Yield packets of which no image comes any more as faults."""
        for index, message, _ in self._waiting.values():
            text = "no image comes of this packet; packets before it were lost, or one is damaged"
            yield Decoded(index, message, FrameError("compressed", text))
        self._waiting.clear()

    def _frames(self, images: list[VideoImage]) -> Iterator[Decoded]:
        for image in images:
            packet = self._waiting.pop(image.number, None)
            if packet is not None:
                yield Decoded(packet[0], packet[1], self._frame(image, packet[2]))

    def _frame(self, image: VideoImage, packet: CompressedImageMessage) -> Frame | FrameError:
        try:
            return image.frame(packet.stamp_ns, packet.frame_id, self._camera)
        except FrameError as error:
            return error
