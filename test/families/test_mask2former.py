"""Mask2Former, MaskFormer and EoMT against the post-processing of Hugging Face's own image processors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families.torchvision_cpu  # noqa: F401  before torchvision, which transformers imports
import layouts.mask2former as layout
import numpy as np
import onnxruntime
import pytest
import torch
import transformers as hf
from colour_model import random_scene
from families.harness import (
    Bounds,
    assert_agreement,
    assert_same_map,
    found_in,
    instances_of,
    outputs_of,
    sharp_images,
)
from families.random_weights import enliven

from seg_perception.core.classes import ClassTable
from seg_perception.core.contract import NO_CLASS
from seg_perception.core.frame import Frame
from seg_perception.offboard.metrics.compact import FrameInstances
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.select import SelectOptions
from seg_perception.onboard.backend.registry import open_backend
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.segmenter import Segmenter

# The size to which the image processors of Mask2Former and MaskFormer bring all masks, whatever the network's.
SIDE = 384
THINGS = ("person", "car", "bus", "truck", "stop sign", "traffic light")
STUFF = ("road", "sidewalk", "sky", "vegetation")
QUERIES = 24
MEAN = torch.tensor([123.675, 116.28, 103.53]).reshape(1, 3, 1, 1)
FACTOR = 1 / torch.tensor([58.395, 57.12, 57.375]).reshape(1, 3, 1, 1)
PANOPTIC = ClassTable("scene", (*THINGS, *STUFF), {}, frozenset(STUFF))
INSTANCES = ClassTable("things", (*THINGS, *STUFF), {})
# The processors find no boxes. Their scores are means over interpolated pixels, not cells, and masks of random weights
# are so rough that this makes a difference; `test_scores` compares like with like.
BOUNDS = Bounds(score=0.5, margin=0.1, box=SIDE, score_difference=0.1)


@dataclass(frozen=True)
class Kind:
    """One of the three architectures.

    Attributes:
        name: for messages.
        network: with random weights.
        processor: the image processor that belongs to it.
        options: of `torch.onnx.export`.
    """

    name: str
    network: Any
    processor: Any
    options: dict[str, Any]


def mask2former() -> Kind:
    backbone = hf.SwinConfig(
        image_size=SIDE, embed_dim=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], window_size=6,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = hf.Mask2FormerConfig(
        backbone_config=backbone, num_labels=len(PANOPTIC.class_names), num_queries=QUERIES, feature_size=32,
        mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=64, encoder_layers=2, decoder_layers=3,
        num_attention_heads=4, dim_feedforward=64,
    )  # fmt: skip
    network = hf.Mask2FormerForUniversalSegmentation(config).eval()
    scale(network, network.model.transformer_module.decoder.mask_predictor.mask_embedder)
    # The bare model: its inner states are outputs, too, and none has a name.
    return Kind("Mask2Former (Swin)", network, hf.Mask2FormerImageProcessor(), {"dynamo": False, "opset_version": 17})


def maskformer() -> Kind:
    backbone = hf.MaskFormerSwinConfig(
        image_size=SIDE, embed_dim=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], window_size=6,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    decoder = hf.DetrConfig(
        num_queries=QUERIES, d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
        encoder_attention_heads=4, decoder_attention_heads=4,
    )  # fmt: skip
    config = hf.MaskFormerConfig(
        backbone_config=backbone, decoder_config=decoder, num_labels=len(PANOPTIC.class_names), fpn_feature_size=32,
        mask_feature_size=32,
    )  # fmt: skip
    network = hf.MaskFormerForInstanceSegmentation(config).eval()
    torch.nn.init.normal_(network.model.transformer_module.queries_embedder.weight, std=4.0)
    scale(network, network.mask_embedder)
    # The other exporter of torch; it writes opset 20 and keeps an input that the network does not look at.
    return Kind("MaskFormer (Swin)", network, hf.MaskFormerImageProcessor(), {"dynamo": True, "external_data": False})


def eomt() -> Kind:
    config = hf.EomtConfig(
        hidden_size=48, num_hidden_layers=4, num_attention_heads=4, image_size=SIDE, patch_size=16, num_blocks=2,
        num_queries=QUERIES, num_labels=len(PANOPTIC.class_names), num_upscale_blocks=2,
    )  # fmt: skip
    network = hf.EomtForUniversalSegmentation(config).eval()
    torch.nn.init.normal_(network.query.weight, std=4.0)
    scale(network, network.mask_head)
    names = ["class_queries_logits", "masks_queries_logits"]
    return Kind("EoMT", network, hf.EomtImageProcessor(), {"dynamo": False, "opset_version": 16, "output_names": names})


def scale(network: Any, embedder: Any) -> None:
    """Let masks have an inside and an outside, and most queries a class."""
    pixels = network_input(IMAGES[:2])
    last = [layer for layer in embedder.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        enliven(network, lambda: network(pixels), {last: (0.0, 1.0)})
        gain = 5.0 / network(pixels).masks_queries_logits.std()
        last.weight *= gain
        last.bias *= gain
        enliven(network, lambda: network(pixels), {network.class_predictor: (0.0, 4.0)})


def blurred(images: Any, width: int = 9) -> Any:
    """Without noise; a trained network's masks are smooth, those of random weights are as rough as the image."""
    values = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    for _ in range(2):
        values = torch.nn.functional.avg_pool2d(values, width, 1, width // 2, count_include_pad=False)
    return values.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def network_input(images: Any) -> Any:
    """As the canonical model computes it, to the last bit: random weights multiply differences."""
    return (torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() - MEAN) * FACTOR


IMAGES = blurred(sharp_images(4, SIDE, SIDE))


@dataclass(frozen=True)
class Exported:
    """A network, its export, and what it says of `IMAGES`.

    Attributes:
        kind: which.
        source: the export.
        outputs: with `class_queries_logits` and `masks_queries_logits`.
    """

    kind: Kind
    source: Path
    outputs: Any


@pytest.fixture(scope="module", params=[mask2former, maskformer, eomt], ids=lambda make: make.__name__)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    kind = request.param()
    path = tmp_path_factory.mktemp("queries") / "source.onnx"
    pixels = network_input(IMAGES)
    with torch.no_grad():
        torch.onnx.export(kind.network, (pixels[:1],), path, **kind.options)
        # One by one, as the export is for one image.
        results = [kind.network(image[None]) for image in pixels]
    keys = ("class_queries_logits", "masks_queries_logits")
    return Exported(
        kind, path, SimpleNamespace(**{key: torch.cat([result[key] for result in results]) for key in keys})
    )


def upsampled(outputs: Any) -> Any:
    """With masks of the network's size, as the processors of two of the three make them first of all."""
    masks = torch.nn.functional.interpolate(
        outputs.masks_queries_logits, size=(SIDE, SIDE), mode="bilinear", align_corners=False
    )
    return SimpleNamespace(class_queries_logits=outputs.class_queries_logits, masks_queries_logits=masks)


def own_instances(kind: Kind, outputs: Any, threshold: float) -> list[FrameInstances]:
    """What the image processor finds, with boxes around its masks."""
    frames = []
    outputs = upsampled(outputs)
    for image in range(len(IMAGES)):
        labels, scores, masks = [], [], []
        # Query by query where it would paint all of them into one map. Never more than one class is above a half.
        alone = isinstance(kind.processor, hf.EomtImageProcessor)
        parts = [slice(query, query + 1) for query in range(QUERIES)] if alone else [slice(None)]
        for part in parts:
            own = SimpleNamespace(**{key: value[image : image + 1, part] for key, value in vars(outputs).items()})
            options = {"size": {"shortest_edge": SIDE, "longest_edge": SIDE}} if alone else {"return_binary_maps": True}
            (found,) = kind.processor.post_process_instance_segmentation(
                own, threshold=threshold, target_sizes=[(SIDE, SIDE)], **options
            )
            if found["segments_info"]:
                maps = found["segmentation"]
                masks.append((maps[None] >= 0 if alone else maps > 0).numpy())
                labels += [segment["label_id"] for segment in found["segments_info"]]
                scores += [segment["score"] for segment in found["segments_info"]]
        inside = np.concatenate(masks)
        frames.append(instances_of([box_of(mask) for mask in inside], scores, labels, inside))
    return frames


def box_of(mask: Any) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_instances(exported: Exported, tmp_path: Path, backend: str) -> None:
    spec = prepare(exported.source, tmp_path / "canonical.onnx", PrepareOptions(classes=INSTANCES))
    assert (spec.family, spec.max_instances, spec.class_map) == ("mask2former", 100, False)
    expected = own_instances(exported.kind, exported.outputs, 0.4)
    found = found_in(tmp_path / "canonical.onnx", IMAGES, 0.4, backend)
    assert_agreement(f"{exported.kind.name}, {backend}", expected, found, BOUNDS)


def test_scores(exported: Exported, tmp_path: Path) -> None:
    """Those of one of the processors, which does not make masks larger before it looks at them, to the last digits.

    It takes as many pairs of query and class as there are queries: none above 0.4 is left out.
    """
    prepare(exported.source, tmp_path / "canonical.onnx", PrepareOptions(classes=INSTANCES))
    own = hf.MaskFormerImageProcessor().post_process_instance_segmentation(exported.outputs, threshold=0.4)
    for image, result in enumerate(own):
        found = outputs_of(tmp_path / "canonical.onnx", IMAGES[image : image + 1])
        expected = sorted(((each["score"], each["label_id"]) for each in result["segments_info"]), reverse=True)
        scores, labels = found.scores[0][found.scores[0] >= 0.4], found.labels[0][found.scores[0] >= 0.4]
        assert len(expected) >= 5
        np.testing.assert_allclose(scores, [score for score, _ in expected], atol=5e-4)
        assert labels.tolist() == [label for _, label in expected]


def test_things_and_class_map(exported: Exported, tmp_path: Path) -> None:
    spec = prepare(exported.source, tmp_path / "canonical.onnx", PrepareOptions(classes=PANOPTIC))
    assert spec.class_map
    assert spec.things == (True,) * len(THINGS) + (False,) * len(STUFF)
    found = np.concatenate([outputs_of(tmp_path / "canonical.onnx", IMAGES[i : i + 1]).class_map for i in range(4)])
    # At the size of the grid, where no two of them interpolate; EoMT's takes the size that the others have built in.
    height, width = found.shape[1:]
    size = {"shortest_edge": height, "longest_edge": width}
    outputs = SimpleNamespace(**vars(exported.outputs), patch_offsets=None)
    own = [
        torch.where(each.segmentation_scores.amax(0) > 0.1, each.segmentation, NO_CLASS).numpy()
        for each in hf.EomtImageProcessor().post_process_semantic_segmentation(
            outputs, [(height, width)] * 4, size, True
        )
    ]
    assert_same_map(f"{exported.kind.name}, grid", np.stack(own), found, 0.999)
    things = found_in(tmp_path / "canonical.onnx", IMAGES, 0.4)
    expected = [stuff_left_out(frame) for frame in own_instances(exported.kind, exported.outputs, 0.4)]
    assert_agreement(f"{exported.kind.name}, things", expected, things, BOUNDS)


def stuff_left_out(frame: FrameInstances) -> FrameInstances:
    kept = frame.labels < len(THINGS)
    masks = tuple(mask for mask, keep in zip(frame.masks, kept, strict=True) if keep)
    return FrameInstances(frame.boxes_camera[kept], frame.scores[kept], frame.labels[kept], masks)


@pytest.mark.parametrize(
    "processor", [hf.Mask2FormerImageProcessor, hf.MaskFormerImageProcessor, hf.EomtImageProcessor]
)
def test_a_whole_scene(tmp_path: Path, processor: Callable[[], Any]) -> None:
    """Objects on a road, painted by the pipeline, against the panoptic map of the image processors.

    Of a network that was not trained, the masks of many queries overlap everywhere, and then the two differ: the
    processors give each pixel to the surest query, painting to the best instance. So this network is the layout's.
    """
    source = tmp_path / "source.onnx"
    source.write_bytes(layout.mask2former(SIDE, SIDE).SerializeToString())
    prepare(source, tmp_path / "canonical.onnx", layout.OPTIONS)
    scene = random_scene(np.random.default_rng(0), SIDE, SIDE, 8, (32, 96))
    session = onnxruntime.InferenceSession(source.read_bytes(), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    raw = session.run(None, {"pixel_values": network_input(scene.image[None]).numpy()})
    outputs = SimpleNamespace(**{name: torch.from_numpy(value) for name, value in zip(names, raw, strict=True)})
    road = layout.CLASSES.index("road")
    options: dict[str, Any] = {"label_ids_to_fuse": {road}}
    if processor is hf.EomtImageProcessor:
        options = {"stuff_classes": [road], "size": {"shortest_edge": SIDE, "longest_edge": SIDE}}
    (own,) = processor().post_process_panoptic_segmentation(
        outputs, threshold=0.5, target_sizes=[(SIDE, SIDE)], **options
    )
    assert len(own["segments_info"]) == len(scene.boxes) + 1
    expected = np.zeros((SIDE, SIDE), np.uint8)
    for segment in own["segments_info"]:
        expected[own["segmentation"].numpy() == segment["id"]] = segment["label_id"] + 1

    opened = open_backend(tmp_path / "canonical.onnx", "onnxruntime", RunOptions(threads=1))
    select = SelectOptions(0.5, group_iou=1.0, keep_other=True)
    segmenter = Segmenter(opened, ClassTable("none", layout.CLASSES, {}), SegmenterOptions(select))
    (found,) = segmenter.segment([Frame.from_bgr(scene.image[..., ::-1])], semantic=True)
    segmenter.close()
    assert found.semantic_map is not None
    assert_same_map(f"{processor.__name__}, whole scene", expected, found.semantic_map, 0.98)
