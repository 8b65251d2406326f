"""Every family's small model (test/layouts) in float16: what it finds is what it finds in float32."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest
from colour_model import random_scene
from onnx import TensorProto
from runners import open_runner
from small_graphs import elements

from seg_perception.core.boxes import box_iou
from seg_perception.offboard.toolchain.precision.emulate import HalfEmulator
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

LAYOUTS = sorted(path.stem for path in (Path(__file__).parents[3] / "layouts").glob("[!_]*.py"))


@pytest.fixture(scope="module", params=LAYOUTS)
def models(request, tmp_path_factory):
    """Paths of the canonical model in float32 and in float16."""
    layout, folder = import_module(f"layouts.{request.param}"), tmp_path_factory.mktemp(request.param)
    layout.export(folder / "source.onnx")
    options = getattr(layout, "OPTIONS", PrepareOptions())
    prepare(folder / "source.onnx", folder / "float.onnx", options)
    prepare(folder / "source.onnx", folder / "half.onnx", replace(options, precision="fp16"))
    return folder / "float.onnx", folder / "half.onnx"


def test_types_follow_the_contract(models):
    kinds = elements(onnx.load(models[1]))
    expected = {
        "boxes": [TensorProto.FLOAT],
        "scores": [TensorProto.FLOAT],
        "labels": [TensorProto.INT32],
        "masks": [TensorProto.FLOAT16, TensorProto.FLOAT],
        "class_map": [TensorProto.UINT8],
    }
    for output in onnx.load(models[1]).graph.output:
        assert kinds[output.name] in expected[output.name]
    assert TensorProto.FLOAT16 in kinds.values()


@pytest.mark.parametrize("runtime", ["emulation", "onnxruntime", "openvino"])
def test_finds_what_float32_finds(models, runtime):
    reference = open_runner(models[0])
    runner = {
        "emulation": lambda: HalfEmulator(onnx.load(models[1]), threads=1),
        "onnxruntime": lambda: open_runner(models[1], "onnxruntime"),
        "openvino": lambda: open_runner(models[1], "openvino"),
    }[runtime]()
    for seed in range(3):
        images = np.ascontiguousarray(random_scene(np.random.default_rng(seed), 320, 192, 5, (24, 64)).image[None])
        expected, found = reference.run(images), runner.run(images)
        if expected.class_map is not None:
            assert found.class_map is not None
            assert (expected.class_map == found.class_map).mean() > 0.995
        sure, also = expected.scores[0] > 0.5, found.scores[0] > 0.5
        assert sure.sum() == also.sum()
        if not sure.any():
            assert expected.class_map is not None
            continue
        overlap = box_iou(expected.boxes[0][sure], found.boxes[0][also])
        partner = overlap.argmax(1)
        assert len(set(partner)) == sure.sum()
        np.testing.assert_allclose(found.boxes[0][also][partner], expected.boxes[0][sure], atol=0.25)
        np.testing.assert_allclose(found.scores[0][also][partner], expected.scores[0][sure], atol=5e-3)
        np.testing.assert_array_equal(found.labels[0][also][partner], expected.labels[0][sure])
        logits, rounded = expected.masks[0][sure], found.masks[0][also][partner]
        # Cells on the edge are a hair's breadth from either side.
        assert np.abs(logits[(logits > 0) != (rounded > 0)]).max(initial=0) < 0.01
