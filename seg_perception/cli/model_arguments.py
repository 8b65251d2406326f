"""Arguments that every command with a model has."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seg_perception.onboard.pipeline.opening import ModelChoice


def add_model_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare how a model runs; which one it is, each command declares itself."""
    parser.add_argument("--classes", default="auto", help="class table: a name, a YAML file, or auto")
    parser.add_argument(
        "--backend", default="", help="openvino, onnxruntime or tensorrt (default: by the model's suffix)"
    )
    parser.add_argument("--device", default="", help="the backend's name of the device")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 lets the backend choose")
    add_image_arguments(parser)


def add_image_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare how images are read."""
    parser.add_argument(
        "--bit-depth", default="16", metavar="BITS",
        help="bits that 16-bit images use, counted from the lowest: 8 to 16, or auto, by the largest value so far "
        "(default: %(default)s)",
    )  # fmt: skip


def add_min_class_iou(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare what the accuracy gate asks of semantic models; `quantize` and `verify` judge alike."""
    parser.add_argument(
        "--min-class-iou",
        type=float,
        default=0.9,
        metavar="IOU",
        help="lowest mean IoU of the classes, of models with a class map alone (default: %(default)s)",
    )


def model_choice(model: str, arguments: argparse.Namespace) -> ModelChoice:
    """The model of that name, to be opened as the arguments say."""
    from seg_perception.onboard.pipeline.opening import ModelChoice

    return ModelChoice(model, arguments.backend, arguments.device, arguments.threads, arguments.classes)


def model_line(identity: Mapping[str, str]) -> str:
    """Return what runs, in one line."""
    return ", ".join(f"{key} {identity[key]}" for key in ("backend", "device", "precision", "model"))


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number of this size or more."""

    def whole_number(text: str) -> int:
        if not (text.isdecimal() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return int(text)

    return whole_number
