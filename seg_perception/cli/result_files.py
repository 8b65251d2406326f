"""What `seg_perception image` writes for each frame: overlay, instance map and instances."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import group_name
from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.instances import Segmentation
from seg_perception.onboard.pipeline.overlay import draw_overlay


class ResultFiles:
    """Writes NAME.overlay.jpg, NAME.instances.png (16 bit, pixel = number) and NAME.json; an mp4 for each video.

    Of a model with a class map also NAME.semantic.png (8 bit, pixel = class index + 1, 0 = none).
    """

    def __init__(self, folder: Path, sources: Sequence[Path], class_names: Sequence[str]) -> None:
        """Begin; `sources` are what the frames come from, by number."""
        self._folder = folder
        self._sources = sources
        self._class_names = class_names
        self._names: Counter[str] = Counter()
        self._groups: Counter[str] = Counter()
        self._timings: list[dict[str, float]] = []
        self._videos: dict[int, cv2.VideoWriter] = {}

    def add(self, source: int, name: str, result: Segmentation, fps: float | None) -> None:
        """Write one frame.

        Args:
            source: number of the source it is from; all frames of a video are from one.
            name: of the frame.
            result: what was found.
            fps: frames per second, for a frame of a video.

        Raises:
            ConfigurationError: a file cannot be written.
        """
        unique = self._unique(name)
        overlay = draw_overlay(to_bgr(result.frame), result, self._class_names)
        self._write(f"{unique}.overlay.jpg", overlay)
        self._write(f"{unique}.instances.png", result.instance_map.pixels)
        if result.semantic_map is not None:
            self._write(f"{unique}.semantic.png", result.semantic_map)
        text = json.dumps({"source": str(self._sources[source]), "image": name, **self._description(result)}, indent=1)
        try:
            (self._folder / f"{unique}.json").write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise _not_written(self._folder / f"{unique}.json") from error
        if fps:
            self._video(source, unique.rpartition("_")[0], overlay, fps).write(overlay)
        self._groups.update(group_name(int(group)) for group in result.instances.groups)
        self._timings.append(dict(result.timings))

    def close(self) -> None:
        """Finish the videos."""
        for video in self._videos.values():
            video.release()

    def summary(self) -> str:
        """Counts by road group and the median time of each stage."""
        found = ", ".join(f"{count} {group}" for group, count in self._groups.most_common()) or "nothing found"
        if not self._timings:
            return "no frame was processed"
        medians = {key: 1e3 * float(np.median([each[key] for each in self._timings])) for key in self._timings[0]}
        times = ", ".join(f"{stage} {value:.1f}" for stage, value in medians.items())
        return f"{len(self._timings)} frames: {found}\nmedian ms: {times}\nresults in {self._folder}"

    def _description(self, result: Segmentation) -> dict[str, Any]:
        instances = result.instances
        rows = zip(
            instances.ids.tolist(),
            instances.groups.tolist(),
            instances.labels.tolist(),
            instances.scores.tolist(),
            instances.boxes_camera.tolist(),
            result.areas.tolist(),
            strict=True,
        )
        listed = [
            {
                "number": number,
                "group": group_name(group),
                "class": self._class_names[label],
                "score": round(score, 4),
                "box_camera": [round(value, 2) for value in box],
                "area": area,
            }
            for number, group, label, score, box, area in rows
        ]
        return {"width": result.frame.width, "height": result.frame.height, "instances": listed}

    def _unique(self, name: str) -> str:
        """The name, or with a number before it when another source had a file of that name."""
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{self._names[name]}.{name}"

    def _write(self, file_name: str, image: NDArray[Any]) -> None:
        path = self._folder / file_name
        if not cv2.imwrite(str(path), image):
            raise _not_written(path)

    def _video(self, source: int, name: str, overlay: NDArray[np.uint8], fps: float) -> cv2.VideoWriter:
        if source not in self._videos:
            height, width = overlay.shape[:2]
            path = self._folder / f"{self._unique(f'{name}.overlay')}.mp4"
            video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
            if not video.isOpened():
                raise _not_written(path)
            self._videos[source] = video
        return self._videos[source]


def _not_written(path: Path) -> ConfigurationError:
    return ConfigurationError(f"{path}: cannot be written; check free space and permissions, or choose another -o")
