"""`seg_perception verify`: a model against the one it was made from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from seg_perception.core.errors import ConfigurationError, IncompleteBagError

from .model_arguments import add_min_class_iou, model_line

if TYPE_CHECKING:
    from seg_perception.offboard.data.base import FrameSource
    from seg_perception.offboard.evaluation.coco import CocoSet
    from seg_perception.offboard.toolchain.verify.compare import Verification, VerifyOptions

HELP = "compare a model with its reference, instance by instance, and write a report; 1 when it is over the budget"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="canonical model (.onnx) or engine to be tested")
    parser.add_argument(
        "--reference", type=Path, required=True, metavar="CANONICAL.onnx", help="the model that is taken for right"
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="image, folder of images, video, or a COCO annotation file (.json) with its images in `images` next to it",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="instances.json", help="COCO annotations of the images in the folder --data"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder for report.html (default: no report)")
    parser.add_argument(
        "--score", type=float, default=0.25, help="an instance counts from this score on (default: %(default)s)"
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.05,
        help="below --score by no more than this, an instance may be a counterpart but need not have one "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--min-iou",
        type=float,
        metavar="IOU",
        help="lowest mean IoU of the masks of matched instances (default: 0.97 without labels, with labels unjudged)",
    )
    parser.add_argument(
        "--max-faults",
        type=float,
        metavar="SHARE",
        help="most false negatives, false positives and class confusions, as a share of the reference's (default: "
        "0.02 without labels, with labels unjudged)",
    )
    add_min_class_iou(parser)
    parser.add_argument(
        "--max-loss", type=float, metavar="POINTS", help="largest loss of mask AP, with labels (default: 0.5)"
    )
    parser.add_argument("--classes", default="auto", help="class table for road groups: a name, a YAML file, or auto")
    parser.add_argument("--backend", default="", help="backend of the tested model (default: by the model's suffix)")
    parser.add_argument("--device", default="", help="its name of the device")
    parser.add_argument("--reference-backend", default="", help="backend of the reference")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 lets the backend choose")
    parser.add_argument("--report-frames", type=int, default=12, help="frames in the report (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Compare; 1 when the model is over the budget, or a bag gave fewer frames than it holds."""
    from tqdm import tqdm

    from seg_perception.core.files import writable_folder
    from seg_perception.offboard.toolchain.verify.compare import verify
    from seg_perception.onboard.pipeline.opening import ModelChoice, open_segmenter

    labels = _labels(arguments)
    options = _options(arguments, labels is not None)
    if arguments.output is not None:
        writable_folder(arguments.output)
    source, data = _source(arguments.data, labels)
    dropped: list[str] = []
    with ExitStack() as opened:
        classes, threads = arguments.classes, arguments.threads
        tested, reference = (
            opened.enter_context(closing(open_segmenter(choice, any_classes=True)))
            for choice in (
                ModelChoice(str(arguments.model), arguments.backend, arguments.device, threads, classes),
                ModelChoice(str(arguments.reference), arguments.reference_backend, "", threads, classes),
            )
        )
        if labels is not None and not reference.spec.max_instances:
            dropped = ["the labels are of instances, and these models have a class map alone: they are not used"]
            labels, arguments.max_loss = None, None
            options = _options(arguments, False)
        frames = tqdm(source, total=_count(source), unit="frame", disable=None)
        found = verify(reference, tested, frames, options, labels, reference.table)
    notes = [*dropped, *(f"skipped: {failure}" for failure in source.failures)]
    if labels is not None and labels.missing:
        notes.append(f"{len(labels.missing)} labelled images are not there, such as {labels.missing[0]}")
    if labels is not None:
        notes += [f"labels: {line}" for line in labels.left_out()]
    _report(found, arguments.output, data, notes)
    incomplete = any(isinstance(failure, IncompleteBagError) for failure in source.failures)
    return 1 if found.violations or incomplete else 0


def _labels(arguments: argparse.Namespace) -> CocoSet | None:
    """The labelled set, if there is one."""
    from seg_perception.offboard.evaluation.coco import CocoSet, is_annotation_file

    if is_annotation_file(arguments.data):
        if arguments.labels is not None:
            raise ConfigurationError("--labels: expected none when --data is an annotation file itself, got both")
        return CocoSet.load(arguments.data)
    return None if arguments.labels is None else CocoSet.load(arguments.labels, arguments.data)


def _options(arguments: argparse.Namespace, labelled: bool) -> VerifyOptions:
    """With labels the loss of average precision is judged, without them agreement; both where both are asked for."""
    from seg_perception.offboard.metrics.agreement import AgreementBudget, AgreementRule
    from seg_perception.offboard.toolchain.verify.compare import VerifyOptions

    if arguments.max_loss is not None and not labelled:
        raise ConfigurationError("--max-loss: expected labelled images; give --labels or a COCO file as --data")
    budget = None
    if not labelled or arguments.min_iou is not None or arguments.max_faults is not None:
        usual = AgreementBudget(0.0, float("inf")) if labelled else AgreementBudget()
        budget = AgreementBudget(
            usual.min_iou if arguments.min_iou is None else arguments.min_iou,
            usual.max_faults if arguments.max_faults is None else arguments.max_faults,
            arguments.min_class_iou,
        )
    loss = (0.5 if arguments.max_loss is None else arguments.max_loss) if labelled else None
    return VerifyOptions(AgreementRule(arguments.score, arguments.margin), budget, loss, arguments.report_frames)


def _source(path: Path, labels: CocoSet | None) -> tuple[FrameSource, str]:
    """Return the frames, and a human-readable description of them."""
    from seg_perception.offboard.data.images import open_source

    if labels is not None:
        return labels.source(), f"labelled images of {labels.path}"
    return open_source(path), str(path)


def _count(source: FrameSource) -> int | None:
    try:
        return len(source)
    except TypeError:
        return None


def _report(found: Verification, folder: Path | None, data: str, notes: Sequence[str]) -> None:
    from seg_perception.offboard.toolchain.verify.report import agreement_rows, describe, precision_rows, write_report

    print(f"tested     {model_line(found.tested)}\nreference  {model_line(found.reference)}")
    for label, value in agreement_rows(found):
        print(f"{label:52} {value}")
    for pair in found.precision:
        print(f"{f'{pair.reference.kind} AP':28} {'reference':>9} {'tested':>9}  difference in points")
        for label, first, second, difference in precision_rows(pair):
            print(f"  {label:26} {first:>9} {second:>9}  {difference}")
    if found.violations:
        for frame in found.worst:
            print(f"differs: {frame.name}: {describe(frame, found.class_names)}")
    for note in notes:
        print(note)
    if folder is not None:
        print(f"report in {write_report(folder, found, data, notes)}")
    print("within the budget" if not found.violations else "over the budget:")
    for reason in found.violations:
        print(f"  {reason}")
