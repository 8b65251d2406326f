"""The model: whether the node could open it, and whether its classes mean something on a road."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from seg_perception.core.errors import SegPerceptionError

from .finding import Finding, Level
from .surroundings import Surroundings

GROUP = "model"
_MARK = "findings: "


def flavour_of(path: Path) -> str:
    """The TensorRT that an engine needs; empty for other models. An engine that does not tell counts as TensorRT's."""
    if path.suffix != ".engine":
        return ""
    try:
        from seg_perception.core.manifest import load_manifest

        return load_manifest(path).flavour
    except (SegPerceptionError, ImportError):
        return "tensorrt"


def ask_model(around: Surroundings, path: Path, backend: str, classes: str) -> list[Finding]:
    """`check_model` in a process of its own: a driver or library that crashes must not take the doctor along."""
    arguments = ", ".join(map(repr, (str(path), backend, classes)))
    answer = around.python(f"from {__name__} import tell; tell({arguments})")
    # The last one is ours: what a library prints of a model may look the same.
    told = next((line for line in reversed(answer.out.splitlines()) if line.startswith(_MARK)), "")
    if not told:
        advice = "open it with `seg_perception inspect` to see all that is said"
        return [Finding(GROUP, "model", Level.FAIL, f"{path}: opening it failed: {answer.reason}", advice)]
    return [Finding.from_json(each) for each in json.loads(told.removeprefix(_MARK))]


def tell(path: str, backend: str, classes: str) -> None:
    """Print what `check_model` finds for who started this process."""
    findings = check_model(Path(path), backend, classes)
    # Libraries print to standard output, too.
    print(f"\n{_MARK}{json.dumps([finding.as_json() for finding in findings])}", flush=True)


def check_model(path: Path, backend: str, classes: str) -> list[Finding]:
    """Open a model as the node would, then look at its classes.

    Args:
        path: of the model.
        backend: parameter `backend`.
        classes: class table, parameter `classes`.
    """
    try:
        found, names = _opened(path, backend)
    except (SegPerceptionError, ImportError) as error:
        # Our errors say what to do themselves.
        advice = f"install the Python package {error.name}" if isinstance(error, ImportError) else ""
        return [
            Finding(GROUP, "model", Level.FAIL, str(error), advice),
            Finding(GROUP, "classes", Level.SKIPPED, "the model cannot be used"),
        ]
    return [_model(path, found), check_classes(names, classes)]


def check_classes(names: Sequence[str], classes: str) -> Finding:
    """Return whether the class table knows the model's classes, and finds something in every road group."""
    from seg_perception.core.class_tables import resolve_class_table
    from seg_perception.core.classes import ROAD_GROUPS

    try:
        table = resolve_class_table(classes, names)
    except SegPerceptionError as error:
        return Finding(GROUP, "classes", Level.FAIL, str(error))
    groups = table.groups(names).tolist()
    counts = {group: groups.count(index) for index, group in enumerate(ROAD_GROUPS)}
    text = f"table {table.name!r} knows {table.covers(names)} of {len(names)} classes: " + ", ".join(
        f"{group} {count}" for group, count in counts.items()
    )
    if not any(counts.values()):
        advice = "choose a table with parameter `classes`, or write one after the pattern of config/classes/coco.yaml"
        return Finding(GROUP, "classes", Level.FAIL, f"{text}: nothing would be published", advice, counts)
    empty = [group for group, count in counts.items() if not count]
    if empty:
        advice = "a model that was trained on them, or another class table (parameter `classes`)"
        return Finding(GROUP, "classes", Level.WARN, f"{text}; never found: {', '.join(empty)}", advice, counts)
    return Finding(GROUP, "classes", Level.OK, text, facts=counts)


def _opened(path: Path, backend: str) -> tuple[str, Sequence[str]]:
    """Open a model as the node would; an engine is held against this machine first, with the reason if it differs."""
    from seg_perception.onboard.backend.registry import open_backend

    model = open_backend(path, backend)
    try:
        spec, identity = model.spec, model.identity
        words = [identity.get(name, "") for name in ("backend", "device", "precision")]
        text = ", ".join(word for word in words if word)
        return f"{spec.family}, {spec.network_width}x{spec.network_height}; opened by {text}", spec.class_names
    finally:
        model.close()


def _model(path: Path, found: str) -> Finding:
    from seg_perception.core.share import share_directory

    if path.resolve().parent == (share_directory() / "engines").resolve():
        advice = "it has only seen rendered streets: take one that saw photographs (`seg_perception models` lists some)"
        return Finding(GROUP, "model", Level.WARN, f"{path}: {found}; it comes with the package", advice)
    return Finding(GROUP, "model", Level.OK, f"{path}: {found}")
