"""The suppression in the graph against the textbook loop."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seg_perception.core.contract import OPSET
from seg_perception.offboard.toolchain.formulas import GraphBuilder
from seg_perception.offboard.toolchain.nms import kept_candidates, order_of, ranks


def nms_model(count, iou, steps):
    """Boxes `[B, 4, count]`, labels and scores `[B, count]`; out come `keep` and `rank` `[B, count]`."""
    graph = helper.make_graph(
        [],
        "nms",
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", 4, count]),
            helper.make_tensor_value_info("labels", TensorProto.FLOAT, ["batch", count]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", count]),
        ],
        [],
    )
    builder = GraphBuilder(graph, "nms")
    left, top, right, bottom = (side.reshape(0, count) for side in builder.value("boxes").split(1, 1, 1, 1, 1))
    before = order_of(builder.value("scores"), builder.constant(np.arange(count)).unsqueeze(0))
    keep = kept_candidates(builder, (left, top, right, bottom), builder.value("labels"), before, count, iou, steps)
    builder.publish(ranks(builder, before, count), "rank", np.float32, ["batch", count])
    builder.publish(keep, "keep", np.float32, ["batch", count])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def in_order(boxes, labels):
    """The feed for candidates whose scores descend."""
    return {
        "boxes": boxes,
        "labels": labels,
        "scores": np.linspace(1, 0, labels.size, dtype=np.float32).reshape(labels.shape),
    }


def suppression(boxes, labels, iou):
    """bool `[B, K, K]`: whether the row may suppress the column; boxes `[B, 4, K]`, in float64."""
    left, top, right, bottom = np.moveaxis(boxes.astype(np.float64), 1, 0)
    wide = np.minimum(right[:, :, None], right[:, None]) - np.maximum(left[:, :, None], left[:, None])
    high = np.minimum(bottom[:, :, None], bottom[:, None]) - np.maximum(top[:, :, None], top[:, None])
    shared = np.maximum(wide, 0) * np.maximum(high, 0)
    area = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    together = area[:, :, None] + area[:, None] - shared
    values = np.divide(shared, together, out=np.zeros_like(shared), where=together > 0)
    same = labels[:, :, None] == labels[:, None]
    earlier = np.triu(np.ones(same.shape[1:], bool), 1)
    return (values > iou) & same & earlier, values


def greedy(suppresses):
    """Best first, each removes what it may: bool `[B, K]`."""
    keep = np.ones(suppresses.shape[:2], bool)
    for row in range(keep.shape[1]):
        keep &= ~(suppresses[:, row] & keep[:, row, None])
    return keep


def depths(suppresses):
    """Links of the longest chain that ends at each candidate: `[B, K]`."""
    result = np.zeros(suppresses.shape[:2], int)
    for column in range(result.shape[1]):
        before = np.where(suppresses[:, :column, column], result[:, :column] + 1, 0)
        result[:, column] = before.max(1, initial=0)
    return result


def crowds(seed, batch, count, classes=3, span=40):
    """Boxes with whole coordinates (so that float32 is exact, and equal boxes and equal IoUs occur) and labels."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, span, (batch, 2, count))
    size = rng.integers(0, span, (batch, 2, count))
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    return boxes, rng.integers(0, classes, (batch, count)).astype(np.float32)


def chain(length):
    """A row of `length + 1` boxes, each overlapping only the next (IoU 0.6), best first."""
    left = 25.0 * np.arange(length + 1)
    boxes = np.stack([left, 0 * left, left + 100, 0 * left + 10])[None].astype(np.float32)
    return boxes, np.zeros((1, length + 1), np.float32)


def test_equals_greedy_suppression_on_thousands_of_crowds(open_session):
    boxes, labels = crowds(seed=1, batch=4000, count=40)
    # Some boxes are repeated, as the cells of one object repeat it.
    boxes[:, :, 20:30] = boxes[:, :, :10]
    # With 0.5, IoUs exactly at the threshold occur and are computed exactly: such a pair both stay.
    suppresses, values = suppression(boxes, labels, 0.5)
    assert (values == 0.5).sum() > 500
    expected = greedy(suppresses)
    assert 0.1 < expected.mean() < 0.9
    keep = open_session(nms_model(40, 0.5, steps=40))(in_order(boxes, labels))["keep"]
    np.testing.assert_array_equal(keep, expected)


@pytest.mark.parametrize("iou", [0.3, 0.45, 0.6, 0.7])
def test_equals_greedy_suppression_at_other_thresholds(open_session, iou):
    boxes, labels = crowds(seed=2, batch=500, count=64, classes=2, span=100)
    # Single corners move, so that some boxes are inside out, as an untrained network's are.
    boxes += np.random.default_rng(3).random(boxes.shape, np.float32)
    assert (boxes[:, 2] < boxes[:, 0]).any()
    suppresses, values = suppression(boxes, labels, iou)
    clear = (np.abs(values - iou) > 1e-5).all((1, 2))
    assert clear.mean() > 0.8
    keep = open_session(nms_model(64, iou, steps=64))(in_order(boxes, labels))["keep"]
    np.testing.assert_array_equal(keep[clear], greedy(suppresses)[clear])


@pytest.mark.parametrize("steps", [2, 3, 16, 17])
def test_crowds_deeper_than_the_steps_keep_to_the_documented_bound(open_session, steps):
    # Low threshold and one class: chains far longer than the steps.
    boxes, labels = crowds(seed=4, batch=300, count=150, classes=1, span=60)
    suppresses, _ = suppression(boxes, labels, 0.125)
    depth, expected = depths(suppresses), greedy(suppresses)
    keep = open_session(nms_model(150, 0.125, steps))(in_order(boxes, labels))["keep"] > 0.5
    assert (depth > steps).mean() > 0.05
    np.testing.assert_array_equal(keep[depth <= steps], expected[depth <= steps])
    if steps % 2 == 0:
        assert keep[expected].all()
    else:
        assert expected[keep].all()
    if steps < 4:
        assert (keep != expected).any()  # The bound is not idle: these crowds are really not solved.


@pytest.mark.parametrize("steps", [15, 16])
@pytest.mark.parametrize("length", [*range(24), 40])
def test_a_row_of_boxes_is_exact_up_to_the_steps(open_session, length, steps):
    boxes, labels = chain(length)
    keep = open_session(nms_model(length + 1, 0.5, steps))(in_order(boxes, labels))["keep"][0]
    every_second = (np.arange(length + 1) % 2 == 0).astype(np.float32)
    np.testing.assert_array_equal(greedy(suppression(boxes, labels, 0.5)[0])[0], every_second)
    beyond = np.arange(length + 1) > steps
    np.testing.assert_array_equal(keep[~beyond], every_second[~beyond])
    np.testing.assert_array_equal(keep[beyond], 1.0 if steps % 2 == 0 else 0.0)


def test_candidates_may_come_in_any_order_and_equal_scores_go_by_place(open_session):
    boxes, labels = crowds(seed=5, batch=1000, count=40)
    scores = np.random.default_rng(6).integers(0, 8, labels.shape).astype(np.float32) / 8
    order = np.argsort(-scores, axis=1, kind="stable")
    suppresses, _ = suppression(np.take_along_axis(boxes, order[:, None], 2), np.take_along_axis(labels, order, 1), 0.5)
    outputs = open_session(nms_model(40, 0.5, steps=40))({"boxes": boxes, "labels": labels, "scores": scores})
    np.testing.assert_array_equal(np.take_along_axis(outputs["keep"], order, 1), greedy(suppresses))
    np.testing.assert_array_equal(np.take_along_axis(outputs["rank"], order, 1), np.tile(np.arange(40), (1000, 1)))


def test_classes_do_not_meet(open_session):
    boxes = np.tile(np.array([[[0.0], [0.0], [10.0], [10.0]]], np.float32), (1, 1, 4))
    labels = np.array([[0, 1, 0, 79]], np.float32)
    keep = open_session(nms_model(4, 0.6, 16))(in_order(boxes, labels))["keep"]
    np.testing.assert_array_equal(keep, [[1, 1, 0, 1]])


def test_boxes_without_area_suppress_nothing(open_session):
    boxes = np.zeros((1, 4, 3), np.float32)
    keep = open_session(nms_model(3, 0.6, 16))(in_order(boxes, np.zeros((1, 3), np.float32)))["keep"]
    np.testing.assert_array_equal(keep, [[1, 1, 1]])
