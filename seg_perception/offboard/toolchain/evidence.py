"""What a graph says of the meaning of its numbers, where shapes do not tell: operators, constants, a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from .export import Export, Port

# Normalised values spread no further than this.
_SPREAD = 8.0
# Red, green and blue of ImageNet's mean, of 1.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_GREY = 114.0
_ALIKE = ("Identity", "Cast", "Transpose")


@dataclass(frozen=True, slots=True)
class OwnScaling:
    """What a graph does with the values of its input before the network sees them.

    Attributes:
        limit: the largest value of a pixel that the graph expects: 1 or 255.
        bgr: whether the constants are in the order blue, green, red; None where they do not tell.
    """

    limit: float
    bgr: bool | None


def maker(export: Export, tensor: str, through: Collection[str]) -> onnx.NodeProto | None:
    """Return the node that computes a tensor, behind nodes of the kinds `through`; None for an input or a constant."""
    node = export.producer(tensor)
    while node is not None and node.op_type in through:
        node = export.producer(node.input[0])
    return node


def operators_behind(export: Export, tensor: str) -> set[str]:
    """Return the types of all nodes that a tensor depends on."""
    return {node.op_type for node in export.ancestors(tensor)}


def own_scaling(export: Export, image: Port) -> OwnScaling | None:
    """Return how the graph normalises its input by itself; None where it does not, or does something else with it."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in export.model.graph.node:
        for name in node.input:
            if node.op_type != "Shape":
                readers.setdefault(name, []).append(node)
    factor: NDArray[np.float64] = np.ones(1)
    offset: NDArray[np.float64] = np.zeros(1)
    tensor = image.name
    while len(readers.get(tensor, ())) == 1:
        node = readers[tensor][0]
        if node.op_type not in _ALIKE:
            step = _affine(export, node, tensor)
            if step is None:
                break
            factor, offset = factor * step[0], offset * step[0] + step[1]
        tensor = node.output[0]
    if not np.isfinite([*factor, *offset]).all():
        return None
    spread, shift = float(np.abs(factor).mean()), float(np.abs(offset).max())
    if (0.9 <= 255 * spread <= _SPREAD and shift <= _SPREAD) or (
        0.9 <= spread <= 1.1 and -160 <= offset.min() < -_SPREAD
    ):
        limit = 255.0
    elif 1.8 <= spread <= _SPREAD and shift <= _SPREAD:
        limit = 1.0
    else:
        return None
    return OwnScaling(limit, _order(-offset / factor / limit))


def dense_positions(image: Port) -> int:
    """Return how many positions networks of strides 8, 16 and 32 have for an input `[B, 3, H, W]`."""
    height, width = (size or 0 for size in (image.shape or (0,) * 4)[2:])
    return sum(-(-height // stride) * -(-width // stride) for stride in (8, 16, 32))


def neutral_outputs(
    export: Export, image: Port, mean: Sequence[float], std: Sequence[float]
) -> dict[str, NDArray[Any]]:
    """Run the model on a grey image.

    Args:
        export: the model.
        image: its input, `[B, 3, H, W]`.
        mean, std: how it wants pixels of 0 to 255 to be normalised.

    Returns:
        By name the outputs; nothing where ONNX Runtime is not installed or cannot run the model.
    """
    try:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            export.model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        shape = [size or 1 for size in image.shape or ()]
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(image.element))
        grey = np.reshape((_GREY - np.array(mean)) / np.array(std), (1, 3, 1, 1))
        values = session.run(None, {image.name: np.broadcast_to(grey, shape).astype(dtype)})
        return dict(zip((output.name for output in session.get_outputs()), values, strict=True))
    # ONNX Runtime's errors have no common base class; a run is evidence that a model need not give.
    except Exception:
        return {}


def are_shares(coordinates: NDArray[Any]) -> bool | None:
    """Return whether coordinates are shares of the image's sides, not pixels; None where they do not tell."""
    values = np.asarray(coordinates, np.float64)
    if not values.size or not np.isfinite(values).all() or values.max() > 16:
        return False
    # Positions lie all over the image, from one end of it to the other: 0 to 1.
    return bool(0.7 < values.max() <= 2 and values.max() - values.min() > 0.5) or None


def _affine(
    export: Export, node: onnx.NodeProto, tensor: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Factor and offset that a node applies, one or three each; None for a node of another kind."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.input) != 2:
        return None
    first = node.input[0] == tensor
    values = _constant(export, node.input[1 if first else 0])
    if values is None or values.size not in (1, 3) or (not first and node.op_type in ("Sub", "Div")):
        return None
    values = values.astype(np.float64).ravel()
    one, zero = np.ones(1), np.zeros(1)
    if node.op_type == "Div" and not values.all():
        return None
    steps = {"Add": (one, values), "Sub": (one, -values), "Mul": (values, zero)}
    return steps[node.op_type] if node.op_type in steps else (1.0 / values, zero)


def _constant(export: Export, name: str) -> NDArray[Any] | None:
    tensor = next((tensor for tensor in export.model.graph.initializer if tensor.name == name), None)
    node = export.producer(name) if tensor is None else None
    if node is not None and node.op_type == "Constant":
        tensor = next((item.t for item in node.attribute if item.name == "value"), None)
    return None if tensor is None else numpy_helper.to_array(tensor)


def _order(mean: NDArray[np.float64]) -> bool | None:
    """Return whether a mean of 1 is that of ImageNet in the order blue, green, red; None for any other."""
    if mean.size == 3:
        for bgr, expected in ((False, _IMAGENET_MEAN), (True, _IMAGENET_MEAN[::-1])):
            if np.allclose(mean, expected, atol=0.01):
                return bgr
    return None
