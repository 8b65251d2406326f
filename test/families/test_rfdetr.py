"""RF-DETR-Seg against the package's own post-processing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families.torchvision_cpu  # noqa: F401  before torchvision, which rfdetr imports
import numpy as np
import pytest
import torch
from families.harness import Bounds, assert_agreement, found_in, instances_of, sharp_images
from families.random_weights import enliven

from seg_perception.core.class_tables import resolve_class_table
from seg_perception.core.classes import ClassTable
from seg_perception.offboard.metrics.compact import FrameInstances
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

MEAN = torch.tensor([123.675, 116.28, 103.53]).reshape(1, 3, 1, 1)
FACTOR = 1 / torch.tensor([58.395, 57.12, 57.375]).reshape(1, 3, 1, 1)
# Height and width; the package's own is 312 x 312.
SIZES = [(312, 312), (240, 312)]


def network_input(images: Any) -> Any:
    """As the canonical model computes it, to the last bit: random weights multiply differences."""
    return (torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() - MEAN) * FACTOR


@pytest.fixture(scope="module")
def model() -> Any:
    """The package's smallest model with masks, with random weights."""
    from rfdetr import RFDETRSegNano

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = RFDETRSegNano(pretrain_weights=None)
    network = model.model.model.eval()
    images = network_input(sharp_images(2, *SIZES[0]))
    masks = network.segmentation_head
    enc_boxes, boxes = network.transformer.enc_out_bbox_embed[0].layers[-1], network.bbox_embed.layers[-1]
    for layer in (enc_boxes, boxes):
        torch.nn.init.normal_(layer.weight)
    # Proposals first: everything behind them depends on which they are.
    stages: list[dict[Any, tuple[float, float]]] = [
        {network.transformer.enc_out_class_embed[0]: (0.0, 2.0), enc_boxes: (0.5, 0.7)},
        {boxes: (0.5, 0.5), network.class_embed: (-4.0, 1.5)},
        {masks.query_features_proj: (0.0, 1.0), masks.spatial_features_proj: (0.0, 0.2)},
    ]
    for spread in stages:
        enliven(network, lambda: network(images), spread)
    return model


def reference(model: Any, images: Any, spare: bool = False) -> list[FrameInstances]:
    """What the package finds in images of the network's size, each mask within its box."""
    height, width = images.shape[1:3]
    frames = []
    for image in images:
        with torch.no_grad():
            outputs = model.model.model(network_input(image[None]))
            if spare:
                outputs["pred_logits"] = outputs["pred_logits"][..., :-1]
            (found,) = model.model.postprocess(outputs, target_sizes=torch.tensor([[height, width]]))
        masks = found["masks"][:, 0].numpy() & inside_of(found["boxes"].numpy(), height, width)
        frames.append(instances_of(found["boxes"], found["scores"], found["labels"], masks))
    return frames


def inside_of(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels whose centres lie in each box: the masks of random weights are everywhere."""
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    x1, y1, x2, y2 = (side[:, None, None] for side in boxes.T)
    inside: np.ndarray = (x >= x1) & (x < x2) & (y[:, None] >= y1) & (y[:, None] < y2)
    return inside


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: "x".join(map(str, size)))
def exported(model: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The package's own export, and images of its size."""
    path = model.export(output_dir=str(tmp_path_factory.mktemp("rfdetr")), shape=request.param, verbose=False)
    return Path(path), clear_images(model.model.model, sharp_images(10, *request.param, seed=1), 4)


def clear_images(network: Any, images: Any, count: int) -> Any:
    """The images whose proposals are least alike.

    The rank of a proposal decides which query it goes to. Where two of them are almost equal, the last bit of the
    arithmetic decides, and with random weights nothing is the same behind it.
    """
    seen: list[Any] = []
    layer = network.transformer.enc_out_class_embed[0]
    hook = layer.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    gaps = []
    with torch.no_grad():
        for image in images:
            seen.clear()
            network(network_input(image[None]))
            # The first call is that for all positions; those that go on, and the next one, count.
            best = seen[0].max(1).values.sort(descending=True).values[: 100 + 1]
            gaps.append(float(-best.diff().max()))
    hook.remove()
    return images[np.argsort(gaps)[-count:]]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_coco_checkpoint(model: Any, exported: tuple[Path, Any], tmp_path: Path, backend: str) -> None:
    source, images = exported
    options = PrepareOptions(classes=resolve_class_table("coco91", ()))
    spec = prepare(source, tmp_path / "canonical.onnx", options)
    assert (spec.family, spec.max_instances, len(spec.class_names)) == ("rfdetr", 100, 91)
    found = found_in(tmp_path / "canonical.onnx", images, backend=backend)
    subject = f"RF-DETR-Seg Nano {spec.network_height} x {spec.network_width}, {backend}"
    assert_same(subject, reference(model, images), found)


def test_fine_tuned_checkpoint_without_the_spare_column(model: Any, exported: tuple[Path, Any], tmp_path: Path) -> None:
    source, images = exported
    table = ClassTable("own", tuple(f"class {number}" for number in range(90)), {})
    spec = prepare(source, tmp_path / "canonical.onnx", PrepareOptions(classes=table))
    assert (spec.max_instances, len(spec.class_names)) == (100, 90)
    found = found_in(tmp_path / "canonical.onnx", images)
    assert_same("RF-DETR-Seg Nano, 90 classes", reference(model, images, spare=True), found)


def assert_same(subject: str, expected: list[FrameInstances], found: list[FrameInstances]) -> None:
    # With random weights, some queries find nearly the same; which is whose counterpart is then a matter of chance.
    assert_agreement(subject, expected, found, Bounds(score=0.25, at_least=50, score_difference=1.0))
    for one, other in zip(expected, found, strict=True):
        first, second = (np.sort(frame.scores)[::-1][:50] for frame in (one, other))
        np.testing.assert_allclose(first, second, atol=1e-3)
