"""What a canonical model says of itself survives the way into a file and back, and nonsense does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.core.contract import CONTRACT_VERSION, METADATA_KEY, ModelSpec
from seg_perception.core.errors import NotCanonicalError
from seg_perception.core.geometry import ANCHORS, RESIZE_MODES, ROUNDINGS, ResizeSpec
from seg_perception.core.text import is_printable

SPEC = ModelSpec(
    family="test",
    class_names=("person", "Straßenbahn"),
    things=(True, True),
    resize=ResizeSpec(),
    network_height=384,
    network_width=640,
    batch=1,
    max_instances=100,
    mask_height=96,
    mask_width=160,
    mask_frame="frame",
)
sizes = st.integers(1, 4096)
texts = st.text(max_size=12).filter(is_printable)
names = st.lists(texts.filter(str.strip), min_size=1, max_size=6).map(tuple)
resizes = st.builds(
    ResizeSpec, st.sampled_from(RESIZE_MODES), st.integers(0, 255), st.sampled_from(ROUNDINGS), st.sampled_from(ANCHORS)
)


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    class_names = draw(names)
    return ModelSpec(
        family=draw(texts),
        class_names=class_names,
        things=tuple(draw(st.booleans()) for _ in class_names),
        resize=draw(resizes),
        network_height=draw(sizes),
        network_width=draw(sizes),
        batch=draw(st.integers(0, 8)),
        max_instances=draw(st.integers(1, 300)),
        mask_height=draw(sizes),
        mask_width=draw(sizes),
        mask_frame=draw(st.sampled_from(["frame", "box"])),
        class_map=draw(st.booleans()),
        nms_iou=draw(st.floats(0, 1)),
        nms_candidates=draw(st.integers(0, 3840)),
        nms_steps=draw(st.integers(0, 64)),
        source_sha256=draw(st.text("0123456789abcdef", max_size=64)),
    )


@given(specs())
def test_json_and_back(spec):
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert ModelSpec.from_metadata({"other": "x", METADATA_KEY: spec.to_json()}, "m.onnx") == spec


def test_equal_specs_are_equal_text():
    assert SPEC.to_json() == replace(SPEC).to_json()


def test_a_raw_export_is_told_to_run_prepare():
    with pytest.raises(NotCanonicalError, match=r"seg_perception prepare yolo\.onnx -o"):
        ModelSpec.from_metadata({"names": "{0: 'person'}"}, "yolo.onnx")


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", '"text"', "{}"])
def test_metadata_that_is_no_spec(text):
    with pytest.raises(NotCanonicalError, match=r"m\.onnx: .* run `seg_perception prepare` on the source"):
        ModelSpec.from_json(text, "m.onnx")


@pytest.mark.parametrize("change", [
    {"extra": 1},
    {"class_names": None},
    {"things": [True]},
    {"class_names": []},
    {"network_height": 0},
    {"mask_width": -4},
    {"network_width": "wide"},
    {"mask_frame": "image"},
    {"max_instances": 0},
    {"resize": {"mode": "crop"}},
    {"resize": {"zoom": 2}},
    {"resize": None},
    {"max_instances": -1},
    {"max_instances": "100"},
    {"max_instances": True},
    {"batch": -2},
    {"network_height": 640.5},
    {"network_height": float("nan")},
    {"class_names": "abc"},
    {"class_names": [1, 2]},
    {"things": ["false", "false"]},
    {"nms_iou": "x"},
    {"nms_iou": 1.5},
    {"class_map": "no"},
    {"family": 3},
    {"family": "x" * 201},
    {"family": "\x1b[31mfam\nily"},
    {"source_sha256": "\ud800"},
    {"class_names": ["person", ""]},
    {"class_names": ["person", " \t"]},
    {"class_names": ["person", "\ud800car"]},
    {"class_names": ["person", "a\0b"]},
    {"class_names": ["person", "a\n[ERROR] brakes failed"]},
    {"class_names": ["person", "\u202ecar"]},
    {"class_names": ["person", "x" * 201]},
    {"class_names": ["x"] * 30_000, "things": [True] * 30_000},
    {"network_height": 1 << 40},
    {"network_height": 10**400},
    {"max_instances": 1 << 16},
    {"batch": 1 << 30},
    {"nms_iou": 10**400},
    {"nms_iou": float("nan")},
    {"resize": {"pad_value": 1.5}},
    {"resize": {"pad_value": True}},
    {"resize": {"pad_value": "1"}},
    {"resize": {"mode": ["letterbox"]}},
    {"resize": {"mode": "\x1b[2J"}},
    {"contract_version": "V" * 1_000_000},
    {"x" * 1_000_000: 1},
])  # fmt: skip
def test_impossible_values(change):
    values = {**json.loads(SPEC.to_json()), **change}
    with pytest.raises(NotCanonicalError) as caught:
        ModelSpec.from_json(json.dumps(values))
    assert is_printable(str(caught.value))
    assert len(str(caught.value)) < 1000


def test_whole_numbers_of_thousands_of_digits() -> None:
    text = SPEC.to_json().replace('"batch": 1', f'"batch": {"9" * 5000}')
    with pytest.raises(NotCanonicalError):
        ModelSpec.from_json(text)


def test_names_that_are_unusual_and_right() -> None:
    class_names = ("N/A", "N/A", "Straßenbahn 🚋", "<b>", "../x", "x" * 200)
    spec = replace(SPEC, class_names=class_names, things=(True,) * 6)
    assert ModelSpec.from_json(spec.to_json()).class_names == class_names


def test_deeply_nested_metadata():
    with pytest.raises(NotCanonicalError):
        ModelSpec.from_json("[" * 100_000)


def test_a_missing_key_is_named():
    values = json.loads(SPEC.to_json())
    del values["mask_frame"]
    with pytest.raises(NotCanonicalError, match="mask_frame"):
        ModelSpec.from_json(json.dumps(values))


def test_another_contract_version():
    values = {**json.loads(SPEC.to_json()), "contract_version": CONTRACT_VERSION + 1, "a_new_key": 1}
    with pytest.raises(NotCanonicalError, match=f"version {CONTRACT_VERSION}, the model says {CONTRACT_VERSION + 1}"):
        ModelSpec.from_json(json.dumps(values))


@pytest.mark.parametrize(("instances", "class_map", "expected"), [
    (100, False, ("boxes", "scores", "labels", "masks")),
    (100, True, ("boxes", "scores", "labels", "masks", "class_map")),
    (0, True, ("class_map",)),
])  # fmt: skip
def test_output_names(instances, class_map, expected):
    assert replace(SPEC, max_instances=instances, class_map=class_map).output_names == expected
