"""What a float16 graph computes, exactly rounded, on processors that would rather compute it in float32.

ONNX Runtime and OpenVINO run float16 graphs on most CPUs in float32 and round where it suits them. Here every float16
tensor is rounded: the graph is rewritten to float32 with a pair of Casts, to float16 and back, behind every operator
whose result may need rounding. That is what hardware does that accumulates products in float32 and stores float16.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seg_perception.core.contract import INPUT_NAME
from seg_perception.core.errors import BackendUnavailable, ModelError, ModelOutputError
from seg_perception.core.frame import Frame
from seg_perception.onboard.backend.host.backend import HostBackend
from seg_perception.onboard.backend.host.runner import ModelOutputs, run_in_parts

from ..export import spec_of
from ..formulas import GraphBuilder
from ..graph import copy_of, ending_in, inner_graphs, name_nodes, set_nodes, walk
from ..shapes import TypedGraph
from .operators import EXACT

try:
    import onnxruntime
except ImportError as error:
    raise BackendUnavailable(
        f"the emulation of float16 needs the Python package onnxruntime ({error}): pip install onnxruntime"
    ) from error

_LARGEST = 65504.0
_SUMS = "precision/sums"
_EXACT = "/exact"
# Outputs fetched at once when looking for the tensor that left the range: they may be large.
_AT_ONCE = 8
# Outputs of the contract that may be float32, and those among them in which infinity is a fault, too.
_FLOAT_OUTPUTS = ("boxes", "scores", "masks")
_FINITE_OUTPUTS = ("boxes", "scores")


class HalfRangeError(ModelError):
    """A tensor left the range of float16, or became NaN.

    Attributes:
        node, operator, tensor: where, by their names in the float32 graph if that is known, else in the float16 graph.
        value: the number that has no float16.
        keep: the nodes whose staying in float32 would help.
    """

    def __init__(self, place: _Place, value: float) -> None:
        what = "is NaN" if np.isnan(value) else f"reaches {value:.5g}, beyond float16's {_LARGEST:.0f}"
        layers = "this layer" if len(place.keep) == 1 else "these layers"
        flags = shlex.join(word for name in place.keep for word in ("--keep-float32", name))
        super().__init__(
            f"layer {place.node!r} ({place.operator}): its {place.side} {place.tensor!r} {what}; keep {layers} in "
            f"float32 ({flags}), or use --precision fp32"
        )
        self.node, self.operator, self.tensor, self.value = place.node, place.operator, place.tensor, value
        self.keep = place.keep


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a number has no float16, in the words of the graph that the user knows.

    Attributes:
        node, operator: that make the tensor, or take it.
        side: `output` or `input`: which of theirs the tensor is.
        tensor: the tensor.
        keep: the nodes to keep in float32, so that it need not be float16.
    """

    node: str
    operator: str
    side: str
    tensor: str
    keep: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rounding:
    """One place where the emulation rounds.

    Attributes:
        node, operator: that make the tensor.
        tensor: the float16 tensor; it has the same name in the emulation.
        exact: what it is called before it is rounded.
    """

    node: str
    operator: str
    tensor: str
    exact: str


def emulated(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[Rounding, ...]]:
    """A float16 graph as a float32 graph that rounds every tensor that is float16 in it.

    Inputs and outputs keep names and types, so the emulation of a canonical model is a canonical model.

    Args:
        model: with float16 tensors, such as `to_half` returns; stays as it is.

    Returns:
        The emulation, and where it rounds, in order.

    Raises:
        ModelError: float16 tensors in graphs within nodes, or as inputs.
    """
    result = copy_of(model)
    name_nodes(result.graph)
    emulation = _Emulation(result.graph, TypedGraph(result))
    return result, emulation.run()


class _Emulation:
    def __init__(self, graph: onnx.GraphProto, view: TypedGraph) -> None:
        self._graph = graph
        self._half = {name for name, element in view.elements.items() if element == TensorProto.FLOAT16}
        for value in graph.input:
            if value.name in self._half:
                raise ModelError(f"input {value.name!r}: expected none in float16; prepare the model first")
        # The outputs of the graph keep their type, so what they are inside has another name.
        self._inside = {value.name: f"{value.name}/rounded" for value in graph.output if value.name in self._half}
        self._nodes: list[onnx.NodeProto] = []
        self._roundings: list[Rounding] = []

    def run(self) -> tuple[Rounding, ...]:
        """Rewrite the graph."""
        for tensor in self._graph.initializer:
            if tensor.data_type == TensorProto.FLOAT16:
                _to_float(tensor)
        for node in self._graph.node:
            self._write(node)
        for name, inside in self._inside.items():
            self._cast(inside, TensorProto.FLOAT16, name)
        del self._graph.value_info[:]
        set_nodes(self._graph, self._nodes)
        return tuple(self._roundings)

    def _write(self, node: onnx.NodeProto) -> None:
        written = copy_of(node)
        made = [name for name in node.output if name in self._half]
        if made and any(inner_graphs(node)):
            raise ModelError(f"node {node.name!r} ({node.op_type}): float16 within it cannot be emulated")
        for item in written.attribute:
            if item.name == "value" and item.t.data_type == TensorProto.FLOAT16:
                _to_float(item.t)
            if node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.FLOAT16:
                item.i = TensorProto.FLOAT
        for place, name in enumerate(written.input):
            written.input[place] = self._inside.get(name, name)
        self._nodes.append(written)
        for place, name in enumerate(node.output):
            inside = self._inside.get(name, name)
            written.output[place] = inside
            if name in self._half and node.op_type not in EXACT and node.op_type != "Constant":
                written.output[place] = f"{inside}{_EXACT}"
                self._cast(f"{inside}{_EXACT}", TensorProto.FLOAT16, f"{inside}/float16")
                self._cast(f"{inside}/float16", TensorProto.FLOAT, inside)
                self._roundings.append(Rounding(node.name, node.op_type, name, f"{inside}{_EXACT}"))

    def _cast(self, source: str, element: int, result: str) -> None:
        self._nodes.append(helper.make_node("Cast", [source], [result], name=f"{result}/Round", to=element))


class HalfEmulator:
    """Runs a canonical float16 model as `emulated`, and watches every rounded tensor.

    A `Runner`: it can stand wherever a model runs on host arrays.

    Args:
        model: canonical.
        threads: CPU threads; 0 lets ONNX Runtime choose.
        source: the float32 model that `to_half` made it from. With it, errors name the nodes of that one, and what
            is broken in float32, too, is not blamed on float16.

    Raises:
        ModelError: the model cannot be emulated.
        NotCanonicalError: it is not canonical.
    """

    def __init__(self, model: onnx.ModelProto, threads: int = 0, source: onnx.ModelProto | None = None) -> None:
        self.spec = spec_of(model)
        self._threads = threads
        self._model, self._roundings = emulated(model)
        self._origin = _Origin(source, model) if source is not None else None
        self._session = self._open(_with_sums(self._model, self._roundings))
        self.identity = {
            "backend": f"onnxruntime {onnxruntime.__version__}",
            "device": "cpu",
            "precision": "float16, emulated",
            "model": self.spec.family,
        }

    def run(self, images: NDArray[np.uint8]) -> ModelOutputs:
        """Run the model; see `Runner.run`.

        Raises:
            HalfRangeError: a tensor left the range of float16 or became NaN.
            ModelOutputError: it did, and so does the float32 model.
        """
        arrays = run_in_parts(images, self.spec.batch or len(images), self._infer)
        return ModelOutputs.from_arrays(self.spec, arrays)

    def close(self) -> None:
        """Release the session."""
        self._session = None

    def _infer(self, images: NDArray[np.uint8]) -> Sequence[NDArray[Any]]:
        if self._session is None:
            raise RuntimeError("the emulation was closed")
        arrays: list[NDArray[Any]]
        *arrays, sums = self._session.run([*self.spec.output_names, _SUMS], {INPUT_NAME: images})
        suspects = [rounding for rounding, fine in zip(self._roundings, np.isfinite(sums), strict=True) if not fine]
        for start in range(0, len(suspects), _AT_ONCE):
            self._examine(suspects[start : start + _AT_ONCE], images)
        return arrays

    def _examine(self, suspects: Sequence[Rounding], images: NDArray[np.uint8]) -> None:
        """Raise for the first tensor that rounding made infinite or that is NaN; a network's own infinities may be."""
        found = self._tensors(self._model, [rounding.exact for rounding in suspects], images)
        for rounding, exact in zip(suspects, found, strict=True):
            with np.errstate(over="ignore"):
                lost = np.isnan(exact) | (np.isinf(exact.astype(np.float16)) & np.isfinite(exact))
            if lost.any():
                place = _Place(rounding.node, rounding.operator, "output", rounding.tensor, (rounding.node,))
                if self._origin is not None:
                    place = self._origin.place(rounding)
                    self._check_source(self._origin.model, place, images)
                raise HalfRangeError(place, float(exact[lost][0]))

    def _check_source(self, source: onnx.ModelProto, place: _Place, images: NDArray[np.uint8]) -> None:
        """Raise if the float32 model makes NaN there, or results that are not finite."""
        results = [name for name in self.spec.output_names if name in _FLOAT_OUTPUTS]
        names = list(dict.fromkeys((place.tensor, *results)))
        for name, array in zip(names, self._tensors(source, names, images), strict=True):
            if np.isnan(array).any() or (name in _FINITE_OUTPUTS and not np.isfinite(array).all()):
                raise ModelOutputError(
                    f"the model itself gives NaN or infinity for this frame, in float32 as well (tensor {name!r}), so "
                    "float16 is not the cause: the export is broken; export the model again, or leave this frame out"
                )

    def _tensors(self, model: onnx.ModelProto, names: Sequence[str], images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """Any float32 tensors of a model."""
        part = ending_in(model, names)
        arrays: list[NDArray[Any]] = self._open(part).run(list(names), {INPUT_NAME: images})
        return arrays

    def _open(self, model: onnx.ModelProto) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        # It would quantize biases, too, and move what the graph quantizes.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        # Beyond this level ONNX Runtime fuses nodes and changes layouts, around which Casts would come to stand.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class _Origin:
    """The float32 model that a float16 model was made from, and where tensors of the latter come from in it.

    Args:
        source: in float32.
        half: what `to_half` made of it.
    """

    def __init__(self, source: onnx.ModelProto, half: onnx.ModelProto) -> None:
        self.model = copy_of(source)
        # As `to_half` does, so that the names are the same.
        name_nodes(self.model.graph)
        self._nodes = {node.name: node for node in self.model.graph.node}
        self._half = TypedGraph(half)

    def place(self, rounding: Rounding) -> _Place:
        """Return what is rounded, by names of the float32 graph."""
        made = self._half.nodes[rounding.node]
        source = self._nodes.get(rounding.node)
        if source is not None:
            tensor = source.output[list(made.output).index(rounding.tensor)]
            return _Place(source.name, source.op_type, "output", tensor, (source.name,))
        # A Cast of the conversion: who reads its result wants float16.
        keep = self._readers(rounding.tensor)
        return _Place(keep[0], self._nodes[keep[0]].op_type, "input", made.input[0], keep)

    def _readers(self, tensor: str) -> tuple[str, ...]:
        """Who computes with the tensor, and who only passes it on to them: those would want it in float16 as well."""

        def passed_on(name: str) -> list[str]:
            exact = (node for node in self._half.readers(name) if node.name in self._nodes and node.op_type in EXACT)
            return [output for node in exact for output in node.output]

        readers = (node.name for name in walk([tensor], passed_on) for node in self._half.readers(name))
        return tuple(dict.fromkeys(name for name in readers if name in self._nodes))


def check_range(model: onnx.ModelProto, source: onnx.ModelProto, frames: Iterable[tuple[str, Frame]]) -> int:
    """Run a canonical float16 model on frames as a GPU would round, and see that nothing leaves its range.

    Args:
        model: canonical.
        source: the float32 model that it was made from.
        frames: names and images of any size.

    Returns:
        How many frames there were.

    Raises:
        HalfRangeError: a tensor left the range of float16 or became NaN.
        ModelOutputError: the float32 model makes NaN or infinity, too.
        FrameError: a frame cannot be decoded.
    """
    backend = HostBackend(HalfEmulator(model, source=source))
    count = 0
    for name, frame in frames:
        try:
            (found,) = backend.start([frame]).detections()
            if isinstance(found, ModelOutputError):
                raise found
        except (HalfRangeError, ModelOutputError) as error:
            error.args = (f"{name}: {error}",)
            raise
        count += 1
    return count


def _with_sums(model: onnx.ModelProto, roundings: Sequence[Rounding]) -> onnx.ModelProto:
    """The emulation with one more output: the sum of each rounded tensor, which is finite exactly if all of it is.

    In float32 no sum of finite float16 numbers overflows before there are 2^111 of them.
    """
    watched = copy_of(model)
    graph = GraphBuilder(watched.graph, "precision")
    sums = [graph.node("ReduceSum", graph.value(_rounded(rounding)), keepdims=0).unsqueeze(0) for rounding in roundings]
    total = graph.concat(0, *sums) if sums else graph.constant(np.zeros(0))
    graph.publish(graph.node("Identity", total), _SUMS, np.float32, [len(sums)])
    return watched


def _rounded(rounding: Rounding) -> str:
    return rounding.exact.removesuffix(_EXACT)


def _to_float(tensor: onnx.TensorProto) -> None:
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
