"""From the name of a model to a segmenter, for commands; the node does the same with its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seg_perception.core.class_tables import AUTO, resolve_class_table
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.backend import open_backend

from .options import SegmenterOptions
from .segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model, and how it runs.

    Attributes:
        model: a path, the name of a file of the package's share/engines, or a name of the catalogue.
        backend: its name; empty for the one that goes with the file's suffix.
        device: the backend's name of the device; empty for its default.
        threads: of the CPU; 0 lets the backend choose.
        classes: class table that sorts the model's classes into road groups: a name, a YAML file, or `auto`.
    """

    model: str
    backend: str = ""
    device: str = ""
    threads: int = 0
    classes: str = AUTO


def open_segmenter(choice: ModelChoice, options: SegmenterOptions | None = None) -> Segmenter:
    """Open a model; whoever gets it closes it.

    Raises:
        SegPerceptionError: the model or the class table cannot be used.
    """
    run = RunOptions(device=choice.device, threads=choice.threads)
    backend = open_backend(Path(choice.model), choice.backend, run)
    try:
        return Segmenter(backend, resolve_class_table(choice.classes, backend.spec.class_names), options)
    except BaseException:
        backend.close()
        raise
