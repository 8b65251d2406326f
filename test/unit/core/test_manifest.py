"""The manifest of an engine: what is written is read, and nothing else is."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seg_perception.cli import build as build_command
from seg_perception.cli.inspect_engine import describe_engine
from seg_perception.core.contract import CONTRACT_VERSION, ModelSpec
from seg_perception.core.errors import BackendUnavailable, ModelError, NotCanonicalError
from seg_perception.core.geometry import ResizeSpec
from seg_perception.core.manifest import (
    SCHEMA,
    BuildSettings,
    EngineManifest,
    file_sha256,
    load_manifest,
    manifest_path,
)

SPEC = ModelSpec("yolov8", ("person", "car"), (True, True), ResizeSpec("letterbox"), 64, 96, 1, 10, 16, 24, "frame")
SETTINGS = BuildSettings(
    "int8", "tensorrt-rtx", ("sm_86", "sm_89"), calibration=("my photos", "clip.mp4"), max_loss=0.0
)
MANIFEST = EngineManifest(
    spec=SPEC,
    engine_sha256="a" * 64,
    engine_bytes=1234,
    source="models/road.onnx",
    source_sha256="b" * 64,
    flavour="tensorrt-rtx",
    version="1.7.1.116",
    device="",
    architectures=("sm_86", "sm_89"),
    precision={"macs": {"int8": 9}, "share": {"int8": 1.0}, "kept": [], "unknown": []},
    quantization=None,
    forced=False,
    settings=SETTINGS,
    seconds={"build": 1.5},
    key="c" * 64,
    created="2026-01-02T03:04:05+00:00",
    package_version="0.1.0",
)


def write(folder: Path, change: Callable[[dict[str, Any]], object] = lambda values: None) -> Path:
    """An engine's file name, with the manifest next to where it would be."""
    values = json.loads(MANIFEST.to_json())
    change(values)
    engine = folder / "road.engine"
    manifest_path(engine).write_text(json.dumps(values))
    return engine


def test_what_is_written_is_read(tmp_path: Path) -> None:
    engine = write(tmp_path)
    assert manifest_path(engine).name == "road.engine.json"
    assert load_manifest(engine) == MANIFEST


def test_the_schema_itself_is_valid() -> None:
    from jsonschema import Draft7Validator

    Draft7Validator.check_schema(json.loads(SCHEMA.read_text()))


def quantized(**precision: Any) -> dict[str, Any]:
    """A report of quantization whose only step has this precision."""
    measured = {"frames": 1, "instances": 2, "mask_iou": 0.5, "missed": 0, "extra": 0, "switched": 0, **precision}
    step = {"action": "all", "int8_share": 0.9, "fits": True, "precision": measured}
    values = {"method": "entropy", "calibration_frames": 4, "calibration_sha256": "d" * 64, "failures": 0}
    return {**values, "int8_share": 0.9, "kept": [], "budget": {}, "steps": [step], "forced": False}


def test_a_quantized_engine(tmp_path: Path) -> None:
    measured = dict.fromkeys(("float_mask_ap", "mask_ap", "mask_loss", "mask_loss_low", "mask_loss_high"), 0.5)
    for precision in ({}, {"mask_iou": None, "mask_loss": None}, measured):
        engine = write(tmp_path, lambda values, more=precision: values.update(quantization=quantized(**more)))
        _, rows = describe_engine(engine)
        assert any(name == "accuracy" and text.startswith("all: 90.0% INT8") for name, text in rows)


def test_a_source_that_is_no_utf8_is_written_escaped(tmp_path: Path) -> None:
    engine = tmp_path / "road.engine"
    manifest_path(engine).write_text(replace(MANIFEST, source="my\udcff.onnx").to_json())
    assert load_manifest(engine).source == "my\\xff.onnx"


def test_a_manifest_without_end(tmp_path: Path) -> None:
    engine = tmp_path / "road.engine"
    with manifest_path(engine).open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ModelError, match="at most 16 MiB"):
        load_manifest(engine)
    manifest_path(engine).unlink()
    os.mkfifo(manifest_path(engine))
    with pytest.raises(ModelError, match="cannot be read"):
        load_manifest(engine)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("engine"), r"manifest: 'engine' is a required property"),
        (lambda values: values.update(extra=1), r"'extra' was unexpected"),
        (lambda values: values["engine"].update(sha256="AB"), r"engine/sha256: 'AB' does not match"),
        (lambda values: values["engine"].update(architectures=[]), r"engine/architectures: "),
        (lambda values: values["engine"]["tensorrt"].update(flavour="tensorflow"), r"engine/tensorrt/flavour: "),
        (lambda values: values["settings"].pop("dla"), r"settings: 'dla' is a required property"),
        (lambda values: values["settings"].update(gpu=["RTX 3090"]), r"settings/gpu/0: 'RTX 3090' does not match"),
        (lambda values: values.update(forced="no"), r"forced: 'no' is not of type 'boolean'"),
        (lambda values: values["precision"]["share"].update(int8=1.2), r"precision/share/int8: 1.2 is greater"),
        (lambda values: values.update(created="yesterday"), r"created: 'yesterday' does not match"),
        (lambda values: values.update(manifest_version=2), r"expected a manifest of version 1, got 2"),
        (lambda values: values["engine"].update(bytes=1234.0), r"engine/bytes: 1234.0 is not of type 'integer'"),
        (lambda values: values["engine"].update(bytes=10**400), r"engine/bytes: 1000"),
        (lambda values: values["settings"].update(max_batch=True), r"settings/max_batch: True is not of type"),
        (lambda values: values.update(key="c" * 64 + "\n"), r"key: 'c"),
        (lambda values: values.update(created=values["created"] + "\n"), r"created: "),
        (lambda values: values["settings"].update(gpu=["sm_86\n"]), r"settings/gpu/0: "),
        (lambda values: values["engine"].update(architectures=[f"sm_{n}" for n in range(99)]), r"architectures: "),
        (lambda values: values["seconds"].update(build=float("inf")), r"not JSON \(Infinity is no number\)"),
        (lambda values: values["engine"].update(device="\x1b[31m"), r"without control characters, got \\x1b\[31m"),
        (lambda values: values["source"].update(path="\ud800"), r"without control characters, got \\ud800"),
        (lambda values: values["seconds"].update({"a\nb": 1}), r"without control characters, got a\\x0ab"),
        (lambda values: values["source"].update(path="x" * 10_000), r"at most 8192 characters"),
        (lambda values: values.update(quantization=quantized(more=1)), r"'more' was unexpected|quantization: "),
        (lambda values: values.update(quantization=quantized(frames=None)), r"quantization: "),
        (lambda values: values.update(quantization=quantized(mask_loss=1.0)), r"quantization: "),
        (lambda values: values.update(quantization=quantized(mask_iou=1e300)), r"quantization: "),
    ],
)
def test_what_breaks_the_schema_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    engine = write(tmp_path, change)
    with pytest.raises(ModelError, match=rf"road\.engine\.json: .*{message}.*seg_perception build"):
        load_manifest(engine)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "null"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    engine = write(tmp_path)
    manifest_path(engine).write_text(text)
    with pytest.raises(ModelError, match=r"road\.engine\.json: not "):
        load_manifest(engine)


def test_manifest_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"x\.engine: expected its manifest x\.engine\.json next to it, found none"):
        load_manifest(tmp_path / "x.engine")


def test_another_contract_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    """Its model may have keys of which this version knows nothing."""
    engine = write(tmp_path, lambda values: values.update(model={"contract_version": CONTRACT_VERSION + 1, "new": 0}))
    with pytest.raises(
        NotCanonicalError, match=rf"contract version {CONTRACT_VERSION + 1}, .* speaks {CONTRACT_VERSION}; "
    ) as error:
        load_manifest(engine)
    assert "seg_perception build models/road.onnx" in str(error.value)
    engine = write(tmp_path, lambda values: values["model"].pop("family"))
    with pytest.raises(NotCanonicalError, match="family"):
        load_manifest(engine)


def test_without_jsonschema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = write(tmp_path)
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(BackendUnavailable, match=r"pip install jsonschema.*rosdep"):
        load_manifest(engine)


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        BuildSettings("fp16", "tensorrt"),
        BuildSettings("fp16", "tensorrt", dla=0, timing_cache="a b.cache", workspace=512, sparsity=True),
        BuildSettings("fp32", "tensorrt", max_batch=4, force=True, classes="coco", family="yolov8", input_size="64x96"),
    ],
)
def test_the_rebuild_command_asks_for_the_same(settings: BuildSettings) -> None:
    manifest = replace(MANIFEST, settings=settings)
    words = shlex.split(manifest.rebuild_command(Path("my engines/road.engine")))
    assert words[:2] == ["seg_perception", "build"]
    parser = argparse.ArgumentParser()
    build_command.add_arguments(parser)
    arguments = parser.parse_args(words[2:])
    assert (arguments.source, arguments.output) == (Path("models/road.onnx"), Path("my engines"))
    assert build_command.settings_of(arguments) == settings


def test_hash_of_a_file(tmp_path: Path) -> None:
    import hashlib

    data = bytes(range(256)) * 10_000
    (tmp_path / "data").write_bytes(data)
    assert file_sha256(tmp_path / "data") == hashlib.sha256(data).hexdigest()
