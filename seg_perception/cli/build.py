"""`seg_perception build`: from a model to an engine with a manifest."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

from seg_perception.core.errors import BackendUnavailable
from seg_perception.core.manifest import PRECISIONS, BuildSettings, manifest_path

from .model_arguments import at_least

HELP = "build a TensorRT or TensorRT-RTX engine, with a manifest, from a canonical model or an export (ONNX)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", type=Path, metavar="MODEL.onnx", help="canonical model, or what an exporter wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the engine")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp16",
        help="of the network; boxes stay in fp32 (default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        choices=("tensorrt", "tensorrt-rtx"),
        default="tensorrt",
        help="tensorrt builds on the machine that will run the engine; tensorrt-rtx, for desktop GPUs, also elsewhere "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--gpu",
        nargs="+",
        default=[],
        metavar="sm_86",
        help="with tensorrt-rtx, one or several architectures to build for without a GPU (default: the GPU here)",
    )
    parser.add_argument(
        "--max-batch",
        type=at_least(1),
        default=0,
        metavar="N",
        help="largest batch, for a model that leaves it open: the number of cameras (default: 1)",
    )
    _add_int8(parser)
    _add_builder(parser)
    _add_prepare(parser)
    parser.add_argument("--rebuild", action="store_true", help="build also where the same engine is there already")


def run(arguments: argparse.Namespace) -> int:
    """Build or reuse an engine, and say which."""
    start = time.perf_counter()
    try:
        from seg_perception.offboard.toolchain.engine.build import build_engine
    except ImportError as error:
        raise BackendUnavailable(
            f"`build` needs the Python packages onnx and onnxruntime ({error}): pip install onnx onnxruntime"
        ) from error
    from seg_perception.core.share import find_model

    settings = settings_of(arguments)
    # At once also where nobody sits at a terminal: a build may take long.
    report = partial(print, flush=True)
    built = build_engine(find_model(str(arguments.source)), arguments.output, settings, report, arguments.rebuild)
    manifest = built.manifest
    size = f"{manifest.engine_bytes / 1e6:.1f} MB"
    if built.reused:
        print(f"reusing    {built.path} ({size}), built {manifest.created} from the same; --rebuild builds it again")
    else:
        stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in manifest.seconds.items())
        print(f"wrote      {built.path} ({size}) in {time.perf_counter() - start:.1f} s ({stages})")
        print(f"           {manifest_path(built.path)}")
    return 0


def settings_of(arguments: argparse.Namespace) -> BuildSettings:
    """Return what the arguments ask for."""
    return BuildSettings(
        precision=arguments.precision,
        target=arguments.target,
        gpu=tuple(dict.fromkeys(arguments.gpu)),
        max_batch=arguments.max_batch,
        calibration=tuple(arguments.calibration),
        max_loss=arguments.max_loss,
        force=arguments.force,
        workspace=arguments.workspace,
        dla=arguments.dla,
        timing_cache=arguments.timing_cache,
        sparsity=arguments.sparsity,
        classes=arguments.classes,
        family=arguments.family,
        input_size=arguments.input_size,
    )


def _add_int8(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("INT8")
    group.add_argument(
        "--calibration",
        nargs="+",
        default=[],
        metavar="PATH",
        help="images like the cameras' own: images, folders, videos, bags, a COCO file",
    )
    group.add_argument("--max-loss", type=float, metavar="POINTS", help="budget of the accuracy gate (default: 0.5)")
    group.add_argument("--force", action="store_true", help="keep an engine that fails the gate; its manifest says so")


def _add_builder(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("builder")
    group.add_argument(
        "--workspace", type=at_least(1), default=0, metavar="MiB", help="limit of scratch memory (default: none)"
    )
    group.add_argument("--dla", type=at_least(0), metavar="CORE", help="DLA core of a Jetson; fp16 only")
    group.add_argument(
        "--timing-cache",
        default="",
        metavar="FILE",
        help="with tensorrt, keeps measured kernel times for the next build",
    )
    group.add_argument("--sparsity", action="store_true", help="use weights that are 2:4 sparse as such")


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("raw exports", "more options: `seg_perception prepare`")
    group.add_argument("--classes", default="", metavar="TABLE", help="class table whose names to use")
    group.add_argument("--family", default="", metavar="NAME", help="take the model as one of this family")
    group.add_argument("--input-size", default="", metavar="HxW", help="for a model that leaves its size open")
