"""What tells networks apart that predict something at every position: YOLOv5, YOLOv8 and their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .evidence import are_shares, dense_positions
from .export import Export, Port
from .families import Match, sizes_of
from .formulas import GraphBuilder, Value

_UNITS = ("in pixels of the network", "as shares of the image")
Probe = Callable[[Match, Mapping[str, NDArray[Any]]], Match]


def dense_evidence(
    export: Export, image: Port, classes: int, positions: int, columns: int, anchors: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what speaks for and against a reading of `[B, rows, columns]` in which one axis is the positions.

    Args:
        export: the model.
        image: its input.
        classes: how many there are in this reading.
        positions: how many there are in this reading.
        columns: length of the other axis.
        anchors: predictions of the family at one position of the grids of stride 8, 16 and 32.
    """
    evidence, against = [], []
    usual = dense_positions(image)
    if positions == anchors * usual:
        evidence.append(f"{positions} positions are those of an input of {_size(image)}")
    elif columns in (usual, 3 * usual):
        against.append(f"{columns} are the positions of an input of {_size(image)}")
    named = export.name_count()
    if named == classes:
        evidence.append(f"{named} class names")
    elif columns >= positions and not evidence:
        against.append(f"{columns} values for each of {positions} positions, and not {classes} class names")
    return tuple(evidence), tuple(against)


def dense_reading(scores: str, boxes: str = "centre x, centre y, width, height") -> dict[str, str]:
    """Return the reading of such a model; boxes in pixels until a run shows something else."""
    masks = "coefficients times prototypes over the whole image, logits"
    return {"scores": scores, "boxes": f"{boxes} {_UNITS[0]}", "masks": masks}


def units_of(export: Export, centres: Callable[[NDArray[Any]], NDArray[Any]]) -> Probe | None:
    """Return a probe that finds out whether boxes are shares of the image's sides, or None where metadata tell.

    Args:
        export: the model.
        centres: takes coordinates that lie all over the image out of the output of rank 3.
    """
    # Ultralytics and the repositories of YOLOv5 and YOLOv7 write it; their ONNX exports have pixels.
    if "stride" in export.metadata:
        return None

    def probe(match: Match, outputs: Mapping[str, NDArray[Any]]) -> Match:
        port = next(port for port in match.outputs.values() if port.rank == 3)
        values = outputs.get(port.name)
        if values is None or not are_shares(centres(values)):
            return match
        return with_box_shares(match, True)

    return probe


def with_box_shares(match: Match, shares: bool) -> Match:
    """Return a match of such a model whose boxes are shares of the image's sides, or are not."""
    before, after = _UNITS if shares else _UNITS[::-1]
    boxes = match.reading.get("boxes", "").replace(before, after)
    return replace(match, box_shares=shares, reading={**match.reading, "boxes": boxes})


def in_pixels(graph: GraphBuilder, match: Match, boxes: Value, axis: int) -> Value:
    """Return boxes in pixels of the network, whatever the export has them in; x, y, x, y along `axis` of three."""
    if not match.box_shares:
        return boxes
    _, height, width = sizes_of(match.image)
    shape = [1, 1, 1]
    shape[axis] = 4
    return boxes * graph.constant(np.reshape(np.array([width, height] * 2, np.float32), shape))


def _size(image: Port) -> str:
    _, height, width = sizes_of(image)
    return f"{width} x {height}"
