"""Masks between COCO's forms (polygons, run lengths) and `CompactMask`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .average_precision import require_pycocotools
from .compact import CompactMask
from .masks import counts_text


def encode_compact(mask: CompactMask) -> dict[str, Any]:
    """What `encode_rle` makes of the same mask, at a cost that follows its rectangle and not the image."""
    height, width = mask.size
    region = np.zeros((mask.right - mask.left, mask.bottom - mask.top + 2), np.int8)
    region[:, 1:-1] = mask.region().T
    # Where runs begin (1) and end (-1), column by column.
    change = np.diff(region, axis=1)
    columns, rows = np.nonzero(change)
    places = (columns + mask.left).astype(np.int64) * height + rows + mask.top
    if mask.top == 0 and mask.bottom == height:
        # A run that ends with its column goes on where the next column begins.
        values, counts = np.unique(places, return_counts=True)
        places = values[counts == 1]
    lengths = np.diff(np.concatenate([[0], places, [height * width]]).astype(np.int64))
    # A mask that ends with the image has no run of pixels outside after it.
    if len(lengths) > 1 and lengths[-1] == 0:
        lengths = lengths[:-1]
    return {"size": [height, width], "counts": counts_text(lengths)}


def whole_polygons(polygons: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Those that have three corners; pycocotools reads past the end of what is shorter, or takes it for a box."""
    return [polygon for polygon in polygons if len(polygon) >= 6]


def decode_segmentation(
    segmentation: Sequence[Sequence[float]] | Mapping[str, Any], height: int, width: int
) -> CompactMask:
    """The mask that the `segmentation` of a COCO annotation stands for.

    Args:
        segmentation: polygons, or run lengths as numbers or as text.
        height, width: of the image in pixels.

    Raises:
        ValueError: it is none of these, or of another size.
        BackendUnavailable: pycocotools is not installed.
    """
    require_pycocotools()
    from pycocotools import mask as coco_mask

    try:
        if isinstance(segmentation, Mapping):
            runs: Any = dict(segmentation)
            if list(runs["size"]) != [height, width]:
                raise ValueError(f"expected run lengths of {[height, width]}, got {runs['size']}")
            if isinstance(runs["counts"], list):
                # pycocotools would leave what is missing as memory happened to be.
                if min(runs["counts"], default=0) < 0 or sum(runs["counts"]) != height * width:
                    raise ValueError(
                        f"expected run lengths of {height * width} pixels in all, got {sum(runs['counts'])}"
                    )
                runs = coco_mask.frPyObjects(runs, height, width)
        else:
            polygons = [list(map(float, polygon)) for polygon in whole_polygons(segmentation)]
            if not polygons:
                return CompactMask.of(np.zeros((height, width), bool))
            runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        pixels: NDArray[np.uint8] = coco_mask.decode(runs)
    except ValueError:
        raise
    # pycocotools raises what it likes.
    except Exception as error:
        raise ValueError(
            f"segmentation: expected polygons or run lengths, got {segmentation!r:.80}: {error}"
        ) from error
    return CompactMask.of(pixels.astype(bool))
