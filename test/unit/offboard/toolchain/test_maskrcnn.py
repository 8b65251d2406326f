"""Masks on boxes and as many rows as there are become K rows, whatever torchvision's export looks like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from colour_model import Scene, paint_scene, random_scene
from layouts.maskrcnn import CLASSES, OPTIONS, maskrcnn
from onnx import TensorProto, helper
from runners import open_runner

from seg_perception.core.classes import ClassTable
from seg_perception.core.errors import ClassTableError, ConfigurationError, ModelOutputError, UnknownFamilyError
from seg_perception.core.frame import Frame
from seg_perception.offboard.toolchain.head import HeadOptions
from seg_perception.offboard.toolchain.prepare import prepare
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.select import SelectOptions
from seg_perception.onboard.backend.registry import backend_names, open_backend
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.segmenter import Segmenter

SCENE = random_scene(np.random.default_rng(4), 320, 192, 5, (24, 64))
TABLE = ClassTable("own", CLASSES, {})


def canonical(folder: Path, model: onnx.ModelProto, **changes: object) -> Path:
    onnx.save(model, folder / "raw.onnx")
    prepare(folder / "raw.onnx", folder / "canonical.onnx", replace(OPTIONS, **changes))
    return folder / "canonical.onnx"


def ious(path: Path, scene: Scene, backend: str = "onnxruntime") -> list[float]:
    """Of each rectangle with the instance of its number by position; as many instances as rectangles."""
    options = SegmenterOptions(SelectOptions(0.5, group_iou=1.0, keep_other=True))
    segmenter = Segmenter(open_backend(path, backend, RunOptions(threads=1)), TABLE, options)
    (found,) = segmenter.segment([Frame.from_bgr(scene.image[..., ::-1])])
    segmenter.close()
    assert len(found.instances) == len(scene.boxes)
    results = []
    for index, label in enumerate(scene.labels):
        true = scene.instance_map == index + 1
        number = np.bincount(found.instance_map.pixels[true]).argmax()
        (row,) = np.flatnonzero(found.instances.ids == number)
        assert found.instances.labels[row] == label + 1
        mine = found.instance_map.pixels == number
        results.append(float((mine & true).sum() / (mine | true).sum()))
    return results


@pytest.mark.parametrize("backend", backend_names())
@pytest.mark.parametrize(("pasted", "batch_axis"), [(False, False), (True, False), (False, True)])
def test_every_form(pasted: bool, batch_axis: bool, backend: str, tmp_path: Path) -> None:
    path = canonical(tmp_path, maskrcnn(pasted=pasted, batch_axis=batch_axis))
    assert min(ious(path, SCENE, backend)) > 0.85
    spec = open_runner(path).spec
    assert (spec.mask_frame, spec.mask_height, spec.mask_width, spec.batch) == ("box", 28, 28, 1)
    assert spec.things == (False, True, True, True, True)
    assert not any(node.op_type == "GridSample" for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("backend", backend_names())
def test_nothing_found_and_fewer_rows_than_found(backend: str, tmp_path: Path) -> None:
    path = canonical(tmp_path, maskrcnn(), head=HeadOptions(max_instances=3))
    runner = open_runner(path, backend)
    empty = runner.run(paint_scene(320, 192, []).image[None])
    assert not empty.scores.any()
    assert np.isfinite(empty.masks).all()
    full = runner.run(SCENE.image[None])
    assert full.scores.shape == (1, 3)
    assert (full.scores[0] > 0.5).all()
    assert (np.diff(full.scores[0]) <= 0).all()
    runner.close()


def test_masks_that_no_sigmoid_is_seen_behind(tmp_path: Path) -> None:
    """Such as those of an export whose masks are scaled afterwards: on boxes they do as they are."""
    model = maskrcnn()
    for node in model.graph.node:
        if node.output[0] == "masks":
            node.output[0] = "before"
    model.graph.initializer.append(helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]))
    model.graph.node.append(helper.make_node("Mul", ["before", "one"], ["masks"]))
    assert min(ious(canonical(tmp_path, model), SCENE)) > 0.85


def test_masks_on_the_image_that_cannot_be_traced_back(tmp_path: Path) -> None:
    model = maskrcnn(pasted=True)
    for node in model.graph.node:
        if node.op_type == "GridSample":
            node.op_type, node.domain = "Paste", "custom"
    model.opset_import.append(helper.make_opsetid("custom", 1))
    with pytest.raises(UnknownFamilyError, match="'masks' float"):
        canonical(tmp_path, model)


@pytest.mark.parametrize("backend", backend_names())
def test_faults_before_anything_is_found(backend: str, tmp_path: Path) -> None:
    """What NaN touches is not found, so nothing of it is in the rows."""
    model = maskrcnn()
    for node in model.graph.node:
        if node.op_type == "TopK":
            model.graph.node.insert(0, helper.make_node("Identity", ["nan"], ["faulty"]))
            clean, node.input[0] = node.input[0], "poisoned"
            break
    model.graph.initializer.append(helper.make_tensor("nan", TensorProto.FLOAT, [], [np.nan]))
    nodes = list(model.graph.node)
    place = next(index for index, each in enumerate(nodes) if "poisoned" in each.input)
    model.graph.node.insert(place, helper.make_node("Add", [clean, "faulty"], ["poisoned"]))
    path = canonical(tmp_path, model)
    segmenter = Segmenter(open_backend(path, backend, RunOptions(threads=1)), TABLE)
    with pytest.raises(ModelOutputError, match="NaN or infinity"):
        segmenter.segment([Frame.from_bgr(SCENE.image[..., ::-1])])
    segmenter.close()


def test_only_one_image_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--batch: the model's input .* is fixed, got 2"):
        canonical(tmp_path, maskrcnn(), batch=2)


def test_the_background_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(ClassTableError, match="5 classes, but class table 'four' has 4 names"):
        canonical(tmp_path, maskrcnn(), classes=ClassTable("four", CLASSES[1:], {}))
