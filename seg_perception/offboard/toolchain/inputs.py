"""Brings the input of an export into the one form that families know: float images `[B, 3, H, W]`."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seg_perception.core.errors import ConfigurationError, ModelError

from .export import Export, Port
from .graph import rename_tensors

_LARGEST_SIDE = 16384


def with_usual_input(export: Export, batch: int | None, size: tuple[int, int] | None) -> tuple[Export, tuple[str, ...]]:
    """Return the export with an input of float images `[B, 3, H, W]` of fixed height and width.

    Args:
        export: as its exporter wrote it.
        batch: the batch size; None to leave an open one open, and to open a fixed one above 1.
        size: height and width, for an input that leaves them open; None to take those that the metadata name.

    Returns:
        The export, and what was changed, for people.

    Raises:
        ConfigurationError: the input is fixed to something else, or leaves height or width open.
    """
    notes = []
    plain = with_float_input(with_channels_first(with_batch_axis(export)))
    if plain.inputs != export.inputs:
        notes.append(f"input      {', '.join(map(str, export.inputs))} in the export")
    port = plain.inputs[0] if len(plain.inputs) == 1 and plain.inputs[0].rank == 4 else None
    if port is not None and port.shape is not None:
        if size is None and None in port.shape[2:] and (size := metadata_size(plain)) is not None:
            notes.append(f"input size {size[0]} x {size[1]} (height x width), the `imgsz` of its metadata")
        fixed = port.shape[0] or 1
        if fixed > 1 and batch != fixed:
            opened = with_open_batch(plain)
            plain = opened or plain
            notes.append(
                f"batch      {fixed} in the export, opened"
                if opened
                else f"batch      {fixed} images are computed even for one: the graph cannot be rewritten for another "
                "number; export it with a dynamic batch axis, or with a batch of 1"
            )
    return with_input_shape(plain, batch, size), tuple(notes)


def with_batch_axis(export: Export) -> Export:
    """Return the export with an input `[1, 3, H, W]` where its own is `[3, H, W]`, as torchvision's are."""
    port = export.inputs[0] if len(export.inputs) == 1 else None
    if port is None or port.rank != 3 or port.shape is None or 3 not in (port.shape[0], port.shape[2]):
        return export
    batch = Port(port.name, (1, *port.shape), port.element)
    inner = _behind_new_input(export, batch)
    first = numpy_helper.from_array(np.array(0, np.int64), f"{inner}/first")
    export.model.graph.initializer.append(first)
    # The same in every opset, unlike Squeeze. Inferred shapes stay: inferring those of a large model takes seconds.
    node = helper.make_node("Gather", [batch.name, first.name], [inner], name=inner, axis=0)
    export.model.graph.node.insert(0, node)
    return replace(export, inputs=(batch,))


def with_channels_first(export: Export) -> Export:
    """Return the export with an input `[B, 3, H, W]` where its own is `[B, H, W, 3]`, as TensorFlow's are."""
    port = export.inputs[0] if len(export.inputs) == 1 else None
    if port is None or port.rank != 4 or port.shape is None or port.shape[3] != 3 or port.shape[1] == 3:
        return export
    batch, height, width, channels = port.shape
    inner = _behind_new_input(export, Port(port.name, (batch, channels, height, width), port.element))
    node = helper.make_node("Transpose", [port.name], [inner], name=inner, perm=[0, 2, 3, 1])
    export.model.graph.node.insert(0, node)
    return inferred_again(export)


def with_float_input(export: Export) -> Export:
    """Return the export with a float input where its own is uint8; its values stay 0 to 255."""
    port = export.inputs[0] if len(export.inputs) == 1 else None
    if port is None or port.element != TensorProto.UINT8:
        return export
    export = replace(export, takes_bytes=True)
    loose = onnx.ModelProto()
    loose.CopyFrom(export.model)
    del loose.graph.value_info[:]
    for value in loose.graph.input:
        if value.name == port.name:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    try:
        # Most graphs cast their input at once, and only move it before; then nothing is left to do.
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(loose, strict_mode=True), full_check=True)
        return inferred_again(replace(export, model=loose))
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError):
        inner = _behind_new_input(export, Port(port.name, port.shape, TensorProto.FLOAT))
        node = helper.make_node("Cast", [port.name], [inner], name=inner, to=TensorProto.UINT8)
        export.model.graph.node.insert(0, node)
        return inferred_again(export)


def metadata_size(export: Export) -> tuple[int, int] | None:
    """Return height and width that the exporter wrote as `imgsz`; None where there is nothing usable."""
    try:
        value = ast.literal_eval(export.metadata.get("imgsz", ""))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, (list, tuple)) or len(sides) != 2:
        return None
    height, width = sides
    if not all(type(side) is int and 0 < side <= _LARGEST_SIDE for side in sides):
        return None
    return height, width


def with_open_batch(export: Export) -> Export | None:
    """Return the export with an open batch axis in place of a fixed one; None where its graph does not allow it.

    Shapes that begin with the batch size are rewritten. A run of both graphs shows whether they compute the same;
    without ONNX Runtime nothing is rewritten.
    """
    port = export.inputs[0]
    batch = (port.shape or (None,))[0] or 0
    model = onnx.ModelProto()
    model.CopyFrom(export.model)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.data_type == 7}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            shapes[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for place, node in enumerate(model.graph.node):
        values = shapes.get(node.input[1]) if node.op_type in ("Reshape", "Expand") and len(node.input) > 1 else None
        if values is None or values.ndim != 1 or not values.size or values[0] != batch:
            continue
        name = f"open/{place}/{node.input[1]}"
        first = 1 if node.op_type == "Expand" else _open_length(export.port(node.input[0]), batch, values)
        model.graph.initializer.append(numpy_helper.from_array(np.array([first, *values[1:]], np.int64), name))
        node.input[1] = name
    for value in (*model.graph.input, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        if axes and axes[0].dim_value == batch:
            axes[0].dim_param = "batch"
    del model.graph.value_info[:]
    if not _computes_the_same(export, model, port, batch):
        return None
    return inferred_again(replace(export, model=model))


def _open_length(source: Port | None, batch: int, shape: NDArray[Any]) -> int:
    """Return what stands for the batch in a reshape: 0 for the length that the axis has, -1 for what remains."""
    kept = source is not None and source.shape is not None and source.shape[:1] == (batch,)
    return 0 if kept or -1 in shape else -1


def _computes_the_same(export: Export, opened: onnx.ModelProto, port: Port, batch: int) -> bool:
    """Whether each image of a batch gives the same alone, in the rewritten graph, as it gives with the others."""
    try:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        sessions = [
            onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
            for model in (export.model, opened)
        ]
        images = np.random.default_rng(0).uniform(size=[size or 1 for size in port.shape or ()])
        images = images.astype(helper.tensor_dtype_to_np_dtype(port.element))
        together = sessions[0].run(None, {port.name: images})
        alone = [sessions[1].run(None, {port.name: images[place : place + 1]}) for place in range(batch)]
    # ONNX Runtime's errors have no common base class of their own.
    except Exception:
        return False
    return all(
        all(len(part) == 1 for part in parts) and np.allclose(np.concatenate(parts), whole, 1e-3, 1e-3, equal_nan=True)
        for whole, parts in zip(together, zip(*alone, strict=True), strict=True)
    )


def with_input_shape(export: Export, batch: int | None, size: tuple[int, int] | None) -> Export:
    """The export with the height and width of its input fixed, and its batch size where one is asked for.

    Raises:
        ConfigurationError: it is fixed to something else, or leaves height or width open and `size` is None.
    """
    if len(export.inputs) != 1 or export.inputs[0].rank != 4:
        return export  # No family takes it; their message says more than one about sizes would.
    port = export.inputs[0]
    own = port.shape or ()
    size = size or (metadata_size(export) if None in own[2:] else None)
    wanted = (batch, own[1], *(size or (None, None)))
    if size is None and None in own[2:]:
        raise ConfigurationError(
            f"{export.origin}: its input {port} leaves height or width open; choose them with --input-size HxW"
        )
    for option, axes in (("--batch", slice(0, 1)), ("--input-size", slice(2, 4))):
        pairs = list(zip(own[axes], wanted[axes], strict=True))
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            raise ConfigurationError(
                f"{option}: the model's input {port} is fixed, got {'x'.join(str(want) for _, want in pairs)}; "
                "leave the option out, or export the model with this size or with dynamic axes"
            )
    if all(want in (None, have) for have, want in zip(own, wanted, strict=True)):
        return export
    return _with_fixed_axes(export, port, wanted)


def _with_fixed_axes(export: Export, port: Port, lengths: tuple[int | None, ...]) -> Export:
    """The export with the axes of an input fixed to these lengths, None leaving one as it is."""
    for value in export.model.graph.input:
        if value.name == port.name:
            for axis, length in zip(value.type.tensor_type.shape.dim, lengths, strict=True):
                if length is not None:
                    axis.dim_value = length
    # Inferred for open sizes; the outputs' declared shapes are inferred again, too.
    del export.model.graph.value_info[:]
    for output in export.model.graph.output:
        for axis in output.type.tensor_type.shape.dim:
            if axis.HasField("dim_param"):
                axis.Clear()
    try:
        return inferred_again(export)
    except Exception as error:
        shape = ", ".join("?" if length is None else str(length) for length in lengths)
        raise ModelError(f"{export.origin}: an input of [{shape}] does not fit the model ({error})") from error


def inferred_again(export: Export) -> Export:
    """Return the export with its ports and shapes as its graph now has them."""
    again = Export.of_model(export.model, export.origin, export.sha256)
    return replace(again, given_names=export.given_names, takes_bytes=export.takes_bytes)


def _behind_new_input(export: Export, port: Port) -> str:
    """Declare an input again and give the tensor that had its name another one, which is returned."""
    graph, inner = export.model.graph, f"{port.name}/inner"
    while any(inner in (*node.input, *node.output) for node in graph.node):
        inner += "_"
    rename_tensors(graph, {port.name: inner})
    for value in graph.input:
        if value.name == inner:
            graph.value_info.append(value)
            axes = [axis if size is None else size for axis, size in zip("bchw", port.shape or (), strict=True)]
            value.CopyFrom(helper.make_tensor_value_info(port.name, port.element, axes))
    return inner
