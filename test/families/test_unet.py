"""Class maps against the best class of each pixel, as torch computes it from the same network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import families.torchvision_cpu  # noqa: F401  before torchvision
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from families.harness import assert_same_map, outputs_of, sharp_images
from families.random_weights import enliven
from torchvision.models import segmentation

from seg_perception.core.classes import ClassTable
from seg_perception.core.contract import NO_CLASS
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

HEIGHT, WIDTH = 128, 192
IMAGES = sharp_images(3, HEIGHT, WIDTH)
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def _torchvision(build: Callable[..., Any], **options: Any) -> Any:
    return build(weights=None, weights_backbone=None, num_classes=21, **options)


MODELS: dict[str, tuple[Callable[[], Any], int]] = {
    "segmentation_models_pytorch Unet": (lambda: smp.Unet("resnet18", encoder_weights=None, classes=12), 12),
    "segmentation_models_pytorch UnetPlusPlus": (
        lambda: smp.UnetPlusPlus("resnet18", encoder_weights=None, classes=5, activation="softmax2d"),
        5,
    ),
    "segmentation_models_pytorch Segformer": (lambda: smp.Segformer("mit_b0", encoder_weights=None, classes=19), 19),
    "segmentation_models_pytorch Unet, one class": (lambda: smp.Unet("resnet18", encoder_weights=None, classes=1), 1),
    "torchvision deeplabv3_mobilenet_v3_large": (lambda: _torchvision(segmentation.deeplabv3_mobilenet_v3_large), 21),
    "torchvision fcn_resnet50, auxiliary output": (
        lambda: _torchvision(segmentation.fcn_resnet50, aux_loss=True),
        21,
    ),
    "torchvision lraspp_mobilenet_v3_large": (lambda: _torchvision(segmentation.lraspp_mobilenet_v3_large), 21),
}


def _network(build: Callable[[], Any]) -> Any:
    """Random weights with which classes differ from place to place."""
    torch.manual_seed(5)
    torch.set_num_threads(1)
    model = build().eval()
    enliven(model, lambda: model(_tensor()), {})
    return model


def _tensor() -> Any:
    return torch.from_numpy((IMAGES - MEAN) / STD).permute(0, 3, 1, 2).float()


def _logits(model: Any) -> np.ndarray:
    """By the model itself, `[B, C, H, W]`."""
    with torch.no_grad():
        out = model(_tensor())
    return (out["out"] if isinstance(out, dict) else out).numpy()


@pytest.mark.parametrize("subject", MODELS)
def test_class_map(subject: str, tmp_path: Path) -> None:
    build, classes = MODELS[subject]
    model = _network(build)
    torch.onnx.export(model, (_tensor()[:1],), str(tmp_path / "raw.onnx"), opset_version=17, dynamo=False)
    names = tuple(f"class {index}" for index in range(classes))
    prepare(tmp_path / "raw.onnx", tmp_path / "canonical.onnx", PrepareOptions(classes=ClassTable("own", names, {})))
    logits = _logits(model)
    reference = logits.argmax(1) if classes > 1 else np.where(logits[:, 0] > 0, 0, NO_CLASS)
    for backend in ("onnxruntime", "openvino"):
        found = outputs_of(tmp_path / "canonical.onnx", IMAGES, backend).class_map
        assert_same_map(f"{subject}, {backend}", reference, found, share=0.999)
