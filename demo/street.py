"""The street world through the node: a bag with ground truth is played, and what arrives is held against the truth."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from demo.session import DETECTIONS, INSTANCE_MAP, Report, run
from seg_perception.core.errors import ConfigurationError, SourceError
from seg_perception.offboard.data.bags.reader import Bag, is_bag
from seg_perception.offboard.data.published import PublishedFrame, read_published
from seg_perception.offboard.evaluation.published import PublishedComparison, compare_published
from seg_perception.offboard.metrics.agreement import AgreementRule
from seg_perception.offboard.streetworld import bag as world_bag
from seg_perception.offboard.streetworld.world import StreetWorld, WorldFrame, WorldOptions

# Nothing is trained, validated or tested on this world, and nothing is trained on actors of these designs. It has many
# objects of every road group, and rain, which training leaves out.
SEED, DESIGNS = 8102, "unseen"
# Of one drive: 120 frames show five kinds of weather.
DRIVE_FRAMES = 24
_BAG_FILES = (".mcap", ".db3", ".yaml")
# Average precision is about all scores, so that the node publishes from here on; all else is about its default.
LOWEST_SCORE = 0.05
RULE = AgreementRule(score=0.25, margin=0.0, iou=0.5, min_pixels=16 * 16)


@dataclass(frozen=True, slots=True)
class Drive:
    """What came of a drive.

    Attributes:
        report: of the session.
        bag: that was played.
        rate: frames per second.
        truth: of the frames that were sent, in their order.
        received: what arrived, under the stamps of the bag.
        comparison: None if nothing arrived.
    """

    report: Report
    bag: Path
    rate: float
    truth: list[PublishedFrame]
    received: list[PublishedFrame]
    comparison: PublishedComparison | None


def make_bag(folder: Path, options: WorldOptions) -> Path:
    """Drive through the street world; an older bag in this folder is replaced.

    Raises:
        ConfigurationError: the options are impossible, or the folder cannot be written.
    """
    _clear(folder)
    world = StreetWorld(options)
    world_bag.write_bag(folder, world.camera, _watched(world))
    return folder


def _clear(folder: Path) -> None:
    """Remove an older bag.

    Raises:
        ConfigurationError: the folder holds something else.
    """
    strange = [path for path in folder.rglob("*") if path.suffix not in _BAG_FILES]
    if strange or folder.is_file():
        raise ConfigurationError(
            f"{folder}: expected nothing, or the bag of an earlier demo, which is replaced; found "
            f"{strange[0].name if strange else 'a file'}; choose another --out"
        )
    shutil.rmtree(folder, ignore_errors=True)


def _watched(world: StreetWorld) -> Iterator[WorldFrame]:
    yield from tqdm(world.shots(), "street world", len(world), unit="frame", disable=None)


def has_truth(path: Path) -> bool:
    """Whether a path is a bag with images and ground truth, as the street world writes it."""
    if not is_bag(path):
        return False
    with Bag(path) as bag:
        topics = set(bag.topics)
    return {world_bag.IMAGE, world_bag.CAMERA_INFO, world_bag.INSTANCE_MAP, world_bag.DETECTIONS} <= topics


def drive(model: Path, bag: Path, out: Path, frames: int, rate: float | None = None) -> Drive:
    """Play a bag to the node.

    Args:
        model: canonical.
        bag: of the street world.
        out: folder for the node's log and the bag of what is received.
        frames: of the bag at most.
        rate: frames per second; the bag's own for None.

    Raises:
        SourceError: the bag cannot be read.
        ConfigurationError: what is received would be recorded over something else.
        RuntimeError: a process failed, or maps have stamps that no frame had.
    """
    truth = list(islice(read_published(bag, world_bag.INSTANCE_MAP, world_bag.DETECTIONS), frames))
    if not truth:
        raise SourceError(f"{bag}: expected at least one frame with ground truth, got none")
    rate = rate or _rate(truth)
    record = out / "received"
    if record.resolve() == bag.resolve():
        raise ConfigurationError(f"{bag}: what is received is recorded there; play a copy, or choose another --out")
    _clear(record)
    parameters = {"score_threshold": LOWEST_SCORE, "tracking": True}
    report = run(model, (), out, rate=rate, frames=len(truth), bag=bag, record=record, parameters=parameters)
    arrived = list(read_published(record, INSTANCE_MAP, DETECTIONS))
    in_bag = dict(zip(report.stamps_ns, (frame.stamp_ns for frame in truth), strict=True))
    strange = [each.stamp_ns for each in arrived if each.stamp_ns not in in_bag]
    if strange:
        raise RuntimeError(f"instance maps: expected stamps of frames that were sent, got others: {strange[:3]}")
    received = [replace(each, stamp_ns=in_bag[each.stamp_ns]) for each in arrived]
    comparison = compare_published(truth, received, RULE) if received else None
    return Drive(report, bag, rate, truth, received, comparison)


def _rate(truth: list[PublishedFrame]) -> float:
    """Frames per second of a recording."""
    seconds = 1e-9 * (truth[-1].stamp_ns - truth[0].stamp_ns)
    return (len(truth) - 1) / seconds if seconds > 0 else 10.0
