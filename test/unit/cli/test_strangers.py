"""Whatever a stranger writes into a model's description, a manifest, a class table or a parameter file is refused with
an error of the package, or can be used by all that comes later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.core.test_contract import SPEC
from unit.core.test_manifest import MANIFEST, quantized

from seg_perception.cli.inspect_engine import describe_engine
from seg_perception.core.class_tables import category_ids, load_class_table
from seg_perception.core.contract import ModelSpec
from seg_perception.core.errors import ClassTableError, ConfigurationError, ModelError, SegPerceptionError
from seg_perception.core.manifest import load_manifest, manifest_path
from seg_perception.core.text import is_printable
from seg_perception.offboard.toolchain.quantize.report import QuantizationReport
from seg_perception.onboard.doctor.settings import read_settings

DELETE = "delete this"
ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=30)
ODD = st.sampled_from([
    None, True, False, 0, -1, 1, 1.0, 2**70, -(2**70), 10**400, 1e308, float("inf"), float("nan"), "", " ", "x",
    "\x1b[31m\n", "\ud800", "../../etc/passwd", "-o", "sm_86\n", "a" * 64, "a" * 64 + "\n", "9" * 5000, "A" * 100_000,
    [], {}, [[]], {"a": 1}, ["sm_86"], [None], [{}], {"": ""}, DELETE,
])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
TABLE: dict[str, Any] = {
    "name": "mine",
    "classes": ["car", "person", "tree"],
    "groups": {"vehicle": ["car"], "pedestrian": ["person"]},
    "ids": {"car": 1, "person": 2, "tree": 3},
    "stuff": ["tree"],
}
PARAMETERS: dict[str, Any] = {
    "/**": {
        "ros__parameters": {
            "model": "m.onnx",
            "camera_names": ["front", "rear"],
            "cameras.front.topic": "/front",
            "cameras.rear": {"transport": "compressed"},
            "use_sim_time": True,
        }
    }
}


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*before, key)
        yield from places(item, (*before, key))


@st.composite
def mutated(draw: st.DrawFn, good: Any) -> Any:
    """A value with one to three places changed, removed or renamed."""
    value = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(list(places(value)) or [("",)]))
        target = value
        for key in way:
            target = target[key]
        odd = deepcopy(draw(ODD | JSON))
        if isinstance(target, dict) and draw(st.integers(0, 9)) == 0:
            target[draw(ANY_TEXT)] = target.pop(last, odd)
        elif odd == DELETE:
            del target[last]
        else:
            target[last] = odd
        if not isinstance(value, (dict, list)) or not value:
            return value
    return value


@st.composite
def written(draw: st.DrawFn, good: Any) -> str:
    """JSON text of a mutated value, sometimes cut."""
    text = json.dumps(draw(mutated(good)))
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 19)) == 0 else text


def refused(error: SegPerceptionError) -> None:
    """An error says something that can be printed, and not megabytes of it."""
    assert str(error)
    assert len(str(error)) < 25_000
    assert is_printable(str(error))


def fuzz(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], examples: int) -> None:
    options = settings(max_examples=examples, suppress_health_check=list(HealthCheck), deadline=None)
    options(given(strategy)(check))()


def description(text: str) -> None:
    try:
        spec = ModelSpec.from_json(text, "m.onnx")
    except ModelError as error:
        refused(error)
        return
    assert all(is_printable(name) and 0 < len(name.encode()) <= 800 for name in spec.class_names)
    assert ModelSpec.from_json(spec.to_json()) == spec


def report(text: str) -> None:
    try:
        known = QuantizationReport.from_json(text, "m.onnx")
    except ModelError as error:
        refused(error)
        return
    assert str(known.precision)
    assert isinstance(known.precision.caution, str)


def manifest(folder: Path) -> Callable[[str], None]:
    engine = folder / "road.engine"
    engine.write_bytes(b"ftrt" + bytes(100))

    def check(text: str) -> None:
        manifest_path(engine).write_text(text)
        try:
            known = load_manifest(engine)
        except (ModelError, ConfigurationError) as error:
            refused(error)
            return
        # What was read can be used: nothing later fails on it.
        described, rows = describe_engine(engine)
        assert described == known
        assert all(is_printable(text) for row in rows for text in row)
        assert known.rebuild_command(engine)

    return check


def table(folder: Path) -> Callable[[bytes], None]:
    path = folder / "table.yaml"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            known = load_class_table(path)
        except ClassTableError as error:
            refused(error)
            return
        assert len(known.groups(known.class_names)) == len(known.class_names) == known.covers(known.class_names)
        assert all(is_printable(name) for name in (known.name, *known.class_names))
        try:
            category_ids(path, known.class_names)
        except ClassTableError as error:
            refused(error)

    return check


def parameters(folder: Path) -> Callable[[bytes], None]:
    path = folder / "params.yaml"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read_settings(path)
        except ConfigurationError as error:
            refused(error)

    return check


def yaml_of(good: Any) -> st.SearchStrategy[bytes]:
    """YAML of mutated values, as itself and as JSON, which YAML mostly contains; and bytes that are none."""
    values = mutated(good)
    dumped = values.map(lambda value: yaml.dump(value, allow_unicode=True).encode("utf-8", "surrogatepass"))
    text = st.text("-:[]{}#&*!|>'\"%@`\t\n ,?~<=.0123456789eExbou_anmeclsgrp", max_size=80)
    return dumped | written(good).map(str.encode) | st.binary(max_size=60) | text.map(str.encode)


QUANTIZED = {
    **quantized(mask_loss=0.5, mask_loss_low=0, mask_loss_high=1, float_mask_ap=0.5, mask_ap=0.4),
    "version": 1,
}
CHECKS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Path], Callable[[Any], None]]]] = {
    "description": (written(json.loads(SPEC.to_json())), lambda _: description),
    "report": (written(QUANTIZED), lambda _: report),
    "manifest": (written({**json.loads(MANIFEST.to_json()), "quantization": QUANTIZED}), manifest),
    "table": (yaml_of(TABLE), table),
    "parameters": (yaml_of(PARAMETERS), parameters),
}


@pytest.mark.parametrize("name", CHECKS)
def test_it_is_refused_or_of_use(name: str, tmp_path: Path) -> None:
    strategy, make = CHECKS[name]
    fuzz(strategy, make(tmp_path), 50)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CHECKS)
def test_it_is_refused_or_of_use_whatever_comes(name: str, tmp_path: Path) -> None:
    strategy, make = CHECKS[name]
    fuzz(strategy, make(tmp_path), 500)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("description", SPEC.to_json()),
        ("report", json.dumps(QUANTIZED)),
        ("manifest", MANIFEST.to_json()),
        ("table", yaml.dump(TABLE).encode()),
        ("parameters", yaml.dump(PARAMETERS).encode()),
    ],
)
def test_the_unchanged_values_are_accepted(name: str, good: Any, tmp_path: Path) -> None:
    """Else the tests above would only ever see refusals."""
    _, make = CHECKS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "refused", lambda error: pytest.fail(str(error)))
        make(tmp_path)(good)
