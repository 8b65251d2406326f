"""torchvision's compiled operators in Python, where its wheel finds no CUDA libraries to load them with.

PyPI has torchvision only as a build for CUDA. Next to a CPU build of torch its library of operators does not load, and
`import torchvision` fails because `nms` is missing. Imported first, this module declares the operators that the
models here use and computes `nms` and `roi_align` as they are defined. Where the library loads it does nothing.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch


def _library_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed: run `make test-families`, which sets everything up")
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    files = [file for file in Path(spec.origin).parent.glob("_C*") if file.name.endswith((*suffixes, ".so"))]
    try:
        for file in files:
            torch.ops.load_library(str(file))
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")


def _nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    order = torch.argsort(scores, descending=True, stable=True)
    kept: list[int] = []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while order.numel():
        best, order = order[0], order[1:]
        kept.append(int(best))
        low = torch.maximum(boxes[best, :2], boxes[order, :2])
        high = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        order = order[shared / (area[best] + area[order] - shared) <= iou_threshold]
    return torch.tensor(kept, dtype=torch.int64)


def _roi_align(
    features: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    from torchvision.ops.roi_align import _roi_align as in_python

    pooled: torch.Tensor = in_python(
        features, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned
    )
    return pooled


if not _library_loads():
    # Kept alive: the operators disappear with it.
    LIBRARY = torch.library.Library("torchvision", "DEF")
    LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    LIBRARY.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    # torchvision describes this one when it is imported; the models here do not call it.
    LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    LIBRARY.impl("nms", _nms, "CPU")
    LIBRARY.impl("roi_align", _roi_align, "CPU")

import torchvision  # noqa: E402
from torchvision.ops import boxes  # noqa: E402


def _present() -> bool:
    return True


def _assert_present() -> None:
    pass


if not torchvision.extension._has_ops():
    # By its name, because `torchvision.ops.roi_align` is the function that is in the module.
    module: Any
    for module in (boxes, sys.modules["torchvision.ops.roi_align"]):
        module._assert_has_ops, module._has_ops = _assert_present, _present
