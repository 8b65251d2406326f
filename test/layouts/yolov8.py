"""YOLOv8-seg: the colour model's own layout."""

from __future__ import annotations

from pathlib import Path

from colour_model import save_colour_model


def export(path: Path) -> None:
    """Write `output0` `[1, 4 + 4 + 32, N]` and `output1` `[1, 32, 48, 80]`."""
    save_colour_model(path, fault="predictions")
