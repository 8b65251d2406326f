"""A camera that sends compressed video: every packet is decoded in its order, and the newest image is handed over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic
from typing import NamedTuple

from seg_perception.core.encodings.video import VideoDecoder, VideoImage, video_codec
from seg_perception.core.errors import FrameError
from seg_perception.core.frame import Frame
from seg_perception.core.messages.images import (
    COMPRESSED_VIDEO,
    FFMPEG_PACKET,
    CompressedImageMessage,
    read_compressed_image,
    read_ffmpeg_packet,
    read_foxglove,
)
from seg_perception.core.text import message_text, printable

from .statistics import LOST, NO_KEY_FRAME, OVERRUN, CameraStatistics

# Packets that wait for the decoder, here and in the middleware: two seconds of 30 Hz.
QUEUE = 60
# Images that a decoder holds back; H.264 and H.265 allow 16.
_MOST_HELD_BACK = 32
# The thread ends after the packet in hand.
_END_SECONDS = 5.0
_READERS = {COMPRESSED_VIDEO: read_foxglove, FFMPEG_PACKET: read_ffmpeg_packet}


class Packet(NamedTuple):
    """A serialized packet, when it arrived, on the monotonic clock in seconds, and how many were lost before it."""

    message: bytes
    arrived: float
    lost: int


class DecodedImage(NamedTuple):
    """An image of a video, with stamp and frame of its message; `arrived` is on the monotonic clock in seconds."""

    image: VideoImage
    stamp_ns: int
    frame_id: str
    arrived: float

    def frame(self, camera: str) -> Frame:
        """Return it as a frame.

        Raises:
            FrameError: it cannot be used.
        """
        return self.image.frame(self.stamp_ns, self.frame_id, camera)


class VideoStream:
    """The packets of one camera's video, decoded by a thread of its own.

    Attributes:
        max_pixels: most pixels of an image; may be changed at any time.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        statistics: CameraStatistics,
        max_pixels: int,
        hand_over: Callable[[DecodedImage], None],
        report: Callable[[str, str, str], None],
    ) -> None:
        """Begin.

        Args:
            name: of the camera.
            kind: name of the type of its messages.
            statistics: counts its packets that hold an image, as frames.
            max_pixels: most pixels of an image.
            hand_over: takes the images that are decoded.
            report: told of a lost frame: camera, kind of fault, text.
        """
        self.max_pixels = max_pixels
        self._name = name
        self._read = _READERS.get(kind, read_compressed_image)
        self._statistics = statistics
        self._hand_over = hand_over
        self._report = report
        self._news = Condition()
        self._packets: deque[Packet] = deque()
        self._overrun = 0
        self._ended = False
        self._decoder: VideoDecoder | None = None
        self._number = 0
        self._held_back: dict[int, tuple[CompressedImageMessage, float]] = {}
        # Packets since the last image, and when the first of them came.
        self._passed_over = 0
        self._waiting_since = monotonic()
        self._size = ""
        self._thread = Thread(target=self._run, name=f"video_{name}", daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """Return what comes, human-readable; empty before the first packet."""
        decoder = self._decoder
        return f"{decoder.codec} {self._size}".strip() if decoder else ""

    @property
    def waits(self) -> str:
        """Return what is waited for, human-readable; empty while images come."""
        decoder, packets = self._decoder, self._passed_over
        if decoder is None or not decoder.waiting or not packets:
            return ""
        seconds = monotonic() - self._waiting_since
        return (
            f"{packets} packets of {decoder.codec} in {seconds:.1f} s cannot be decoded before {decoder.awaited}; "
            "set the encoder's key-frame interval (gop_size) to a second or less"
        )

    def receive(self, message: bytes, lost: int) -> None:
        """Take a packet; called by the executor."""
        with self._news:
            if len(self._packets) == QUEUE:
                # Nothing of these can be used once one is left out, up to the next key frame.
                self._overrun += len(self._packets)
                self._packets.clear()
            self._packets.append(Packet(message, monotonic(), lost))
            self._news.notify()

    def close(self) -> None:
        """End the thread; what waits to be decoded is given up."""
        with self._news:
            self._ended = True
            self._news.notify()
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._ended or self._packets)
                if self._ended:
                    return
                packet = self._packets.popleft()
                overrun, self._overrun = self._overrun, 0
            try:
                if overrun:
                    self._give_up(overrun)
                if packet.lost:
                    self._restart()
                self._decode(packet)
            except FrameError as error:
                self._fault(error.kind, f"{error}{self._limit() if error.kind == 'size' else ''}")
            # Nothing that a stranger sends may end the thread.
            except Exception as error:
                self._decoder = None
                self._fault("compressed", f"a packet cannot be decoded ({type(error).__name__}: {printable(error)})")

    def _decode(self, packet: Packet) -> None:
        """Decode a packet, and hand over the image that is ready.

        Raises:
            FrameError: it cannot be decoded.
        """
        try:
            message = self._read(packet.message)
            decoder = self._decoder_of(message)
            data = bytes(message.data)
            content = decoder.look(data)
        except FrameError:
            self._statistics.taken(packet.lost, LOST)
            self._restart()
            raise
        skipped = decoder.skips(content)
        if not content.image:
            self._statistics.missed(packet.lost)
            return
        self._statistics.taken(packet.lost, LOST)
        if decoder.waiting:
            self._waiting_since = self._waiting_since if self._passed_over else packet.arrived
            self._passed_over += 1
        if skipped:
            self._statistics.dropped(NO_KEY_FRAME)
            return
        self._number += 1
        self._held_back[self._number] = message, packet.arrived
        try:
            images = decoder.decode(self._number, data, content)
        except FrameError:
            self._held_back.pop(self._number)
            self._restart()
            raise
        for image in images:
            self._deliver(image)
        while len(self._held_back) > _MOST_HELD_BACK:
            self._held_back.pop(next(iter(self._held_back)))
            self._fault("compressed", f"no image comes of a packet of {decoder.codec}; it needs {decoder.awaited}")

    def _deliver(self, image: VideoImage) -> None:
        held_back = self._held_back.pop(image.number, None)
        if held_back is not None:
            message, arrived = held_back
            self._passed_over = 0
            self._size = f"{image.image.width} x {image.image.height}"
            self._hand_over(DecodedImage(image, message.stamp_ns, message.frame_id, arrived))

    def _decoder_of(self, message: CompressedImageMessage) -> VideoDecoder:
        """Return the decoder for a packet; another codec, or another limit, begins again."""
        codec = video_codec(message.format, message.data)
        if codec is None:
            raise FrameError(
                "encoding",
                f"video: expected packets of H.264, H.265, VP9 or AV1, got format {printable(message.format)!r} that "
                f"begins with {bytes(message.data[:4]).hex(' ') or 'nothing'}; still images need "
                f"cameras.{self._name}.transport: compressed",
            )
        if self._decoder is None or (self._decoder.codec, self._decoder.max_pixels) != (codec, self.max_pixels):
            self._restart()
            self._decoder = VideoDecoder(codec, self.max_pixels)
        return self._decoder

    def _restart(self) -> None:
        """Wait for the next key frame; what the decoder has held back is lost."""
        if self._decoder is not None:
            self._decoder.restart()
        for _ in self._held_back:
            self._statistics.dropped(NO_KEY_FRAME)
        self._held_back.clear()

    def _give_up(self, packets: int) -> None:
        """Count packets that came faster than they can be decoded."""
        text = (
            f"video: {packets} packets waited for the decoder and are given up; it is slower than the stream: lower "
            "the camera's resolution or rate, or give the node more CPU time"
        )
        for _ in range(packets):
            self._statistics.taken()
            self._statistics.dropped(OVERRUN, text)
        self._report(self._name, OVERRUN, text)
        self._restart()

    def _fault(self, kind: str, text: str) -> None:
        self._statistics.dropped(kind, message_text(text))
        self._report(self._name, kind, text)

    def _limit(self) -> str:
        return f"; cameras.{self._name}.max_image_size allows {self.max_pixels} pixels"
