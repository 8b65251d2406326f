"""`seg_perception quantize`: a canonical model in INT8 that keeps its accuracy."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from seg_perception.core.errors import BackendUnavailable, ConfigurationError, IncompleteBagError

from .model_arguments import add_image_arguments, add_min_class_iou

if TYPE_CHECKING:
    from seg_perception.offboard.toolchain.quantize.report import QuantizationReport

HELP = "make a canonical model INT8 and prove on held-back frames that it keeps its accuracy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", type=Path, metavar="CANONICAL.onnx", help="what `prepare` wrote, in float32")
    parser.add_argument(
        "--calibration",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        metavar="PATH",
        help="images, folders, videos, bags, or a COCO annotation file (its images in `images` next to it), with "
        "which the loss is measured as mask AP, too; about 500 frames of what the cameras see are best",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="INT8.onnx", help="quantized model to write"
    )
    parser.add_argument(
        "--max-loss", type=float, default=0.5, metavar="POINTS", help="of mask AP, with labels (default: %(default)s)"
    )
    parser.add_argument(
        "--min-iou",
        type=float,
        default=0.97,
        metavar="IOU",
        help="lowest mean mask IoU of matched instances, without labels (default: %(default)s)",
    )
    add_min_class_iou(parser)
    parser.add_argument(
        "--max-faults",
        type=float,
        default=0.02,
        metavar="SHARE",
        help="highest share of false negatives, false positives and class confusions, without labels (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--int8-share",
        type=float,
        default=0.8,
        metavar="SHARE",
        help="with labels, layers return to float16 until the instances agree as they must without, as long as this "
        "share of the work stays in INT8 (default: %(default)s)",
    )
    parser.add_argument("--method", default="", metavar="M", help="calibration method (default: the best one measured)")
    parser.add_argument("--max-frames", type=int, default=512, metavar="N", help="frames to use (default: %(default)s)")
    add_image_arguments(parser)
    parser.add_argument("--force", action="store_true", help="write the model even if it loses more than it may")


def run(arguments: argparse.Namespace) -> int:
    """Quantize a model and report it; 1 when a bag gave fewer frames than it holds."""
    start = time.perf_counter()
    try:
        from seg_perception.offboard.toolchain.quantize.frames import gather, labels_among
        from seg_perception.offboard.toolchain.quantize.gate import Budget
        from seg_perception.offboard.toolchain.quantize.progress import bar
        from seg_perception.offboard.toolchain.quantize.quantize import QuantizeOptions, check_source, quantize
    except ImportError as error:
        raise BackendUnavailable(
            f"`quantize` needs the Python packages onnx and onnxruntime ({error}): pip install onnx onnxruntime"
        ) from error
    from seg_perception.core.files import writable_folder, write_atomically
    from seg_perception.core.share import find_model
    from seg_perception.offboard.metrics.agreement import AgreementBudget
    from seg_perception.offboard.toolchain.export import load_model

    options = QuantizeOptions(
        Budget(arguments.max_loss, AgreementBudget(arguments.min_iou, arguments.max_faults, arguments.min_class_iou)),
        arguments.method,
        arguments.int8_share,
        arguments.force,
    )
    arguments.model = find_model(str(arguments.model))
    model, _ = load_model(arguments.model)
    if arguments.output.exists() and arguments.output.samefile(arguments.model):
        raise ConfigurationError(f"{arguments.output}: this is the source itself; choose another name for the result")
    if arguments.output.is_dir():
        raise ConfigurationError(f"{arguments.output}: is a folder; expected the name of a file with -o")
    writable_folder(arguments.output.parent)
    check_source(model, labels_among(arguments.calibration), str(arguments.model))
    frames = gather(arguments.calibration, arguments.max_frames, bar, arguments.bit_depth)
    done = quantize(model, frames, options, print, bar, str(arguments.model))
    write_atomically(arguments.output, done.model.SerializeToString())
    print(_table(done.report))
    size = arguments.output.stat().st_size / 1e6
    print(f"wrote {arguments.output} ({size:.1f} MB) in {time.perf_counter() - start:.0f} s")
    return 1 if any(isinstance(failure, IncompleteBagError) for failure in frames.failures) else 0


def _table(report: QuantizationReport) -> str:
    """Return what was tried, what stays in float16 and what the result loses."""
    lines = ["", "INT8     mask IoU  faults  lost mask AP  within budget"]
    for step in report.steps:
        iou = "-" if step.precision.mask_iou is None else f"{step.precision.mask_iou:.4f}"
        loss = "-" if step.precision.mask_loss is None else f"{step.precision.mask_loss:+.2f}"
        lines.append(
            f"{100 * step.int8_share:5.1f} %  {iou:>8}  {100 * step.precision.fault_share:4.1f} %  {loss:>12}  "
            f"{'yes' if step.fits else 'no'}"
        )
    lines.append("in float16:")
    lines += [f"  {100 * layer.share:5.2f} %  {layer.name} ({layer.operator}): {layer.reason}" for layer in report.kept]
    if report.forced:
        lines.append("FORCED: this model loses more than its budget allows; its metadata say so")
    lines.append(f"result: {100 * report.int8_share:.1f} % of the multiply-accumulates in INT8; {report.precision}")
    if report.precision.caution:
        lines.append(report.precision.caution)
    return "\n".join(lines)
