"""RF-DETR-Seg, as the package `rfdetr` exports it; the outputs are those of `queries`.

Each class has a sigmoid by itself. The result is the best of all pairs of a query and a class, so that one query may
be found as several classes.

Published checkpoints have 91 columns, COCO's category numbers 0 to 90 (class table `coco91`). Checkpoints trained on
other data have one column more than classes, the last, which means nothing: give the table of the classes alone.
"""

from __future__ import annotations

from seg_perception.core.geometry import ResizeSpec

from ..queries import QueryFamily
from . import IMAGENET


def family() -> QueryFamily:
    """Return what `known_families` asks for."""
    return QueryFamily(
        name="rfdetr",
        expects="three float outputs for the same queries Q: boxes [B, Q, 4], class logits [B, Q, classes] and mask "
        "logits [B, Q, h, w] (RF-DETR-Seg)",
        pixels=IMAGENET,
        resize=ResizeSpec("stretch"),
        names=(frozenset({"dets", "labels", "masks"}),),
        exporters=frozenset({"rfdetr"}),
        spare=True,
        patches=True,
    )
