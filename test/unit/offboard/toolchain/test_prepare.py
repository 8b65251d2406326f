"""From export to canonical model: what is recognised, what is refused and how, what the result says of itself."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from colour_model import NAMES, colour_model, random_scene, save_colour_model
from onnx import TensorProto, helper, numpy_helper

from seg_perception.core.classes import ClassTable
from seg_perception.core.contract import INSTANCE_OUTPUTS, METADATA_KEY, OPSET, ModelSpec
from seg_perception.core.errors import ClassTableError, ConfigurationError, ModelError, UnknownFamilyError
from seg_perception.core.geometry import ResizeSpec
from seg_perception.offboard.toolchain.export import Export, load_export, load_model
from seg_perception.offboard.toolchain.families import PixelSpec, known_families, recognise
from seg_perception.offboard.toolchain.graph import prune
from seg_perception.offboard.toolchain.head import HeadOptions
from seg_perception.offboard.toolchain.inputs import with_usual_input
from seg_perception.offboard.toolchain.prepare import PixelChange, PrepareOptions, prepare
from seg_perception.offboard.toolchain.survival import outcome_in_copy


@pytest.fixture
def source(tmp_path):
    return save_colour_model(tmp_path / "source.onnx")


def save(model, folder, name="source.onnx"):
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def shapes_of(ports):
    return {port.name: [axis.dim_param or axis.dim_value for axis in port.type.tensor_type.shape.dim] for port in ports}


def open_axes(model, axes):
    """Let these axes of the input, and all axes of the outputs, be dynamic."""
    for axis in axes:
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"open_{axis}"
    for output in model.graph.output:
        for place, axis in enumerate(output.type.tensor_type.shape.dim):
            axis.dim_param = f"{output.name}_{place}"
    return model


def test_result_has_the_shape_of_the_contract(source, tmp_path):
    spec = prepare(source, tmp_path / "canonical.onnx", PrepareOptions(HeadOptions(max_instances=20)))
    model = onnx.load(tmp_path / "canonical.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 9
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]
    assert shapes_of(model.graph.input) == {"images": [1, 192, 320, 3]}
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert shapes_of(model.graph.output) == {
        "boxes": [1, 20, 4],
        "scores": [1, 20],
        "labels": [1, 20],
        "masks": [1, 20, 48, 80],
    }
    assert spec == ModelSpec(
        family="yolov8",
        class_names=NAMES,
        things=(True,) * 4,
        resize=ResizeSpec("letterbox", 114, "nearest", "center"),
        network_height=192,
        network_width=320,
        batch=1,
        max_instances=20,
        mask_height=48,
        mask_width=80,
        mask_frame="frame",
        nms_iou=0.6,
        nms_candidates=960,
        nms_steps=16,
        source_sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
    )


def test_the_spec_in_the_file_is_the_spec_returned(source, tmp_path):
    spec = prepare(source, tmp_path / "canonical.onnx")
    metadata = {item.key: item.value for item in onnx.load(tmp_path / "canonical.onnx").metadata_props}
    assert ModelSpec.from_json(metadata[METADATA_KEY]) == spec
    assert metadata["task"] == "segment"  # What the exporter wrote, such as a licence, stays.


def test_only_operators_that_tensorrt_has(source, tmp_path):
    prepare(source, tmp_path / "canonical.onnx")
    operators = {
        node.op_type for node in onnx.load(tmp_path / "canonical.onnx").graph.node if node.name.startswith("head/")
    }
    assert operators
    data_dependent = {"NonMaxSuppression", "NonZero", "Unique", "Compress", "Loop", "If", "Scan"}
    assert not operators & data_dependent


def test_dynamic_batch_stays_dynamic(tmp_path):
    source = save_colour_model(tmp_path / "source.onnx", batch=None)
    assert prepare(source, tmp_path / "canonical.onnx").batch == 0
    model = onnx.load(tmp_path / "canonical.onnx")
    assert shapes_of(model.graph.input)["images"][0] == "batch"
    assert {shape[0] for shape in shapes_of(model.graph.output).values()} == {"batch"}


@pytest.mark.parametrize(("wanted", "batch"), [(None, 0), (2, 2), (1, 1)])
def test_fixed_batch_is_opened_unless_it_is_asked_for(open_session, tmp_path, wanted, batch):
    source = save_colour_model(tmp_path / "source.onnx", batch=2)
    assert prepare(source, tmp_path / "canonical.onnx", PrepareOptions(batch=wanted)).batch == batch
    if batch == 1:
        return
    images = np.stack([random_scene(np.random.default_rng(seed), 320, 192, 2 + seed).image for seed in range(2)])
    scores = open_session(onnx.load(tmp_path / "canonical.onnx"))({"images": images})["scores"]
    assert (scores > 0).sum(1).tolist() == [2, 3]


@pytest.mark.parametrize("opset", [13, 17, 18, 19, 21])
def test_any_opset_gives_the_same_results(open_session, tmp_path, opset):
    scene = random_scene(np.random.default_rng(1), 320, 192, 5)
    prepare(save_colour_model(tmp_path / "source.onnx", opset=opset), tmp_path / "canonical.onnx")
    outputs = open_session(onnx.load(tmp_path / "canonical.onnx"))({"images": scene.image[None]})
    assert sorted(outputs["boxes"][0, :5].tolist()) == sorted(scene.boxes.tolist())


@pytest.mark.parametrize("renamed", [{"output0": "masks", "output1": "scores", "images": "boxes"}, {"output0": "x"}])
def test_names_and_order_of_outputs_do_not_matter(open_session, tmp_path, renamed):
    model = colour_model()
    for node in model.graph.node:
        for field in (node.input, node.output):
            field[:] = [renamed.get(name, name) for name in field]
    for port in (*model.graph.input, *model.graph.output):
        port.name = renamed.get(port.name, port.name)
    outputs = list(reversed(model.graph.output))
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    prepare(save(model, tmp_path), tmp_path / "canonical.onnx")
    scene = random_scene(np.random.default_rng(1), 320, 192, 5)
    results = open_session(onnx.load(tmp_path / "canonical.onnx"))({"images": scene.image[None]})
    assert set(results) == set(INSTANCE_OUTPUTS)
    assert sorted(results["boxes"][0, :5].tolist()) == sorted(scene.boxes.tolist())


def test_open_height_and_width_need_a_size(open_session, tmp_path):
    source = save(open_axes(colour_model(batch=None), [2, 3]), tmp_path)
    with pytest.raises(ConfigurationError, match="leaves height or width open; choose them with --input-size HxW"):
        prepare(source, tmp_path / "canonical.onnx")
    spec = prepare(source, tmp_path / "canonical.onnx", PrepareOptions(input_size=(192, 320)))
    assert (spec.batch, spec.network_height, spec.network_width, spec.mask_width) == (0, 192, 320, 80)
    scene = random_scene(np.random.default_rng(2), 320, 192, 4)
    outputs = open_session(onnx.load(tmp_path / "canonical.onnx"))({"images": scene.image[None]})
    assert sorted(outputs["boxes"][0, :4].tolist()) == sorted(scene.boxes.tolist())


def test_a_fixed_size_cannot_be_changed(source, tmp_path):
    with pytest.raises(ConfigurationError, match=r"'images' float \[1, 3, 192, 320\] is fixed, got 320x320"):
        prepare(source, tmp_path / "canonical.onnx", PrepareOptions(input_size=(320, 320)))


def test_weights_in_a_file_beside_the_model(tmp_path):
    model = colour_model()
    onnx.save(model, tmp_path / "source.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    prepare(tmp_path / "source.onnx", tmp_path / "canonical.onnx")
    (tmp_path / "weights.bin").unlink()
    onnx.checker.check_model(onnx.load(tmp_path / "canonical.onnx"), full_check=True)
    with pytest.raises(ModelError, match=r"weights\.bin, which is not in its folder"):
        prepare(tmp_path / "source.onnx", tmp_path / "canonical.onnx")


def test_class_names_from_a_table(tmp_path):
    source = save_colour_model(tmp_path / "source.onnx", names=None)
    with pytest.raises(ClassTableError, match=r"no class names .* its 4 classes with --classes \(a YAML file"):
        prepare(source, tmp_path / "canonical.onnx")
    table = ClassTable("mine", ("a", "b", "c", "d"), {"a": "vehicle"})
    spec = prepare(source, tmp_path / "canonical.onnx", PrepareOptions(classes=table))
    assert spec.class_names == ("a", "b", "c", "d")


def test_a_table_goes_before_the_models_own_names(source, tmp_path):
    table = ClassTable("mine", ("a", "b", "c", "d"), {})
    assert prepare(source, tmp_path / "c.onnx", PrepareOptions(classes=table)).class_names == ("a", "b", "c", "d")


def test_a_table_of_another_length_is_refused(source, tmp_path):
    table = ClassTable("mine", ("a", "b", "c"), {})
    with pytest.raises(ClassTableError, match="model has 4 classes, but class table 'mine' has 3 names"):
        prepare(source, tmp_path / "canonical.onnx", PrepareOptions(classes=table))


def test_metadata_of_another_length_is_refused(tmp_path):
    model = colour_model()
    helper.set_model_props(model, {"names": "{0: 'person', 1: 'car'}"})
    with pytest.raises(ClassTableError, match="model has 4 classes, but its metadata has 2 names"):
        prepare(save(model, tmp_path), tmp_path / "canonical.onnx")


@pytest.mark.parametrize("names", ["{0: 'a', 2: 'b'}", "__import__('os').abort()", "{", "7", "{0: 1}", "[]", ""])
def test_names_that_are_no_table_are_refused_and_never_run(tmp_path, names):
    model = colour_model()
    helper.set_model_props(model, {"names": names})
    with pytest.raises(ModelError, match="`names` is not a table of class names"):
        prepare(save(model, tmp_path), tmp_path / "canonical.onnx")


def test_names_may_be_a_list(tmp_path):
    model = colour_model()
    helper.set_model_props(model, {"names": repr(list(NAMES))})
    assert prepare(save(model, tmp_path), tmp_path / "canonical.onnx").class_names == NAMES


@pytest.mark.parametrize(
    "change",
    [{"mean": (float("nan"), 0.0, 0.0)}, {"std": (float("inf"), 1.0, 1.0)}, {"std": (0.0, 1.0, 1.0)}],
)
def test_a_normalisation_that_leaves_no_image_is_refused(change):
    with pytest.raises(ConfigurationError, match="expected finite numbers"):
        PixelChange(**change)


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"nothing\.onnx: no such file"):
        prepare(tmp_path / "nothing.onnx", tmp_path / "canonical.onnx")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_file(source, tmp_path, share):
    data = source.read_bytes()
    source.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"source\.onnx: .*(truncated|not an ONNX model|damaged)"):
        prepare(source, tmp_path / "canonical.onnx")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a checkpoint", b"\x80\x02}q\x00.", bytes(1000)])
def test_file_that_is_not_onnx(tmp_path, content):
    (tmp_path / "source.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX model"):
        prepare(tmp_path / "source.onnx", tmp_path / "canonical.onnx")


def test_canonical_model_is_not_prepared_again(source, tmp_path):
    prepare(source, tmp_path / "canonical.onnx")
    with pytest.raises(ModelError, match="already a canonical model"):
        prepare(tmp_path / "canonical.onnx", tmp_path / "again.onnx")


def test_unknown_family_lists_what_was_seen_and_what_is_known(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("ReduceMax", ["pixels"], ["likelihood"], axes=[2, 3], keepdims=0)],
        "classifier",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("likelihood", TensorProto.FLOAT, [1, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UnknownFamilyError) as caught:
        prepare(save(model, tmp_path), tmp_path / "canonical.onnx")
    message = str(caught.value)
    assert "input 'pixels' float [1, 3, 8, 8]" in message
    assert "output 'likelihood' float [1, 3]" in message
    for name, family in known_families().items():
        assert f"{name}: {family.expects}" in message


def test_a_forced_family_must_exist_and_fit(source, tmp_path):
    assert prepare(source, tmp_path / "c.onnx", PrepareOptions(family="yolov8")).family == "yolov8"
    with pytest.raises(ConfigurationError, match=r"--family: expected one of .*yolov8.*, got 'yolov0'"):
        prepare(source, tmp_path / "c.onnx", PrepareOptions(family="yolov0"))
    model = colour_model()
    del model.graph.output[1]
    with pytest.raises(UnknownFamilyError, match="not a model of this family"):
        prepare(save(model, tmp_path, "one.onnx"), tmp_path / "c.onnx", PrepareOptions(family="yolov8"))


@pytest.mark.parametrize(
    ("predictions", "prototypes"),
    [
        ([1, 300, 38], [1, 32, 160, 160]),  # end to end: rows, not columns
        ([1, 25200, 117], [1, 32, 160, 160]),  # YOLOv5: transposed
        ([1, 36, 8400], [1, 32, 160, 160]),  # no class
        ([1, 116, None], [1, 32, 160, 160]),
        ([1, 116, 8400], [1, 32, None, None]),
    ],
)
def test_layouts_of_other_families_are_not_taken(predictions, prototypes):
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("a", predictions), ("b", prototypes))
    ]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 640, 640])
    export = Export.of_model(helper.make_model(helper.make_graph([], "shell", [image], ports)))
    match = known_families()["yolov8"].recognise(export)
    assert match is None or match.against


def test_several_families_are_a_question_to_the_user(source, monkeypatch):
    recognised = known_families()["yolov8"].recognise(load_export(source))
    assert recognised is not None
    match = replace(recognised, probe=None)
    twin = type("Twin", (), {"name": "twin", "expects": "the same", "recognise": lambda self, export: match})()
    both = {**known_families(), "twin": twin}
    monkeypatch.setattr("seg_perception.offboard.toolchain.families.known_families", lambda: both)
    export = load_export(source)
    with pytest.raises(UnknownFamilyError, match=r"\((twin, )?yolov8(, twin)?\); choose one with --family"):
        recognise(export)
    assert recognise(export, "yolov8")[0].name == "yolov8"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nms_iou": 0.0}, "--nms-iou"),
        ({"nms_iou": 1.0}, "--nms-iou"),
        ({"nms_iou": float("nan")}, "--nms-iou"),
        ({"max_instances": 0}, "--max-instances"),
        ({"nms_candidates": 3841}, "--nms-candidates"),
        ({"nms_steps": 15}, "--nms-steps: expected an even number"),
        ({"nms_steps": 0}, "--nms-steps"),
    ],
)
def test_impossible_options(values, message):
    with pytest.raises(ConfigurationError, match=message):
        HeadOptions(**values)


def test_nothing_half_written_when_writing_fails(source, tmp_path, monkeypatch):
    destination = tmp_path / "out" / "canonical.onnx"
    with pytest.raises(ConfigurationError, match="cannot be written"):
        prepare(source, destination)
    destination.parent.mkdir()
    destination.write_text("old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("seg_perception.core.files.os.fsync", full)
    with pytest.raises(ConfigurationError, match="No space left on device"):
        prepare(source, destination)
    assert destination.read_text() == "old"
    assert list(destination.parent.iterdir()) == [destination]


def test_the_source_is_not_overwritten(source):
    before = source.read_bytes()
    with pytest.raises(ConfigurationError, match="source itself"):
        prepare(source, Path(f"{source.parent}/./{source.name}"))
    assert source.read_bytes() == before


def test_input_stage_normalises_per_channel_in_the_networks_order(open_session):
    from seg_perception.offboard.toolchain.canonical import replace_input

    pixels = PixelSpec(mean=(103.5, 116.25, 123.75), std=(57.5, 57.0, 58.5), bgr=True)
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 3, 4, 6]) for name in ("raw", "seen")]
    graph = helper.make_graph([helper.make_node("Neg", ["raw"], ["seen"])], "negative", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    replace_input(model, Export.of_model(model).inputs[0], pixels)
    onnx.checker.check_model(model, full_check=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
    expected = (images[..., ::-1] - np.array(pixels.mean)) / np.array(pixels.std)
    seen = open_session(model)({"images": images})["seen"]
    np.testing.assert_allclose(-seen, expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_prune_drops_only_what_no_output_needs():
    nodes = [
        helper.make_node("Add", ["x", "used"], ["sum"]),
        helper.make_node("Mul", ["x", "unused"], ["product"]),
        helper.make_node("Abs", ["product"], ["dead"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.ones(1, np.float32), name) for name in ("used", "unused")]
    graph = helper.make_graph(nodes, "graph", ports[:1], ports[1:], tensors)
    prune(graph)
    assert [node.op_type for node in graph.node] == ["Add", "Relu"]
    assert [tensor.name for tensor in graph.initializer] == ["used"]


def test_a_detection_model_is_told_from_a_segmentation_model(tmp_path):
    model = colour_model()
    del model.graph.output[1:]
    onnx.save(model, tmp_path / "detection.onnx")
    with pytest.raises(UnknownFamilyError, match="that of a detection model, which has boxes and no masks"):
        prepare(tmp_path / "detection.onnx", tmp_path / "canonical.onnx")


def sliced(operator, constants):
    """A model that changes the lengths of `[1, 3, 64, 64]` and takes ten columns of the result."""
    arrays = {**constants, "start": [0], "end": [10], "axis": [3]}
    nodes = [
        helper.make_node(operator, ["x", *constants], ["long", "indices"][: 1 + (operator == "TopK")], name="hostile"),
        helper.make_node("Slice", ["long", "start", "end", "axis"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)]
    filled = [numpy_helper.from_array(np.asarray(values), name) for name, values in arrays.items()]
    graph = helper.make_graph(nodes, "test", infos, outputs, filled)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(("operator", "constants"), [
    ("Pad", {"pads": [0, 0, 0, 0, 0, 0, 0, -(1 << 62)]}),
    ("Pad", {"pads": [0, 0, 0, -60, 0, 0, 0, -60]}),
    ("Resize", {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 1, -2], np.float32)}),
    ("TopK", {"k": [-5]}),
    ("ConvTranspose", {"w": np.zeros((3, 3, 2, 2), np.float32)}),
    ("MaxPool", {}),
    ("AveragePool", {}),
])  # fmt: skip
def test_a_negative_length_that_ends_the_process_is_refused_by_file_and_node(tmp_path, operator, constants):
    model = sliced(operator, constants)
    pads = {"ConvTranspose": {"pads": [0, 40, 0, 40]}}
    kernel = {name: {"kernel_shape": [1, 80]} for name in ("MaxPool", "AveragePool")}
    for name, values in {**pads.get(operator, {}), **kernel.get(operator, {})}.items():
        model.graph.node[0].attribute.append(helper.make_attribute(name, values))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    message = r"model.onnx: .*SIGABRT.* node hostile \(\w+\), which makes a tensor of \[.*-\d+.*\].*export it again"
    with pytest.raises(ModelError, match=message):
        load_export(path)


def test_a_node_that_ends_the_process_by_itself_is_named(tmp_path):
    # ONNX reads dimensions before the first one.
    node = helper.make_node("GatherND", ["x", "place"], ["y"], name="hostile", batch_dims=-10)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in
             (("x", [1, 3, 8, 8]), ("y", None))]  # fmt: skip
    place = numpy_helper.from_array(np.array([[3, 1]]), "place")
    graph = helper.make_graph([node], "test", infos[:1], infos[1:], [place])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(ModelError, match=r"here: .*SIGSEGV\) at node hostile \(GatherND\)"):
        Export.of_model(model, "here")


def test_an_input_too_small_for_a_pool_is_refused(tmp_path):
    nodes = [
        helper.make_node("MaxPool", ["x"], ["small"], name="pool", kernel_shape=[40, 40]),
        helper.make_node("Slice", ["small", "start", "end", "axis"], ["y"]),
    ]
    filled = [numpy_helper.from_array(np.array([value]), name) for name, value in
              (("start", 0), ("end", 10), ("axis", 3))]  # fmt: skip
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "height", "width"]),
             helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]  # fmt: skip
    graph = helper.make_graph(nodes, "test", ports[:1], ports[1:], filled)
    export = Export.of_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "open.onnx")
    with pytest.raises(ModelError, match=r"open.onnx: .* node pool \(MaxPool\).*size of its input does not suit it"):
        with_usual_input(export, 1, (32, 32))
    assert with_usual_input(export, 1, (64, 64))[0].outputs[0].shape == (1, 3, 25, 10)


def test_a_canonical_model_that_ends_the_process_is_refused(source, tmp_path):
    path = tmp_path / "canonical.onnx"
    prepare(source, path)
    model = onnx.load(path)
    model.graph.initializer.extend(sliced("Pad", {"pads": [0, -999, 0, 0, 0, 0, 0, 0]}).graph.initializer)
    model.graph.node.extend([
        helper.make_node("Pad", ["images", "pads"], ["long"], name="hostile"),
        helper.make_node("Slice", ["long", "start", "end", "axis_1"], ["cut"]),
    ])  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis_1"))
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"canonical.onnx: .*SIGABRT\) behind node hostile \(Pad\)"):
        load_model(path)


def _refusal_of(path):
    try:
        load_export(path)
    except ModelError as error:
        return str(error)
    return "taken"


def test_a_worker_of_a_pool_survives_too(tmp_path):
    # Such workers may have no children of multiprocessing's.
    onnx.save(sliced("Pad", {"pads": [0, 0, 0, -60, 0, 0, 0, -60]}), tmp_path / "fatal.onnx")
    onnx.save(sliced("Pad", {"pads": [0, 0, 0, -8, 0, 0, 0, -8]}), tmp_path / "good.onnx")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        fatal, good = pool.map(_refusal_of, [tmp_path / "fatal.onnx", tmp_path / "good.onnx"])
    assert "behind node hostile (Pad)" in fatal
    assert good == "taken"


@pytest.mark.parametrize(("code", "outcome"), [
    ("say('one'); say('two')", ("", "two")), ("say('one'); raise ValueError", ("", "one")),
    ("os.kill(os.getpid(), 11)", ("SIGSEGV", "")), ("os._exit(3)", ("exit code 3", "")),
])  # fmt: skip
def test_how_a_copy_of_the_process_ended(code, outcome):
    assert outcome_in_copy(lambda say: exec(code, {"say": say, "os": os})) == outcome


def test_a_copy_that_hangs_is_ended():
    ended, _ = outcome_in_copy(lambda say: time.sleep(600), limit=0.2)
    assert ended == "no answer within 0.2 s"


def test_a_negative_pad_that_crops_is_taken():
    export = Export.of_model(sliced("Pad", {"pads": [0, 0, 0, -8, 0, 0, 0, -8]}))
    assert export.outputs[0].shape == (1, 3, 64, 10)
