"""The head of Mask2Former against a decoder written in NumPy, and what its exports may look like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from colour_model import NAMES, random_scene
from layouts.mask2former import CLASSES, OPTIONS, mask2former
from onnx import TensorProto, helper

from seg_perception.core.classes import ClassTable
from seg_perception.core.contract import FAULTY_CELL, INSTANCE_OUTPUTS, NO_CLASS, OPSET
from seg_perception.offboard.toolchain.canonical import publish
from seg_perception.offboard.toolchain.export import Export
from seg_perception.offboard.toolchain.families import known_families, recognise
from seg_perception.offboard.toolchain.graph import GraphBuilder
from seg_perception.offboard.toolchain.head import HeadOptions
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

QUERIES, COUNT, HEIGHT, WIDTH = 12, 5, 12, 20
NETWORK = (48, 80)
ALL, SOME, NONE = (True,) * COUNT, (True, False, True, False, True), (False,) * COUNT


def bare_head(things, options=None):
    """Only the head, for classes of which some are things."""
    shapes = {"raw_logits": ["batch", QUERIES, COUNT + 1], "raw_masks": ["batch", QUERIES, HEIGHT, WIDTH]}
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    image = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, *NETWORK])
    family, match = recognise(Export.of_model(helper.make_model(helper.make_graph([], "shell", [image], ports))))
    assert (family.name, match.class_count) == ("mask2former", COUNT)
    graph = helper.make_graph([], "head", ports, [])
    builder = GraphBuilder(graph, "head")
    head = family.write_head(builder, replace(match, things=things), options or HeadOptions())
    publish(builder, head, batch=0)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def random_outputs(seed, batch):
    rng = np.random.default_rng(seed)
    masks = rng.normal(-1, 4, (batch, QUERIES, HEIGHT, WIDTH)).astype(np.float32)
    # One without an inside, and cells that nobody claims.
    masks[:, 3] = -np.abs(masks[:, 3])
    masks[:, :, :2, :3] = -9.0
    return {"raw_logits": rng.normal(0, 3, (batch, QUERIES, COUNT + 1)).astype(np.float32), "raw_masks": masks}


def decoded(raw, image):
    """Class probabilities without that of no object, and mask probabilities."""
    exponents = np.exp(raw["raw_logits"][image] - raw["raw_logits"][image].max(1, keepdims=True))
    return (exponents / exponents.sum(1, keepdims=True))[:, :-1], 1 / (1 + np.exp(-raw["raw_masks"][image]))


@pytest.mark.parametrize("things", [ALL, SOME])
@pytest.mark.parametrize("count", [7, 1000])
def test_instances_equal_the_reference_for_every_image_of_a_batch(open_session, things, count):
    raw = random_outputs(1, batch=3)
    outputs = open_session(bare_head(things, HeadOptions(max_instances=count)))(raw)
    rows = min(count, QUERIES * sum(things))
    assert outputs["scores"].shape == (3, rows)
    for image in range(3):
        classes, inside = decoded(raw, image)
        support = raw["raw_masks"][image] > 0
        quality = (inside * support).sum((1, 2)) / (support.sum((1, 2)) + 1e-6)
        scores = (classes * things * quality[:, None]).ravel()
        order = np.argsort(-scores, kind="stable")[:rows]
        used = scores[order] > 0
        np.testing.assert_allclose(outputs["scores"][image], scores[order], atol=1e-5)
        np.testing.assert_array_equal(outputs["labels"][image], order % COUNT * used)
        masks = raw["raw_masks"][image, order // COUNT] * used[:, None, None]
        np.testing.assert_array_equal(outputs["masks"][image], masks)
        assert used.sum() == min(rows, (QUERIES - 1) * sum(things))
        for name in INSTANCE_OUTPUTS:
            assert not outputs[name][image, ~used].any(), f"unused rows of {name} are not 0"
        for row in np.flatnonzero(used):
            lines, columns = np.nonzero(masks[row] > 0)
            box = [columns.min() - 1, lines.min() - 1, columns.max() + 2, lines.max() + 2]
            np.testing.assert_allclose(
                outputs["boxes"][image, row], 4 * np.clip(box, 0, [WIDTH, HEIGHT] * 2), atol=1e-4
            )


@pytest.mark.parametrize("things", [SOME, NONE])
def test_class_map_equals_the_reference_for_every_image_of_a_batch(open_session, things):
    raw = random_outputs(2, batch=3)
    outputs = open_session(bare_head(things))(raw)
    assert ("scores" in outputs) == any(things)
    assert outputs["class_map"].dtype == np.uint8
    for image in range(3):
        classes, inside = decoded(raw, image)
        totals = np.einsum("qc,qhw->chw", classes, inside)
        expected = np.where(totals.max(0) > 0.1, totals.argmax(0), NO_CLASS)
        assert NO_CLASS in expected
        assert len(np.unique(expected)) > 3
        np.testing.assert_array_equal(outputs["class_map"][image], expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["raw_logits", "raw_masks"])
@pytest.mark.parametrize("things", [ALL, SOME, NONE])
def test_nan_and_infinity_anywhere_mark_their_image_and_no_other(open_session, things, name, value):
    raw = random_outputs(3, batch=3)
    raw[name].reshape(3, -1)[1, -1] = value
    outputs = open_session(bare_head(things))(raw)
    if any(things):
        assert np.isnan(outputs["scores"][1]).all()
        assert np.isfinite(outputs["scores"][[0, 2]]).all()
    if not all(things):
        assert (outputs["class_map"][1] == FAULTY_CELL).all()
        assert (outputs["class_map"][[0, 2]] != FAULTY_CELL).all()


def scene_and_outputs(open_session, folder, options=OPTIONS, **variant):
    """What a variant of the layout, once prepared, says of a scene."""
    source, destination = folder / "source.onnx", folder / "canonical.onnx"
    onnx.save(mask2former(**variant), source)
    spec = prepare(source, destination, options)
    scene = random_scene(np.random.default_rng(4), 320, 192, 5, (24, 64))
    return scene, spec, open_session(onnx.load(destination))({"images": scene.image[None]})


def test_things_and_stuff_of_a_scene(open_session, tmp_path):
    scene, spec, outputs = scene_and_outputs(open_session, tmp_path)
    assert spec.things == (True,) * 4 + (False,)
    labels = outputs["labels"][0][outputs["scores"][0] > 0.5]
    assert sorted(labels) == sorted(scene.labels)
    assert outputs["class_map"].shape == (1, 48, 80)
    # Things take part; the cells at a border may go either way.
    truth = np.append(CLASSES.index("road"), scene.labels)[scene.instance_map[2::4, 2::4]]
    assert (outputs["class_map"][0] == truth).mean() > 0.97


def test_without_stuff_there_is_no_class_map(open_session, tmp_path):
    options = PrepareOptions(classes=ClassTable("colours", NAMES, {}))
    scene, spec, outputs = scene_and_outputs(open_session, tmp_path, options, road=False)
    assert not spec.class_map
    assert "class_map" not in outputs
    assert (outputs["scores"][0] > 0.5).sum() == len(scene.boxes)


def test_without_things_there_are_no_instances(open_session, tmp_path):
    options = PrepareOptions(classes=ClassTable("scene", CLASSES, {}, frozenset(CLASSES)))
    _, spec, outputs = scene_and_outputs(open_session, tmp_path, options)
    assert (spec.max_instances, spec.class_map) == (0, True)
    assert set(outputs) == {"class_map"}


@pytest.mark.parametrize("ending", ["Resize", "States"])
def test_upsampling_and_inner_states_are_cut_off(open_session, tmp_path, ending):
    _, plain, expected = scene_and_outputs(open_session, tmp_path)
    _, spec, outputs = scene_and_outputs(open_session, tmp_path, ending=ending)
    assert (spec.mask_height, spec.mask_width) == (plain.mask_height, plain.mask_width) == (48, 80)
    for name, value in expected.items():
        np.testing.assert_array_equal(outputs[name], value)
    assert "Resize" not in {node.op_type for node in onnx.load(tmp_path / "canonical.onnx").graph.node}


@pytest.mark.parametrize(
    ("attribute", "value"), [("mode", "nearest"), ("coordinate_transformation_mode", "align_corners")]
)
def test_an_upsampling_unlike_that_of_painting_stays(tmp_path, attribute, value):
    model = mask2former(ending="Resize")
    (resize,) = (node for node in model.graph.node if node.op_type == "Resize")
    kept = [each for each in resize.attribute if each.name != attribute]
    del resize.attribute[:]
    resize.attribute.extend((*kept, helper.make_attribute(attribute, value)))
    onnx.save(model, tmp_path / "source.onnx")
    spec = prepare(tmp_path / "source.onnx", tmp_path / "canonical.onnx", OPTIONS)
    assert (spec.mask_height, spec.mask_width) == (192, 320)


@pytest.mark.parametrize("dtype", [TensorProto.INT64, TensorProto.FLOAT])
def test_an_input_that_nothing_uses_is_left_out(open_session, tmp_path, dtype):
    model = mask2former()
    model.graph.input.append(helper.make_tensor_value_info("pixel_mask", dtype, [1, 192, 320]))
    onnx.save(model, tmp_path / "source.onnx")
    prepare(tmp_path / "source.onnx", tmp_path / "canonical.onnx", OPTIONS)
    assert [port.name for port in onnx.load(tmp_path / "canonical.onnx").graph.input] == ["images"]


def test_float64_within_the_network(open_session, tmp_path):
    """As `torch.onnx.export` writes it; neither ONNX Runtime's GridSample nor TensorRT takes it."""
    model = mask2former()
    graph = model.graph
    name = graph.input[0].name
    nodes = [
        helper.make_node("Cast", [name], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Constant", [], ["scale"], value=onnx.numpy_helper.from_array(np.ones((1, 3, 1, 1)))),
        helper.make_node("Mul", ["wide", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "zero"], ["moved"]),
        helper.make_node("CastLike", ["moved", name], ["narrow"]),
    ]
    graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, 1, 1, 1)), "zero"))
    for node in graph.node:
        node.input[:] = ["narrow" if each == name else each for each in node.input]
    inner = list(graph.node)
    del graph.node[:]
    graph.node.extend((*nodes, *inner))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "source.onnx")
    prepare(tmp_path / "source.onnx", tmp_path / "canonical.onnx", OPTIONS)
    canonical = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "canonical.onnx"))
    types = {value.type.tensor_type.elem_type for value in canonical.graph.value_info}
    types.update(tensor.data_type for tensor in canonical.graph.initializer)
    assert TensorProto.DOUBLE not in types
    scene = random_scene(np.random.default_rng(4), 320, 192, 5, (24, 64))
    outputs = open_session(canonical)({"images": scene.image[None]})
    assert (outputs["scores"][0] > 0.5).sum() == len(scene.boxes)


def test_mask_probabilities_are_another_family():
    export = Export.of_model(mask2former(ending="Sigmoid"))
    assert known_families()["mask2former"].recognise(export) is None
