"""An evaluation as JSON: all its numbers, without its images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seg_perception.core.files import write_atomically

from .results import Evaluation

# Of a frame of the gallery: what people need to find it again.
_SHOWN = ("kind", "name", "width", "height", "words")


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write everything but images and masks; what is NaN becomes null.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    values = _plain(replace(evaluation, gallery=()))
    values["gallery"] = [
        {**{name: getattr(frame, name) for name in _SHOWN}, "scores": [_plain(each.score) for each in frame.verdicts]}
        for frame in evaluation.gallery
    ]
    write_atomically(path, (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
