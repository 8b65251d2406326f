"""YOLOv8, YOLO11, YOLO12 and YOLO26 as Ultralytics exports them, against its own NMS and masks."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from families import torchvision_cpu  # noqa: F401 - before anything that imports torchvision
from families.harness import Bounds, assert_agreement, found_in, instances_of, sharp_pictures
from families.random_weights import as_input, enliven
from ultralytics import YOLO
from ultralytics.utils import ops
from ultralytics.utils.nms import non_max_suppression

from seg_perception.toolchain.head import HeadOptions
from seg_perception.toolchain.prepare import PrepareOptions, prepare

HEIGHT, WIDTH, SCORE, IOU = 256, 384, 0.5, 0.6
PICTURES = sharp_pictures(4, HEIGHT, WIDTH)
YOLOV8, YOLO26 = "yolov8n-seg.yaml", "yolo26n-seg.yaml"
SCALE = 2
# Ultralytics cuts masks where the corners of pixels leave the box, we where their centres do. So a row and a column of
# a mask may differ; the masks of boxes half a pixel to the left and above must not. With hundreds of pairs of boxes, the
# IoU of one or two may be so near the limit of the suppression that rounding decides.
BOUNDS = Bounds(SCORE, min_pixels=400 * SCALE**2, faults=2)


@cache
def network(config: str) -> YOLO:
    """With random weights that find something."""
    torch.manual_seed(0)
    yolo = YOLO(config, task="segment")
    model = yolo.model.eval()
    head = model.model[-1]
    spread = {}
    for prefix in ("", "one2one_"):
        for kind, values in (("cv2", (1.0, 1.5)), ("cv3", (-12.0, 2.0)), ("cv4", (0.0, 1.0))):
            for branch in getattr(head, prefix + kind, None) or ():
                spread[branch[-1]] = values
    enliven(model, lambda: model(as_input(PICTURES)), spread)
    return yolo


def exported(config: str, folder: Path, **settings: object) -> Path:
    """What `yolo.export` writes."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        settings = {"simplify": False, "verbose": False, **settings}
        return folder / network(config).export(format="onnx", imgsz=(HEIGHT, WIDTH), **settings)
    finally:
        os.chdir(here)


@cache
def reference(config: str, end_to_end: bool, shift: float):
    """By PyTorch, Ultralytics' NMS and its masks, cut by boxes moved by `shift` pixels."""
    model = network(config).model.eval()
    model.model[-1].end2end = end_to_end
    with torch.no_grad():
        (rows, prototypes), _ = model(as_input(PICTURES))
    model.model[-1].end2end = False
    found = non_max_suppression(rows, SCORE / 2, IOU, nc=len(model.names), end2end=end_to_end, max_time_img=60)
    size = (HEIGHT * SCALE, WIDTH * SCALE)
    masks = [
        ops.process_mask_native(each, row[:, 6:], row[:, :4] * SCALE - shift, size)
        for each, row in zip(prototypes, found, strict=True)
    ]
    return [
        instances_of(row[:, :4], row[:, 4], row[:, 5].int(), mask.bool(), SCALE)
        for row, mask in zip(found, masks, strict=True)
    ]


def check(subject: str, config: str, source: Path, end_to_end: bool = False, bounds: Bounds = BOUNDS) -> None:
    canonical = source.with_name("canonical.onnx")
    prepare(source, canonical, PrepareOptions(HeadOptions(nms_iou=IOU, max_instances=300), input_size=(HEIGHT, WIDTH)))
    lowest = bounds.score - bounds.margin
    found = found_in(canonical, PICTURES, lowest, scale=SCALE)
    assert_agreement(subject, reference(config, end_to_end, 0.5), found, bounds)
    as_they_are = replace(bounds, min_iou=0.85, mean_iou=0.97)
    assert_agreement(f"{subject}, border pixels as they are", reference(config, end_to_end, 0.0), found, as_they_are)
    found = found_in(canonical, PICTURES, lowest, "openvino", SCALE)
    assert_agreement(f"{subject}, OpenVINO", reference(config, end_to_end, 0.5), found, bounds)


@pytest.mark.parametrize("config", ["yolov8n-seg.yaml", "yolo11n-seg.yaml", "yolo12n-seg.yaml", "yolo26n-seg.yaml"])
def test_dense(config, tmp_path):
    check(config.removesuffix(".yaml"), config, exported(config, tmp_path))


def test_end_to_end(tmp_path):
    check("yolo26n-seg end to end", YOLO26, exported(YOLO26, tmp_path, nms=False), True)


@pytest.mark.parametrize("opset", [11, 13, 17, 20, 21])
@pytest.mark.parametrize(("config", "settings"), [(YOLOV8, {}), (YOLO26, {"nms": False, "dynamic": True})])
def test_opsets(config, settings, opset, tmp_path):
    subject = f"{config.removesuffix('.yaml')} opset {opset}{' dynamic' * bool(settings)}"
    check(subject, config, exported(config, tmp_path, opset=opset, **settings), bool(settings))


def test_dynamic_axes(tmp_path):
    check("yolov8n-seg dynamic", YOLOV8, exported(YOLOV8, tmp_path, dynamic=True))


@pytest.mark.parametrize("dynamic", [False, True])
def test_suppression_in_the_export_is_cut_off(dynamic, tmp_path):
    source = exported(YOLOV8, tmp_path, nms=True, dynamic=dynamic)
    check(f"yolov8n-seg nms=True{' dynamic' * dynamic}", YOLOV8, source)
    operators = {node.op_type for node in onnx.load(tmp_path / "canonical.onnx").graph.node}
    assert not operators & {"NonMaxSuppression", "NonZero"}


@pytest.mark.parametrize(("config", "settings"), [(YOLOV8, {}), (YOLO26, {"nms": False})])
def test_half(config, settings, tmp_path):
    # Ten bits of a number above 256 leave a quarter of a pixel.
    bounds = replace(BOUNDS, margin=0.05, box=3.0, score_difference=0.05, min_iou=0.9, faults=12)
    check(f"{config} half", config, exported(config, tmp_path, half=True, **settings), bool(settings), bounds)
