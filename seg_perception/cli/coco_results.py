"""COCO results of `seg_perception image --coco`, and how well the painted maps match them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.class_tables import category_ids, find_class_table
from seg_perception.core.errors import ConfigurationError, SourceError
from seg_perception.core.instances import Segmentation
from seg_perception.offboard.evaluation.collect import coco_results, frame_instances
from seg_perception.offboard.metrics.masks import map_iou
from seg_perception.onboard.backend.base import Job
from seg_perception.onboard.pipeline.segmenter import Segmenter


class CocoResults:
    """Collects one entry per detection: every class, no selection, each with its own whole mask."""

    def __init__(self, segmenter: Segmenter, score: float, classes: str) -> None:
        """Begin.

        Args:
            segmenter: whose detections will come.
            score: lowest score of an entry.
            classes: the class table with the data set's category ids.

        Raises:
            ClassTableError: the table has no ids, or none for a class of the model.
        """
        names = segmenter.spec.class_names
        self._categories = category_ids(find_class_table(classes, names), names)
        self._score = score
        self._entries: list[dict[str, Any]] = []
        self._overlaps: list[NDArray[np.float64]] = []

    @staticmethod
    def image_id(name: str) -> int:
        """The last integer in a file name.

        Raises:
            SourceError: there is none.
        """
        numbers = re.findall(r"\d+", name)
        if not numbers:
            raise SourceError(f"--coco: expected an integer (the image id) in each file name, got {name!r}")
        return int(numbers[-1])

    def add(self, image_id: int, job: Job, result: Segmentation) -> None:
        """Add the detections of one image, and compare its map with their masks."""
        instances = frame_instances(job, self._score)
        self._entries += coco_results(instances, image_id, self._categories)
        shown = dict(zip(result.instances.rows.tolist(), result.instances.ids.tolist(), strict=True))
        # Scores descend, so instance i is row i.
        for row, mask in enumerate(instances.masks):
            if row in shown and mask.area:
                numbers = np.array([shown[row]], np.uint16)
                self._overlaps.append(map_iou(result.instance_map.pixels, numbers, mask.full()[None]))

    def write(self, path: Path) -> None:
        """Write the entries.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._entries), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"--coco {path}: cannot be written ({error.strerror})") from error

    def summary(self) -> str:
        """Return how many entries there are, and how well the maps match."""
        if not self._overlaps:
            return f"{len(self._entries)} COCO results"
        overlaps = np.concatenate(self._overlaps)
        return (
            f"{len(self._entries)} COCO results; map against own masks, {len(overlaps)} instances shown: "
            f"mean IoU {overlaps.mean():.4f}, {100 * (overlaps >= 0.9).mean():.1f} % at 0.9 or more "
            "(the rest is hidden behind other instances)"
        )
