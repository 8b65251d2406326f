"""Mask R-CNN against torchvision's own post-processing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families.torchvision_cpu  # noqa: F401  before torchvision
import numpy as np
import pytest
import torch
from families.harness import Bounds, assert_agreement, found_in, instances_of, sharp_images
from torchvision.models.detection import MaskRCNN, transform
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from seg_perception.core.classes import ClassTable
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

HEIGHT, WIDTH = 448, 640
CLASSES = ("background", "person", "car", "bus", "stop sign", "traffic light")
IMAGES = sharp_images(4, HEIGHT, WIDTH)
# torchvision rounds boxes outwards to whole pixels before it pastes masks: each side gains half a pixel on average.
LARGE = 20_000


@pytest.fixture(scope="module")
def model() -> Any:
    """Random weights, scaled so that boxes differ, scores spread and masks have an inside and an outside."""
    torch.manual_seed(3)
    torch.set_num_threads(1)
    model = MaskRCNN(
        resnet_fpn_backbone(backbone_name="resnet18", weights=None),
        len(CLASSES),
        # Not the size of the input: the graph has a resize of its own.
        min_size=512,
        max_size=800,
        rpn_anchor_generator=AnchorGenerator(((128,), (192,), (256,), (320,), (384,)), ((0.5, 1.0, 2.0),) * 5),
        # Few: of thousands of overlaps of random boxes, some lie so near a threshold that rounding decides.
        rpn_post_nms_top_n_test=30,
        rpn_pre_nms_top_n_test=30,
        box_detections_per_img=30,
    ).eval()
    # Suppression adds hundreds of pixels per level to the boxes; of slivers at the border, rounding then decides.
    model.rpn.min_size = 16.0
    heads = model.roi_heads
    # A trained network's masks are blobs. Of noise, a shift by part of a cell would turn every cell.
    for layer in (*(block[0] for block in heads.mask_head), heads.mask_predictor.conv5_mask):
        layer.weight.data[:] = layer.weight.data.mean((2, 3), keepdim=True)
    spreads = {
        model.rpn.head.cls_logits: (0.0, 2.0),
        model.rpn.head.bbox_pred: (0.0, 0.2),
        heads.box_predictor.cls_score: (0.0, 1.5),
        heads.box_predictor.bbox_pred: (0.0, 0.5),
        heads.mask_predictor.mask_fcn_logits: (6.0, 8.0),
    }
    for layer, (mean, spread) in spreads.items():
        _scale_to(model, layer, mean, spread)
    return model


def _scale_to(model: Any, layer: Any, mean: float, spread: float) -> None:
    """Scale a layer's weights so that its outputs on the first image have this mean and standard deviation."""
    outputs: list[Any] = []
    hook = layer.register_forward_hook(lambda _, __, output: outputs.append(output.flatten()))
    with torch.no_grad():
        model([tensor_of(IMAGES[0])])
        values = torch.cat(outputs)
        layer.weight *= spread / values.std()
        layer.bias += mean - values.mean() * spread / values.std()
    hook.remove()


def tensor_of(image: np.ndarray) -> Any:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def canonical(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maskrcnn")
    torch.onnx.export(
        model, ([tensor_of(IMAGES[0])],), str(folder / "raw.onnx"), opset_version=17, dynamo=False,
        output_names=["boxes", "labels", "scores", "masks"],
    )  # fmt: skip
    options = PrepareOptions(classes=ClassTable("own", CLASSES, {}))
    prepare(folder / "raw.onnx", folder / "canonical.onnx", options, report=print)
    return folder / "canonical.onnx"


@pytest.fixture(scope="module")
def results(model: Any) -> list[dict[str, Any]]:
    """What torchvision finds, with its masks on the boxes as `parts`."""
    paste, parts = transform.paste_masks_in_image, []

    def keep(masks: Any, boxes: Any, size: Any, padding: int = 1) -> Any:
        parts.append(masks)
        return paste(masks, boxes, size, padding)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(transform, "paste_masks_in_image", keep)
        found = [model([tensor_of(image)])[0] for image in IMAGES]
    return [{**each, "parts": part} for each, part in zip(found, parts, strict=True)]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_large_instances_agree_with_torchvision(results: list[dict[str, Any]], canonical: Path, backend: str) -> None:
    reference = [instances_of(each["boxes"], each["scores"], each["labels"], each["masks"][:, 0]) for each in results]
    found = found_in(canonical, IMAGES, backend=backend)
    assert_agreement(
        f"Mask R-CNN (torchvision), {backend}, masks of {LARGE} pixels or more",
        reference,
        found,
        Bounds(score=0.1, min_pixels=LARGE, min_iou=0.97),
    )


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_all_instances_agree_but_for_the_rounding(results: list[dict[str, Any]], canonical: Path, backend: str) -> None:
    reference = [instances_of(each["boxes"], each["scores"], each["labels"], _pasted(each)) for each in results]
    found = found_in(canonical, IMAGES, backend=backend)
    assert_agreement(
        f"Mask R-CNN (torchvision, masks pasted without rounding boxes), {backend}", reference, found, Bounds(score=0.1)
    )


def _pasted(result: dict[str, Any]) -> Any:
    """torchvision's masks on its boxes as they are: bool `[N, H, W]`."""
    x1, y1, x2, y2 = result["boxes"][:, :, None].unbind(1)
    across = ((torch.arange(WIDTH) + 0.5 - x1) / (x2 - x1))[:, None, :].expand(-1, HEIGHT, -1)
    down = ((torch.arange(HEIGHT) + 0.5 - y1) / (y2 - y1))[:, :, None].expand(-1, -1, WIDTH)
    places = torch.stack([across, down], -1) * 2 - 1
    sampled = torch.nn.functional.grid_sample(
        result["parts"], places, mode="bilinear", padding_mode="border", align_corners=False
    )[:, 0]
    inside = (places >= -1).all(-1) & (places < 1).all(-1)
    return (sampled > 0.5) & inside
