"""`seg_perception replay`: recorded frames through the pipeline, into a bag with the node's own messages."""

from __future__ import annotations

import argparse
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from seg_perception.core.errors import ConfigurationError

from .fleet_arguments import add_fleet_arguments, bags_of, on_fleet, run_on_fleet, worker_threads
from .model_arguments import add_model_arguments, model_choice, model_line

if TYPE_CHECKING:
    from seg_perception.offboard.replay.job import Outcome, ReplayJob
    from seg_perception.onboard.pipeline.options import SegmenterOptions

HELP = "send every frame of bags or videos through a model, and write a bag with what the node would publish"
_DEMANDS = {"semantic": "semantic_map", "color": "instance_map/color", "overlay": "overlay/compressed"}
_SPEEDS = ("max", "realtime")
_MOST_FAULTS = 20
# Three years; times are counted in nanoseconds of 64 bits.
_MOST_SECONDS = 1e8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("paths", type=Path, nargs="*", metavar="BAG", help="bag of ROS 2 or 1, video or images")
    parser.add_argument("--model", required=True, metavar="M", help="canonical model (.onnx) or engine")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT",
        help="OUT.mcap: one bag of all; without a suffix: folder for a bag of each (docs/fleet.md)",
    )  # fmt: skip
    parser.add_argument(
        "--topics", nargs="+", default=[], metavar="T", help="image topics (default: all of cameras in the bag)"
    )
    parser.add_argument("--speed", choices=_SPEEDS, default="max", help="as fast as possible, or as it was recorded")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="seconds of each recording to leave out")
    parser.add_argument(
        "--duration", type=float, default=0.0, metavar="S", help="seconds of each recording to replay; 0: all"
    )
    parser.add_argument("--copy-inputs", action="store_true", help="copy the bags' messages, too; of videos the frames")
    parser.add_argument(
        "--with", dest="demands", nargs="+", choices=sorted(_DEMANDS), default=[], metavar="WHAT",
        help=f"also write {', '.join(sorted(_DEMANDS))}, which the node makes only for subscribers",
    )  # fmt: skip
    parser.add_argument("--namespace", default="/segmenter", help="of the written topics (default: %(default)s)")
    parser.add_argument("--score", type=float, default=0.25, help="score_threshold of the node (default: %(default)s)")
    parser.add_argument("--min-pixels", type=int, default=16, help="min_pixels of the node (default: %(default)s)")
    parser.add_argument("--output-size", default="camera", help="output_size of the node (default: %(default)s)")
    parser.add_argument("--keep-other", action="store_true", help="also classes of no road group")
    parser.add_argument("--tracking", action="store_true", help="keep an object's number from frame to frame")
    parser.add_argument(
        "--against", type=Path, metavar="BAG", help="what was published for the same frames before, to compare with"
    )
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a report")
    parser.add_argument("--video", type=Path, metavar="FILE.mp4", help="write a video of the overlays, of each camera")
    parser.add_argument(
        "--side-by-side", type=int, default=0, metavar="N",
        help="frames that a CPU works on at once, each with a model in memory (default: 2, or 1 with --threads)",
    )  # fmt: skip
    add_model_arguments(parser)
    add_fleet_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Replay; 1 when something of the recordings was lost, or there was nothing to replay."""
    from tqdm import tqdm

    from seg_perception.core.files import writable_folder
    from seg_perception.offboard.replay.films import absent
    from seg_perception.offboard.replay.job import run_job
    from seg_perception.onboard.pipeline.opening import open_segmenter

    job = _job(arguments)
    if on_fleet(arguments) or not job.output.suffix or job.output.is_dir():
        return _each_by_itself(job, arguments)
    for path in (job.report, job.video):
        if path is not None:
            writable_folder(path.parent)
    if job.report is not None:
        absent(job.report, "--report")
    recordings = job.recordings()
    counts = [recording.count for recording in recordings if recording.count is not None]
    total = sum(counts) if len(counts) == len(recordings) else None
    choice = replace(model_choice(arguments.model, arguments), runners=arguments.side_by_side)
    with closing(open_segmenter(choice, _options(arguments))) as segmenter:
        segmenter.warm_up()
        print(model_line(segmenter.identity))
        for recording in recordings:
            print(f"{recording.path}: {', '.join(recording.cameras)}")
            for note in recording.notes:
                print(f"{recording.path}: {note}")
        with tqdm(total=total, unit="frame", disable=None) as bar:
            outcome = run_job(job, segmenter, recordings, [lambda *_: bar.update()])
    _print(job, outcome)
    for line in (line for recording in recordings for line in recording.warnings.lines()):
        print(f"warning: {line}")
    lost = outcome.record.fault_count or (outcome.earlier is not None and outcome.earlier.faults)
    return 1 if lost or not outcome.record.total else 0


def _each_by_itself(job: ReplayJob, arguments: argparse.Namespace) -> int:
    from seg_perception.offboard.fleet.replay_work import ReplayWork

    if job.video is not None:
        raise ConfigurationError(
            "--video: expected one output file (-o OUT.mcap), got a folder for the bags of a fleet"
        )
    choice = replace(model_choice(arguments.model, arguments), threads=worker_threads(arguments))
    return run_on_fleet(ReplayWork.of(choice, _options(arguments), job), job.paths, job.output, arguments)


def _job(arguments: argparse.Namespace) -> ReplayJob:
    from seg_perception.core.encodings.bit_depth import check_bit_depth
    from seg_perception.offboard.replay.inputs import Range
    from seg_perception.offboard.replay.job import ReplayJob
    from seg_perception.offboard.replay.replay import ReplayOptions

    if arguments.side_by_side < 0:
        raise ConfigurationError(f"--side-by-side: expected 1 or more models, got {arguments.side_by_side}")
    for name in ("start", "duration"):
        if not 0 <= getattr(arguments, name) <= _MOST_SECONDS:
            raise ConfigurationError(
                f"--{name}: expected seconds from 0 to {_MOST_SECONDS:g}, got {getattr(arguments, name)}"
            )
    options = ReplayOptions(
        tuple(_DEMANDS[each] for each in arguments.demands),
        _namespace(arguments.namespace),
        arguments.speed == "realtime",
    )
    paths = tuple(bags_of(arguments.paths, arguments))
    return ReplayJob(
        paths, arguments.output, tuple(arguments.topics), Range(arguments.start, arguments.duration),
        arguments.copy_inputs, options, arguments.against, arguments.report, arguments.video,
        check_bit_depth(arguments.bit_depth),
    )  # fmt: skip


def _namespace(name: str) -> str:
    space = f"/{name.strip('/')}"
    if not re.fullmatch(r"(/[A-Za-z_][A-Za-z0-9_]*)+", space):
        raise ConfigurationError(f"--namespace: expected a name as ROS has them, such as /segmenter, got {name!r}")
    return space


def _options(arguments: argparse.Namespace) -> SegmenterOptions:
    from seg_perception.onboard.backend.host.select import SelectOptions
    from seg_perception.onboard.pipeline.options import SegmenterOptions
    from seg_perception.onboard.pipeline.output_size import OutputSize
    from seg_perception.onboard.pipeline.track import TrackerOptions

    return SegmenterOptions(
        SelectOptions(arguments.score, keep_other=arguments.keep_other),
        arguments.min_pixels,
        OutputSize.parse(arguments.output_size),
        TrackerOptions() if arguments.tracking else None,
    )


def _print(job: ReplayJob, outcome: Outcome) -> None:
    record = outcome.record
    rate = record.total / outcome.seconds if outcome.seconds else 0.0
    print(f"{record.total} frames in {outcome.seconds:.1f} s: {rate:.1f} a second")
    latency = ", ".join(f"{name} {value:.1f}" for name, value in record.latency().items())
    print(f"milliseconds per frame: {latency or '-'}")
    print(f"instances: {', '.join(f'{group} {count}' for group, count in record.instances.items()) or 'none'}")
    for fault in record.faults[:_MOST_FAULTS]:
        print(f"lost: {fault}")
    if record.fault_count > _MOST_FAULTS:
        print(f"lost: {record.fault_count - _MOST_FAULTS} more")
    if outcome.earlier is not None:
        total = outcome.earlier.total()
        print(
            f"against {job.against}: {total.frames} frames, {outcome.earlier.differing} of them different: "
            f"{total.missed} gone, {total.extra} new, {total.switched} of another group; mask IoU {total.mean_iou:.4f}"
        )
        for fault in outcome.earlier.faults:
            print(f"against {job.against}: cannot be read further: {fault}")
        for camera, count in sorted(outcome.earlier.unmatched.items()):
            print(f"against {job.against}: {count} frames of {camera} are not in it")
    print(f"written to {job.output} ({outcome.size / 1e6:.1f} MB)")
    if job.report is not None:
        print(f"report in {job.report}")
