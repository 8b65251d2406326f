"""The course of a training as an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

from seg_perception.core.classes import ROAD_GROUPS

mpl.use("Agg")
from matplotlib import pyplot as plt


def draw_curves(history: Sequence[Mapping[str, float]], sets: Sequence[str], path: Path) -> None:
    """Draw losses and average precision over the epochs.

    Args:
        history: rows as `Training` keeps them.
        sets: names of the validation sets.
        path: of the PNG.
    """
    epochs = [row["epoch"] for row in history]
    figure, (losses, *others) = plt.subplots(1, 1 + len(sets), figsize=(5 + 5 * len(sets), 4), layout="constrained")
    for name in ("classes", "boxes", "masks"):
        losses.plot(epochs, [row.get(name, float("nan")) for row in history], marker=".", label=name)
    losses.set(xlabel="epoch", ylabel="loss", yscale="log", title="training")
    for name, axes in zip(sets, others, strict=True):
        for group in ROAD_GROUPS:
            key = f"{name}/16 x 16 or more/mask/{group}/at_50"
            values = [row.get(key, float("nan")) for row in history]
            axes.plot(epochs, values, marker=".", label=group.replace("_", " "))
        axes.set(xlabel="epoch", ylabel="mask AP50", ylim=(0, 1), title=f"{name}, objects of 16 x 16 pixels or more")
    for axes in (losses, *others):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)
