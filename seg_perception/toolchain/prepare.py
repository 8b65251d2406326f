"""From an exporter's model file to a canonical one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..classes import ClassTable, name_key
from ..contract import ModelSpec
from ..errors import ClassTableError, ConfigurationError, ModelError
from ..files import write_atomically
from ..geometry import ResizeSpec
from .canonical import finish, network_of, publish, replace_input
from .export import Export, Port, load_export
from .families import Family, Match, PixelSpec, recognise
from .graph import GraphBuilder, rename_tensors
from .head import Head, HeadOptions, InstanceHead
from .precision.half import to_half

PRECISIONS = ("fp32", "fp16")

# Classes that are no objects in any data set, as `name_key` writes them.
_BACKGROUND = frozenset({"background", "void", "unlabeled", "unlabelled"})


@dataclass(frozen=True, slots=True)
class PixelChange:
    """How a model differs from its family in what it wants to see; None for no difference.

    Attributes:
        mean, std: as in `PixelSpec`.
        bgr: whether the network wants blue, green, red.
    """

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    bgr: bool | None = None

    def __post_init__(self) -> None:
        if self.mean and not all(math.isfinite(value) for value in self.mean):
            raise ConfigurationError(f"--mean: expected finite numbers, got {self.mean}")
        if self.std and not all(0 < value < math.inf for value in self.std):
            raise ConfigurationError(f"--std: expected finite numbers above 0, got {self.std}")

    def of(self, own: PixelSpec) -> PixelSpec:
        """What the model wants, given what its family wants."""
        return PixelSpec(
            own.mean if self.mean is None else self.mean,
            own.std if self.std is None else self.std,
            own.bgr if self.bgr is None else self.bgr,
        )


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """What the user decides.

    Attributes:
        head: rows of the result and suppression.
        classes: the class names, for a model that does not carry its own or whose own are to be replaced.
        family: the only family to try; empty to recognise it.
        input_size: height and width, for a model that leaves them open.
        batch: the batch size, for a model that leaves it open; None leaves it open.
        pixels: what the network wants to see, where that is not what its family wants.
        resize: `letterbox` or `stretch`, where that is not what its family wants.
        precision: `fp32`, or `fp16` for a network in float16 with what needs it in float32.
        keep_float32: nodes that stay in float32 all the same.
        check: pictures, folders or videos on which a float16 model must stay within float16's range.
    """

    head: HeadOptions = field(default_factory=HeadOptions)
    classes: ClassTable | None = None
    family: str = ""
    input_size: tuple[int, int] | None = None
    batch: int | None = None
    pixels: PixelChange = field(default_factory=PixelChange)
    resize: str | None = None
    precision: str = "fp32"
    keep_float32: tuple[str, ...] = ()
    check: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigurationError(f"--precision: expected {' or '.join(PRECISIONS)}, got {self.precision!r}")
        for option, value in (("--keep-float32", self.keep_float32), ("--check", self.check)):
            if value and self.precision == "fp32":
                raise ConfigurationError(f"{option}: expected together with --precision fp16; leave it out")


def prepare(
    source: Path,
    destination: Path,
    options: PrepareOptions | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> ModelSpec:
    """Rewrite a raw export into a canonical model.

    Args:
        source: what an exporter wrote, ONNX.
        destination: the canonical model, written at once or not at all.
        options: defaults for all.
        report: called with a line of text for each thing found out.

    Returns:
        What the canonical model says of itself.

    Raises:
        ModelError: the source is missing, truncated, not ONNX, already canonical or cannot be converted.
        UnknownFamilyError: no family recognises it, or several do.
        ClassTableError: no class names, or not as many as the model has classes.
        ConfigurationError: an option or the destination is not usable.
    """
    options = options or PrepareOptions()
    if destination.exists() and source.exists() and destination.samefile(source):
        raise ConfigurationError(f"{destination}: this is the source itself; choose another name for the result")
    export = with_input_shape(with_batch_axis(load_export(source)), options.batch, options.input_size)
    family, match = recognise(export, options.family)
    match = replace(match, pixels=options.pixels.of(match.pixels), resize=_resize(match.resize, options.resize))
    report(f"recognised {family.name}: {match.summary}")
    names = choose_class_names(export, match, options.classes)
    match = replace(match, class_count=len(names), things=things_of(names, options.classes))
    model, match = network_of(export, match)
    graph = GraphBuilder(model.graph, "head")
    head = family.write_head(graph, match, options.head)
    spec = _describe(export, family, match, head, names, options)
    publish(graph, head, spec.batch)
    replace_input(model, match.image, match.pixels)
    finish(model, spec)
    if options.precision == "fp16":
        model = _in_half(model, options, report)
    write_atomically(destination, model.SerializeToString())
    return spec


def _in_half(model: onnx.ModelProto, options: PrepareOptions, report: Callable[[str], None]) -> onnx.ModelProto:
    """The model in float16, checked on the frames that the user gave."""
    half, halved = to_half(model, options.keep_float32)
    report("\n".join((f"precision  {halved.summary()}", *halved.notes)))
    if options.check:
        from ..sources.images import open_source
        from .precision.emulate import check_range

        sources = [open_source(path) for path in options.check]
        count = check_range(half, model, (named for source in sources for named in source))
        report(f"checked    {count} frames with float16 rounding, all values within its range")
    return half


def choose_class_names(export: Export, match: Match, table: ClassTable | None) -> tuple[str, ...]:
    """The names in `table`, or else those that the model carries.

    Raises:
        ClassTableError: there are none, or not as many as the model has classes.
        ModelError: the model's own cannot be read.
    """
    names = table.class_names if table else export.class_names()
    if names is None:
        raise ClassTableError(
            f"{export.origin}: the model carries no class names (no `names` in its metadata); "
            f"give those of its {match.class_count or ''} classes with --classes (a YAML file, "
            "or the name of a table in config/classes)".replace("  ", " ")
        )
    fewest = match.class_count - match.spare_classes
    if match.class_count and not fewest <= len(names) <= match.class_count:
        origin = f"class table {table.name!r} has" if table else "its metadata has"
        raise ClassTableError(
            f"{export.origin}: the model has {match.class_count} classes, but {origin} {len(names)} names; "
            "give a table with one name for each class, in the order of training, with --classes TABLE.yaml"
        )
    return names


def with_batch_axis(export: Export) -> Export:
    """The export with an input of one picture `[1, 3, H, W]` where its own is `[3, H, W]`, as torchvision's are."""
    port = export.inputs[0] if len(export.inputs) == 1 else None
    if port is None or port.rank != 3 or port.shape is None or port.shape[0] != 3:
        return export
    graph, picture = export.model.graph, f"{port.name}/picture"
    rename_tensors(graph, {port.name: picture})
    batch = Port(port.name, (1, *port.shape), port.element)
    for value in graph.input:
        if value.name == picture:
            # Shapes that were inferred stay as they are: inferring those of a large model again takes seconds.
            graph.value_info.append(value)
            axes = [axis if size is None else size for axis, size in zip("bchw", batch.shape or (), strict=True)]
            value.CopyFrom(helper.make_tensor_value_info(batch.name, batch.element, axes))
    first = numpy_helper.from_array(np.array(0, np.int64), f"{picture}/first")
    graph.initializer.append(first)
    # The same in every opset, unlike Squeeze.
    graph.node.insert(0, helper.make_node("Gather", [batch.name, first.name], [picture], name=picture, axis=0))
    return replace(export, inputs=(batch,))


def with_input_shape(export: Export, batch: int | None, size: tuple[int, int] | None) -> Export:
    """The export with the height and width of its input fixed, and its batch size where one is asked for.

    Raises:
        ConfigurationError: it is fixed to something else, or leaves height or width open and `size` is None.
    """
    if len(export.inputs) != 1 or export.inputs[0].rank != 4:
        return export  # No family takes it; their message says more than one about sizes would.
    port = export.inputs[0]
    own = port.shape or ()
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
        return Export.of_model(export.model, export.origin, export.sha256)
    except Exception as error:
        shape = ", ".join("?" if length is None else str(length) for length in lengths)
        raise ModelError(f"{export.origin}: an input of [{shape}] does not fit the model ({error})") from error


def _resize(own: ResizeSpec, mode: str | None) -> ResizeSpec:
    return own if mode in (None, own.mode) else ResizeSpec(mode or own.mode)


def _describe(
    export: Export, family: Family, match: Match, head: Head, names: tuple[str, ...], options: PrepareOptions
) -> ModelSpec:
    batch, _, height, width = match.image.shape or (None,) * 4
    instances = head if isinstance(head, InstanceHead) else None
    candidates = instances.nms_candidates if instances else 0
    return ModelSpec(
        family=family.name,
        class_names=names,
        things=things_of(names, options.classes),
        resize=match.resize,
        network_height=height or 0,
        network_width=width or 0,
        batch=batch or 0,
        max_instances=instances.max_instances if instances else 0,
        mask_height=head.mask_height,
        mask_width=head.mask_width,
        mask_frame=instances.mask_frame if instances else "frame",
        class_map=head.class_map is not None,
        nms_iou=options.head.nms_iou if candidates else 0.0,
        nms_candidates=candidates,
        nms_steps=options.head.nms_steps if candidates else 0,
        source_sha256=export.sha256,
    )


def things_of(names: tuple[str, ...], table: ClassTable | None) -> tuple[bool, ...]:
    """For each class, whether it comes as instances: all but the background and what the class table calls stuff."""
    stuff = _BACKGROUND | (table.stuff if table else frozenset())
    # torchvision writes `__background__`.
    return tuple(stuff.isdisjoint((name_key(name), name_key(name).strip())) for name in names)
