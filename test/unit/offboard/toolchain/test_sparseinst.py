"""SparseInst's head against the published post-processing, written once more in NumPy; boxes out of masks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from colour_model import random_scene
from frozen_network import FrozenNetwork
from layouts.sparseinst import sparseinst
from onnx import TensorProto, helper

from seg_perception.core.classes import ClassTable
from seg_perception.core.contract import OPSET
from seg_perception.offboard.toolchain.export import Export
from seg_perception.offboard.toolchain.families import recognise
from seg_perception.offboard.toolchain.graph import GraphBuilder
from seg_perception.offboard.toolchain.head import boxes_of_masks, logits_of
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

HEIGHT, WIDTH, QUERIES, CLASSES = 64, 96, 12, 5
TABLE = ClassTable("five", tuple("abcde"), {})


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def enlarged(grid, times):
    """Bilinear interpolation of `[..., h, w]`, half-pixel centres, borders repeated."""
    for axis in (-2, -1):
        length = grid.shape[axis]
        place = np.clip((np.arange(length * times) + 0.5) / times - 0.5, 0, length - 1)
        low = np.minimum(place.astype(int), length - 2)
        shape = [1] * grid.ndim
        shape[axis] = len(place)
        share = (place - low).reshape(shape)
        grid = np.take(grid, low, axis) * (1 - share) + np.take(grid, low + 1, axis) * share
    return grid


def network(scores, logits, ending="Resize"):
    """Scores `[Q, C]` before their sigmoid and mask logits `[Q, h, w]` as SparseInst exports them."""
    frozen = FrozenNetwork(HEIGHT, WIDTH)
    graph = frozen.graph
    masks = graph.node("Sigmoid", frozen.tensor(logits))
    if ending != "Sigmoid":
        scales = graph.constant([1, 1, 4, 4])
        masks = graph.node("Resize", masks, graph.node("Identity", graph.constant([])), scales, mode="linear")
    if ending == "Mul":
        masks = masks * 1.0
    return frozen.model({"scores": graph.node("Sigmoid", frozen.tensor(scores)), "masks": masks})


def smooth_logits(rng, count=QUERIES):
    """Blobs: mask logits `[count, HEIGHT / 4, WIDTH / 4]` whose border has a few cells of slope."""
    y, x = np.mgrid[: HEIGHT // 4, : WIDTH // 4]
    centres = rng.uniform((4, 4), (HEIGHT // 4 - 4, WIDTH // 4 - 4), (count, 2))
    radii = rng.uniform(3, 7, count)
    distance = np.hypot(y - centres[:, 0, None, None], x - centres[:, 1, None, None])
    return (1.5 * (radii[:, None, None] - distance)).astype(np.float32)


def canonical(model, folder, family=""):
    source, destination = folder / "raw.onnx", folder / "canonical.onnx"
    onnx.save(model, source)
    prepare(source, destination, PrepareOptions(classes=TABLE, family=family))
    return onnx.load(destination)


IMAGE = {"images": np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)}


@pytest.mark.parametrize("ending", ["Resize", "Sigmoid", "Mul"])
def test_head_equals_the_published_post_processing(open_session, tmp_path, ending):
    rng = np.random.default_rng(12)
    scores, logits = np.full((QUERIES, CLASSES), -5, np.float32), smooth_logits(rng)
    # So far apart that averaging over cells does not change their order.
    scores[np.arange(QUERIES), rng.integers(CLASSES, size=QUERIES)] = rng.permutation(np.linspace(-4, 1, QUERIES))
    logits[4] = -3
    model = canonical(network(scores, logits, ending), tmp_path, family="sparseinst")
    outputs = open_session(model)(IMAGE)

    probability = sigmoid(logits)
    inside = probability > 0.45
    certainty = (probability * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
    expected = sigmoid(scores).max(1) * certainty
    order = np.argsort(-expected)
    assert expected[order[-1]] == 0
    close = 0.02 if ending == "Mul" else 1e-5
    np.testing.assert_allclose(outputs["scores"][0], expected[order], atol=close)
    np.testing.assert_array_equal(outputs["labels"][0, :-1], scores.argmax(1)[order[:-1]])
    for row, query in enumerate(order[:-1]):
        painted = enlarged(outputs["masks"][0, row], 4) > 0
        published = enlarged(probability[query], 4) > 0.45
        union = (painted | published).sum()
        assert (painted & published).sum() / union > 0.98
        left, top, right, bottom = outputs["boxes"][0, row]
        rows, columns = np.nonzero(painted)
        margins = (columns.min() - left, right - columns.max() - 1, rows.min() - top, bottom - rows.max() - 1)
        assert min(margins) >= 0
        assert max(margins) <= 8
    assert not any(outputs[name][0, -1].any() for name in ("boxes", "scores", "labels", "masks"))


def test_neither_sigmoid_nor_upsampling_of_the_masks_is_left(tmp_path):
    rng = np.random.default_rng(4)
    source = network(rng.normal(size=(QUERIES, CLASSES)).astype(np.float32), smooth_logits(rng))
    model = canonical(source, tmp_path)
    assert "Resize" in {node.op_type for node in source.graph.node}
    assert "Resize" not in {node.op_type for node in model.graph.node}
    shape = next(output for output in model.graph.output if output.name == "masks").type.tensor_type.shape
    assert [axis.dim_value for axis in shape.dim] == [1, QUERIES, HEIGHT // 4, WIDTH // 4]


def test_without_a_sigmoid_it_is_another_family():
    frozen = FrozenNetwork(HEIGHT, WIDTH)
    rng = np.random.default_rng(5)
    scores = frozen.tensor(rng.normal(size=(QUERIES, CLASSES)).astype(np.float32))
    masks = frozen.tensor(smooth_logits(rng))
    family, _ = recognise(Export.of_model(frozen.model({"one": scores, "other": masks})))
    assert family.name == "mask2former"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["scores", "logits"])
def test_nan_and_infinity_are_reported(open_session, tmp_path, where, value):
    rng = np.random.default_rng(6)
    arrays = {"scores": rng.normal(size=(QUERIES, CLASSES)).astype(np.float32), "logits": smooth_logits(rng)}
    arrays[where][3, 1] = value
    scores = open_session(canonical(network(**arrays), tmp_path))(IMAGE)["scores"]
    # The scores' sigmoid is the network's own: an infinity does not leave it.
    assert np.isnan(scores).all() == (where == "logits" or np.isnan(value))


def test_a_batch_equals_single_images(open_session, tmp_path):
    images = np.stack([random_scene(np.random.default_rng(seed), 320, 192, 4).image for seed in (1, 2)])
    onnx.save(sparseinst(batch=None), tmp_path / "raw.onnx")
    prepare(tmp_path / "raw.onnx", tmp_path / "canonical.onnx")
    session = open_session(onnx.load(tmp_path / "canonical.onnx"))
    together = session({"images": images})
    for image in range(2):
        alone = session({"images": images[image : image + 1]})
        assert (alone["scores"] > 0.5).sum() == 4
        for name, array in together.items():
            np.testing.assert_allclose(array[image], alone[name][0], atol=1e-5)


def run_part(open_session, write, array):
    """The output of what `write(graph, value)` writes for one input."""
    shape = ["batch", *array.shape[1:]]
    port = helper.make_tensor_value_info("given", TensorProto.FLOAT, shape)
    proto = helper.make_graph([], "part", [port], [])
    graph = GraphBuilder(proto, "part")
    graph.publish(write(graph, graph.value("given")), "result", np.float32, ())
    proto.output[0].type.tensor_type.ClearField("shape")
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model)
    return open_session(model)({"given": array})["result"]


def test_boxes_are_the_support_and_one_cell_more(open_session):
    masks = np.full((2, 3, 4, 6), -1, np.float32)
    masks[0, 0, 1:3, 2:4] = 1
    masks[0, 1, 0, 5] = masks[0, 1, 3, 4] = 1e-3
    masks[1, 2] = 1
    boxes = run_part(open_session, lambda graph, value: boxes_of_masks(graph, value, (4, 6), (32, 48)), masks)
    np.testing.assert_array_equal(
        boxes,
        [[[8, 0, 40, 32], [24, 0, 48, 32], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 48, 32]]],
    )


def test_logits_of_probabilities_and_their_limits(open_session):
    logits = np.linspace(-13, 13, 27, dtype=np.float32)[None]
    found = run_part(open_session, lambda graph, value: logits_of(value), sigmoid(logits))
    np.testing.assert_allclose(found, logits, atol=0.1)
    extremes = run_part(open_session, lambda graph, value: logits_of(value), np.array([[0, 1, 0.5]], np.float32))
    assert np.isfinite(extremes).all()
    np.testing.assert_allclose(extremes, [[-13.8, 13.8, 0]], atol=0.1)
