"""D-FINE-seg, and DEIM, EC and RT-DETR with masks as LibreYOLO exports them; the outputs are those of `queries`.

As RF-DETR-Seg, but that the network sees RGB / 255 without ImageNet's mean and deviation, and that no column is spare.
"""

from __future__ import annotations

from seg_perception.core.geometry import ResizeSpec

from ..queries import QueryFamily
from . import PixelSpec


def family() -> QueryFamily:
    """Return what `known_families` asks for."""
    return QueryFamily(
        name="dfine",
        expects="the outputs of rfdetr from a network that sees RGB / 255 (D-FINE-seg, DEIM)",
        pixels=PixelSpec(),
        resize=ResizeSpec("stretch"),
        names=(frozenset({"logits", "boxes", "masks"}), frozenset({"boxes", "scores", "masks"})),
        exporters=frozenset({"dfine", "deim", "deimv2", "ec", "gtr", "rtdetr", "rtdetrv2", "rtdetrv4"}),
    )
