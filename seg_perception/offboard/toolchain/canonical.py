"""What all families share of the way from an export to a canonical model: input stage, outputs, versions, metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from seg_perception.core.contract import (
    CLASS_MAP_OUTPUT,
    INPUT_NAME,
    INSTANCE_OUTPUTS,
    METADATA_KEY,
    READING_KEY,
    ModelSpec,
)
from seg_perception.core.errors import ModelError

from .export import Export, Port
from .families import Match, PixelSpec
from .formulas import GraphBuilder
from .graph import GraphView, prune, rename_tensors, set_nodes
from .head import Head, InstanceHead
from .opset import in_contract_opset
from .runtimes import in_single_precision, split_what_is_gathered

# What belongs to opset 19; TensorRT 10, ONNX Runtime 1.16, OpenVINO and all later ones read it.
_IR_VERSION = 9
_CONTRACT_NAMES = (INPUT_NAME, *INSTANCE_OUTPUTS, CLASS_MAP_OUTPUT)
_BATCH = "batch"


def network_of(export: Export, match: Match) -> tuple[onnx.ModelProto, Match]:
    """The export in `contract.OPSET`, its float outputs in float32, no tensor called as the contract's own are.

    Its graph has no outputs any more. Returns the model, and the match with the names as they are now.

    Raises:
        ModelError: the opset cannot be converted.
    """
    model = in_contract_opset(export.model, export.origin)
    split_what_is_gathered(model.graph, export)
    view = GraphView(model.graph)
    names = {name: view.free_name(f"source/{name}") for name in _CONTRACT_NAMES}
    rename_tensors(model.graph, names)
    image = replace(match.image, name=names.get(match.image.name, match.image.name))
    outputs = {key: replace(port, name=names.get(port.name, port.name)) for key, port in match.outputs.items()}
    del model.graph.output[:]
    del model.graph.value_info[:]
    in_single_precision(model.graph)
    cast = GraphBuilder(model.graph, "float32")
    for key, port in outputs.items():
        if port.element == onnx.TensorProto.FLOAT16:
            value = cast.value(port.name).cast(np.float32)
            outputs[key] = Port(value.name, port.shape, onnx.TensorProto.FLOAT)
    return model, replace(match, image=image, outputs=outputs)


def replace_input(model: onnx.ModelProto, image: Port, pixels: PixelSpec) -> None:
    """Let the graph take `contract.INPUT_NAME`, uint8 `[B, H, W, 3]` RGB, in place of the float `image`."""
    batch, _, height, width = image.shape or (None,) * 4
    stage = onnx.GraphProto()
    graph = GraphBuilder(stage, "input")
    # TensorRT takes uint8 only as an input, and only to cast it at once.
    value = graph.value(INPUT_NAME).cast(np.float32).transpose(0, 3, 1, 2)
    if pixels.bgr:
        value = graph.concat(1, *reversed(value.split(1, 1, 1, 1)))
    if any(pixels.mean):
        value = value - graph.constant(np.reshape(pixels.mean, (1, 3, 1, 1)))
    if any(std != 1.0 for std in pixels.std):
        value = value * graph.constant(np.reshape(1.0 / np.array(pixels.std), (1, 3, 1, 1)))
    last = value.cast(helper.tensor_dtype_to_np_dtype(image.element))
    stage.node.append(helper.make_node("Identity", [last.name], [image.name], name="input/network"))

    set_nodes(model.graph, [*stage.node, *model.graph.node])
    model.graph.initializer.extend(stage.initializer)
    inputs = [value for value in model.graph.input if value.name != image.name]
    del model.graph.input[:]
    shape = [batch or _BATCH, height, width, 3]
    model.graph.input.append(helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.UINT8, shape))
    model.graph.input.extend(inputs)


def publish(graph: GraphBuilder, head: Head, batch: int) -> None:
    """Make the head's values the outputs of the contract; `batch` is 0 for a dynamic axis."""
    first = batch or _BATCH
    if isinstance(head, InstanceHead):
        rows = head.max_instances
        graph.publish(head.boxes, "boxes", np.float32, (first, rows, 4))
        graph.publish(head.scores, "scores", np.float32, (first, rows))
        graph.publish(head.labels, "labels", np.int32, (first, rows))
        graph.publish(head.masks, "masks", np.float32, (first, rows, head.mask_height, head.mask_width))
    if head.class_map is not None:
        graph.publish(head.class_map, CLASS_MAP_OUTPUT, np.uint8, (first, head.mask_height, head.mask_width))


def finish(model: onnx.ModelProto, spec: ModelSpec, reading: Mapping[str, str]) -> None:
    """Drop what no output needs, add the metadata, check everything.

    Args:
        model: complete.
        spec: what it is.
        reading: what was taken for granted of the export, by subject; readers need not know of it.

    Raises:
        ModelError: the checker refuses the result.
    """
    prune(model.graph)
    model.ir_version = _IR_VERSION
    model.producer_name = "seg_perception"
    model.metadata_props.add(key=METADATA_KEY, value=spec.to_json())
    model.metadata_props.add(key=READING_KEY, value=json.dumps(dict(reading)))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"the canonical model is not valid ONNX: {error}; the model was recognised as {spec.family!r}: "
            "if it is of another family, name it with --family, otherwise please report this"
        ) from error
