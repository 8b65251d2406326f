"""YOLOv8, YOLO11, YOLO12 and YOLO26 as Ultralytics exports them, against its own NMS and masks."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from families.harness import Bounds, assert_agreement, found_in, instances_of, sharp_images
from families.random_weights import as_input, enliven
from ultralytics import YOLO
from ultralytics.utils import ops
from ultralytics.utils.nms import non_max_suppression

from seg_perception.core.errors import UnknownFamilyError
from seg_perception.offboard.toolchain.head import HeadOptions
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

HEIGHT, WIDTH, SCORE, IOU = 256, 384, 0.5, 0.6
IMAGES = sharp_images(4, HEIGHT, WIDTH)
YOLOV8, YOLO26 = "yolov8n-seg.yaml", "yolo26n-seg.yaml"
SCALE = 2
# Ultralytics cuts masks where the corners of pixels leave the box, we where their centres do. So a row and a column of
# a mask may differ; the masks of boxes half a pixel to the left and above must not. With hundreds of boxes, the
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
    enliven(model, lambda: model(as_input(IMAGES)), spread)
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
def reference(config: str, end_to_end: bool = False):
    """By PyTorch, and Ultralytics' own code; with the boxes that cut the masks as they are, and moved half a pixel."""
    model = network(config).model.eval()
    model.model[-1].end2end = end_to_end
    with torch.no_grad():
        (rows, prototypes), _ = model(as_input(IMAGES))
    model.model[-1].end2end = False
    return {shift: post_processed(rows, prototypes, end_to_end, shift) for shift in (0.0, 0.5)}


def post_processed(rows, prototypes, end_to_end: bool, shift: float):
    columns = prototypes.shape[1] + 4
    classes = 0 if end_to_end else rows.shape[1] - columns
    found = non_max_suppression(rows, SCORE / 2, IOU, nc=classes, end2end=end_to_end, max_time_img=60)
    size = (HEIGHT * SCALE, WIDTH * SCALE)
    masks = [
        ops.process_mask_native(each, row[:, 6:], row[:, :4] * SCALE - shift, size)
        for each, row in zip(prototypes, found, strict=True)
    ]
    return [
        instances_of(row[:, :4], row[:, 4], row[:, 5].int(), mask.bool(), SCALE)
        for row, mask in zip(found, masks, strict=True)
    ]


def check(subject: str, source: Path, expected, thorough: bool = False) -> None:
    canonical = source.with_name("canonical.onnx")
    prepare(source, canonical, PrepareOptions(HeadOptions(nms_iou=IOU, max_instances=300), input_size=(HEIGHT, WIDTH)))
    lowest = SCORE - BOUNDS.margin
    found = found_in(canonical, IMAGES, lowest, scale=SCALE)
    assert_agreement(subject, expected[0.5], found, BOUNDS)
    if thorough:
        as_they_are = replace(BOUNDS, min_iou=0.85, mean_iou=0.95)
        assert_agreement(f"{subject}, border pixels as they are", expected[0.0], found, as_they_are)
        found = found_in(canonical, IMAGES, lowest, "openvino", SCALE)
        assert_agreement(f"{subject}, OpenVINO", expected[0.5], found, BOUNDS)


@pytest.mark.parametrize("config", ["yolov8n-seg.yaml", "yolo11n-seg.yaml", "yolo12n-seg.yaml", "yolo26n-seg.yaml"])
def test_dense(config, tmp_path):
    check(config.removesuffix(".yaml"), exported(config, tmp_path), reference(config), thorough=True)


def test_end_to_end(tmp_path):
    check("yolo26n-seg end to end", exported(YOLO26, tmp_path, nms=False), reference(YOLO26, True), thorough=True)


@pytest.mark.parametrize("opset", [11, 13, 17, 20, 21])
@pytest.mark.parametrize(("config", "settings"), [(YOLOV8, {}), (YOLO26, {"nms": False, "dynamic": True})])
def test_opsets(config, settings, opset, tmp_path):
    subject = f"{config.removesuffix('.yaml')} opset {opset}{' end to end, dynamic' * bool(settings)}"
    check(subject, exported(config, tmp_path, opset=opset, **settings), reference(config, bool(settings)))


def test_dynamic_axes(tmp_path):
    check("yolov8n-seg dynamic", exported(YOLOV8, tmp_path, dynamic=True), reference(YOLOV8))


@pytest.mark.parametrize("dynamic", [False, True])
def test_suppression_in_the_export_is_refused_with_a_remedy(dynamic, tmp_path):
    source = exported(YOLOV8, tmp_path, nms=True, dynamic=dynamic)
    with pytest.raises(UnknownFamilyError, match="leave out nms=True"):
        prepare(source, tmp_path / "canonical.onnx", PrepareOptions(input_size=(HEIGHT, WIDTH)))


@pytest.mark.parametrize(("config", "settings"), [(YOLOV8, {}), (YOLO26, {"nms": False})])
def test_half(config, settings, tmp_path):
    """Against the export itself under ONNX Runtime: what rounding changes in these restless networks is not ours."""
    source = exported(config, tmp_path, half=True, **settings)
    session = onnxruntime.InferenceSession(source)
    # Multiplied as in the canonical graph: float16 rounds some of these differently from quotients.
    feed = IMAGES.transpose(0, 3, 1, 2) * np.float32(1 / 255)
    outputs = [session.run(None, {"images": feed[index : index + 1]}) for index in range(len(feed))]
    rows, prototypes = (torch.from_numpy(np.concatenate(each)).float() for each in zip(*outputs, strict=True))
    expected = {shift: post_processed(rows, prototypes, bool(settings), shift) for shift in (0.0, 0.5)}
    check(f"{config.removesuffix('.yaml')} half{' end to end' * bool(settings)}", source, expected)
