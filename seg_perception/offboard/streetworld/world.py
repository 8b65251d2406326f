"""The street world as a stream of frames with their truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.frame import Frame
from seg_perception.offboard.data.base import FrameSource

from .camera import Camera
from .designs import DESIGNS
from .ego import EgoPose
from .lidar import Cloud, knots, lidar_model, sweep_seconds
from .light import WEATHERS
from .render import Renderer, Sensors
from .scene import random_scene
from .truth import Truth

FRAME_ID = "streetworld_camera"
# The first frame's stamp: a round number of seconds, and not 0, which means "no time" to ROS.
FIRST_STAMP_NS = 1_000_000_000_000_000_000
_MOST_TRACKS = 0xFFFF
# Between the streets of two drives on the map, in metres.
_STREETS_APART = 1000.0
# By what depth images are asked for.
_DEPTH_ENCODINGS = {"": "", "exact": "32FC1", "noisy": "16UC1"}


@dataclass(frozen=True, slots=True)
class WorldOptions:
    """Which world.

    Attributes:
        frames: how many.
        seed: everything follows from it.
        width, height: of the images in pixels.
        fps: frames per second.
        weathers: scenes take them in turn, shuffled.
        scene_frames: frames of one drive, after which another begins somewhere else; 0 for a single drive.
        min_pixels: instances with fewer visible pixels are no part of the truth.
        designs: one of `designs.DESIGNS`; training takes the "seen" ones, a test the "unseen" ones.
        depth: a depth image for each frame, "exact" or "noisy"; empty for none.
        lidar: 16, 32 or 64 rings of a lidar that sweeps once for each frame; 0 for none.
        boxes_3d: the truth has boxes in three dimensions.

    Raises:
        ConfigurationError: one of them is impossible.
    """

    frames: int
    seed: int = 0
    width: int = 640
    height: int = 384
    fps: float = 10.0
    weathers: tuple[str, ...] = WEATHERS
    scene_frames: int = 60
    min_pixels: int = 20
    designs: str = "all"
    depth: str = ""
    lidar: int = 0
    boxes_3d: bool = False

    def __post_init__(self) -> None:
        for name, low in (("frames", 1), ("seed", 0), ("width", 64), ("height", 64), ("scene_frames", 0)):
            if getattr(self, name) < low:
                raise ConfigurationError(f"streetworld {name}: expected at least {low}, got {getattr(self, name)}")
        if not 0.1 <= self.fps <= 1000:
            raise ConfigurationError(f"streetworld fps: expected 0.1 to 1000, got {self.fps}")
        if not self.weathers or set(self.weathers) - set(WEATHERS):
            raise ConfigurationError(f"weather: expected some of {', '.join(WEATHERS)}; got {', '.join(self.weathers)}")
        if self.designs not in DESIGNS:
            raise ConfigurationError(f"streetworld designs: expected one of {', '.join(DESIGNS)}; got {self.designs!r}")
        if self.depth not in _DEPTH_ENCODINGS:
            raise ConfigurationError(f"streetworld depth: expected exact or noisy, got {self.depth!r}")
        if self.lidar:
            lidar_model(self.lidar)
        drives = -(-self.frames // (self.scene_frames or self.frames))
        if drives * self.tracks_per_drive > _MOST_TRACKS:
            raise ConfigurationError(
                f"streetworld frames: expected at most {_MOST_TRACKS // self.tracks_per_drive} drives of this length, "
                f"because every object has a number of 16 bits of its own; got {drives}; make several worlds with "
                "different seeds"
            )

    @property
    def drive_seconds(self) -> float:
        """How long one drive is."""
        return (self.scene_frames or self.frames) / self.fps

    @property
    def tracks_per_drive(self) -> int:
        """How many numbers of tracks are set aside for each drive; the fullest of many had half as many objects."""
        return 300 + 20 * ceil(self.drive_seconds)


@dataclass(frozen=True, slots=True)
class WorldFrame:
    """One frame.

    Attributes:
        name: unique, fit for a file.
        frame: the image, bgr8, with its stamp.
        truth: what is in it.
        weather: of its scene.
        scene: number of its drive.
        ego: where the car and its camera are.
        depth: float32 `[height, width]`, aligned with the image, z along the optical axis in metres, NaN where there
            is none; None if the world has no depth images.
        depth_encoding: of the depth image as a message: "32FC1" in metres for exact depth, "16UC1" in millimetres for
            noisy depth; empty without depth images.
        cloud: one sweep of the lidar that ends at the frame's stamp; None if the world has no lidar.
        way: where the car was during the sweep, with stamps in ns; empty without a lidar. Between these places and
            `ego` the lidar moves evenly.
        has_boxes: the truth has boxes in three dimensions; also true of a frame in which there is nothing.
    """

    name: str
    frame: Frame
    truth: Truth
    weather: str
    scene: int
    ego: EgoPose
    depth: NDArray[np.float32] | None = None
    depth_encoding: str = ""
    cloud: Cloud | None = None
    way: tuple[tuple[int, EgoPose], ...] = ()
    has_boxes: bool = False


class StreetWorld(FrameSource):
    """Frames of the street world; as a `FrameSource` without the truth, by `render` with it."""

    def __init__(self, options: WorldOptions) -> None:
        """Choose; nothing is rendered yet."""
        super().__init__(options.fps, sequence=True)
        self.options = options
        random = np.random.default_rng((options.seed, 0))
        self.camera = Camera(
            options.width, options.height, options.width * float(random.uniform(0.72, 1.0)),
            float(random.uniform(-0.16, -0.02)), float(random.uniform(0.0, 0.02)),
        )  # fmt: skip

    def __len__(self) -> int:
        """Return how many frames there are."""
        return self.options.frames

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """The images."""
        for index in range(len(self)):
            shot = self.render(index)
            yield shot.name, shot.frame

    def shots(self) -> Iterator[WorldFrame]:
        """The images and what is in them."""
        for index in range(len(self)):
            yield self.render(index)

    def render(self, index: int) -> WorldFrame:
        """One frame; the order of calls makes no difference."""
        options = self.options
        scene, moment = divmod(index, options.scene_frames or options.frames)
        weather = _weather(options.seed, scene, options.weathers)
        renderer = _renderer(options, self.camera, scene, weather)
        made = renderer.render(moment, options.fps)
        stamp = FIRST_STAMP_NS + round(index * 1e9 / options.fps)
        frame = Frame.from_bgr(made.image, stamp_ns=stamp, frame_id=FRAME_ID)

        def ego(time: float) -> EgoPose:
            pose = renderer.scene.ego(moment / options.fps + time)
            return replace(pose, y=pose.y + _STREETS_APART * scene)

        times: list[float] = []
        if options.lidar:
            *times, _ = knots(lidar_model(options.lidar), sweep_seconds(options.fps)).tolist()
        return WorldFrame(
            f"streetworld_{options.seed}_{index:06d}", frame, made.truth, weather, scene, ego(0.0),
            made.depth, _DEPTH_ENCODINGS[options.depth], made.cloud,
            tuple((stamp + round(time * 1e9), ego(time)) for time in times), options.boxes_3d,
        )  # fmt: skip


@lru_cache(maxsize=2)
def _renderer(options: WorldOptions, camera: Camera, scene: int, weather: str) -> Renderer:
    tracks = options.tracks_per_drive
    made = random_scene(options.seed, scene, options.drive_seconds, weather, 1 + scene * tracks, options.designs)
    objects = sum(actor.track > 0 for actor in made.actors)
    if objects > tracks:
        raise ConfigurationError(
            f"streetworld: drive {scene} of seed {options.seed} has {objects} objects, expected at most {tracks}; "
            "choose another seed or shorter drives"
        )
    sensors = Sensors(options.depth, options.lidar, options.boxes_3d)
    return Renderer(made, camera, (options.seed, scene), options.min_pixels, sensors)


def _weather(seed: int, scene: int, weathers: Sequence[str]) -> str:
    """Each weather once, in a new order, before any comes again."""
    turn, place = divmod(scene, len(weathers))
    order: NDArray[np.int64] = np.random.default_rng((seed, turn, 4)).permutation(len(weathers))
    return weathers[int(order[place])]
