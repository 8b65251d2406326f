"""From an exporter's model file to a canonical one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..classes import ClassTable
from ..contract import ModelSpec
from ..errors import ClassTableError, ConfigurationError, ModelError
from .canonical import finish, network_of, publish_instances, replace_input
from .export import Export, load_export
from .families import Family, Match, recognise
from .files import write_atomically
from .graph import GraphBuilder
from .head import Head, HeadOptions


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """What the user decides.

    Attributes:
        head: rows of the result and suppression.
        classes: the class names, for a model that does not carry its own or whose own are to be replaced.
        family: the only family to try; empty to recognise it.
        input_size: height and width, for a model that leaves them open.
    """

    head: HeadOptions = field(default_factory=HeadOptions)
    classes: ClassTable | None = None
    family: str = ""
    input_size: tuple[int, int] | None = None


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
    export = with_input_size(load_export(source), options.input_size)
    family, match = recognise(export, options.family)
    report(f"recognised {family.name}: {match.summary}")
    names = choose_class_names(export, match, options.classes)
    model, match = network_of(export, match)
    graph = GraphBuilder(model.graph, "head")
    head = family.write_head(graph, match, options.head)
    spec = _describe(export, family, match, head, names, options.head)
    publish_instances(graph, head, spec.batch)
    replace_input(model, match.image, match.pixels)
    finish(model, spec)
    write_atomically(destination, model.SerializeToString())
    return spec


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
            f"give those of its {match.class_count} classes with --classes TABLE.yaml"
        )
    if len(names) != match.class_count:
        origin = f"class table {table.name!r} has" if table else "its metadata has"
        raise ClassTableError(
            f"{export.origin}: the model has {match.class_count} classes, but {origin} {len(names)} names; "
            "give a table with one name for each class, in the order of training, with --classes TABLE.yaml"
        )
    return names


def with_input_size(export: Export, size: tuple[int, int] | None) -> Export:
    """The export with the height and width of its input fixed.

    Raises:
        ConfigurationError: it has another size, or leaves it open and `size` is None.
    """
    if len(export.inputs) != 1 or export.inputs[0].rank != 4:
        return export  # No family takes it; their message says more than one about sizes would.
    port = export.inputs[0]
    own = (port.shape or ())[2:]
    if size is None:
        if None in own:
            raise ConfigurationError(
                f"{export.origin}: its input {port} leaves height or width open; choose them with --input-size HxW"
            )
        return export
    if any(have not in (None, want) for have, want in zip(own, size, strict=True)):
        raise ConfigurationError(
            f"--input-size: the model's input {port} is fixed, got {size[0]}x{size[1]}; "
            "leave the option out, or export the model with this size or with dynamic axes"
        )
    for value in export.model.graph.input:
        if value.name == port.name:
            for axis, length in zip(value.type.tensor_type.shape.dim[2:], size, strict=True):
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
        raise ModelError(f"{export.origin}: {size[0]}x{size[1]} does not fit the model ({error})") from error


def _describe(
    export: Export, family: Family, match: Match, head: Head, names: tuple[str, ...], options: HeadOptions
) -> ModelSpec:
    batch, _, height, width = match.image.shape or (None,) * 4
    suppresses = head.nms_candidates > 0
    return ModelSpec(
        family=family.name,
        class_names=names,
        things=(True,) * len(names),
        resize=match.resize,
        network_height=height or 0,
        network_width=width or 0,
        batch=batch or 0,
        max_instances=head.max_instances,
        mask_height=head.mask_height,
        mask_width=head.mask_width,
        mask_frame=head.mask_frame,
        nms_iou=options.nms_iou if suppresses else 0.0,
        nms_candidates=head.nms_candidates,
        nms_steps=options.nms_steps if suppresses else 0,
        source_sha256=export.sha256,
    )
