"""YOLACT's head against its paper's formulas, written once more in NumPy, and how its outputs are told apart."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from frozen_network import FrozenNetwork

from seg_perception.core.classes import ClassTable
from seg_perception.offboard.toolchain.export import Export
from seg_perception.offboard.toolchain.families import recognise
from seg_perception.offboard.toolchain.head import HeadOptions
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

HEIGHT, WIDTH = 64, 96
GRID = (16, 24)
IMAGE = {"images": np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)}
NAMES = ("loc", "conf", "mask", "priors", "proto")


def random_outputs(seed, positions=200, classes=5, count=8):
    """What the heads of the network give, conf and mask before their activations."""
    rng = np.random.default_rng(seed)
    priors = np.concatenate([rng.random((positions, 2)), rng.uniform(0.1, 0.5, (positions, 2))], 1)
    arrays = {
        "loc": rng.normal(0, 1, (positions, 4)),
        "conf": rng.normal(0, 2, (positions, 1 + classes)),
        "mask": rng.normal(0, 1, (positions, count)),
        "priors": priors,
        "proto": np.maximum(rng.normal(0, 1, (*GRID, count)), 0),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def network(arrays, batch=1, names=NAMES, bare=False):
    """As exported, the activations in the graph, or, if `bare`, hidden behind something else."""
    frozen = FrozenNetwork(HEIGHT, WIDTH, batch)
    graph = frozen.graph
    values = {name: frozen.tensor(arrays[name]) for name in ("loc", "conf", "mask", "proto")}
    values["conf"] = graph.node("Softmax", values["conf"], axis=-1)
    values["mask"] = graph.node("Tanh", values["mask"])
    if bare:
        values = {name: value * 1.0 for name, value in values.items()}
    values["priors"] = graph.constant(arrays["priors"]) * 1.0
    return frozen.model({name: values[name] for name in names})


def canonical(model, folder, classes=5, options=None):
    onnx.save(model, folder / "raw.onnx")
    table = ClassTable("letters", tuple("abcdefghijklmnop"[:classes]), {})
    spec = prepare(
        folder / "raw.onnx", folder / "canonical.onnx", PrepareOptions(options or HeadOptions(), classes=table)
    )
    assert spec.family == "yolact"
    return onnx.load(folder / "canonical.onnx")


def reference(arrays, options):
    """Boxes, scores, labels and mask logits, by descending score."""
    powers = np.exp(arrays["conf"] - arrays["conf"].max(1, keepdims=True))
    conf = (powers / powers.sum(1, keepdims=True))[:, 1:]
    prior, loc = arrays["priors"], arrays["loc"]
    centre = prior[:, :2] + 0.1 * loc[:, :2] * prior[:, 2:]
    half = prior[:, 2:] * np.exp(0.2 * loc[:, 2:]) / 2
    boxes = np.concatenate([centre - half, centre + half], 1) * (WIDTH, HEIGHT, WIDTH, HEIGHT)
    order = np.argsort(-conf, axis=None, kind="stable")[: options.nms_candidates]
    kept: list[tuple[int, int]] = []
    for position, label in zip(*np.unravel_index(order, conf.shape), strict=True):
        if all(label != other or iou(boxes[position], boxes[at]) <= options.nms_iou for at, other in kept):
            kept.append((position, label))
    positions, labels = np.array(kept[: options.max_instances]).T
    masks = np.tanh(arrays["mask"][positions]) @ arrays["proto"].reshape(-1, arrays["mask"].shape[1]).T
    limits = (WIDTH, HEIGHT) * 2
    return np.clip(boxes[positions], 0, limits), conf[positions, labels], labels, masks.reshape(-1, *GRID)


def iou(one, other):
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared)


@pytest.mark.parametrize(
    "options",
    [
        HeadOptions(nms_iou=0.5, nms_steps=64),
        HeadOptions(nms_iou=0.3, max_instances=20, nms_candidates=60, nms_steps=64),
    ],
)
def test_head_equals_the_reference(open_session, tmp_path, options):
    arrays = random_outputs(1)
    outputs = open_session(canonical(network(arrays), tmp_path, options=options))(IMAGE)
    boxes, scores, labels, masks = reference(arrays, options)
    used = len(scores)
    assert len(set(labels)) == 5
    np.testing.assert_allclose(outputs["scores"][0, :used], scores, atol=1e-5)
    assert not outputs["scores"][0, used:].any()
    np.testing.assert_array_equal(outputs["labels"][0, :used], labels)
    np.testing.assert_allclose(outputs["boxes"][0, :used], boxes, atol=1e-3)
    np.testing.assert_allclose(outputs["masks"][0, :used], masks, atol=1e-3)


def test_one_position_may_be_two_classes(open_session, tmp_path):
    arrays = random_outputs(2, positions=40)
    arrays["conf"][:] = -5
    arrays["conf"][:, 0] = 5
    arrays["conf"][7, [0, 2, 4]] = -5, 4.5, 4
    outputs = open_session(canonical(network(arrays), tmp_path))(IMAGE)
    np.testing.assert_allclose(outputs["scores"][0, :3], [0.622, 0.378, 0], atol=5e-3)
    np.testing.assert_array_equal(outputs["labels"][0, :2], [1, 3])
    np.testing.assert_array_equal(outputs["boxes"][0, 0], outputs["boxes"][0, 1])


@pytest.mark.parametrize("order", list(itertools.permutations(range(5)))[::17])
@pytest.mark.parametrize(("classes", "count"), [(5, 8), (3, 8), (7, 8), (3, 4)])
def test_outputs_are_told_apart_by_activations(order, classes, count):
    names = [NAMES[place] for place in order]
    _, match = recognise(Export.of_model(network(random_outputs(3, 50, classes, count), names=names)))
    found = {key: port.name for key, port in match.outputs.items()}
    assert found == {"loc": "loc", "conf": "conf", "mask": "mask", "priors": "priors", "prototypes": "proto"}
    assert match.class_count == classes


def test_outputs_are_told_apart_by_sizes_where_activations_are_hidden():
    _, match = recognise(Export.of_model(network(random_outputs(4), names=sorted(NAMES), bare=True)))
    assert {key: port.name for key, port in match.outputs.items()}["conf"] == "conf"
    assert match.outputs["mask"].name == "mask"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["loc", "conf", "mask", "proto"])
def test_nan_and_infinity_are_reported(open_session, tmp_path, name, value):
    arrays = random_outputs(5)
    arrays[name].flat[-1] = value
    scores = open_session(canonical(network(arrays), tmp_path))(IMAGE)["scores"]
    # A tanh hides infinity.
    assert np.isnan(scores).all() == (name != "mask" or np.isnan(value))


def test_every_image_of_a_batch_has_its_rows(open_session, tmp_path):
    session = open_session(canonical(network(random_outputs(6), batch=None), tmp_path))
    outputs = session({"images": np.zeros((3, HEIGHT, WIDTH, 3), np.uint8)})
    assert outputs["scores"].shape[0] == 3
    for array in outputs.values():
        np.testing.assert_allclose(array[0], array[2], atol=1e-5)
