"""The head of YOLOv8-seg against a decoder written in NumPy, and what it does with NaN and infinity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from colour_model import colour_model, random_scene
from onnx import TensorProto, helper

from seg_perception.core.contract import INSTANCE_OUTPUTS, OPSET
from seg_perception.offboard.toolchain.canonical import publish
from seg_perception.offboard.toolchain.export import Export
from seg_perception.offboard.toolchain.families import recognise
from seg_perception.offboard.toolchain.graph import GraphBuilder
from seg_perception.offboard.toolchain.head import HeadOptions
from seg_perception.offboard.toolchain.prepare import prepare

SHARED = Path(__file__).parents[5] / "shared" / "data"
CLASSES, POSITIONS, PROTOTYPES, HEIGHT, WIDTH = 5, 300, 6, 12, 20


def reference(predictions, prototypes, options=None):
    """Rows of one image, decoded as the documentation of the family says: boxes, scores, labels, masks.

    Args:
        predictions: float32 `[4 + C + P, N]`.
        prototypes: float32 `[P, h, w]`.
        options: a `HeadOptions`.
    """
    options = options or HeadOptions()
    count = len(prototypes)
    classes, coefficients = predictions[4:-count], predictions[-count:]
    best = classes.max(0)
    order = np.argsort(-best, kind="stable")[: options.nms_candidates]
    x, y, width, height = predictions[:4, order]
    boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)
    labels, scores = classes[:, order].argmax(0), best[order]
    kept: list[int] = []
    for row in range(len(order)):
        if scores[row] > 0 and not any(
            labels[row] == labels[other] and _iou(boxes[row], boxes[other]) > options.nms_iou for other in kept
        ):
            kept.append(row)
    kept = kept[: options.max_instances]
    masks = np.tensordot(coefficients[:, order[kept]].T, prototypes, 1)
    return boxes[kept], scores[kept], labels[kept], masks


def _iou(one, other):
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0) * max(high, 0)
    areas = (max(box[2] - box[0], 0) * max(box[3] - box[1], 0) for box in (one, other))
    return shared / max(sum(areas) - shared, 1e-9)


def assert_rows(outputs, expected, image=0):
    """Equal rows in equal order, and nothing in the rest."""
    used = len(expected[1])
    scores = outputs["scores"][image]
    assert (scores > 0).sum() == used
    np.testing.assert_allclose(outputs["boxes"][image, :used], expected[0], atol=1e-3)
    np.testing.assert_allclose(scores[:used], expected[1], atol=1e-5)
    np.testing.assert_array_equal(outputs["labels"][image, :used], expected[2])
    np.testing.assert_allclose(outputs["masks"][image, :used], expected[3], atol=1e-3)
    for name in INSTANCE_OUTPUTS:
        assert not outputs[name][image, used:].any(), f"unused rows of {name} are not 0"


def bare_head(options=None):
    """Only the head: takes `predictions` and `prototypes` of any batch."""
    shapes = {
        "predictions": ["batch", 4 + CLASSES + PROTOTYPES, POSITIONS],
        "prototypes": ["batch", PROTOTYPES, HEIGHT, WIDTH],
    }
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    image = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 64, 64])
    shell = helper.make_model(helper.make_graph([], "shell", [image], ports))
    family, match = recognise(Export.of_model(shell))
    graph = helper.make_graph([], "head", ports, [])
    builder = GraphBuilder(graph, "head")
    publish(builder, family.write_head(builder, match, options or HeadOptions()), batch=0)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def random_outputs(seed, batch, levels=0):
    """Predictions and prototypes; scores on `levels` equal steps so that many are the same, or all different (0)."""
    rng = np.random.default_rng(seed)
    predictions = rng.normal(size=(batch, 4 + CLASSES + PROTOTYPES, POSITIONS)).astype(np.float32)
    # Whole and even numbers: sides and areas are exact, so no pair's IoU is a matter of rounding.
    predictions[:, :2] = rng.integers(0, 64, (batch, 2, POSITIONS))
    predictions[:, 2:4] = 2 * rng.integers(1, 24, (batch, 2, POSITIONS))
    scores = rng.random((batch, CLASSES, POSITIONS))
    if levels:
        scores = np.floor(scores * levels) / levels
    predictions[:, 4 : 4 + CLASSES] = scores
    return predictions, rng.normal(size=(batch, PROTOTYPES, HEIGHT, WIDTH)).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        HeadOptions(),
        HeadOptions(nms_iou=0.375, max_instances=7, nms_candidates=50, nms_steps=32),
        HeadOptions(nms_iou=0.5, max_instances=500, nms_candidates=2000, nms_steps=64),
    ],
    ids=["default", "few", "more than there are"],
)
def test_head_equals_the_reference_for_every_image_of_a_batch(open_session, options):
    predictions, prototypes = random_outputs(5, batch=20)
    outputs = open_session(bare_head(options))({"predictions": predictions, "prototypes": prototypes})
    assert outputs["scores"].shape == (20, min(options.max_instances, options.nms_candidates, POSITIONS))
    assert outputs["labels"].dtype == np.int32
    for image in range(20):
        assert_rows(outputs, reference(predictions[image], prototypes[image], options), image)


@pytest.mark.parametrize("levels", [1, 2, 8])
def test_of_equal_scores_the_first_position_comes_first(open_session, levels):
    predictions, prototypes = random_outputs(6, batch=20, levels=levels)
    if levels == 1:
        predictions[:, 4 : 4 + CLASSES] = 0.5
    outputs = open_session(bare_head())({"predictions": predictions, "prototypes": prototypes})
    for image in range(20):
        assert_rows(outputs, reference(predictions[image], prototypes[image]), image)


def test_nothing_found_is_all_zeros(open_session):
    predictions, prototypes = random_outputs(7, batch=2)
    predictions[:, 4 : 4 + CLASSES] = 0.0
    outputs = open_session(bare_head())({"predictions": predictions, "prototypes": prototypes})
    for name in INSTANCE_OUTPUTS:
        assert not outputs[name].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 3, 4, 4 + CLASSES - 1, 4 + CLASSES, -1])
def test_nan_and_infinity_anywhere_mark_their_image_and_no_other(open_session, row, value):
    predictions, prototypes = random_outputs(8, batch=3)
    weakest = predictions[1, 4 : 4 + CLASSES].max(0).argmin()
    predictions[1, row, weakest] = value
    scores = open_session(bare_head())({"predictions": predictions, "prototypes": prototypes})["scores"]
    assert np.isnan(scores[1]).all()
    assert np.isfinite(scores[[0, 2]]).all()
    assert (scores[[0, 2], 0] > 0).all()


def test_infinities_of_both_signs_do_not_cancel(open_session):
    predictions, prototypes = random_outputs(8, batch=1)
    predictions[0, -1, :2] = np.inf, -np.inf
    scores = open_session(bare_head())({"predictions": predictions, "prototypes": prototypes})["scores"]
    assert np.isnan(scores).all()


@pytest.mark.parametrize("value", [np.finfo(np.float32).max, np.finfo(np.float32).min])
def test_the_largest_finite_values_raise_no_alarm(open_session, value):
    predictions, prototypes = random_outputs(9, batch=1)
    predictions[:, 4 + CLASSES :] = value
    predictions[:, :4, 100:] = value
    scores = open_session(bare_head())({"predictions": predictions, "prototypes": prototypes})["scores"]
    assert np.isfinite(scores).all()
    assert scores[0, 0] > 0


def raw_outputs(open_session, model, images):
    """Predictions and prototypes of a raw export for uint8 `[B, H, W, 3]`."""
    # Multiplied as the canonical model does it; divided by 255, the last bit of some pixels differs.
    pixels = images.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(1 / 255)
    outputs = list(open_session(model)({model.graph.input[0].name: pixels}).values())
    return sorted(outputs, key=lambda array: array.ndim)


def prepared(model, folder):
    source, destination = folder / "raw.onnx", folder / "canonical.onnx"
    source.write_bytes(model.SerializeToString())
    prepare(source, destination)
    return onnx.load(destination)


def test_canonical_colour_model_equals_the_reference(open_session, tmp_path):
    model = colour_model(batch=None)
    rng = np.random.default_rng(10)
    scenes = [random_scene(rng, 320, 192, count) for count in (0, 1, 6, 12)]
    images = np.stack([scene.image for scene in scenes])
    predictions, prototypes = raw_outputs(open_session, model, images)
    outputs = open_session(prepared(model, tmp_path))({"images": images})
    for image, scene in enumerate(scenes):
        rows = len(scene.boxes)
        assert_rows(outputs, reference(predictions[image], prototypes[image]), image)
        # And both equal the truth.
        found = [*zip(outputs["boxes"][image, :rows].tolist(), outputs["labels"][image, :rows], strict=True)]
        assert sorted(found) == sorted(zip(scene.boxes.tolist(), scene.labels, strict=True))


def test_masks_of_the_colour_model_are_the_rectangles(open_session, tmp_path):
    scene = random_scene(np.random.default_rng(11), 320, 192, 8, grid=4)
    outputs = open_session(prepared(colour_model(), tmp_path))({"images": scene.image[None]})
    for row in range(len(scene.boxes)):
        left, top, right, bottom = (outputs["boxes"][0, row] / 4).astype(int)
        own = scene.instance_map[2::4, 2::4] == scene.instance_map[4 * top, 4 * left]
        inside = np.zeros_like(own)
        inside[top:bottom, left:right] = outputs["masks"][0, row, top:bottom, left:right] > 0
        np.testing.assert_array_equal(inside, own)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_batch_equals_single_images(open_session, tmp_path, batch):
    images = np.stack([random_scene(np.random.default_rng(seed), 320, 192, 5).image for seed in range(batch)])
    session = open_session(prepared(colour_model(batch=None), tmp_path))
    together = session({"images": images})
    for image in range(batch):
        alone = session({"images": images[image : image + 1]})
        for name in INSTANCE_OUTPUTS:
            np.testing.assert_array_equal(together[name][image], alone[name][0])


def test_float16_export_gives_a_float32_model(open_session, tmp_path):
    scene = random_scene(np.random.default_rng(12), 320, 192, 4)
    outputs = open_session(prepared(colour_model(float16=True), tmp_path))({"images": scene.image[None]})
    assert {name: outputs[name].dtype.name for name in INSTANCE_OUTPUTS} == {
        "boxes": "float32",
        "scores": "float32",
        "labels": "int32",
        "masks": "float32",
    }
    boxes = outputs["boxes"][0, : len(scene.boxes)]
    np.testing.assert_allclose(sorted(boxes.tolist()), sorted(scene.boxes.tolist()), atol=0.25)


def test_nan_of_a_network_reaches_the_scores_of_its_image(open_session, tmp_path):
    images = np.stack([random_scene(np.random.default_rng(13), 320, 192, 3).image] * 2)
    images[1, 0, 0] = 255
    outputs = open_session(prepared(colour_model(batch=None, fault="predictions"), tmp_path))({"images": images})
    assert (outputs["scores"][0, :3] > 0).all()
    assert np.isnan(outputs["scores"][1]).all()


@pytest.mark.parametrize("number", [0, 1])
def test_real_model_equals_the_reference(open_session, tmp_path, number):
    source = SHARED / "models" / "yolov8n-seg-640.onnx"
    images = sorted((SHARED / "images" / "street").glob("*.jpg"))
    if not source.is_file() or len(images) < 2:
        pytest.skip("needs the model and the street photographs of ../shared/data")
    cv2 = pytest.importorskip("cv2")
    image = cv2.imread(str(images[number]))
    images = cv2.resize(image, (640, 640))[None, :, :, ::-1].copy()
    model = onnx.load(source)
    predictions, prototypes = raw_outputs(open_session, model, images)
    outputs = open_session(prepared(model, tmp_path))({"images": images})
    expected = reference(predictions[0], prototypes[0])
    assert (expected[1] > 0.25).sum() >= 2
    assert_rows(outputs, expected)
