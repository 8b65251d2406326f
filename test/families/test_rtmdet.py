"""RTMDet-Ins out of mmdet, exported as it is and by mmdeploy, against mmdet's own post-processing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from families import mmcv_operators  # noqa: F401

# isort: split
import mmdet
import mmdet.models
import numpy as np
import onnxruntime
import pytest
import torch
from families.harness import Bounds, assert_agreement, found_in, instances_of, sharp_images
from families.random_weights import enliven
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from seg_perception.core.classes import ClassTable
from seg_perception.core.contract import ModelSpec
from seg_perception.offboard.toolchain.head import HeadOptions
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

HEIGHT, WIDTH, SCORE, IOU, ROWS = 192, 256, 0.3, 0.6, 200
IMAGES = sharp_images(3, HEIGHT, WIDTH)
CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs" / "rtmdet"
BOUNDS = Bounds(SCORE)
# As in mmdeploy's own configuration for RTMDet-Ins; the model's override some.
_POST_PROCESSING = {
    "score_threshold": 0.05,
    "iou_threshold": 0.5,
    "max_output_boxes_per_class": 200,
    "pre_top_k": 5000,
    "keep_top_k": 100,
    "background_label_id": -1,
    "export_postprocess_mask": True,
}


def network() -> torch.nn.Module:
    """With random weights that find something."""
    torch.manual_seed(0)
    config = Config.fromfile(CONFIGS / "rtmdet-ins_tiny_8xb32-300e_coco.py").model
    config.backbone.init_cfg = None
    config.test_cfg.update(nms_pre=3000, max_per_img=ROWS, nms={"type": "nms", "iou_threshold": IOU})
    DefaultScope.get_instance("families", scope_name="mmdet")
    # Synchronised between GPUs in training; not to be had without one.
    model = MODELS.build(_with_plain_norms(config)).eval()
    head = model.bbox_head
    spread = {head.mask_head.projection: (0.0, 2.0)}
    for layers, values in ((head.rtm_cls, (-8.5, 1.7)), (head.rtm_reg, (3.0, 1.5)), (head.rtm_kernel, (0.0, 0.5))):
        spread.update(dict.fromkeys(layers, values))
    enliven(model, lambda: model(network_input(), mode="tensor"), spread)
    return model


def _with_plain_norms(config: Config) -> Config:
    for part in (config, config.backbone, config.neck, config.bbox_head):
        if "norm_cfg" in part:
            part.norm_cfg = {"type": "BN"}
    return config


def network_input() -> torch.Tensor:
    """The images as mmdet's own preprocessing makes them: blue first, normalised."""
    mean, std = np.array([103.53, 116.28, 123.675]), np.array([57.375, 57.12, 58.395])
    pixels = (IMAGES[..., ::-1] - mean) / std
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32))


@cache
def reference():
    """By mmdet's own post-processing."""
    model = network()
    with torch.no_grad():
        heads = model(network_input(), mode="tensor")
        metas = [{"img_shape": (HEIGHT, WIDTH)}] * len(IMAGES)
        found = model.bbox_head.predict_by_feat(*heads, batch_img_metas=metas)
    return [cut(each.bboxes.numpy(), each.scores, each.labels, each.masks.numpy()) for each in found]


def cut(boxes, scores, labels, masks):
    """Without what lies outside the boxes: mmdet keeps it, canonical models do not have it."""
    x, y = np.arange(WIDTH) + 0.5, np.arange(HEIGHT)[:, None] + 0.5
    left, top, right, bottom = boxes.T[..., None, None]
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    return instances_of(boxes, scores, labels, (masks > 0.5) & inside)


class _Heads(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor):
        return self.model(image, mode="tensor")


class _Deployed(_Heads):
    def forward(self, image: torch.Tensor):
        head = self.model.bbox_head
        heads = head(self.model.extract_feat(image))
        return head.predict_by_feat(*heads, batch_img_metas=[{"img_shape": (HEIGHT, WIDTH)}])


def exported_heads(path: Path, opset: int) -> Path:
    """What `torch.onnx.export` writes of mmdet's model."""
    image = torch.randn(1, 3, HEIGHT, WIDTH)
    torch.onnx.export(_Heads(network()), (image,), path, opset_version=opset, dynamo=False)
    return path


def exported_by_mmdeploy(path: Path, backend: str, opset: int) -> Path:
    """What mmdeploy writes for a backend."""
    import mmdeploy.codebase.mmdet.models
    import mmdeploy.mmcv.ops
    import mmdeploy.pytorch  # noqa: F401
    from mmdeploy.core import RewriterContext, patch_model

    outputs = ["dets", "labels", "masks"]
    settings = Config(
        {
            "onnx_config": {"type": "onnx", "opset_version": opset, "input_shape": None, "output_names": outputs},
            "codebase_config": {
                "type": "mmdet",
                "task": "ObjectDetection",
                "model_type": "end2end",
                "post_processing": _POST_PROCESSING,
            },
            "backend_config": {"type": backend},
        }
    )
    model = patch_model(network(), cfg=settings, backend=backend)
    with (
        torch.no_grad(),
        _without_gpu(model.bbox_head.prior_generator),
        RewriterContext(cfg=settings, backend=backend, opset=opset),
    ):
        torch.onnx.export(
            _Deployed(model),
            (torch.randn(1, 3, HEIGHT, WIDTH),),
            path,
            input_names=["input"],
            output_names=outputs,
            opset_version=opset,
            dynamo=False,
            autograd_inlining=False,
        )
    return path


@contextmanager
def _without_gpu(priors) -> Iterator[None]:
    """mmdeploy asks for the positions of the masks' cells on the default device, which is a GPU."""
    original = priors.single_level_grid_priors
    priors.single_level_grid_priors = lambda *given, **named: original(*given, **{"device": "cpu", **named})
    yield
    del priors.single_level_grid_priors


def prepared(source: Path) -> tuple[Path, ModelSpec]:
    canonical = source.with_suffix(".canonical.onnx")
    options = PrepareOptions(
        HeadOptions(nms_iou=IOU, max_instances=ROWS, nms_candidates=3000, nms_steps=32),
        classes=ClassTable("numbers", tuple(map(str, range(80))), {}),
    )
    return canonical, prepare(source, canonical, options)


def check(subject: str, source: Path, expected, backends=("onnxruntime", "openvino"), bounds=BOUNDS) -> None:
    canonical, spec = prepared(source)
    assert (spec.mask_height, spec.mask_width) == (HEIGHT // 8, WIDTH // 8)
    for backend in backends:
        found = found_in(canonical, IMAGES, SCORE - BOUNDS.margin, backend)
        assert_agreement(f"{subject}, {backend}", expected, found, bounds)


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_heads(opset, tmp_path):
    check(f"RTMDet-Ins tiny, heads, opset {opset}", exported_heads(tmp_path / "heads.onnx", opset=opset), reference())


@pytest.mark.parametrize(("backend", "opset"), [("onnxruntime", 11), ("onnxruntime", 17), ("tensorrt", 13)])
def test_mmdeploy(backend, opset, tmp_path):
    source = exported_by_mmdeploy(tmp_path / "deployed.onnx", backend, opset)
    check(f"RTMDet-Ins tiny, mmdeploy for {backend}, opset {opset}", source, reference())


def test_what_mmdeploys_own_graph_finds(tmp_path):
    source = exported_by_mmdeploy(tmp_path / "deployed.onnx", "onnxruntime", 11)
    session = onnxruntime.InferenceSession(source)
    expected = []
    for image in network_input().numpy():
        rows, labels, masks = (each[0] for each in session.run(None, {"input": image[None]}))
        boxes = np.clip(rows[:, :4], 0, (WIDTH, HEIGHT) * 2)
        expected.append(cut(boxes, rows[:, 4], labels, masks))
    # It suppresses before boxes are cut at the border of the image, mmdet and we do so afterwards.
    bounds = replace(BOUNDS, faults=2)
    check("RTMDet-Ins tiny, mmdeploy's own graph", source, expected, ["onnxruntime"], bounds)
