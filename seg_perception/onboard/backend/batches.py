"""Any number of images through a model that takes a fixed number at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[np.generic]]


def run_in_parts(images: NDArray[np.uint8], batch: int, run: Callable[[NDArray[np.uint8]], Arrays]) -> Arrays:
    """Run `images` `[B, H, W, 3]` in parts of `batch`, the last one filled up by repeating its last image.

    Args:
        images: uint8, B at least 1.
        batch: images per run.
        run: takes `[batch, H, W, 3]`, gives the outputs; its arrays may be overwritten by the next call.

    Returns:
        The outputs with first axis B: those of `run` itself where one run is enough, else copies.
    """
    if len(images) == batch:
        return run(images)
    parts: list[list[NDArray[np.generic]]] = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        wanted = len(part)
        if wanted < batch:
            part = np.concatenate([part, np.repeat(part[-1:], batch - wanted, axis=0)])
        parts.append([array[:wanted].copy() for array in run(part)])
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
