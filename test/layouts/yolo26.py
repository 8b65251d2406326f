"""YOLO26-seg end to end: sorted rows that need no suppression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from colour_model import PROTOTYPES, colour_model

from seg_perception.offboard.toolchain.export import Export
from seg_perception.offboard.toolchain.families import known_families
from seg_perception.offboard.toolchain.formulas import GraphBuilder
from seg_perception.offboard.toolchain.head import HeadOptions, InstanceHead

ROWS = 60


def export(path: Path) -> None:
    """Write `output0` `[1, 60, 6 + 32]` and `output1` `[1, 32, 48, 80]`."""
    onnx.save(yolo26(), path)


def yolo26(batch: int | None = 1) -> onnx.ModelProto:
    """The raw export; an image with a pixel of `FAULT_COLOUR` makes its rows NaN."""
    model = colour_model(batch=batch, fault="predictions", opset=19)
    dense = known_families()["yolov8"]
    match = dense.recognise(Export.of_model(model))
    assert match is not None
    graph = GraphBuilder(model.graph, "yolo26")
    head = dense.write_head(graph, match, HeadOptions(max_instances=ROWS))
    assert isinstance(head, InstanceHead)
    labels = head.labels.cast(np.float32).unsqueeze(2)
    coefficients = labels.equals(graph.constant(np.arange(PROTOTYPES))).cast(np.float32)
    rows = graph.concat(2, head.boxes, head.scores.unsqueeze(2), labels, coefficients)
    prototypes = model.graph.output[1]
    del model.graph.output[:]
    graph.publish(rows, "rows", np.float32, (batch or "batch", ROWS, 6 + PROTOTYPES))
    model.graph.output.append(prototypes)
    return model
