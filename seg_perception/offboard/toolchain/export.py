"""A model file as its exporter wrote it: read, checked, and described by its inputs and outputs."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from onnx.inliner import inline_local_functions

from seg_perception.core.contract import METADATA_KEY, READING_KEY, ModelSpec
from seg_perception.core.errors import ModelError, SegPerceptionError
from seg_perception.core.onnx_files import damaged, external_files, model_sha256
from seg_perception.core.text import message_text, printable

from .graph import GraphView, attribute, element_name, sort_nodes
from .shapes import refuse_fatal, with_shapes

# onnx.shape_inference and the checker serialise the model; protobuf cannot beyond this.
_LARGEST_FILE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model.

    Attributes:
        name: of the tensor.
        shape: None for a dynamic axis, and as a whole for a tensor of unknown rank.
        element: an ONNX element type, `onnx.TensorProto.FLOAT` and so on.
    """

    name: str
    shape: tuple[int | None, ...] | None
    element: int

    @property
    def rank(self) -> int:
        """Number of axes; -1 where unknown."""
        return -1 if self.shape is None else len(self.shape)

    def __str__(self) -> str:
        shape = "unknown shape" if self.shape is None else f"[{', '.join(_axis(size) for size in self.shape)}]"
        return f"{self.name!r} {element_name(self.element)} {shape}"


@dataclass(frozen=True)
class Export:
    """A raw model.

    Attributes:
        origin: the file, for messages.
        model: with inferred shapes.
        inputs: without those that initializers fill or, next to one that is used, that nothing uses.
        outputs: in the order of the file.
        metadata: the file's own key-value pairs.
        sha256: of the file and of the files that hold its weights.
        given_names: how many class names the user gives; 0 for none.
        takes_bytes: whether the input was uint8, whatever it is now.
    """

    origin: str
    model: onnx.ModelProto
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: dict[str, str]
    sha256: str
    given_names: int = 0
    takes_bytes: bool = False

    @classmethod
    def of_model(cls, model: onnx.ModelProto, origin: str = "model", sha256: str = "") -> Export:
        """Describe a model in memory."""
        model = with_shapes(model, origin)
        filled = {tensor.name for tensor in model.graph.initializer}
        return cls(
            origin,
            model,
            inputs=_used(model.graph, [_port(value) for value in model.graph.input if value.name not in filled]),
            outputs=tuple(_port(value) for value in model.graph.output),
            metadata=metadata_of(model),
            sha256=sha256,
        )

    @cached_property
    def graph(self) -> GraphView:
        """The graph by the names of its tensors, as it is when this is first asked for.

        With `port` it lets a family walk back from an output, to cut off what the canonical model does better.
        """
        return GraphView(self.model.graph)

    def port(self, tensor: str) -> Port | None:
        """A tensor anywhere in the graph with its inferred shape; None where nothing could be inferred."""
        value = self.graph.declared.get(tensor)
        return None if value is None else _port(value)

    def before_upsampling(self, port: Port) -> Port:
        """Where a `[B, C, h, w]` tensor comes out of an interpolation of a coarser grid, that grid; else itself."""
        node = self.graph.producer(port.name)
        while node is not None and node.op_type in ("Identity", "Cast", "Resize"):
            source = self.port(node.input[0])
            if node.op_type == "Resize":
                if source is None or not _interpolates(node) or not _is_coarser(source, port):
                    break
                port = source
            node = self.graph.producer(node.input[0])
        return port

    def class_names(self) -> tuple[str, ...] | None:
        """The class names in the metadata, if there are any.

        Ultralytics writes `names` as the Python literal of a dictionary from index to name; a list is taken, too.

        Raises:
            ModelError: there is a `names` entry of another form.
        """
        text = self.metadata.get("names")
        if text is None:
            return None
        try:
            value = ast.literal_eval(text)
            # LibreYOLO writes JSON, whose keys are texts.
            if isinstance(value, dict) and all(isinstance(key, str) and key.isdecimal() for key in value):
                value = {int(key): name for key, name in value.items()}
            names = [value[index] for index in range(len(value))]
            if not names or not all(isinstance(name, str) for name in names):
                raise ValueError("not a table of texts")
        except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
            raise ModelError(
                f"{self.origin}: its metadata `names` is not a table of class names 0, 1, 2, ... "
                f"(got {text[:80]!r}); give the class names with --classes TABLE.yaml"
            ) from error
        return tuple(names)

    def name_count(self) -> int:
        """Return how many class names there are, the user's or the model's own; 0 for none that can be read."""
        try:
            return self.given_names or len(self.class_names() or ())
        except ModelError:
            return 0


@contextmanager
def contradictions_named(origin: str) -> Iterator[None]:
    """Turn whatever a graph that contradicts itself makes libraries and this package raise into a ModelError."""
    try:
        yield
    except (SegPerceptionError, KeyboardInterrupt):
        raise
    # A file of a stranger can make NumPy, ONNX and Protocol Buffers raise nearly anything.
    except Exception as error:
        reason = printable(str(error).strip().partition("\n")[0] or "no reason given")
        raise ModelError(
            f"{origin}: its graph cannot be followed ({type(error).__name__}: {reason}); it is damaged, or beyond what "
            "this package understands: if ONNX Runtime runs it, please report this"
        ) from error


def load_export(path: Path) -> Export:
    """Read a raw model file.

    Raises:
        ModelError: missing, truncated, not ONNX, without a graph, beyond 2 GB, or already canonical.
    """
    model, sha256 = load_model(path)
    return as_export(model, str(path), sha256)


def as_export(model: onnx.ModelProto, origin: str, sha256: str = "") -> Export:
    """Describe a raw model that `load_model` returned.

    Raises:
        ModelError: it is already canonical, or contradicts itself.
    """
    if METADATA_KEY in metadata_of(model):
        raise ModelError(
            f"{origin}: this is already a canonical model; it can be used as it is. To change its options, "
            "run `seg_perception prepare` on the model it was made from"
        )
    with contradictions_named(origin):
        return Export.of_model(inline_local_functions(model) if model.functions else model, origin, sha256)


def load_model(path: Path, weights: bool = True) -> tuple[onnx.ModelProto, str]:
    """Read and check any ONNX file, raw or canonical.

    Args:
        path: the file.
        weights: whether to read weights in files next to it and to check the graph.

    Returns:
        The model, and the SHA-256 of the file and of those that hold its weights.

    Raises:
        ModelError: missing, truncated, not ONNX, without a graph, beyond 2 GB, or fatal to ONNX's inference.
    """
    if path.is_dir():
        raise ModelError(f"{path}: is a folder; expected an ONNX model (*.onnx), such as one in it")
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected an ONNX model (*.onnx)")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    weight_files = external_files(path)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError, which no stubs describe
        raise ModelError(damaged(path, f"{len(data)} bytes")) from error
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"{path}: not an ONNX model (no graph in its {len(data)} bytes); copy or export it again")
    if weights:
        with contradictions_named(str(path)):
            _load_weights(model, path)
    if METADATA_KEY in metadata_of(model):
        refuse_fatal(model, str(path))  # `as_export` does it for raw ones.
    return model, model_sha256(path, weight_files)


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """The key-value pairs that a model carries."""
    return {item.key: item.value for item in model.metadata_props}


def reading_of(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what `prepare` took for granted of a canonical model's source, as it says itself; for people."""
    try:
        reading = json.loads(metadata.get(READING_KEY, "{}"))
    except (ValueError, RecursionError):
        return [("unknown", "its metadata are damaged")]
    return [(printable(key, 20), printable(text)) for key, text in reading.items()] if isinstance(reading, dict) else []


def spec_of(model: onnx.ModelProto, origin: str = "model") -> ModelSpec:
    """Return what a canonical model says of itself.

    Raises:
        NotCanonicalError: it is a raw export.
    """
    return ModelSpec.from_metadata(metadata_of(model), origin)


def _refuse_plugins(model: onnx.ModelProto, path: Path) -> None:
    """Name nodes that are no operators of ONNX and that nothing can be cut off before.

    Raises:
        ModelError: there are some.
    """
    for node in model.graph.node:
        # Text that is no UTF-8 comes as bytes.
        if str(node.op_type).startswith(("EfficientNMS", "BatchedNMS")):
            raise ModelError(
                f"{path}: has a TensorRT plug-in for suppression ({printable(node.op_type)}), whose outputs have "
                "no masks or hide what they are made of; export the model without it (leave out options such as "
                "--end2end, --plugin or nms=True): the canonical model suppresses duplicates itself"
            )


def _load_weights(model: onnx.ModelProto, path: Path) -> None:
    _refuse_plugins(model, path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        if model.ByteSize() > _LARGEST_FILE:
            raise ModelError(f"{path}: {model.ByteSize() / 1e9:.1f} GB with its weights; at most 2 GB can be prepared")
        sort_nodes(model.graph)
        onnx.checker.check_model(model)
    # The reader of weights and the checker meet malformed models with errors of many kinds.
    except (onnx.checker.ValidationError, OSError, ValueError, TypeError, RuntimeError, KeyError, IndexError) as error:
        reason = message_text(str(error).strip().partition("\n")[0] or type(error).__name__)
        raise ModelError(f"{path}: damaged or incomplete ONNX model ({reason}); copy or export it again") from error


def _used(graph: onnx.GraphProto, inputs: list[Port]) -> tuple[Port, ...]:
    """The inputs that count: exporters also write arguments of a model that it does not look at."""
    read = GraphView(graph).consumers
    return tuple(port for port in inputs if port.name in read) or tuple(inputs)


def _interpolates(resize: onnx.NodeProto) -> bool:
    """Return whether it keeps the centre of every cell where it is, as painting supposes."""
    place = attribute(resize, "coordinate_transformation_mode", b"half_pixel")
    return attribute(resize, "mode") in (b"linear", b"cubic") and place in (b"half_pixel", b"pytorch_half_pixel")


def _is_coarser(one: Port, other: Port) -> bool:
    """Return whether two grids `[B, C, h, w]` differ in nothing but how fine they are."""
    sizes, finer = (one.shape or ())[1:], (other.shape or ())[1:]
    if len(sizes) != 3 or None in sizes[1:] or sizes[0] != finer[0]:
        return False
    return all(size is None or (own or 0) <= size for own, size in zip(sizes[1:], finer[1:], strict=True))


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        # Exporters write a dynamic axis as a text, as nothing, or as 0 or -1.
        shape = tuple(axis.dim_value if axis.dim_value > 0 else None for axis in tensor.shape.dim)
    return Port(value.name, shape, tensor.elem_type)


def _axis(size: int | None) -> str:
    return "?" if size is None else str(size)
