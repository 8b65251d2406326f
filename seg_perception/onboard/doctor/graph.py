"""What was seen of a running ROS system: filled in by `ros/probe_cameras.py`, in a process of its own; judged here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Publisher:
    """A publisher of a camera's topic, with its QoS as rclpy names it; depth 0 where it is not known."""

    node: str
    reliability: str
    durability: str
    depth: int = 0


@dataclass(frozen=True, slots=True)
class ImageStream:
    """What came of one image topic.

    Attributes:
        topic: full name.
        kind: message type, as `sensor_msgs/msg/Image`; empty if nobody knows the topic.
        publishers: who publishes it.
        infos: publishers of the camera_info next to it.
        frames: how many came.
        missed: how many more were published meanwhile and never came, by their sequence numbers.
        hz: rate at which they came; 0 if less than two did.
        width, height, step: of the last frame, in pixels and bytes; 0 where it does not tell.
        encoding: of the last frame, or its compressed format.
        size: bytes of the last frame.
        frame_id: of the last frame.
        stamp: of the last frame, seconds.
        ages: seconds from stamp to arrival on the system clock: least, median, most.
        simulated_age: seconds from the last stamp to the last time on /clock; None without a /clock.
        fault: why the last frame could not be read; empty if it could.
        unknown: whether rclpy refused to say who publishes it, as somebody announces it in a way that ROS forbids.
    """

    topic: str
    kind: str = ""
    publishers: tuple[Publisher, ...] = ()
    infos: int = 0
    frames: int = 0
    missed: int = 0
    hz: float = 0.0
    width: int = 0
    height: int = 0
    step: int = 0
    encoding: str = ""
    size: int = 0
    frame_id: str = ""
    stamp: float = 0.0
    ages: tuple[float, ...] = ()
    simulated_age: float | None = None
    fault: str = ""
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class RosGraph:
    """A running ROS system.

    Attributes:
        rmw: the middleware, as `rmw_fastrtps_cpp`.
        topics: message types by the full name of every topic that has a publisher.
        clocks: publishers of /clock.
        streams: what was measured.
        seconds: for how long.
        refused: names of topics that ROS forbids and somebody announces; nothing can be asked about them.
        unmeasured: image topics beyond the most that are measured at once.
    """

    rmw: str
    topics: Mapping[str, tuple[str, ...]]
    clocks: int
    streams: tuple[ImageStream, ...]
    seconds: float
    refused: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RosGraph:
        """Return what `as_json` made."""
        streams = []
        for each in values["streams"]:
            publishers = tuple(Publisher(**publisher) for publisher in each["publishers"])
            streams.append(ImageStream(**{**each, "publishers": publishers, "ages": tuple(each["ages"])}))
        topics = {name: tuple(kinds) for name, kinds in values["topics"].items()}
        names = (tuple(values["refused"]), tuple(values["unmeasured"]))
        return cls(values["rmw"], topics, values["clocks"], tuple(streams), values["seconds"], *names)

    @property
    def largest_image(self) -> int:
        """Bytes of the largest image that came; 0 if none did."""
        return max((stream.size for stream in self.streams), default=0)
