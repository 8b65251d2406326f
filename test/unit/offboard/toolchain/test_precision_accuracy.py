"""Float16 on real photographs: what is found is what float32 finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from seg_perception.core.boxes import box_iou
from seg_perception.core.encodings.raw import view
from seg_perception.core.geometry import ResizeGeometry
from seg_perception.offboard.data.images import open_source
from seg_perception.offboard.toolchain.precision.cost import precision_summary
from seg_perception.offboard.toolchain.precision.emulate import HalfEmulator
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.letterbox import letterbox
from seg_perception.onboard.backend.host.onnxruntime import OrtRunner

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the model and the photographs of ../shared/data")
def test_emulated_yolov8_agrees_with_float32(tmp_path):
    source = DATA / "models" / "yolov8n-seg-640.onnx"
    spec = prepare(source, tmp_path / "float.onnx")
    prepare(source, tmp_path / "half.onnx", PrepareOptions(precision="fp16"))
    half = onnx.load(tmp_path / "half.onnx")
    summary = precision_summary(half)
    assert summary.share("float16") == 1.0
    assert 6.0e9 < summary.total < 6.2e9  # Ultralytics gives 12.6 GFLOPs at 640 for the network
    reference, emulator = OrtRunner(tmp_path / "float.onnx", RunOptions()), HalfEmulator(half)
    compared = 0
    for place, (_, frame) in enumerate(open_source(DATA / "images" / "street")):
        if place % 3:
            continue
        image, order = view(frame)
        geometry = ResizeGeometry.fit(spec.resize, frame.width, frame.height, 640, 640)
        images = np.empty((1, 640, 640, 3), np.uint8)
        letterbox(image, order, geometry, spec.resize.pad_value, images[0])
        expected, found = reference.run(images), emulator.run(images)
        # A candidate near the edge of being found may fall on the other side.
        sure = expected.scores[0] > 0.4
        likely = found.scores[0] > 0.3
        overlap = box_iou(expected.boxes[0][sure], found.boxes[0][likely])
        partner = overlap.argmax(1)
        np.testing.assert_array_less(0.97, overlap.max(1))
        np.testing.assert_array_equal(expected.labels[0][sure], found.labels[0][likely][partner])
        inside, also = expected.masks[0][sure] > 0, found.masks[0][likely][partner] > 0
        same = (inside & also).sum((1, 2)) / (inside | also).sum((1, 2))
        assert np.median(same) > 0.98
        compared += int(sure.sum())
    assert compared > 10
