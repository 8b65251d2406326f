"""The replay itself: shots in, the node's messages out, every frame once.

Reading and decoding run ahead in one thread and writing behind in another, so that on a machine whose model is the
bottleneck neither costs more than its own share of the processors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event
from time import perf_counter

from seg_perception.core.errors import FrameError, ModelOutputError
from seg_perception.core.instances import Segmentation
from seg_perception.core.messages.detections import LABEL_INFO, write_label_info
from seg_perception.onboard.pipeline.outputs import ALWAYS, LABELS, LATCHED, ON_DEMAND, SEMANTIC_MAP, FrameMessages
from seg_perception.onboard.pipeline.segmenter import Begun, Segmenter
from seg_perception.onboard.pipeline.trackers import Trackers

from .inputs import BagRecording, InputFrame, Recording, at_their_pace
from .record import Record
from .threads import BackgroundWriter, Prefetcher
from .writer import LATCHED_QOS, BagWriter

# Shots that are read and results that are kept before they are processed and written.
_AHEAD, _BEHIND = 4, 4
# `builtin_interfaces/Time` ends in January 2038.
_LAST_STAMP_NS = 2**31 * 10**9 - 1
DEFAULT_NAMESPACE = "/segmenter"


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Options of a replay.

    Attributes:
        on_demand: which of `outputs.ON_DEMAND` are written in addition to those that always are.
        namespace: of the node whose topics are written.
        realtime: whether frames come as quickly as they were recorded; else as quickly as they are processed.
    """

    on_demand: tuple[str, ...] = ()
    namespace: str = DEFAULT_NAMESPACE
    realtime: bool = False


# Is told of each frame that was processed, with the time at which it was recorded.
Watcher = Callable[[int, Segmentation], None]


class Replay:
    """Sends recordings through a segmenter into one bag.

    Attributes:
        record: the result of the frames.
        seconds: from the first shot to the last message, summed over recordings.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        writer: BagWriter,
        options: ReplayOptions | None = None,
        watchers: Sequence[Watcher] = (),
        cameras: Collection[str] = (),
    ) -> None:
        """Prepare.

        Args:
            segmenter: warmed up; the caller closes it.
            writer: open; the caller closes it.
            options: how.
            watchers: are told of each frame, in the order of the frames.
            cameras: of all recordings; those of more than one have topics of their own. By default each recording
                is looked at by itself.
        """
        self.record = Record()
        self.seconds = 0.0
        self._segmenter = segmenter
        self._writer = writer
        self._options = options or ReplayOptions()
        self._watchers = tuple(watchers)
        self._semantic = SEMANTIC_MAP in self._options.on_demand
        self._labelled: set[str] = set()
        self._cameras = frozenset(cameras)
        self._own: frozenset[str] = frozenset()
        self._uncalibrated: set[str] = set()

    def run(self, recording: Recording) -> None:
        """Replay one recording from its begin to its end.

        Raises:
            SegPerceptionError: it cannot be read, the output cannot be written, or the device failed.
        """
        # Whatever is seen in another recording is another object.
        self._segmenter.trackers = Trackers()
        several = len(self._cameras | set(recording.cameras)) > 1
        spaces = {each: f"{self._options.namespace}/{each}" if several else self._options.namespace
                  for each in recording.cameras}  # fmt: skip
        # What a segmenter published under the same names before would be mixed up with what is written now.
        self._own = frozenset(
            f"{space}/{topic}" for space in spaces.values() for topic in (*ALWAYS, *ON_DEMAND, *LATCHED)
        )
        self._describe(recording)
        shots = recording.shots()
        before = len(recording.failures)
        begin = perf_counter()
        ended = Event()
        with (
            Prefetcher(at_their_pace(shots, ended.wait) if self._options.realtime else shots, _AHEAD) as ahead,
            BackgroundWriter(self._write, _BEHIND) as behind,
            ExitStack() as stack,
        ):
            # Nobody waits for a frame of the next hour.
            stack.callback(ended.set)
            for shot, result in self._processed(ahead, behind):
                behind.give(self._messages(spaces[result.frame.camera], shot, result))
                self.record.add(shot.time_ns, result)
                for watcher in self._watchers:
                    watcher(shot.time_ns, result)
        self.seconds += perf_counter() - begin
        for failure in recording.failures[before:]:
            self.record.fault(f"{recording.path}: {failure}")

    def _describe(self, recording: Recording) -> None:
        if isinstance(recording, BagRecording):
            for topic, kind in recording.topics.items():
                if topic in self._own:
                    continue
                definition = recording.definitions.get(kind, ("", ""))
                self._writer.describe(topic, recording.qos.get(topic, ""), kind, definition)

    def _processed(
        self, shots: Iterable[InputFrame], behind: BackgroundWriter[list[_Message]]
    ) -> Iterator[tuple[InputFrame, Segmentation]]:  # fmt: skip
        """Shots with their results, in order; as many batches in flight as the backend takes."""
        in_flight: deque[_Started] = deque()
        for batch in self._batches(shots, behind):
            for part in self._started(batch):
                in_flight.append(part)
                # The next one must find a place that is free.
                del part
                if len(in_flight) >= self._segmenter.backend.depth:
                    yield from self._ended(*in_flight.popleft())
        while in_flight:
            yield from self._ended(*in_flight.popleft())

    def _batches(
        self, shots: Iterable[InputFrame], behind: BackgroundWriter[list[_Message]]
    ) -> Iterator[list[InputFrame]]:
        """Shots with a frame, together as long as each is of another camera."""
        batch: list[InputFrame] = []
        for shot in shots:
            if shot.copy is not None and shot.copy.topic not in self._own:
                behind.give([(shot.copy.topic, shot.copy.kind, shot.copy.time_ns, shot.copy.data)])
            if shot.frame is None:
                continue
            cameras = {each.frame.camera for each in batch if each.frame is not None}
            if batch and (len(batch) >= self._segmenter.backend.largest_batch or shot.frame.camera in cameras):
                yield batch
                batch = []
            batch.append(shot)
        if batch:
            yield batch

    def _started(self, batch: list[InputFrame]) -> Iterator[_Started]:
        """Start a batch; where a frame of it cannot be decoded, each frame by itself."""
        try:
            frames = [shot.frame for shot in batch if shot.frame is not None]
            yield batch, self._segmenter.begin(frames, self._semantic)
        except FrameError as error:
            if len(batch) == 1:
                self._lose(batch[0], error)
                return
            for shot in batch:
                yield from self._started([shot])

    def _ended(self, batch: list[InputFrame], begun: Begun) -> Iterator[tuple[InputFrame, Segmentation]]:
        for shot, result in zip(batch, self._segmenter.end(begun), strict=True):
            if isinstance(result, ModelOutputError):
                self._lose(shot, result)
            else:
                yield shot, result

    def _lose(self, shot: InputFrame, error: Exception) -> None:
        camera = shot.frame.camera if shot.frame is not None else ""
        self.record.lose(camera, f"{camera} at {shot.time_ns} ns: {error}")

    def _messages(self, space: str, shot: InputFrame, result: Segmentation) -> list[_Message]:
        names = self._segmenter.spec.class_names
        messages: list[_Message] = []
        if space not in self._labelled:
            self._labelled.add(space)
            threshold = self._segmenter.options.select.lowest_threshold
            # A time of recording beyond what messages can hold is no stamp.
            labels = write_label_info(min(shot.time_ns, _LAST_STAMP_NS), names, threshold)
            self._writer.describe(f"{space}/{LABELS}", LATCHED_QOS)
            messages.append((f"{space}/{LABELS}", LABEL_INFO, shot.time_ns, labels))
        made = FrameMessages(result, names, shot.calibration)
        if not made.calibrated and shot.calibration is not None and space not in self._uncalibrated:
            self._uncalibrated.add(space)
            frame, sent = result.frame, shot.calibration
            self.record.fault(
                f"{frame.camera} at {shot.time_ns} ns: camera_info is of {sent.width} x {sent.height} pixels, the "
                f"image has {frame.width} x {frame.height}; none is written for such images"
            )
        kinds = {**ALWAYS, **{topic: ON_DEMAND[topic] for topic in self._options.on_demand}}
        for topic, kind in kinds.items():
            data = made.make(topic)
            if data is not None:
                messages.append((f"{space}/{topic}", kind, shot.time_ns, data))
        return messages

    def _write(self, messages: list[_Message]) -> None:
        for message in messages:
            topic, kind, time_ns, data = message
            self._writer.write(topic, kind, time_ns, data)
        self._writer.flush()


_Message = tuple[str, str, int, bytes]
_Started = tuple[list[InputFrame], Begun]
