"""From an exporter's model file to a canonical one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from seg_perception.core.classes import ClassTable, name_key
from seg_perception.core.contract import ModelSpec
from seg_perception.core.errors import ClassTableError, ConfigurationError
from seg_perception.core.files import write_atomically
from seg_perception.core.geometry import ResizeSpec

from .canonical import finish, network_of, publish, replace_input
from .dense import with_box_shares
from .evidence import own_scaling
from .export import Export, contradictions_named, load_export
from .families import Family, Match, PixelSpec, recognise
from .graph import GraphBuilder
from .head import Head, HeadOptions, InstanceHead
from .inputs import with_usual_input
from .precision.half import to_half

PRECISIONS = ("fp32", "fp16")
BOX_UNITS = ("pixels", "shares")

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
        """Return what the model wants, given what its family wants."""
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
        boxes: `pixels` or `shares` (of the image's sides), where a model's boxes are not what they are taken for.
        check: images, folders or videos on which a float16 model must stay within float16's range.
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
    boxes: str = ""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigurationError(f"--precision: expected {' or '.join(PRECISIONS)}, got {self.precision!r}")
        if self.boxes not in ("", *BOX_UNITS):
            raise ConfigurationError(f"--boxes: expected {' or '.join(BOX_UNITS)}, got {self.boxes!r}")
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
    export = load_export(source)
    if options.classes is not None:
        export = replace(export, given_names=len(options.classes.class_names))
    with contradictions_named(str(source)):
        model, spec = _rewritten(export, options, report)
    write_atomically(destination, model.SerializeToString())
    return spec


def _rewritten(
    export: Export, options: PrepareOptions, report: Callable[[str], None]
) -> tuple[onnx.ModelProto, ModelSpec]:
    """The canonical model of an export, and what it says of itself."""
    export, notes = with_usual_input(export, options.batch, options.input_size)
    family, match = recognise(export, options.family)
    pixels, why = _pixels(export, match, options.pixels)
    match = replace(match, pixels=pixels, resize=_resize(match.resize, options.resize))
    if options.boxes:
        match = with_box_shares(match, options.boxes == "shares")
    reading = {**match.reading, "pixels": f"{pixels} ({why})", "evidence": "; ".join(match.evidence) or "the shapes"}
    report(f"recognised {family.name}: {match.summary}")
    lines = (f"  {key:9}{text}" for key, text in reading.items())
    report("\n".join((*notes, "taken for granted; where it is wrong, see --family, --mean, --std, --bgr", *lines)))
    names = choose_class_names(export, match, options.classes)
    match = replace(match, class_count=len(names), things=things_of(names, options.classes))
    model, match = network_of(export, match)
    graph = GraphBuilder(model.graph, "head")
    head = family.write_head(graph, match, options.head)
    spec = _describe(export, family, match, head, names, options)
    publish(graph, head, spec.batch)
    replace_input(model, match.image, match.pixels)
    finish(model, spec, reading)
    if options.precision == "fp16":
        model = _in_half(model, options, report)
    return model, spec


def _in_half(model: onnx.ModelProto, options: PrepareOptions, report: Callable[[str], None]) -> onnx.ModelProto:
    """The model in float16, checked on the frames that the user gave."""
    half, halved = to_half(model, options.keep_float32)
    report("\n".join((f"precision  {halved.summary()}", *halved.notes)))
    if options.check:
        from seg_perception.offboard.data.images import open_source

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


def _pixels(export: Export, match: Match, change: PixelChange) -> tuple[PixelSpec, str]:
    """Return what the network wants to see, and how that is known."""
    own = own_scaling(export, match.image)
    # Whole numbers cannot have been normalised outside of the graph.
    limit = 255.0 if export.takes_bytes else own.limit if own is not None else None
    pixels, why = match.pixels, "as the family's models do"
    if limit is not None:
        bgr = pixels.bgr if own is None or own.bgr is None else own.bgr
        pixels, why = PixelSpec(std=(255.0 / limit,) * 3, bgr=bgr), "the graph does the rest by itself"
    wanted = change.of(pixels)
    return wanted, why if wanted == pixels else "as the options say"


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
