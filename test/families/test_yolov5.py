"""YOLOv5-seg as its repository (PyPI's `yolov5`) exports it, against its own suppression and masks."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import pytest
import torch
import yolov5
from families.harness import Bounds, assert_agreement, found_in, instances_of, sharp_pictures
from families.random_weights import as_input, enliven
from yolov5.export import export_onnx
from yolov5.models.yolo import SegmentationModel
from yolov5.utils.general import non_max_suppression
from yolov5.utils.segment.general import process_mask_upsample

from seg_perception.classes import ClassTable
from seg_perception.toolchain.head import HeadOptions
from seg_perception.toolchain.prepare import PrepareOptions, prepare

HEIGHT, WIDTH, SCORE, IOU, SCALE = 256, 384, 0.3, 0.6, 2
PICTURES = sharp_pictures(4, HEIGHT, WIDTH)
CLASSES, COEFFICIENTS = 80, 32
# YOLOv5 enlarges masks behind their sigmoid, we before it. Of small logits the sigmoid is a straight line, so that all
# else can be compared exactly; of large ones it moves borders between two cells of the prototypes.
SMALL = 0.02
BOUNDS = Bounds(SCORE, min_pixels=400 * SCALE**2, faults=2)
TABLE = ClassTable("numbers", tuple(f"class {index}" for index in range(CLASSES)), {})


@cache
def network() -> SegmentationModel:
    """With random weights that find something."""
    torch.manual_seed(0)
    config = Path(yolov5.__file__).parent / "models" / "segment" / "yolov5n-seg.yaml"
    model = SegmentationModel(str(config)).eval()
    kinds = ((4, 0.0, 1.0), (1, -2.0, 1.5), (CLASSES, -8.0, 2.0), (COEFFICIENTS, 0.0, SMALL))
    mean = torch.cat([torch.full((count,), value) for count, value, _ in kinds] * 3)
    deviation = torch.cat([torch.full((count,), value) for count, _, value in kinds] * 3)
    enliven(model, lambda: model(as_input(PICTURES)), dict.fromkeys(model.model[-1].m, (mean, deviation)))
    return model


@cache
def reference():
    """YOLOv5's suppression and its masks; boxes moved by half a pixel cut them, see test_ultralytics.py."""
    with torch.no_grad():
        rows, prototypes = network()(as_input(PICTURES))[:2]
    found = non_max_suppression(rows, SCORE / 2, IOU, max_det=300, nm=COEFFICIENTS)
    size = (HEIGHT * SCALE, WIDTH * SCALE)
    return [
        instances_of(
            row[:, :4],
            row[:, 4],
            row[:, 5].int(),
            process_mask_upsample(each, row[:, 6:], row[:, :4] * SCALE - 0.5, size),
            SCALE,
        )
        for row, each in zip(found, prototypes, strict=True)
    ]


def exported(folder: Path, opset: int, dynamic: bool, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The exporter that was PyTorch's default in the days of this package.
    monkeypatch.setattr(torch.onnx, "export", partial(torch.onnx.export, dynamo=False))
    model = network()
    model.names = dict(enumerate(TABLE.class_names))
    model.model[-1].export = True
    try:
        export_onnx(model, torch.zeros(1, 3, HEIGHT, WIDTH), folder / "yolov5n-seg.onnx", opset, dynamic, False)
    finally:
        model.model[-1].export = False
    return folder / "yolov5n-seg.onnx"


@pytest.mark.parametrize(("opset", "dynamic"), [(12, False), (17, False), (17, True), (20, False)])
def test_yolov5(opset, dynamic, tmp_path, monkeypatch):
    source, canonical = exported(tmp_path, opset, dynamic, monkeypatch), tmp_path / "canonical.onnx"
    options = PrepareOptions(HeadOptions(nms_iou=IOU, max_instances=300), input_size=(HEIGHT, WIDTH))
    spec = prepare(source, canonical, options)
    assert (spec.family, spec.class_names) == ("yolov5", TABLE.class_names)
    subject = f"yolov5n-seg opset {opset}{' dynamic' * dynamic}"
    lowest = SCORE - BOUNDS.margin
    for backend in ("onnxruntime", "openvino"):
        found = found_in(canonical, PICTURES, lowest, backend, SCALE)
        assert_agreement(f"{subject}, {backend}", reference(), found, BOUNDS)
