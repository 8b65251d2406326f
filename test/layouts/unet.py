"""A U-Net that finds coloured rectangles: a background and four classes, logits at the size of the input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from colour_model import NAMES, colour_model
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("background", *NAMES)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def export(path: Path) -> None:
    """Write `[1, 3, 192, 320]` in ImageNet's normalisation to `logits` `[1, 5, 192, 320]`."""
    onnx.save(unet(), path)


def unet(
    width: int = 320, height: int = 192, batch: int | None = 1, ending: str = "", opset: int = 17
) -> onnx.ModelProto:
    """The raw export; an image with a pixel of `FAULT_COLOUR` makes its logits NaN.

    Args:
        width, height: of the network input.
        batch: fixed, or None for a dynamic batch axis.
        ending: what comes behind the logits: nothing, "Softmax", "ArgMax", "Sigmoid" (then there is no background),
            "Binary" (a Sigmoid over cars alone), "Coarse" (logits a quarter of the size), "Twice" (another output).
        opset: 13 or later.
    """
    model = colour_model(width, height, batch, fault="prototypes", opset=opset)
    graph = model.graph
    first = "batch" if batch is None else batch
    _take_normalised(graph, [first, 3, height, width])
    classes: tuple[str, ...] = CLASSES
    if ending in ("Sigmoid", "Binary"):
        classes = NAMES if ending == "Sigmoid" else NAMES[1:2]
        channels = [NAMES.index(name) for name in classes]
        last = _node(graph, "Gather", "output1", np.array(channels), axis=1)
    else:
        own = _node(graph, "Gather", "output1", np.arange(len(NAMES)), axis=1)
        last = _node(graph, "Pad", own, np.array([0, 1, 0, 0, 0, 0, 0, 0]))
    scale = 4 if ending == "Coarse" else 1
    if ending != "Coarse":
        last = _node(graph, "Resize", last, "", np.array([1, 1, 4, 4], np.float32), mode="linear")
    shape = [first, len(classes), height // scale, width // scale]
    if ending == "Softmax":
        last = _node(graph, "Softmax", last, axis=1)
    elif ending in ("Sigmoid", "Binary"):
        last = _node(graph, "Sigmoid", last)
    elif ending == "ArgMax":
        last, shape[1] = _node(graph, "ArgMax", last, axis=1, keepdims=1), 1
    _node(graph, "Identity", last, output="logits")
    element = TensorProto.INT64 if ending == "ArgMax" else TensorProto.FLOAT
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", element, shape))
    if ending == "Twice":
        _node(graph, "Neg", last, output="auxiliary")
        graph.output.append(helper.make_tensor_value_info("auxiliary", element, shape))
    helper.set_model_props(model, {"names": repr(list(classes))})
    onnx.checker.check_model(model, full_check=True)
    return model


def _take_normalised(graph: onnx.GraphProto, shape: list[Any]) -> None:
    """Replace the input by one of the same image, normalised."""
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, shape))
    body = list(graph.node)
    del graph.node[:]
    scaled = _node(graph, "Mul", "input", np.reshape(np.array(STD, np.float32), (1, 3, 1, 1)))
    _node(graph, "Add", scaled, np.reshape(np.array(MEAN, np.float32), (1, 3, 1, 1)), output="images")
    graph.node.extend(body)


def _node(graph: onnx.GraphProto, operator: str, *inputs: Any, output: str = "", **attributes: Any) -> str:
    """Append a node; arrays among its inputs become initializers."""
    output = output or f"{operator}_unet_{len(graph.node)}"
    names = []
    for place, value in enumerate(inputs):
        if isinstance(value, np.ndarray):
            graph.initializer.append(numpy_helper.from_array(value, f"{output}/{place}"))
            value = f"{output}/{place}"
        names.append(value)
    graph.node.append(helper.make_node(operator, names, [output], name=output, **attributes))
    return output
