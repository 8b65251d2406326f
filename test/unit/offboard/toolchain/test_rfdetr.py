"""The head of RF-DETR-Seg against a decoder written in NumPy, and what it is told from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from colour_model import NAMES
from layouts.rfdetr import rfdetr
from onnx import TensorProto, helper

from seg_perception.core.classes import ClassTable
from seg_perception.core.contract import OPSET
from seg_perception.core.errors import ClassTableError
from seg_perception.offboard.toolchain.canonical import publish
from seg_perception.offboard.toolchain.export import Export
from seg_perception.offboard.toolchain.families import known_families, recognise
from seg_perception.offboard.toolchain.graph import GraphBuilder
from seg_perception.offboard.toolchain.head import HeadOptions
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

QUERIES, COLUMNS, HEIGHT, WIDTH = 30, 7, 12, 20
NETWORK = (48, 80)
# Not the exporter's own, which are names of the contract, too.
RAW = ("raw_boxes", "raw_logits", "raw_masks")


def shell(names=("dets", "labels", "masks"), columns=COLUMNS, order=(0, 1, 2)):
    """A model that has nothing but the family's inputs and outputs."""
    shapes = (["batch", QUERIES, 4], ["batch", QUERIES, columns], ["batch", QUERIES, HEIGHT, WIDTH])
    ports = [helper.make_tensor_value_info(names[i], TensorProto.FLOAT, shapes[i]) for i in order]
    image = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, *NETWORK])
    return helper.make_model(helper.make_graph([], "shell", [image], ports)), ports


def bare_head(options=None, classes=COLUMNS):
    """Only the head, of `classes` classes that have names."""
    model, ports = shell(RAW)
    family, match = recognise(Export.of_model(model), "rfdetr")
    graph = helper.make_graph([], "head", ports, [])
    builder = GraphBuilder(graph, "head")
    publish(builder, family.write_head(builder, replace(match, class_count=classes), options or HeadOptions()), batch=0)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def random_outputs(seed, batch):
    rng = np.random.default_rng(seed)
    return {
        "raw_boxes": rng.uniform(0, 1, (batch, QUERIES, 4)).astype(np.float32),
        "raw_logits": rng.normal(-2, 3, (batch, QUERIES, COLUMNS)).astype(np.float32),
        "raw_masks": rng.normal(size=(batch, QUERIES, HEIGHT, WIDTH)).astype(np.float32),
    }


@pytest.mark.parametrize("classes", [COLUMNS, COLUMNS - 1])
@pytest.mark.parametrize("count", [5, 100, 1000])
def test_head_equals_the_reference_for_every_image_of_a_batch(open_session, count, classes):
    raw = random_outputs(1, batch=3)
    outputs = open_session(bare_head(HeadOptions(max_instances=count), classes))(raw)
    rows = min(count, QUERIES * classes)
    assert outputs["scores"].shape == (3, rows)
    for image in range(3):
        logits = raw["raw_logits"][image, :, :classes]
        order = np.argsort(-logits.ravel(), kind="stable")[:rows]
        query, label = order // classes, order % classes
        x, y, width, height = (raw["raw_boxes"][image, query] * np.array([80, 48, 80, 48], np.float32)).T
        boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)
        np.testing.assert_allclose(outputs["boxes"][image], boxes.clip(0, [80, 48, 80, 48]), atol=1e-4)
        np.testing.assert_allclose(outputs["scores"][image], 1 / (1 + np.exp(-logits.ravel()[order])), atol=1e-6)
        np.testing.assert_array_equal(outputs["labels"][image], label)
        np.testing.assert_array_equal(outputs["masks"][image], raw["raw_masks"][image, query])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", RAW)
def test_nan_and_infinity_anywhere_mark_their_image_and_no_other(open_session, name, value):
    raw = random_outputs(2, batch=3)
    raw[name].reshape(3, -1)[1, -1] = value
    scores = open_session(bare_head())(raw)["scores"]
    assert np.isnan(scores[1]).all()
    assert np.isfinite(scores[[0, 2]]).all()


def boxes_of(*arguments, **options):
    model, _ = shell(*arguments, **options)
    family, match = recognise(Export.of_model(model), "rfdetr")
    assert family.name == "rfdetr"
    return match.outputs["boxes"].name


def test_four_columns_of_classes_are_no_boxes():
    """By names where they say it, else by the exporter's order."""
    assert boxes_of(columns=4) == "dets"
    assert boxes_of(columns=4, order=(1, 0, 2)) == "dets"
    assert boxes_of(("b", "a", "c"), columns=4) == "b"
    assert boxes_of(("b", "a", "c"), order=(2, 1, 0)) == "b"
    assert boxes_of(("pred_boxes", "pred_logits", "c"), columns=4, order=(1, 0, 2)) == "pred_boxes"


def test_keypoints_are_no_masks():
    model, _ = shell()
    for axis, length in zip(model.graph.output[2].type.tensor_type.shape.dim, (1, QUERIES, 17, 8), strict=True):
        axis.dim_value = length
    assert known_families()["rfdetr"].recognise(Export.of_model(model)) is None


def test_names_are_needed_for_all_columns_or_all_but_the_last(tmp_path):
    source = tmp_path / "source.onnx"
    onnx.save(rfdetr(), source)
    for count in (len(NAMES), len(NAMES) + 1):
        table = ClassTable("some", tuple("abcdefgh"[:count]), {})
        assert len(prepare(source, tmp_path / "to.onnx", PrepareOptions(classes=table)).class_names) == count
    for count in (len(NAMES) - 1, len(NAMES) + 2):
        table = ClassTable("some", tuple("abcdefgh"[:count]), {})
        with pytest.raises(ClassTableError, match=f"has 5 classes, but class table 'some' has {count} names"):
            prepare(source, tmp_path / "to.onnx", PrepareOptions(classes=table))
