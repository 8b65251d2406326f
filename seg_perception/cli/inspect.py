"""`seg_perception inspect`: what a model says of itself."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from seg_perception.core.contract import METADATA_KEY, ModelSpec
from seg_perception.core.errors import BackendUnavailable, ClassTableError, ConfigurationError
from seg_perception.core.text import aligned, message_text, printable

from .inspect_engine import describe_engine, engine_of

# A raw export lists the names of its classes in one cell: LVIS has 1203.
_LONGEST_CELL = 40_000
HELP = "print what a model file is, what it takes and gives, and its classes with their road groups"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="canonical model, raw export (ONNX), or engine")
    parser.add_argument(
        "--classes",
        default="auto",
        metavar="TABLE",
        help="class table for the road groups: a YAML file, the name of one that comes with the package, or auto for "
        "the one that knows most of the model's classes (default: %(default)s)",
    )
    parser.add_argument(
        "--write-classes", type=Path, metavar="TABLE.yaml",
        help="also write a class table of the model's own class names, to be edited and given as --classes",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Print the description of an engine or a canonical model, or what a raw export is and needs."""
    from seg_perception.core.share import find_model

    arguments.model = find_model(str(arguments.model))
    if arguments.model.is_dir():
        raise ConfigurationError(f"{arguments.model}: is a folder; expected a model file (ONNX) or an engine")
    engine = engine_of(arguments.model)
    if engine is not None:
        print("\n".join(_engine(engine, arguments.classes, arguments.write_classes)))
        return 0
    try:
        from seg_perception.offboard.toolchain.export import contradictions_named, load_model, metadata_of, reading_of
        from seg_perception.offboard.toolchain.precision.cost import precision_summary
        from seg_perception.offboard.toolchain.quantize.report import report_of
    except ImportError as error:
        raise BackendUnavailable(f"`inspect` needs the Python package onnx ({error}): pip install onnx") from error
    model, _ = load_model(arguments.model, weights=False)
    metadata = metadata_of(model)
    if METADATA_KEY in metadata:
        spec = ModelSpec.from_metadata(metadata, str(arguments.model))
        with contradictions_named(str(arguments.model)):
            rows = [*_read_as(reading_of(metadata)), ("precision", str(precision_summary(model)))]
        done = report_of(metadata, str(arguments.model))
        if done is not None:
            rows.append(("quantized", f"{done.method}, {done.calibration_frames} frames; {done.precision}"))
            rows += [("", done.precision.caution)] * bool(done.precision.caution)
        if done is not None and done.forced:
            rows.append(("FORCED", "it loses more accuracy than its budget allowed"))
        lines = _canonical(arguments.model, spec, rows, arguments.classes)
        lines += _written(arguments.write_classes, spec.class_names, spec.things)
    else:
        lines = _raw(arguments.model, arguments.write_classes)
    print("\n".join(lines))
    return 0


def _canonical(path: Path, spec: ModelSpec, precision: list[tuple[str, str]], classes: str) -> list[str]:
    origin = ("model", f"{path} (canonical, contract {spec.contract_version})")
    return [
        *_aligned([origin, *_facts(spec), *precision]),
        "",
        *_class_table(spec, classes),
    ]


def _engine(path: Path, classes: str, written: Path | None) -> list[str]:
    manifest, rows = describe_engine(path)
    spec = manifest.spec
    origin = ("model", f"{path} (engine, contract {spec.contract_version})")
    table = _written(written, spec.class_names, spec.things)
    return [*_aligned([origin, *rows, *_facts(spec)]), "", *_class_table(spec, classes), *table]


def _written(path: Path | None, class_names: Sequence[str] | None, things: Sequence[bool] = ()) -> list[str]:
    """Write the class table that --write-classes asks for; return what to say of it."""
    from seg_perception.core.class_tables import write_class_table

    if path is None:
        return []
    if class_names is None:
        raise ConfigurationError("--write-classes: expected a model with class names in its metadata, it has none")
    stuff = [name for name, thing in zip(class_names, things, strict=False) if not thing]
    table = write_class_table(path, class_names, stuff)
    count = len(table.group_of)
    return [f"{path}: {len(class_names)} classes, {count} in road groups; edit `groups`, then --classes {path}"]


def _facts(spec: ModelSpec) -> list[tuple[str, str]]:
    resize = spec.resize
    letterbox = f", padding {resize.pad_value}, {resize.anchor}, sizes rounded {resize.rounding}"
    facts = [
        ("family", spec.family),
        ("source", f"sha256 {spec.source_sha256 or 'unknown'}"),
        ("input", f"uint8 [{spec.batch or 'any batch'}, {spec.network_height}, {spec.network_width}, 3], RGB"),
        ("resize", resize.mode + (letterbox if resize.mode == "letterbox" else "")),
    ]
    if spec.max_instances:
        spans = "the network input" if spec.mask_frame == "frame" else "each box"
        facts += [
            ("instances", f"up to {spec.max_instances}"),
            ("masks", f"{spec.mask_width} x {spec.mask_height} logits over {spans}"),
        ]
    if spec.nms_candidates:
        facts.append(
            ("suppression", f"IoU {spec.nms_iou:g}, best {spec.nms_candidates} candidates, {spec.nms_steps} steps")
        )
    elif spec.max_instances:
        facts.append(("suppression", "none needed"))
    if spec.class_map:
        facts.append(("class map", f"{spec.mask_width} x {spec.mask_height}"))
    return facts


def _class_table(spec: ModelSpec, classes: str) -> list[str]:
    from seg_perception.core.class_tables import resolve_class_table
    from seg_perception.core.classes import NO_GROUP_NAME, group_name

    try:
        table = resolve_class_table(classes, spec.class_names)
    except ClassTableError as error:
        if classes != "auto":
            raise
        groups, note = ["?"] * len(spec.class_names), f"road groups unknown: {message_text(error)}"
    else:
        groups = [group_name(int(group)) for group in table.groups(spec.class_names)]
        left_out = groups.count(NO_GROUP_NAME)
        note = f"road groups after class table {table.name!r}"
        if left_out:
            note += f"; {left_out} of {len(groups)} classes belong to none and are not published"
    rows = [("label", "class", "road group", "kind")]
    for label, (name, group, thing) in enumerate(zip(spec.class_names, groups, spec.things, strict=True)):
        rows.append((str(label), name, group, "thing" if thing else "stuff"))
    return [*_aligned(rows), note]


def _raw(path: Path, written: Path | None) -> list[str]:
    from seg_perception.offboard.toolchain.export import contradictions_named, load_export
    from seg_perception.offboard.toolchain.families import recognise
    from seg_perception.offboard.toolchain.inputs import with_usual_input

    export = load_export(path)
    # An input that leaves its size open is shown as it is.
    with contextlib.suppress(ConfigurationError), contradictions_named(str(path)):
        export, _ = with_usual_input(export, None, None)
    with contradictions_named(str(path)):
        family, match = recognise(export)
    names = export.class_names()
    return [
        *_aligned(
            [
                ("model", f"{path} (raw export)"),
                ("family", f"{family.name}: {match.summary}"),
                *_read_as([*match.reading.items(), ("pixels", str(match.pixels))]),
                ("source", f"sha256 {export.sha256}"),
                *(("input", str(port)) for port in export.inputs),
                *(("output", str(port)) for port in export.outputs),
                ("classes", "none in the metadata" if names is None else ", ".join(names)),
            ]
        ),
        "",
        f"not canonical yet: run `seg_perception prepare {path} -o {path.with_suffix('.canonical.onnx')}`"
        + (" with --classes TABLE.yaml" if names is None else ""),
        *_written(written, names),
    ]


def _read_as(reading: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [("" if place else "read as", f"{key}: {text}") for place, (key, text) in enumerate(reading)]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines with aligned columns; names are those of whoever made the model, and are escaped."""
    escaped = [[printable(cell, _LONGEST_CELL) for cell in row] for row in rows]
    return aligned(escaped, range(len(rows[0])))
