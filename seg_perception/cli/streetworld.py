"""`seg_perception streetworld`: a made-up street with exact ground truth, as images or as a bag."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from seg_perception.core.errors import ConfigurationError

if TYPE_CHECKING:
    from seg_perception.offboard.streetworld.world import StreetWorld, WorldFrame

HELP = "make a camera's drive through a made-up street, with exact ground truth, as images or as a bag"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--frames", type=int, required=True, metavar="N", help="how many frames")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="everything follows from it (default: 0)")
    parser.add_argument("--size", default="640x384", metavar="WxH", help="of the images (default: %(default)s)")
    parser.add_argument("--fps", type=float, default=10.0, help="frames per second (default: %(default)s)")
    parser.add_argument(
        "--weather", default="", metavar="W,...", help="only these, such as day,rain (default: all of them in turn)"
    )
    parser.add_argument(
        "--scene-frames", type=int, default=60, metavar="N",
        help="frames of one drive, after which another begins elsewhere in other weather; 0 for a single drive "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--min-pixels", type=int, default=20, metavar="N",
        help="what has fewer visible pixels is left out of the ground truth (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--designs", default="all", metavar="WHICH",
        help="of the actors: all, seen (what the default model is trained with) or unseen (what training never sees) "
        "(default: %(default)s)",
    )  # fmt: skip
    sensors = parser.add_argument_group("depth, lidar and boxes (they change nothing of the rest)")
    sensors.add_argument(
        "--depth", default="", metavar="HOW",
        help="into the bag, a depth image for each frame: exact (32FC1, metres) or noisy (16UC1, millimetres, as of a "
        "stereo camera)",
    )  # fmt: skip
    sensors.add_argument(
        "--lidar", type=int, default=0, metavar="RINGS",
        help="into the bag, a sweep of a lidar with 16, 32 or 64 rings for each frame",
    )  # fmt: skip
    sensors.add_argument(
        "--boxes-3d", action="store_true",
        help="into the bag or the annotations, true boxes in three dimensions and true distances",
    )  # fmt: skip
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--coco", type=Path, metavar="OUT", help="folder for images and COCO annotations")
    where.add_argument("--bag", type=Path, metavar="OUT", help="folder for a bag of ROS 2; must not exist")
    where.add_argument("--sheet", type=Path, metavar="OUT.jpg", help="one image of all frames and their truth")
    parser.add_argument("--storage", default="mcap", help="of the bag: mcap or sqlite3 (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Make the world and write it."""
    from seg_perception.offboard.streetworld.light import WEATHERS
    from seg_perception.offboard.streetworld.world import StreetWorld, WorldOptions

    _check_outputs(arguments)
    width, height = size_of(arguments.size)
    weathers = tuple(filter(None, arguments.weather.split(","))) or WEATHERS
    world = StreetWorld(
        WorldOptions(
            arguments.frames, arguments.seed, width, height, arguments.fps, weathers, arguments.scene_frames,
            arguments.min_pixels, arguments.designs, arguments.depth, arguments.lidar, arguments.boxes_3d,
        )
    )  # fmt: skip
    if arguments.coco is not None:
        from seg_perception.offboard.streetworld.coco import write_coco

        written, where = write_coco(arguments.coco, _shots(world)), arguments.coco / "instances.json"
    elif arguments.sheet is not None:
        from seg_perception.offboard.streetworld.sheet import write_sheet

        written, where = {"frames": write_sheet(arguments.sheet, _shots(world))}, arguments.sheet
    else:
        from seg_perception.offboard.streetworld.bag import write_bag

        written = write_bag(arguments.bag, world.camera, _shots(world), arguments.storage)
        where = arguments.bag
    print(f"wrote {where}: {', '.join(f'{number} {name}' for name, number in written.items())}")
    return 0


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Refuse what the chosen output cannot hold."""
    if arguments.bag is not None:
        return
    for name in ("depth", "lidar", "boxes_3d"):
        if getattr(arguments, name) and (name != "boxes_3d" or arguments.coco is None):
            outputs = "--bag or --coco" if name == "boxes_3d" else "--bag"
            raise ConfigurationError(f"--{name.replace('_', '-')}: expected with {outputs}, which can hold it")


def size_of(text: str) -> tuple[int, int]:
    """Width and height of a text like 640x384."""
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise ConfigurationError(f"--size: expected WIDTHxHEIGHT such as 640x384, got {text!r}") from error
    return width, height


def _shots(world: StreetWorld) -> Iterable[WorldFrame]:
    """All frames; a progress bar where output goes to a terminal."""
    from tqdm import tqdm

    shots: Iterable[WorldFrame] = tqdm(world.shots(), total=len(world), unit="frame", disable=None)
    return shots
