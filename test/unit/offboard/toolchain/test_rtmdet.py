"""RTMDet-Ins's head against its formulas, written once more in NumPy; rows of any number; what is recognised."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
import pytest
from colour_model import random_scene
from frozen_network import FrozenNetwork
from layouts import rtmdet

from seg_perception.core.classes import ClassTable
from seg_perception.offboard.toolchain.dynamic_masks import layer_width
from seg_perception.offboard.toolchain.export import Export, load_export
from seg_perception.offboard.toolchain.families import known_families, recognise
from seg_perception.offboard.toolchain.head import HeadOptions
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

HEIGHT, WIDTH = 64, 96
STRIDES = (8, 16, 32)
CLASSES, FEATURES, LAYER = 5, 8, 8
PARAMETERS = 169
IMAGE = {"images": np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)}
TABLE = ClassTable("five", tuple("abcde"), {})


def random_heads(seed, classes=CLASSES, features=FEATURES, parameters=PARAMETERS):
    """Outputs of one image, boxes before their relu."""
    rng = np.random.default_rng(seed)
    arrays = {"features": rng.normal(0, 1, (features, HEIGHT // 8, WIDTH // 8))}
    for place, stride in enumerate(STRIDES):
        grid = (HEIGHT // stride, WIDTH // stride)
        arrays[f"classes{place}"] = rng.normal(-1, 2, (classes, *grid))
        arrays[f"boxes{place}"] = rng.normal(2, 2, (4, *grid)) * stride
        arrays[f"kernels{place}"] = rng.normal(0, 1, (parameters, *grid))
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def network(arrays, batch=1, order=None):
    frozen = FrozenNetwork(HEIGHT, WIDTH, batch)
    values = {name: frozen.tensor(array) for name, array in arrays.items()}
    values = {name: value.relu() * 1.0 if name.startswith("boxes") else value for name, value in values.items()}
    return frozen.model({name: values[name] for name in order or values})


def canonical(model, folder, options=None, table=TABLE):
    onnx.save(model, folder / "raw.onnx")
    spec = prepare(folder / "raw.onnx", folder / "canonical.onnx", PrepareOptions(options or HeadOptions(), table))
    assert spec.family == "rtmdet"
    return onnx.load(folder / "canonical.onnx")


def reference(arrays, options):
    """Boxes, scores, labels and mask logits, by descending score."""
    lists: Any = ([], [], [], [], [])
    points, strides, scores, boxes, kernels = lists
    for place, stride in enumerate(STRIDES):
        y, x = np.mgrid[: HEIGHT // stride, : WIDTH // stride].reshape(2, -1) * stride
        points.append(np.stack([x, y], 1))
        strides.append(np.full(len(x), stride))
        flat = {part: arrays[f"{part}{place}"] for part in ("classes", "boxes", "kernels")}
        flat = {part: array.reshape(len(array), -1).T.astype(np.float64) for part, array in flat.items()}
        scores.append(1 / (1 + np.exp(-flat["classes"])))
        distance = np.maximum(flat["boxes"], 0)
        boxes.append(np.concatenate([points[-1] - distance[:, :2], points[-1] + distance[:, 2:]], 1))
        kernels.append(flat["kernels"])
    points, strides, scores, boxes, kernels = map(np.concatenate, (points, strides, scores, boxes, kernels))
    boxes = np.clip(boxes, 0, (WIDTH, HEIGHT, WIDTH, HEIGHT))
    order = np.argsort(-scores, axis=None, kind="stable")[: options.nms_candidates]
    kept: list[tuple[int, int]] = []
    for position, label in zip(*np.unravel_index(order, scores.shape), strict=True):
        if (boxes[position, 2:] > boxes[position, :2]).all() and all(
            label != other or iou(boxes[position], boxes[at]) <= options.nms_iou for at, other in kept
        ):
            kept.append((position, label))
    kept = kept[: options.max_instances]
    masks = [mask(kernels[at], points[at], strides[at], arrays["features"]) for at, _ in kept]
    positions, labels = np.array(kept).T
    return boxes[positions], scores[positions, labels], labels, np.array(masks)


def mask(kernel, point, stride, features):
    """The dynamic network over the features and the relative places of all cells."""
    weights, biases = [], []
    sizes = [(LAYER, FEATURES + 2), (LAYER, LAYER), (1, LAYER)]
    for size in sizes:
        weights.append(kernel[: np.prod(size)].reshape(size))
        kernel = kernel[np.prod(size) :]
    for size in sizes:
        biases.append(kernel[: size[0], None])
        kernel = kernel[size[0] :]
    assert not kernel.size
    y, x = np.mgrid[: features.shape[1], : features.shape[2]].reshape(2, -1) * 8
    values = np.concatenate([(point[:, None] - [x, y]) / (8 * stride), features.reshape(len(features), -1)])
    for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        values = weight @ values + bias
        values = values if place == 2 else np.maximum(values, 0)
    return values.reshape(features.shape[1:])


def iou(one, other):
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared)


@pytest.mark.parametrize(
    "options",
    [
        HeadOptions(nms_steps=64),
        HeadOptions(nms_iou=0.3, max_instances=20, nms_candidates=60, nms_steps=64),
    ],
)
def test_head_equals_the_reference(open_session, tmp_path, options):
    arrays = random_heads(1)
    outputs = open_session(canonical(network(arrays), tmp_path, options))(IMAGE)
    boxes, scores, labels, masks = reference(arrays, options)
    used = len(scores)
    assert len(set(labels)) == CLASSES
    np.testing.assert_allclose(outputs["scores"][0, :used], scores, atol=1e-5)
    assert not outputs["scores"][0, used:].any()
    np.testing.assert_array_equal(outputs["labels"][0, :used], labels)
    np.testing.assert_allclose(outputs["boxes"][0, :used], boxes, atol=1e-3)
    np.testing.assert_allclose(outputs["masks"][0, :used], masks, atol=2e-3)


def test_boxes_without_area_are_none(open_session, tmp_path):
    arrays = random_heads(2)
    for place in range(len(STRIDES)):
        arrays[f"boxes{place}"][:2] = arrays[f"boxes{place}"][2:] = -1
    arrays["boxes0"][:, 4, 6] = 8
    outputs = open_session(canonical(network(arrays), tmp_path))(IMAGE)
    assert set(map(tuple, outputs["boxes"][0, outputs["scores"][0] > 0])) == {(40, 24, 56, 40)}
    assert (outputs["scores"] > 0).sum() == CLASSES


@pytest.mark.parametrize(
    ("classes", "features", "layer"), [(5, 8, 8), (4, 8, 8), (8, 8, 8), (PARAMETERS, 8, 8), (5, 16, 4)]
)
@pytest.mark.parametrize("seed", range(3))
def test_heads_are_told_apart_in_any_order(classes, features, layer, seed):
    parameters = layer * (features + 2) + layer * layer + 3 * layer + 1
    assert layer_width(features, parameters) == layer
    arrays = random_heads(3, classes, features, parameters)
    names = list(arrays)
    random.Random(seed).shuffle(names)
    if classes == features:
        names = [*(name for name in names if name != "features"), "features"]
    model = network(arrays, order=names)
    if classes == parameters:
        assert all(family.recognise(Export.of_model(model)) is None for family in known_families().values())
        return
    family, match = recognise(Export.of_model(model))
    assert family.name == "rtmdet"
    assert {key: port.name for key, port in match.outputs.items()} == {name: name for name in arrays}
    assert match.class_count == classes


@pytest.mark.parametrize("parameters", [0, 1, 2, 168, 170])
def test_parameters_that_are_no_dynamic_network(parameters):
    assert layer_width(8, parameters) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["classes2", "kernels1", "features"])
def test_nan_and_infinity_are_reported(open_session, tmp_path, name, value):
    arrays = random_heads(4)
    arrays[name].flat[-1] = value
    assert np.isnan(open_session(canonical(network(arrays), tmp_path))(IMAGE)["scores"]).all()


@pytest.mark.parametrize("write", [rtmdet.heads, rtmdet.rows])
def test_a_batch_equals_single_images(open_session, tmp_path, write):
    scenes = [random_scene(np.random.default_rng(seed), 320, 192, 4, (24, 64)) for seed in (1, 2)]
    session = open_session(canonical(write(batch=None), tmp_path, table=rtmdet.OPTIONS.classes))
    together = session({"images": np.stack([scene.image for scene in scenes])})
    for image, scene in enumerate(scenes):
        alone = session({"images": scene.image[None]})
        used = together["scores"][image] > 0.5
        assert used.sum() == len(scene.boxes)
        for name in ("boxes", "scores", "labels", "masks"):
            np.testing.assert_allclose(together[name][image][used], alone[name][0][used], atol=1e-4)


@pytest.mark.parametrize("ending", ["", "Open", "Hidden"])
@pytest.mark.parametrize("rows", [3, 50, 100])
def test_rows_of_any_number_become_as_many_as_wanted(open_session, tmp_path, ending, rows):
    model = canonical(rtmdet.rows(ending=ending), tmp_path, HeadOptions(max_instances=rows), rtmdet.OPTIONS.classes)
    session = open_session(model)
    scenes = [random_scene(np.random.default_rng(seed), 320, 192, count, (24, 64)) for seed, count in ((1, 5), (2, 0))]
    for scene in scenes:
        outputs = session({"images": scene.image[None]})
        assert outputs["boxes"].shape == (1, rows, 4)
        assert outputs["masks"].shape == (1, rows, 48, 80)
        used = min(rows, len(scene.boxes))
        assert (outputs["scores"] > 0).sum() == used
        assert (np.diff(outputs["scores"][0]) <= 0).all()
        known = set(map(tuple, scene.boxes.round().tolist()))
        assert known.issuperset(map(tuple, outputs["boxes"][0, :used].round().tolist()))
        for box, mask in zip(outputs["boxes"][0, :used], outputs["masks"][0, :used], strict=True):
            assert abs((mask > 0).sum() * 16 / np.prod(box[2:] - box[:2]) - 1) < 0.15
        for array in outputs.values():
            assert not array[0, used:].any()


@pytest.mark.parametrize("ending", ["", "Open"])
def test_the_upsampling_of_rows_is_cut_off(tmp_path, ending):
    onnx.save(rtmdet.rows(ending=ending), tmp_path / "raw.onnx")
    _, match = recognise(load_export(tmp_path / "raw.onnx"))
    assert "logits" in match.outputs
