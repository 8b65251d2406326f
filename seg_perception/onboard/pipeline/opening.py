"""From the name of a model to a segmenter: the one function that the node, commands, evaluation and benchmarks call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seg_perception.core.class_tables import AUTO, resolve_class_table
from seg_perception.core.classes import ClassTable
from seg_perception.core.errors import ClassTableError
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.select import IgnoreMask
from seg_perception.onboard.backend.registry import open_backend

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
        runners: see `RunOptions`.
    """

    model: str
    backend: str = ""
    device: str = ""
    threads: int = 0
    classes: str = AUTO
    runners: int = 1


def open_segmenter(
    choice: ModelChoice,
    options: SegmenterOptions | None = None,
    ignore_masks: Mapping[str, IgnoreMask] | None = None,
    *,
    any_classes: bool = False,
) -> Segmenter:
    """Open a model; the caller closes it.

    Args:
        choice: which model.
        options: of all cameras.
        ignore_masks: by camera name.
        any_classes: take an empty class table where `auto` finds none that fits the model, instead of an error.

    Raises:
        SegPerceptionError: the model or the class table cannot be used.
    """
    backend = open_backend(
        Path(choice.model), choice.backend, RunOptions(choice.device, choice.threads, choice.runners)
    )
    try:
        try:
            table = resolve_class_table(choice.classes, backend.spec.class_names)
        except ClassTableError:
            if not any_classes or choice.classes != AUTO:
                raise
            table = ClassTable("none", tuple(backend.spec.class_names), {})
        return Segmenter(backend, table, options, ignore_masks)
    except BaseException:
        backend.close()
        raise
