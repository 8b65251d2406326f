"""Engines, really built by TensorRT-RTX, which needs no GPU for that: what comes out, is reused and is refused."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from colour_model import random_scene, save_canonical_colour_model, save_colour_model
from conv_model import save_canonical_conv_model
from onnx import TensorProto, helper

from seg_perception.core.errors import BackendUnavailable, ConfigurationError, ModelError, SegPerceptionError
from seg_perception.core.manifest import BuildSettings, EngineManifest, file_sha256, load_manifest, manifest_path
from seg_perception.offboard.metrics.agreement import AgreementBudget
from seg_perception.offboard.toolchain.engine import int8
from seg_perception.offboard.toolchain.engine.build import Built, build_engine, engine_key
from seg_perception.offboard.toolchain.engine.builder import EngineBuild, Plan
from seg_perception.offboard.toolchain.engine.int8 import calibration_frames, frames_sha256
from seg_perception.offboard.toolchain.engine.source import Source
from seg_perception.offboard.toolchain.engine.target import Target
from seg_perception.offboard.toolchain.export import spec_of
from seg_perception.offboard.toolchain.precision.half import to_half
from seg_perception.offboard.toolchain.prepare import prepare
from seg_perception.offboard.toolchain.quantize.frames import gather
from seg_perception.offboard.toolchain.quantize.gate import Budget
from seg_perception.offboard.toolchain.quantize.report import REPORT_KEY, Precision, QuantizationReport, Step
from seg_perception.onboard.backend.registry import open_backend
from seg_perception.onboard.backend.tensorrt.driver import first_device

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 has wheels for x86-64 and Python 3.10 to 3.13")

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
LAYOUTS = sorted(path.stem for path in (Path(__file__).parents[3] / "layouts").glob("[!_]*.py"))
RTX = BuildSettings("fp32", "tensorrt-rtx", ("sm_86",))


def has_gpu() -> bool:
    try:
        return bool(first_device())
    except BackendUnavailable:
        return False


without_gpu = pytest.mark.skipif(has_gpu(), reason="there is a GPU here; this is what happens without one")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small, so that it builds in a second."""
    return save_canonical_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx", width=64, height=64)


@pytest.fixture(scope="module")
def built(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_engine(model, tmp_path_factory.mktemp("engines"), RTX)


@pytest.fixture
def engine(built: Built, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    path = tmp_path / built.path.name
    path.write_bytes(built.path.read_bytes())
    manifest_path(path).write_bytes(manifest_path(built.path).read_bytes())
    return path


@pytest.fixture(scope="module")
def street_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YOLOv8n-seg where it is at hand, a small network with convolutions elsewhere."""
    source, path = SHARED / "models" / "yolov8n-seg-640.onnx", tmp_path_factory.mktemp("street") / "street.onnx"
    if not source.is_file():
        return save_canonical_conv_model(path, width=64, height=64)
    prepare(source, path)
    return path


def edited(source: Path, target: Path, edit: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(source)
    edit(model)
    onnx.save(model, target)
    return target


def before(model: onnx.ModelProto, output: str, operator: str, **attributes: Any) -> None:
    """Put a node before an output of the graph."""
    node = next(node for node in model.graph.node if output in node.output)
    node.output[list(node.output).index(output)] = f"{output}/before"
    model.graph.node.append(
        helper.make_node(operator, [f"{output}/before"], [output], name=f"made_up/{operator}", **attributes)
    )


def quantize_first_convolution(model: onnx.ModelProto) -> None:
    """Enough for a model to be one in INT8."""
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    for place, name in enumerate(node.input[:2]):
        scale, zero = f"{name}/scale", f"{name}/zero"
        model.graph.initializer.append(helper.make_tensor(scale, TensorProto.FLOAT, [], [0.05]))
        model.graph.initializer.append(helper.make_tensor(zero, TensorProto.INT8, [], [0]))
        at = list(model.graph.node).index(node)
        pair = [
            helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}/q"]),
            helper.make_node("DequantizeLinear", [f"{name}/q", scale, zero], [f"{name}/dq"]),
        ]
        for new in reversed(pair):
            model.graph.node.insert(at, new)
        node.input[place] = f"{name}/dq"


def test_manifest_describes_the_engine(built: Built, model: Path) -> None:
    assert built.path.name == "colours-fp32-tensorrt-rtx.engine"
    assert not built.reused
    manifest = load_manifest(built.path)
    assert manifest == replace(built.manifest, precision=manifest.precision)
    assert manifest.engine_sha256 == hashlib.sha256(built.path.read_bytes()).hexdigest()
    assert manifest.engine_bytes == built.path.stat().st_size
    assert manifest.source_sha256 == file_sha256(model)
    assert (manifest.flavour, manifest.device, manifest.architectures) == ("tensorrt-rtx", "", ("sm_86",))
    assert manifest.spec.network_width == 64
    assert list(manifest.precision["share"]) == ["float32"]
    assert set(manifest.seconds) == {"prepare", "precision", "parse", "build"}
    assert not [path.name for path in built.path.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_street_model_in_float(street_model: Path, tmp_path: Path, precision: str) -> None:
    settings = BuildSettings(precision, "tensorrt-rtx", ("sm_86", "sm_89"))
    lines: list[str] = []
    result = build_engine(street_model, tmp_path, settings, lines.append)
    assert result.path.read_bytes()[:4] == b"vtrt"
    share = result.manifest.precision["share"]
    assert share[{"fp32": "float32", "fp16": "float16"}[precision]] > 0.9
    assert result.manifest.architectures == ("sm_86", "sm_89")
    assert "building for sm_86, sm_89 with tensorrt-rtx 1." in "\n".join(lines)


# What TensorRT-RTX lacks, by family: torchvision's export finds its boxes with shapes that depend on the data.
LACKING = {"maskrcnn": "NonZero"}


@pytest.mark.parametrize("name", LAYOUTS)
def test_tensorrt_takes_the_canonical_model_of_every_family(name: str, tmp_path: Path) -> None:
    """As far as operators and types go, in float32 and in float16; to build them all would take too long."""
    layout = import_module(f"layouts.{name}")
    layout.export(tmp_path / "raw.onnx")
    prepare(tmp_path / "raw.onnx", tmp_path / "canonical.onnx", getattr(layout, "OPTIONS", None))
    model = onnx.load(tmp_path / "canonical.onnx")
    for each in (model, to_half(model)[0]):
        build = EngineBuild(Target.choose(RTX), Plan(each.SerializeToString(), spec_of(each, name), name, RTX), print)
        if name in LACKING:
            with pytest.raises(ModelError, match=rf"family '{name}'\n  node .* \({LACKING[name]}\): not supported"):
                build.parse()
        else:
            build.parse()


def test_raw_export_is_prepared(tmp_path: Path) -> None:
    source = save_colour_model(tmp_path / "raw.onnx", width=64, height=64, names=None)
    table = tmp_path / "mine.yaml"
    table.write_text("name: mine\nclasses: [walker, wagon, plate, lamp]\ngroups: {vehicle: [wagon]}\n")
    settings = replace(RTX, classes=str(table), family="yolov8")
    first = build_engine(source, tmp_path, settings)
    assert first.manifest.spec.class_names == ("walker", "wagon", "plate", "lamp")
    assert first.manifest.source_sha256 == file_sha256(source)
    table.write_text(table.read_text().replace("wagon", "lorry"))
    assert not build_engine(source, tmp_path, settings).reused


def test_the_same_is_reused(engine: Path, model: Path, tmp_path: Path) -> None:
    written = engine.stat().st_mtime_ns
    assert build_engine(model, tmp_path, RTX).reused
    moved = tmp_path / model.name
    moved.write_bytes(model.read_bytes())
    assert build_engine(moved, tmp_path, RTX).reused  # What counts is what a file holds.
    assert engine.stat().st_mtime_ns == written
    assert not build_engine(model, tmp_path, RTX, rebuild=True).reused


@pytest.mark.parametrize("damage", ["engine", "manifest"])
def test_what_is_damaged_is_built_again(engine: Path, model: Path, tmp_path: Path, damage: str) -> None:
    if damage == "engine":
        engine.write_bytes(engine.read_bytes()[:-1])
    else:
        manifest_path(engine).write_text("{}")
    assert not build_engine(model, tmp_path, RTX).reused
    assert load_manifest(engine).engine_sha256 == file_sha256(engine)


def test_anything_else_is_another_engine(
    model: Path, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(settings: BuildSettings = RTX, source: Path = model, frames: str = "") -> str:
        return engine_key(Source.load(source), settings, Target.choose(settings), frames)

    changed = edited(model, tmp_path / "changed.onnx", lambda model: model.metadata_props.add(key="note", value="x"))
    keys = [
        key(),
        key(source=changed),
        key(frames="e" * 64),
        key(replace(RTX, gpu=("sm_86", "sm_89"))),
        *(
            key(replace(RTX, **{name: value}))
            for name, value in (("sparsity", True), ("workspace", 9), ("max_batch", 1))
        ),
        key(replace(RTX, precision="fp16")),
    ]
    monkeypatch.setattr(sys.modules["tensorrt_rtx"], "__version__", "1.9.0.1")
    keys.append(key())
    assert keys[0] == built.manifest.key
    assert len(set(keys)) == len(keys)


def test_dynamic_batch_gets_a_profile(tmp_path: Path) -> None:
    source = save_canonical_colour_model(tmp_path / "any.onnx", width=64, height=64, batch=None)
    result = build_engine(source, tmp_path, replace(RTX, max_batch=3))
    assert result.manifest.spec.batch == 0
    assert result.manifest.settings.max_batch == 3


def test_fixed_batch_is_fixed(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--max-batch 3: .*colours\.onnx has a fixed batch of 1; "):
        build_engine(model, tmp_path, replace(RTX, max_batch=3))


def test_a_model_in_half_is_taken_as_it_is(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "half.onnx"
    onnx.save(to_half(onnx.load(model))[0], source)
    assert build_engine(source, tmp_path, replace(RTX, precision="fp16")).manifest.precision["share"]["float16"] > 0.5
    with pytest.raises(ConfigurationError, match=r"--precision fp32: .*half\.onnx is in fp16 already; "):
        build_engine(source, tmp_path, RTX)


def report(forced: bool) -> QuantizationReport:
    step = Step("all layers", 0.9, Precision(20, 50, 0.9, 1, 2, 0), fits=not forced)
    return QuantizationReport("entropy", 48, "d" * 64, 0, 0.9, (), {"max_loss": 0.5}, (step,), forced)


def test_a_model_in_int8_brings_its_report(street_model: Path, tmp_path: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        quantize_first_convolution(model)
        model.metadata_props.add(key=REPORT_KEY, value=report(forced=True).to_json())

    source = edited(street_model, tmp_path / "street-int8.onnx", edit)
    settings = replace(RTX, precision="int8")
    with pytest.raises(ConfigurationError, match=r"lost more accuracy than its budget .*1 false negatives.*--force"):
        build_engine(source, tmp_path, settings)
    result = build_engine(source, tmp_path, replace(settings, force=True))
    assert result.path.name == "street-int8-tensorrt-rtx.engine"
    manifest = load_manifest(result.path)
    assert manifest.forced
    assert manifest.quantization == json.loads(report(forced=True).to_json())
    assert 0 < manifest.precision["share"]["int8"] < 1
    assert manifest.precision["kept"]


def test_a_model_quantized_elsewhere_is_noted(street_model: Path, tmp_path: Path) -> None:
    source = edited(street_model, tmp_path / "other.onnx", quantize_first_convolution)
    lines: list[str] = []
    result = build_engine(source, tmp_path, replace(RTX, precision="int8"), lines.append)
    assert result.manifest.quantization is None
    assert any("quantized elsewhere" in line for line in lines)
    with pytest.raises(ConfigurationError, match=r"--max-loss: .* is in int8 already"):
        build_engine(source, tmp_path, replace(RTX, precision="int8", max_loss=0.1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": ("sm_86", "sm_87")}, r"--gpu: expected some of sm_75, sm_80, sm_86, .*, got sm_87; for a Jetson"),
        ({"dla": 0}, r"--dla: engines for a DLA are built in float16, got --precision fp32"),
        ({"dla": 1, "precision": "fp16"}, r"--dla 1: tensorrt-rtx 1\..* has 0 DLA cores"),
        ({"timing_cache": "times"}, r"--timing-cache: tensorrt-rtx 1\..* has none"),
        ({"family": "yolov8", "input_size": "64x64"}, r"--family, --input-size: for raw exports; .* is canonical"),
        ({"max_loss": 0.1}, r"--max-loss: for --precision int8, got fp32"),
        ({"precision": "int8"}, r"--precision int8: needs images .* --calibration PATH"),
    ],
)
def test_impossible_settings(model: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_engine(model, tmp_path, replace(RTX, **changes))
    assert list(tmp_path.iterdir()) == []


@without_gpu
def test_no_gpu_to_build_for(model: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"no NVIDIA driver on this machine .* --gpu with some of sm_75, "):
        build_engine(model, tmp_path, replace(RTX, gpu=()))


def test_tensorrt_is_absent(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailable, match=r"tensorrt: its Python module tensorrt cannot be imported"):
        build_engine(model, tmp_path, BuildSettings("fp16", "tensorrt"))


def test_unsupported_operator_is_named(model: Path, tmp_path: Path) -> None:
    source = edited(model, tmp_path / "odd.onnx", lambda model: before(model, "scores", "Bernoulli"))
    message = (
        r"odd\.onnx: tensorrt-rtx 1\..* cannot take this model of family 'yolov8'\n"
        r"  node 'made_up/Bernoulli' \(Bernoulli\): not supported\n"
    )
    with pytest.raises(ModelError, match=message):
        build_engine(source, tmp_path / "out", RTX)
    assert list((tmp_path / "out").iterdir()) == []


def test_contradicting_types_are_refused(model: Path, tmp_path: Path) -> None:
    """What a careless conversion to float16 leaves behind."""

    def edit(model: onnx.ModelProto) -> None:
        before(model, "scores", "Mul")
        model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Cast", ["scores/before"], ["half"], to=10))
        model.graph.node[-1].input.append("half")

    source = edited(model, tmp_path / "mixed.onnx", edit)
    with pytest.raises(ModelError, match=r"made_up/Mul"):
        build_engine(source, tmp_path / "out", RTX)
    # TensorRT itself would refuse it, too.
    loaded = Source.load(source).model
    plan = Plan(loaded.SerializeToString(), spec_of(loaded, "mixed"), "mixed.onnx", RTX)
    with pytest.raises(ModelError, match=r"mixed\.onnx: tensorrt-rtx .* cannot take this model(.|\n)*made_up/Mul"):
        EngineBuild(Target.choose(RTX), plan, print).parse()


def test_failure_of_the_builder_brings_its_words_and_a_remedy(model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"could not build .*; it says\n(.|\n)*workspace(.|\n)*raise --workspace from 1,"
    ):
        build_engine(model, tmp_path, replace(RTX, workspace=1))
    assert list(tmp_path.iterdir()) == []


def test_an_old_gpu_takes_float16_only(model: Path, tmp_path: Path) -> None:
    turing = replace(RTX, gpu=("sm_75",))
    with pytest.raises(ModelError, match=r"FP32 GEMM is not supported(.|\n)*use --precision fp16, or leave those out"):
        build_engine(model, tmp_path, turing)
    assert build_engine(model, tmp_path, replace(turing, precision="fp16")).manifest.architectures == ("sm_75",)


def test_folder_that_cannot_be_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"output folder .*file/engines: cannot be written .*-o"):
        build_engine(model, tmp_path / "file" / "engines", RTX)


def refusal(engine: Path, kind: type[SegPerceptionError]) -> str:
    with pytest.raises(kind) as error:
        open_backend(engine)
    return str(error.value)


def rewrite(engine: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(manifest_path(engine).read_text())
    change(values)
    manifest_path(engine).write_text(json.dumps(values))


@without_gpu
def test_without_a_driver_the_engine_is_refused_for_that(engine: Path) -> None:
    text = refusal(engine, BackendUnavailable)
    assert f"{engine}: this engine needs an NVIDIA GPU (sm_86): no NVIDIA driver on this machine" in text


def test_an_engine_that_is_not_the_manifests_is_refused(engine: Path, built: Built) -> None:
    command = f"seg_perception build {built.manifest.source} -o {engine.parent} --precision fp32 --target tensorrt-rtx"
    engine.write_bytes(engine.read_bytes()[:-7])
    text = refusal(engine, ModelError)
    assert "not the engine that" in text
    assert f"{command} --gpu sm_86" in text
    manifest_path(engine).unlink()
    assert "expected its manifest" in refusal(engine, ModelError)


def test_an_engine_of_another_version_is_refused(engine: Path) -> None:
    rewrite(engine, lambda values: values["engine"]["tensorrt"].update(version="1.4.0.76"))
    text = refusal(engine, ModelError)
    assert "built with tensorrt-rtx 1.4.0.76, this machine has 1." in text
    assert "seg_perception build" in text


def test_an_engine_of_an_absent_flavour_is_refused(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    rewrite(engine, lambda values: values["engine"]["tensorrt"].update(flavour="tensorrt"))
    assert "comes with JetPack" in refusal(engine, BackendUnavailable)


def test_a_changed_manifest_is_refused(engine: Path) -> None:
    rewrite(engine, lambda values: values.update(forced="perhaps"))
    assert "forced: 'perhaps' is not of type 'boolean'" in refusal(engine, ModelError)


def test_manifest_is_what_the_class_reads(built: Built) -> None:
    text = manifest_path(built.path).read_text()
    assert EngineManifest.from_json(text, "manifest").to_json() == text


def write_images(folder: Path, count: int = 36, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for index in range(count):
        scene = random_scene(rng, 96, 64, 3, sides=(16, 40))
        cv2.imwrite(str(folder / f"{index:03d}.png"), scene.image[..., ::-1])
    return folder


def test_int8_is_calibrated_gated_and_described(tmp_path: Path) -> None:
    source = save_canonical_conv_model(tmp_path / "road.onnx", width=96, height=64)
    images = write_images(tmp_path / "images")
    settings = replace(RTX, precision="int8", calibration=(str(images),))
    lines: list[str] = []
    result = build_engine(source, tmp_path, settings, lines.append)
    manifest = load_manifest(result.path)
    assert manifest.precision["share"]["int8"] > 0.5
    assert not manifest.forced
    values = manifest.quantization
    assert values is not None
    assert values["calibration_sha256"] == gather([images]).sha256
    assert values["int8_share"] == pytest.approx(manifest.precision["share"]["int8"], abs=1e-3)
    assert values["steps"][-1]["fits"]
    assert build_engine(source, tmp_path, settings).reused
    (images / "000.png").unlink()
    fewer = frames_sha256(calibration_frames(settings))
    assert engine_key(Source.load(source), settings, Target.choose(settings), fewer) != manifest.key
    with pytest.raises(ConfigurationError, match=r"--calibration: for --precision int8, got fp16"):
        build_engine(source, tmp_path, replace(settings, precision="fp16"))


def test_int8_that_loses_too_much_is_forced_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impossible = Budget(agreement=AgreementBudget(min_iou=1.0, max_faults=0.0))
    monkeypatch.setattr(int8, "Budget", lambda: impossible)
    source = save_canonical_conv_model(tmp_path / "road.onnx", width=96, height=64)
    images = write_images(tmp_path / "images", count=8)
    settings = replace(RTX, precision="int8", calibration=(str(images),), force=True)
    assert load_manifest(build_engine(source, tmp_path, settings).path).forced
