"""Every family, by a small model in its layout (test/layouts) that finds coloured rectangles.

A module there has `export(path)`, which writes a raw export with an input of `[1, 3, 192, 320]`, and may have
`OPTIONS`, the `PrepareOptions` it needs, `BOXES`, how far off a box may be in pixels, and `FIXED_BATCH`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from colour_model import NAMES, random_scene
from onnx import TensorProto, helper, numpy_helper, version_converter

from seg_perception.cli.main import main
from seg_perception.core.boxes import box_iou
from seg_perception.core.classes import ClassTable
from seg_perception.core.errors import ModelOutputError, SegPerceptionError
from seg_perception.core.frame import Frame
from seg_perception.offboard.toolchain.export import load_export
from seg_perception.offboard.toolchain.families import known_families, recognise
from seg_perception.offboard.toolchain.graph import rename_tensors
from seg_perception.offboard.toolchain.inputs import with_usual_input
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.select import SelectOptions
from seg_perception.onboard.backend.registry import open_backend
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.segmenter import Segmenter

LAYOUTS = sorted(path.stem for path in (Path(__file__).parents[3] / "layouts").glob("[!_]*.py"))
# Smallest part of a rectangle and its instance that must be common to both.
MASK_IOU = 0.85
# Families whose outputs are alike in number and shape; without names only the user can tell them apart.
ALIKE = {"rfdetr", "dfine", "detr"}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return import_module(f"layouts.{request.param}")


@pytest.fixture
def source(layout, tmp_path):
    path = tmp_path / "source.onnx"
    layout.export(path)
    return path


def options_of(layout):
    return getattr(layout, "OPTIONS", PrepareOptions())


def family_of(layout):
    return layout.__name__.rpartition(".")[2]


def save(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def open_segmenter(canonical, backend="onnxruntime"):
    opened = open_backend(canonical, backend, RunOptions(threads=1))
    table = ClassTable("colours", opened.spec.class_names, {})
    return Segmenter(opened, table, SegmenterOptions(SelectOptions(0.5, group_iou=1.0, keep_other=True)))


def assert_finds(canonical, layout, backend="onnxruntime", batch=1):
    """All rectangles, and nothing else, each with its box, its class and its pixels."""
    segmenter = open_segmenter(canonical, backend)
    scenes = [random_scene(np.random.default_rng(seed), 320, 192, 5, (24, 64)) for seed in range(batch)]
    frames = [Frame.from_bgr(scene.image[..., ::-1]) for scene in scenes]
    for scene, found in zip(scenes, segmenter.segment(frames), strict=True):
        iou = box_iou(scene.boxes, found.instances.boxes_camera)
        assert len(found.instances) == len(scene.boxes)
        partner = iou.argmax(1)
        assert sorted(partner) == list(range(len(scene.boxes)))
        found_boxes = found.instances.boxes_camera[partner]
        assert np.abs(found_boxes - scene.boxes).max() <= getattr(layout, "BOXES", 1.0)
        names = [segmenter.spec.class_names[label] for label in found.instances.labels[partner]]
        assert names == [NAMES[label] for label in scene.labels]
        for index, row in enumerate(partner):
            mine = found.instance_map.pixels == found.instances.ids[row]
            true = scene.instance_map == index + 1
            assert (mine & true).sum() / (mine | true).sum() >= MASK_IOU
    segmenter.close()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_rectangles_are_found(layout, source, tmp_path, backend):
    spec = prepare(source, tmp_path / "canonical.onnx", options_of(layout))
    assert spec.family == family_of(layout)
    assert_finds(tmp_path / "canonical.onnx", layout, backend)


def test_every_family_has_a_layout():
    assert sorted(known_families()) == LAYOUTS


def test_only_its_family_recognises_it(layout, source):
    export, _ = with_usual_input(load_export(source), None, None)
    assert recognise(export)[0].name == family_of(layout)
    fitting = {
        name for name, family in known_families().items() if (match := family.recognise(export)) and not match.against
    }
    # What tells the others apart is names and metadata.
    assert fitting <= ALIKE if family_of(layout) in ALIKE else fitting == {family_of(layout)}


def test_the_command_line(layout, source, tmp_path, capsys):
    table = options_of(layout).classes
    words = ["prepare", str(source), "-o", str(tmp_path / "canonical.onnx"), "--family", family_of(layout)]
    if table is not None:
        lines = [
            f"name: {table.name}",
            "groups: {}",
            f"classes: {list(table.class_names)}",
            f"stuff: {sorted(table.stuff)}",
        ]
        (tmp_path / "table.yaml").write_text("\n".join(lines))
        words += ["--classes", str(tmp_path / "table.yaml")]
    assert main(words) == 0
    scene = random_scene(np.random.default_rng(5), 320, 192, 4, (24, 64))
    cv2.imwrite(str(tmp_path / "scene.png"), scene.image[..., ::-1])
    model = str(tmp_path / "canonical.onnx")
    words = ["image", str(tmp_path / "scene.png"), "--model", model, "-o", str(tmp_path / "out"), "--keep-other"]
    assert main(words) == 0, capsys.readouterr().err
    painted = cv2.imread(str(next((tmp_path / "out").glob("*instances*.png"))), cv2.IMREAD_UNCHANGED)
    assert len(np.unique(painted)) == 5


def test_names_do_not_matter(layout, source, tmp_path):
    model = onnx.load(source)
    ports = (*model.graph.input, *model.graph.output)
    names = {port.name: f"{index}.{index}" for index, port in enumerate(ports)}
    # Contract names in the wrong places.
    names |= dict(zip((port.name for port in model.graph.output), ("labels", "images", "scores"), strict=False))
    rename_tensors(model.graph, names)
    family = family_of(layout) if family_of(layout) in ALIKE else ""
    options = replace(options_of(layout), family=family)
    prepare(save(model, tmp_path / "renamed.onnx"), tmp_path / "canonical.onnx", options)
    assert_finds(tmp_path / "canonical.onnx", layout)


@pytest.mark.parametrize("opset", [20, pytest.param(21, marks=pytest.mark.long)])
def test_newer_opsets(layout, source, tmp_path, opset):
    model = version_converter.convert_version(onnx.load(source), opset)
    prepare(save(model, tmp_path / "newer.onnx"), tmp_path / "canonical.onnx", options_of(layout))
    assert_finds(tmp_path / "canonical.onnx", layout)


def test_open_batch(layout, source, tmp_path):
    if getattr(layout, "FIXED_BATCH", False):
        pytest.skip("this family's exports have a fixed batch")
    model = onnx.load(source)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "any"
    for output in model.graph.output:
        for index, axis in enumerate(output.type.tensor_type.shape.dim):
            axis.dim_param = f"{output.name}_{index}"
    save(model, tmp_path / "open.onnx")
    spec = prepare(tmp_path / "open.onnx", tmp_path / "canonical.onnx", options_of(layout))
    assert spec.batch == 0
    for backend in ("onnxruntime", "openvino"):
        assert_finds(tmp_path / "canonical.onnx", layout, backend, batch=2)
    fixed = replace(options_of(layout), batch=2)
    assert prepare(tmp_path / "open.onnx", tmp_path / "fixed.onnx", fixed).batch == 2
    assert_finds(tmp_path / "fixed.onnx", layout, batch=2)


def test_open_height_and_width(layout, source, tmp_path):
    model = onnx.load(source)
    for axis in list(model.graph.input[0].type.tensor_type.shape.dim)[-2:]:
        axis.dim_param = "open"
    del model.graph.value_info[:]
    for output in model.graph.output:
        for axis in output.type.tensor_type.shape.dim:
            axis.dim_param = "open"
    save(model, tmp_path / "open.onnx")
    spec = prepare(
        tmp_path / "open.onnx", tmp_path / "canonical.onnx", replace(options_of(layout), input_size=(192, 320))
    )
    assert (spec.network_height, spec.network_width) == (192, 320)
    assert_finds(tmp_path / "canonical.onnx", layout)


def test_float16_inputs_and_outputs(layout, source, tmp_path):
    model = onnx.load(source)
    graph = model.graph
    ports = [port for port in (*graph.input, *graph.output) if port.type.tensor_type.elem_type == TensorProto.FLOAT]
    inputs = {port.name for port in graph.input}
    rename_tensors(graph, {port.name: f"{port.name}/f32" for port in ports})
    for port in ports:
        full, half = port.name, port.name.removesuffix("/f32")
        port.name, port.type.tensor_type.elem_type = half, TensorProto.FLOAT16
        if half in inputs:
            graph.node.insert(0, helper.make_node("Cast", [half], [full], to=TensorProto.FLOAT))
        else:
            graph.node.append(helper.make_node("Cast", [full], [half], to=TensorProto.FLOAT16))
    prepare(save(model, tmp_path / "half.onnx"), tmp_path / "canonical.onnx", options_of(layout))
    assert_finds(tmp_path / "canonical.onnx", layout)


def test_faults_of_the_network_are_not_hidden(layout, source, tmp_path):
    """NaN in the last element of each float output, one output at a time."""
    found = 0
    for place, port in enumerate(onnx.load(source).graph.output):
        if port.type.tensor_type.elem_type != TensorProto.FLOAT:
            continue
        found += 1
        model = onnx.load(source)
        rename_tensors(model.graph, {port.name: "clean"})
        model.graph.output[place].name = port.name
        model.graph.initializer.append(numpy_helper.from_array(np.float32(np.nan), "nan"))
        model.graph.node.append(helper.make_node("Mul", ["clean", "nan"], [port.name]))
        # A network that computes NaN tells nothing of what its numbers mean.
        options = replace(options_of(layout), family=family_of(layout))
        prepare(save(model, tmp_path / "faulty.onnx"), tmp_path / "canonical.onnx", options)
        segmenter = open_segmenter(tmp_path / "canonical.onnx")
        scene = random_scene(np.random.default_rng(0), 320, 192, 5, (24, 64))
        with pytest.raises(ModelOutputError, match="NaN or infinity"):
            segmenter.segment([Frame.from_bgr(scene.image[..., ::-1])])
        segmenter.close()
    assert found


def test_a_forced_family_still_has_to_fit(layout, source):
    export, _ = with_usual_input(load_export(source), None, None)
    others = {name for name, family in known_families().items() if family.recognise(export) is None}
    assert len(others) >= len(known_families()) - len(ALIKE)
    for name in others:
        with pytest.raises(SegPerceptionError, match="not a model of this family"):
            recognise(export, name)
