"""DETR with masks (`DetrForSegmentation`); the outputs are those of `queries`.

A softmax over classes and a last column, which is no object, gives each query one class. The published networks have
92 columns: COCO's category numbers 0 to 90 (class table `coco91`) and no object.
"""

from __future__ import annotations

from seg_perception.core.geometry import ResizeSpec

from ..queries import QueryFamily
from . import IMAGENET


def family() -> QueryFamily:
    """Return what `known_families` asks for."""
    return QueryFamily(
        name="detr",
        expects="the outputs of rfdetr with one column more than classes, the last for no object (DETR)",
        pixels=IMAGENET,
        resize=ResizeSpec("letterbox", pad_value=114, anchor="top_left"),
        names=(),
        exporters=frozenset({"detr"}),
        softmax=True,
        deformable=False,
    )
