"""Which layers of a canonical model may be computed in INT8, and which tensors have to be quantized for that.

The rules are those under which TensorRT fuses Q/DQ pairs into INT8 kernels and under which segmentation models keep
their accuracy: Q/DQ at the inputs of convolutions and of products with weights, nowhere else; small convolutions, the
last layers before the head and the upsampling of the prototypes stay in float.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import onnx
from onnx import TensorProto

from ..graph import GraphView, attribute, walk

# First parts of the names of nodes that this toolchain wrote; they stay as they are.
OWN_SCOPES = ("head/", "input/")
FEWEST_CHANNELS = 16
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_PRODUCTS = ("MatMul", "Gemm")
# What a convolution is fused with before a residual sum; Mul because of SiLU, x * sigmoid(x).
_ACTIVATIONS = (
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Clip",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Mul",
    "BatchNormalization",
)
# The output of these has the values of their first input, or some of them.
_SAME_VALUES = ("Split", "Slice", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "MaxPool", "Identity")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or a product with constant weights.

    Attributes:
        name: unique, for people and reports: the node's name, or else its output's.
        operator: `Conv`, `ConvTranspose`, `MatMul` or `Gemm`.
        output: the tensor it makes; identifies it in the graph.
        activation: the tensor it takes.
        weight: the initializer.
        axis: of the weight's output channels.
        kept: why it stays in float; empty for one that may be quantized.
        depthwise: whether each channel of its input is convolved by itself.
    """

    name: str
    operator: str
    output: str
    activation: str
    weight: str
    axis: int
    kept: str = ""
    depthwise: bool = False


class Network(GraphView):
    """The graph of a canonical model, looked at in both directions.

    Args:
        model: canonical, with all weights as initializers (see `graph.lift_constants`).
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model.graph)
        self.model = model
        self.weights: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self._outputs = {value.name for value in model.graph.output}

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer of the network in the order of the graph, with the reason for those that stay in float."""
        found = [layer for node in self.model.graph.node if (layer := self._layer(node)) is not None]
        inner = {layer.output for layer in found}
        # A head may end in a few channels, as the sides of a box are; the layer before them is a last one, too. Narrow
        # layers elsewhere, such as those of a slim decoder, do not make the whole network behind them a head.
        inner -= {layer.output for layer in found if layer.kept and self._reaches_end(layer.output, inner)}
        kept = []
        for layer in found:
            reason = layer.kept
            if not reason and self._reaches_end(layer.output, inner):
                reason = "last before the head"
            elif not reason and self._upsamples_prototypes(layer):
                reason = "upsampling of the prototypes"
            kept.append(replace(layer, kept=reason))
        return tuple(kept)

    @cached_property
    def skips(self) -> Mapping[str, tuple[tuple[str, int], ...]]:
        """The skip inputs of residual sums, by the layer that each sum is fused with.

        The structure alone decides which input of a sum is the skip. If that depended on which layers are quantized,
        a sum of two convolutions would change its skip to a tensor that calibration did not observe.

        Returns:
            By output of the layer that ends the main branch: outputs of `Add` nodes, and which input is the skip.
        """
        order = {name: place for place, node in enumerate(self.model.graph.node) for name in node.output}
        inner = {layer.output for layer in self.layers if not layer.kept}
        skips: dict[str, tuple[tuple[str, int], ...]] = {}
        for node in self.model.graph.node:
            if node.op_type != "Add" or is_own(node) or any(name not in self.producers for name in node.input):
                continue
            behind = [self._convolution_behind(name) for name in node.input]
            # A sum of one convolution with itself has no skip.
            if behind[0] == behind[1] or not any(behind):
                continue
            # Of two convolutions the later one ends the longer way, the main branch.
            main = max((order.get(name, -1), place) for place, name in enumerate(behind))[1]
            if behind[main] in inner:
                skips[behind[main]] = (*skips.get(behind[main], ()), (node.output[0], 1 - main))
        return skips

    def residual_skips(self, quantized: Iterable[str]) -> tuple[tuple[str, int], ...]:
        """Return the `skips` of these layers.

        Args:
            quantized: outputs of the quantized layers.

        Returns:
            Output of the `Add`, and which of its inputs is the skip.
        """
        return tuple(skip for name in quantized for skip in self.skips.get(name, ()))

    def shared_scales(self, tensors: Collection[str]) -> dict[str, str]:
        """Which quantized tensors have a scale in common because they meet in a concatenation that is quantized, too.

        Args:
            tensors: that are quantized.

        Returns:
            For each of `tensors` the name of its group.
        """
        group = {name: name for name in tensors}
        for name in tensors:
            for source in self._sources(name):
                if source in group:
                    first, second = _root(group, name), _root(group, source)
                    group[second] = first
        return {name: _root(group, name) for name in tensors}

    def _sources(self, name: str) -> Iterator[str]:
        """Yield `name` and the tensors whose values it has, through concatenations and what keeps values."""

        def before(name: str) -> Sequence[str]:
            node = self.producer(name)
            if node is None or is_own(node):
                return ()
            return node.input if node.op_type == "Concat" else node.input[:1] if _keeps_values(node) else ()

        return walk([name], before)

    def _layer(self, node: onnx.NodeProto) -> Layer | None:
        if is_own(node) or node.op_type not in (*_CONVOLUTIONS, *_PRODUCTS) or len(node.input) < 2:
            return None
        activation, weight = node.input[0], node.input[1]
        tensor = self.weights.get(weight)
        if tensor is None or activation in self.weights or tensor.data_type not in _FLOATS:
            return None
        axis = _output_axis(node, len(tensor.dims))
        channels = (tensor.dims[1] * attribute(node, "group", 1), tensor.dims[0])
        reason = ""
        if node.op_type in _CONVOLUTIONS and min(channels) < FEWEST_CHANNELS:
            reason = f"fewer than {FEWEST_CHANNELS} channels"
        elif axis < 0:
            reason = "weights of another layout"
        groups = attribute(node, "group", 1) if node.op_type in _CONVOLUTIONS else 1
        depthwise = groups > 1 and groups == (tensor.dims[0] if node.op_type == "ConvTranspose" else channels[0])
        return Layer(
            node.name or node.output[0], node.op_type, node.output[0], activation, weight, axis, reason, depthwise
        )  # fmt: skip

    def _reaches_end(self, tensor: str, layers: Collection[str]) -> bool:
        """Return whether a tensor reaches the head or the model's end on a way without any of these `layers`."""

        def behind(name: str) -> Iterator[str]:
            for node in self.readers(name):
                if node.output[0] not in layers and node.op_type != "Shape" and not is_own(node):
                    yield from filter(None, node.output)

        names = walk([tensor], behind)
        return any(name in self._outputs or any(map(is_own, self.readers(name))) for name in names)

    def _upsamples_prototypes(self, layer: Layer) -> bool:
        """Return whether nothing else joins between this transposed convolution and the head."""
        if layer.operator != "ConvTranspose":
            return False

        def behind(name: str) -> list[onnx.NodeProto]:
            return [node for node in self.readers(name) if not is_own(node)]

        names = walk([layer.output], lambda name: (output for node in behind(name) for output in node.output))
        return all(node.op_type not in ("Concat", "ConvTranspose") for name in names for node in behind(name))

    def _convolution_behind(self, name: str) -> str:
        """Output of the only convolution that makes a tensor, activations apart; empty for another origin."""
        origins: set[str] = set()

        def before(name: str) -> Sequence[str]:
            node = self.producer(name)
            if node is None or is_own(node) or node.op_type not in (*_CONVOLUTIONS, *_ACTIVATIONS):
                origins.add("")
            elif node.op_type in _CONVOLUTIONS:
                origins.add(str(node.output[0]))
            else:
                return tuple(node.input) if node.op_type == "Mul" else tuple(node.input[:1])
            return ()

        for _ in walk([name], before):
            pass
        return origins.pop() if len(origins) == 1 else ""


def is_own(node: onnx.NodeProto) -> bool:
    """Return whether this toolchain wrote the node."""
    return bool(node.name.startswith(OWN_SCOPES))


def _keeps_values(node: onnx.NodeProto) -> bool:
    if node.op_type == "Resize":
        return bool(attribute(node, "mode", b"nearest") == b"nearest")
    return bool(node.op_type in _SAME_VALUES)


def _output_axis(node: onnx.NodeProto, rank: int) -> int:
    """Axis of the output channels in the weights; -1 where there is none."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1 if rank == 2 else -1


def _root(group: dict[str, str], name: str) -> str:
    while group[name] != name:
        group[name] = group[group[name]]
        name = group[name]
    return name
