"""What the benchmarks run on: a canonical model and street images, made from `../shared/data` where it is there."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.images import spread
from demo.model import canonical
from seg_perception.core.errors import SegPerceptionError

THREADS = 2
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
MODEL = SHARED / "models" / "yolov8n-seg-640.onnx"
INPUTS = (SHARED / "video" / "highway_720p.mp4", SHARED / "images" / "street")


class DefaultsMissing(SegPerceptionError):
    """There is no model or no image to run on."""


def default_model() -> Path:
    """The test model.

    Raises:
        DefaultsMissing: it is not on this machine.
    """
    if not MODEL.is_file():
        raise DefaultsMissing(f"no model: {MODEL} is not there; give one: --model /path/to/yolov8n-seg.onnx")
    return MODEL


def default_inputs() -> list[Path]:
    """The test clip and the street photographs.

    Raises:
        DefaultsMissing: none of them is on this machine.
    """
    found = [path for path in INPUTS if path.exists()]
    if not found:
        raise DefaultsMissing(f"no images: {SHARED} is not there; give some: --input /path/to/video-or-images")
    return found


def arguments(description: str | None) -> argparse.Namespace:
    """`--model` and `--input`, with defaults; ends the program with code 2 where there are none."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, help="canonical model or raw export")
    parser.add_argument("--input", type=Path, nargs="+", help="images, folders or videos")
    values, _ = parser.parse_known_args()
    try:
        values.input = values.input or default_inputs()
        values.model = canonical(values.model or default_model(), Path(tempfile.gettempdir()))
    except DefaultsMissing as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    return values


def street_images(inputs: list[Path], width: int, height: int, each: int = 12) -> list[NDArray[np.uint8]]:
    """bgr8 images `[height, width, 3]`: up to `each` of every source, evenly spread."""
    return [image for path in inputs for image in spread(path, each, (width, height))]
