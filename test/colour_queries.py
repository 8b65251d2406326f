"""The start of exports that find coloured rectangles as a list of instances, each with a mask of its own."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from colour_model import MASK_GAIN, MASK_STRIDE, NAMES, STRIDE, save_canonical_colour_model
from onnx import TensorProto, helper

from seg_perception.core.contract import INPUT_NAME, INSTANCE_OUTPUTS
from seg_perception.offboard.toolchain.formulas import GraphBuilder, Value
from seg_perception.offboard.toolchain.graph import rename_tensors

ROWS = 100


@dataclass(frozen=True)
class Queries:
    """A graph without outputs, and what it has found.

    Attributes:
        model: takes float32 `[B, 3, height, width]`, RGB from 0 to 255.
        graph: to write on in.
        boxes: float32 `[B, 100, 4]`, x1 y1 x2 y2 in pixels.
        scores: float32 `[B, 100]`.
        labels: int32 `[B, 100]`.
        masks: logits of the instance itself, negative outside its box, float32 `[B, 100, height / 4, width / 4]`.
    """

    model: onnx.ModelProto
    graph: GraphBuilder
    boxes: Value
    scores: Value
    labels: Value
    masks: Value

    def class_scores(self) -> Value:
        """Each row's score in the column of its class: float32 `[B, 100, C]`."""
        columns = self.graph.constant(np.arange(len(NAMES)), np.int32)
        return self.labels.unsqueeze(2).equals(columns).cast(np.float32) * self.scores.unsqueeze(2)

    def finished(self, **outputs: tuple[Value, type, tuple[int | str, ...]]) -> onnx.ModelProto:
        """The checked model with outputs of these names, element types and shapes."""
        for name, (value, dtype, shape) in outputs.items():
            self.graph.publish(value, name, dtype, shape)
        helper.set_model_props(self.model, {"names": repr(dict(enumerate(NAMES)))})
        onnx.checker.check_model(self.model, full_check=True)
        return self.model


def colour_queries(width: int = 320, height: int = 192, batch: int | None = 1, name: str = "input") -> Queries:
    """The colour model with its rectangles sorted out.

    Args:
        width, height: of the network input, multiples of 8.
        batch: fixed, or None for a dynamic batch axis.
        name: of the input.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = onnx.load(save_canonical_colour_model(Path(folder) / "m.onnx", width=width, height=height, batch=batch))
    del model.metadata_props[:], model.graph.output[:], model.graph.input[:], model.graph.value_info[:]
    tensors = {output for node in model.graph.node for output in node.output}
    tensors.update((INPUT_NAME, *(tensor.name for tensor in model.graph.initializer)))
    # All of them: the product's own names are for what it writes itself.
    rename_tensors(model.graph, {each: f"found/{each}" for each in tensors})
    shape = ["batch" if batch is None else batch, 3, height, width]
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    first = [
        helper.make_node("Round", [name], ["found/whole"]),
        helper.make_node("Transpose", ["found/whole"], [f"found/{INPUT_NAME}"], perm=[0, 2, 3, 1]),
    ]
    nodes = [*first, *model.graph.node]
    for node in nodes:
        node.name = node.output[0]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    graph = GraphBuilder(model.graph, "queries")
    boxes, scores, labels, masks = (graph.value(f"found/{each}") for each in INSTANCE_OUTPUTS)
    rows = min(ROWS, width * height // STRIDE**2)
    return Queries(model, graph, boxes, scores, labels, _of_one(graph, masks, boxes, rows, (height, width)))


def _of_one(graph: GraphBuilder, masks: Value, boxes: Value, rows: int, size: tuple[int, int]) -> Value:
    """Masks that end where their boxes end, which those of the colour model do not."""
    for axis, length in ((3, size[1]), (2, size[0])):
        shape = [1, 1, 1, 1]
        shape[axis] = length // MASK_STRIDE
        centres = graph.constant(np.reshape((np.arange(shape[axis]) + 0.5) * MASK_STRIDE, shape))
        start, end = (
            graph.node("Gather", boxes, graph.constant([place], np.int64), axis=2).reshape(-1, rows, 1, 1)
            for place in (3 - axis, 5 - axis)
        )
        gain = MASK_GAIN / MASK_STRIDE
        masks = masks.minimum((centres - start) * gain).minimum((end - centres) * gain)
    return masks
