"""`seg_perception label`: a model's labels of recordings, for people to review."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from seg_perception.core.errors import ConfigurationError

from .fleet_arguments import add_fleet_arguments, bags_of, on_fleet, run_on_fleet, worker_threads
from .model_arguments import add_model_arguments, model_line

if TYPE_CHECKING:
    from seg_perception.offboard.label.run import LabelOptions, LabelSummary

HELP = "label bags, videos and images with a model, and say which frames need a person and why"
_MOST_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("paths", type=Path, nargs="*", metavar="PATH", help="bag, video, image or folder of images")
    add("--model", type=Path, required=True, metavar="M", help="canonical model (.onnx) or engine")
    add("-o", "--output", type=Path, required=True, metavar="DATASET", help="folder for the data set")
    add("--resume", action="store_true", help="go on with a data set that was begun with the same options")
    picks = parser.add_argument_group("which frames (any that one of these wants; default: --every 10)")
    picks.add_argument("--every", type=int, default=0, metavar="N", help="one frame in N of each camera")
    picks.add_argument(
        "--scene-change", type=float, default=0.0, metavar="T",
        help="frames that differ from the last one so chosen by more than T of the grey values, such as 0.1",
    )  # fmt: skip
    picks.add_argument("--lowest-confidence", type=int, default=0, metavar="N", help="the N with most doubtful objects")
    picks.add_argument(
        "--disagree", type=Path, metavar="M2", help="the --disagree-frames in which model M2 says something else most"
    )
    picks.add_argument("--disagree-frames", type=int, default=50, metavar="N", help="(default: %(default)s)")
    picks.add_argument(
        "--apart", type=float, default=1.0, metavar="SECONDS",
        help="the two rules above choose one frame at most of each camera in so many seconds (default: %(default)s)",
    )  # fmt: skip
    what = parser.add_argument_group("labels")
    what.add_argument("--categories", default="groups", help="groups (of road users) or classes (of the model)")
    what.add_argument("--score", type=float, default=0.4, help="lowest score (default: %(default)s)")
    what.add_argument("--min-pixels", type=int, default=16, help="smallest object (default: %(default)s)")
    what.add_argument("--masks", default="rle", help="rle (exact) or polygons (to be edited) (default: %(default)s)")
    what.add_argument(
        "--simplify", type=float, default=1.0, metavar="PIXELS",
        help="how far a polygon may leave the outline of its mask (default: %(default)s)",
    )  # fmt: skip
    what.add_argument("--image-format", default="jpg", help="jpg or png (default: %(default)s)")
    what.add_argument("--weather", default="", help="of these recordings, for the images' `weather`")
    add_model_arguments(parser.add_argument_group("how the model is run"))
    add_fleet_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Label everything; 1 when something could not be read."""
    from seg_perception.offboard.label.run import Labeller

    paths = bags_of(arguments.paths, arguments)
    if on_fleet(arguments):
        from seg_perception.offboard.fleet.label_work import LabelWork

        return run_on_fleet(LabelWork.of(options_of(arguments)), paths, arguments.output, arguments)
    with Labeller(options_of(arguments)) as labeller:
        print(model_line(labeller.identity))
        try:
            summary = labeller.label(paths, arguments.output, arguments.resume)
        except KeyboardInterrupt:
            print(f"stopped; {arguments.output} holds what was chosen, the same command with --resume goes on")
            raise
    print_summary(summary, arguments.output)
    return 1 if summary.failures else 0


def options_of(arguments: argparse.Namespace) -> LabelOptions:
    """Return what the arguments ask for.

    Raises:
        ConfigurationError: they do not go together.
    """
    from seg_perception.offboard.label.picks import PickOptions
    from seg_perception.offboard.label.records import MaskStyle
    from seg_perception.offboard.label.run import LabelOptions
    from seg_perception.onboard.backend.base import RunOptions

    if arguments.disagree is not None and arguments.disagree_frames < 1:
        raise ConfigurationError(f"--disagree-frames: expected 1 or more, got {arguments.disagree_frames}")
    any_rule = arguments.every or arguments.scene_change or arguments.lowest_confidence or arguments.disagree
    disagree = 0 if arguments.disagree is None else arguments.disagree_frames
    return LabelOptions(
        arguments.model,
        PickOptions(
            arguments.every if any_rule else 10, arguments.scene_change, arguments.lowest_confidence, disagree,
            arguments.apart,
        ),
        arguments.disagree,
        MaskStyle(arguments.masks, arguments.simplify),
        arguments.categories,
        arguments.classes,
        arguments.score,
        arguments.min_pixels,
        arguments.image_format,
        arguments.weather,
        arguments.backend,
        RunOptions(device=arguments.device, threads=worker_threads(arguments)),
        arguments.bit_depth,
    )  # fmt: skip


def print_summary(summary: LabelSummary, folder: Path) -> None:
    """Say what came of it."""
    picks = ", ".join(f"{count} by {rule.replace('_', ' ')}" for rule, count in summary.picks.items())
    objects = ", ".join(f"{count} {name}" for name, count in summary.objects.items()) or "nothing found"
    print(f"{summary.seen} frames seen, {summary.chosen} chosen ({picks or 'none'}): {objects}")
    if summary.repeated:
        print(f"left out: {summary.repeated} frames whose image is there already")
    for source, reasons in summary.failures.items():
        for reason in reasons[:_MOST_SHOWN]:
            print(f"skipped: {reason if reason.startswith(source) else f'{source}: {reason}'}")
        if len(reasons) > _MOST_SHOWN:
            print(f"skipped: {source}: and {len(reasons) - _MOST_SHOWN} more, see label.json")
    for line in summary.warnings:
        print(f"warning: {line}")
    print(f"results in {folder}; what to review first: quality.csv")
