"""mmcv's compiled operators, of which mmdet's RTMDet needs one, where PyPI's `mmcv-lite` brings none.

Imported first, this module stands in for them: mmdet names many operators and imports them all. `nms` is computed by
torchvision; calling another one is an error.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import torch
from families import torchvision_cpu  # noqa: F401
from torchvision.ops import boxes as torchvision_boxes


def _nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
    assert offset == 0
    return torchvision_boxes.nms(boxes, scores, iou_threshold)


class _Operators(types.ModuleType):
    nms = staticmethod(_nms)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def operator(*_: Any, **__: Any) -> Any:
            raise NotImplementedError(f"mmcv's operator {name} is compiled, and not to be had from PyPI")

        return operator


sys.modules["mmcv._ext"] = _Operators("mmcv._ext")
