"""The course of a training as an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

from seg_perception.core.classes import ROAD_GROUPS

mpl.use("Agg")
from matplotlib import pyplot as plt


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw losses and average precision over the epochs.

    Args:
        history: rows as `Training` keeps them.
        path: of the PNG.
    """
    epochs = [row["epoch"] for row in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in ("classes", "boxes", "masks"):
        left.plot(epochs, [row.get(name, float("nan")) for row in history], marker=".", label=name)
    left.set(xlabel="epoch", ylabel="loss", yscale="log", title="training")
    for group in ROAD_GROUPS:
        key = f"16 x 16 or more/mask/{group}/at_50"
        right.plot(epochs, [row.get(key, float("nan")) for row in history], marker=".", label=group.replace("_", " "))
    right.set(xlabel="epoch", ylabel="mask AP50", ylim=(0, 1), title="validation, objects of 16 x 16 pixels or more")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)
