"""What the benchmarks run on: a canonical model and street pictures, made from `../shared/data` where it is there."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.defaults import DefaultsMissing, canonical, default_inputs, default_model
from demo.pictures import spread

THREADS = 2


def arguments(description: str | None) -> argparse.Namespace:
    """`--model` and `--input`, with defaults; ends the program with code 2 where there are none."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, help="canonical model or raw export")
    parser.add_argument("--input", type=Path, nargs="+", help="pictures, folders or videos")
    values, _ = parser.parse_known_args()
    try:
        values.input = values.input or default_inputs()
        values.model = canonical(values.model or default_model(), Path(tempfile.gettempdir()))
    except DefaultsMissing as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    return values


def street_pictures(inputs: list[Path], width: int, height: int, each: int = 12) -> list[NDArray[np.uint8]]:
    """bgr8 pictures `[height, width, 3]`: up to `each` of every source, evenly spread."""
    return [picture for path in inputs for picture in spread(path, each, (width, height))]
