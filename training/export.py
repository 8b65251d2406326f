"""The trained network as a canonical model, by way of the toolchain that users have for their own."""

from __future__ import annotations

import copy
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from seg_perception.core.class_tables import find_class_table, load_class_table
from seg_perception.core.contract import METADATA_KEY, ModelSpec
from seg_perception.core.files import write_atomically
from seg_perception.offboard.toolchain.head import HeadOptions
from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

from .network import StreetNano

# Classes of the model: the road groups themselves.
CLASSES = "road_groups"
# What it is, and the family whose layout its outputs have on their way through the toolchain.
FAMILY, LAYOUT = "street-nano", "yolov8"


class ForExport(nn.Module):
    """The network with decoded boxes: outputs as the toolchain's family `yolov8` expects them."""

    def __init__(self, network: StreetNano) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Run it.

        Args:
            images: float `[B, 3, H, W]`, RGB, 0 to 1.

        Returns:
            Predictions `[B, 4 + C + P, N]`: centre x, centre y, width, height in network pixels, scores 0 to 1,
            coefficients; and prototypes `[B, P, h, w]`.
        """
        raw = self.network(images)
        corners = raw.corners()
        low, high = corners[:, :2], corners[:, 2:]
        boxes = torch.cat(((low + high) / 2, high - low), 1)
        return torch.cat((boxes, raw.classes.sigmoid(), raw.coefficients), 1), raw.prototypes


def fused(network: StreetNano) -> StreetNano:
    """A copy for inference, its normalisations folded into the convolutions before them."""
    network = copy.deepcopy(network).eval().cpu()
    for module in network.modules():
        if isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[1], nn.BatchNorm2d):
            module[0] = nn.utils.fusion.fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()
    return network


def export_canonical(
    network: StreetNano, destination: Path, size: tuple[int, int] = (384, 640), head: HeadOptions | None = None
) -> None:
    """Write a canonical model.

    Args:
        network: trained.
        destination: the ONNX file.
        size: height and width of the input.
        head: suppression and number of instances.
    """
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "street-nano.onnx"
        export_raw(network, raw, size)
        table = load_class_table(find_class_table(CLASSES, ()))
        prepare(raw, destination, PrepareOptions(head or HeadOptions(), table, LAYOUT))
    name_family(destination)


def name_family(path: Path) -> None:
    """Call a model by its own name: only the layout of its outputs is that of another family."""
    model = onnx.load(path)
    for item in model.metadata_props:
        if item.key == METADATA_KEY:
            item.value = replace(ModelSpec.from_json(item.value, str(path)), family=FAMILY).to_json()
    write_atomically(path, model.SerializeToString())


def export_raw(network: StreetNano, destination: Path, size: tuple[int, int]) -> None:
    """Write the network as PyTorch exports it; the batch axis is left open."""
    with warnings.catch_warnings():
        # The exporter that is to replace this one writes the batch size into the graph's constants.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            ForExport(fused(network)), (torch.zeros(1, 3, *size),), str(destination), dynamo=False, opset_version=17,
            input_names=["images"], output_names=["predictions", "prototypes"],
            dynamic_axes={"images": {0: "batch"}, "predictions": {0: "batch"}, "prototypes": {0: "batch"}},
        )  # fmt: skip
