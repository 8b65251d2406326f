"""`seg_perception prepare`: from an exporter's model file to a canonical model."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from seg_perception.core.errors import BackendUnavailable, ConfigurationError
from seg_perception.core.geometry import RESIZE_MODES

from .model_arguments import at_least

HELP = "rewrite an exported segmentation model (ONNX) into a canonical one that the node runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", type=Path, metavar="SRC.onnx", help="what the model's exporter wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DST.onnx", help="canonical model to write")
    parser.add_argument(
        "--nms-iou",
        type=float,
        default=0.6,
        metavar="T",
        help="of two objects of a class that overlap more than this (IoU), only the better one is kept "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--max-instances", type=int, default=100, metavar="K", help="objects per image, at most (default: %(default)s)"
    )
    parser.add_argument(
        "--nms-candidates",
        type=int,
        default=1024,
        metavar="K0",
        help="best predictions that take part in the suppression of duplicates (default: %(default)s)",
    )
    parser.add_argument(
        "--nms-steps",
        type=int,
        default=16,
        metavar="N",
        help="suppression is exact for chains of up to N overlaps; in longer ones some duplicates stay; even "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--classes",
        metavar="TABLE",
        help="class table whose names to use: a YAML file, or the name of one that comes with the package "
        "(default: the names that the model carries)",
    )
    # Each module there is called as its family; importing them would need onnx.
    modules = (Path(__file__).parents[1] / "offboard" / "toolchain" / "families").glob("[!_]*.py")
    families = ", ".join(sorted(path.stem for path in modules))
    parser.add_argument(
        "--family", default="", metavar="NAME", help=f"take the model as one of this family, of {families}"
    )
    parser.add_argument(
        "--input-size",
        type=_size,
        metavar="HxW",
        help="height and width of the network input, for a model that leaves them open",
    )
    parser.add_argument("--batch", type=at_least(1), metavar="N", help="batch size, for a model that leaves it open")
    parser.add_argument(
        "--resize", choices=RESIZE_MODES, help="how images are brought to the network's size (default: the family's)"
    )
    parser.add_argument(
        "--mean", type=_per_channel, metavar="A,B,C", help="subtracted from pixels 0-255 (default: the family's)"
    )
    parser.add_argument(
        "--std", type=_per_channel, metavar="A,B,C", help="divides pixels after that (default: the family's)"
    )
    parser.add_argument(
        "--bgr",
        action=argparse.BooleanOptionalAction,
        help="whether the network wants blue, green, red; --mean and --std are in its order (default: the family's)",
    )
    parser.add_argument(
        "--boxes",
        choices=("pixels", "shares"),
        default="",
        help="whether a YOLO's boxes are in pixels or shares of the image's sides (default: what the model tells)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="fp16: the network in float16, box decoding and suppression in float32 (default: %(default)s)",
    )
    parser.add_argument(
        "--keep-float32",
        action="append",
        default=[],
        metavar="NODE",
        help="with --precision fp16, a node of the graph that stays in float32; may be repeated",
    )
    parser.add_argument(
        "--check",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="with --precision fp16, images, folders or videos on which to compute as a GPU would round; if a value "
        "is beyond float16, no model is written and the layer is named",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepare a model and print the result."""
    start = time.perf_counter()
    try:
        from seg_perception.offboard.toolchain.head import HeadOptions
        from seg_perception.offboard.toolchain.prepare import PixelChange, PrepareOptions, prepare
    except ImportError as error:
        raise BackendUnavailable(f"`prepare` needs the Python package onnx ({error}): pip install onnx") from error
    from seg_perception.core.class_tables import find_class_table, load_class_table

    if arguments.classes == "auto":
        raise ConfigurationError("--classes: expected the path or name of a class table, got 'auto'")
    options = PrepareOptions(
        HeadOptions(arguments.nms_iou, arguments.max_instances, arguments.nms_candidates, arguments.nms_steps),
        load_class_table(find_class_table(arguments.classes, ())) if arguments.classes else None,
        arguments.family,
        arguments.input_size,
        arguments.batch,
        PixelChange(arguments.mean, arguments.std, arguments.bgr),
        arguments.resize,
        arguments.precision,
        tuple(arguments.keep_float32),
        tuple(arguments.check),
        arguments.boxes,
    )
    spec = prepare(arguments.source, arguments.output, options, report=print)
    finds = [f"up to {spec.max_instances} instances"] * bool(spec.max_instances) + ["a class map"] * spec.class_map
    print(
        f"input      uint8 [{spec.batch or 'any batch'}, {spec.network_height}, {spec.network_width}, 3], RGB, "
        f"{spec.resize.mode}\n"
        f"output     {' and '.join(finds)} of {len(spec.class_names)} classes, "
        f"masks {spec.mask_width} x {spec.mask_height}\n"
        f"wrote      {arguments.output} ({_megabytes(arguments.output)}, source {_megabytes(arguments.source)}) "
        f"in {time.perf_counter() - start:.1f} s"
    )
    return 0


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH such as 384x640, got {text!r}")
    return int(height), int(width)


def _per_channel(text: str) -> tuple[float, float, float]:
    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected three numbers such as 123.7,116.3,103.5, got {text!r}") from None
    return first, second, third


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
