"""Objects in 3D for bags that have a segmenter's results: the code of the node `fusion`, on the clock of the bag."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from seg_perception.core.errors import ConfigurationError, FrameError
from seg_perception.core.messages.calibration import CAMERA_INFO
from seg_perception.core.messages.detections import DETECTIONS, DETECTIONS_3D
from seg_perception.core.messages.images import IMAGE
from seg_perception.core.messages.point_clouds import POINT_CLOUD, PointCloud
from seg_perception.core.messages.transforms import TF_MESSAGE, read_transforms
from seg_perception.core.text import printable
from seg_perception.offboard.data.bags.reader import Bag, BagMessage
from seg_perception.onboard.fusion.depth import DepthImage
from seg_perception.onboard.fusion.fuse import Fused
from seg_perception.onboard.fusion.fuser import READERS, Fuser, FuserOptions
from seg_perception.onboard.fusion.transforms import TransformBuffer
from seg_perception.onboard.fusion.views import ViewJoiner

from .writer import BagWriter

_TF, _TF_STATIC = "/tf", "/tf_static"
_MOST_FAULTS = 20


@dataclass(frozen=True, slots=True)
class FuseJob:
    """What is fused, and where it goes.

    Attributes:
        bag: with points, the segmenter's results, and /tf.
        points: topic of a lidar's clouds or of depth images.
        output: an .mcap file that does not exist yet.
        results: namespace of the segmenter's results.
        info: topic of the camera_info; empty for the one next to the results.
        namespace: of the written topics.
        rectified: whether the segmenter's images are rectified.
        options: how.
    """

    bag: Path
    points: str
    output: Path
    results: str = "/segmenter"
    info: str = ""
    namespace: str = "/fusion"
    rectified: bool = False
    options: FuserOptions = field(default_factory=FuserOptions)


@dataclass
class FuseRecord:
    """What came of a bag.

    Attributes:
        fused: how many messages of points gave a result.
        objects, unplaced: instances that got a place, and that had too few points.
        dropped: points without a result, by cause.
        faults: what was wrong with messages and the bag, for people.
        compensation: what was done about the vehicle's motion.
    """

    fused: int = 0
    objects: int = 0
    unplaced: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    compensation: str = ""

    def fault(self, text: str) -> None:
        """Note what was wrong; the first ones are kept."""
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(printable(text))


# Points with their time of recording in nanoseconds.
_Waiting: TypeAlias = "deque[tuple[int, PointCloud | DepthImage]]"


def fuse_bag(job: FuseJob, watch: Callable[[Fused], None] = lambda fused: None) -> FuseRecord:
    """Fuse a bag.

    Args:
        job: what.
        watch: is given each result.

    Raises:
        ConfigurationError: the bag lacks a topic, or the output cannot be written.
        SourceError: the bag cannot be read.
    """
    record = FuseRecord()
    about = {"bag": str(job.bag), "points": job.points, "results": job.results}
    with Bag(job.bag) as bag:
        topics = _topics(job, bag)
        with BagWriter(job.output, about) as writer:
            for time_ns, fused in _results(job, bag, topics, record):
                record.fused += 1
                record.objects += len(fused.objects)
                record.unplaced += sum(fused.unplaced.values())
                all_points = job.options.all_points
                writer.write(
                    f"{job.namespace}/points", POINT_CLOUD, time_ns, fused.points_message(all_points=all_points)
                )
                writer.write(f"{job.namespace}/detections_3d", DETECTIONS_3D, time_ns, fused.detections_message())
                writer.flush()
                watch(fused)
        for fault in bag.faults:
            record.fault(fault)
    return record


def _topics(job: FuseJob, bag: Bag) -> dict[str, str]:
    """The part that each topic plays, by its name."""
    topics = {
        f"{job.results}/instance_map": IMAGE,
        f"{job.results}/detections": DETECTIONS,
        job.info or f"{job.results}/camera_info": CAMERA_INFO,
    }
    for topic, kind in topics.items():
        if bag.topics.get(topic) != kind:
            raise ConfigurationError(
                f"{bag.path}: expected {topic} ({kind}) in the bag, got {bag.topics.get(topic, 'no such topic')}; "
                "`seg_perception replay --copy-inputs` writes the results of a segmenter next to what the bag has; "
                "name their namespace with --results, and the calibration with --camera-info"
            )
    kind = bag.topics.get(job.points, "no such topic")
    if kind not in READERS:
        known = [topic for topic, each in bag.topics.items() if each == POINT_CLOUD]
        raise ConfigurationError(
            f"--points {job.points}: expected a topic of {POINT_CLOUD} or of depth images, got {kind}; the bag has "
            f"{', '.join(map(printable, known)) or 'no point clouds'}"
        )
    tf = {topic: TF_MESSAGE for topic in (_TF, _TF_STATIC) if bag.topics.get(topic) == TF_MESSAGE}
    return {**topics, **tf, job.points: kind}


def _results(job: FuseJob, bag: Bag, topics: dict[str, str], record: FuseRecord) -> Iterator[tuple[int, Fused]]:
    transforms, joiner = TransformBuffer(), ViewJoiner("camera", rectified=job.rectified)
    fuser = Fuser(job.options, transforms, [joiner])
    waiting: _Waiting = deque()
    time_ns = 0
    # rosbag2 records static transforms when it begins, which may be after the first points.
    if _TF_STATIC in topics:
        for message in bag.messages([_TF_STATIC]):
            _take(message, job, transforms, joiner, waiting, record)
    for message in bag.messages(topics.keys() - {_TF_STATIC}):
        time_ns = message.time_ns
        _take(message, job, transforms, joiner, waiting, record)
        yield from _ready(fuser, waiting, time_ns, record)
    yield from _ready(fuser, waiting, time_ns + 10**12, record)
    record.compensation = fuser.compensation
    joiner.end()
    if joiner.lost:
        record.fault(f"{joiner.lost} images lack a part of their results: {joiner.lacking}")


def _take(
    message: BagMessage,
    job: FuseJob,
    transforms: TransformBuffer,
    joiner: ViewJoiner,
    waiting: _Waiting,
    record: FuseRecord,
) -> None:
    try:
        if message.topic == job.points:
            waiting.append((message.time_ns, READERS[message.kind](message.data)))
        elif message.kind == TF_MESSAGE:
            transforms.add(read_transforms(message.data), static=message.topic == _TF_STATIC)
        else:
            joiner.take(message.kind, message.data)
    except FrameError as error:
        if message.topic == job.points:
            record.dropped[error.kind] += 1
        record.fault(f"{message.topic} at {message.time_ns} ns: {error}")


def _ready(fuser: Fuser, waiting: _Waiting, now_ns: int, record: FuseRecord) -> Iterator[tuple[int, Fused]]:
    while waiting:
        time_ns, points = waiting[0]
        try:
            fused = fuser.fuse(points, (now_ns - time_ns) / 1e9)
        except FrameError as error:
            record.dropped[error.kind] += 1
            record.fault(str(error))
        else:
            if fused is None:
                return
            yield time_ns, fused
        waiting.popleft()
