"""The few frames of a replay that are worth a look, chosen while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.instances import Segmentation
from seg_perception.offboard.report.drawing import (
    ONLY_FIRST,
    ONLY_SECOND,
    RELABELLED,
    Pairing,
    draw_difference,
    draw_instances,
)
from seg_perception.offboard.report.gallery import Layer, Shot, narrowed
from seg_perception.onboard.pipeline.overlay import draw_overlay

from .diff import Baseline, FrameDiff, describe

CHANGED, UNSURE, BUSY = "Most changed", "Least sure", "Most instances"
COLOURS = ((ONLY_FIRST, "gone"), (ONLY_SECOND, "new"), (RELABELLED, "another class"))
_GROUP_NAMES = (*ROAD_GROUPS, "other")
# Frames closer to one another than this look alike.
_APART_NS = 1_000_000_000


@dataclass
class _Best:
    """The frames with the highest values, each some time apart from the others of its camera."""

    most: int
    entries: list[tuple[float, int, str, Shot]] = field(default_factory=list)

    def wants(self, value: float, time_ns: int, camera: str) -> bool:
        """Return whether a frame would be among them."""
        near = self._near(time_ns, camera)
        if near is not None:
            return value > near[0]
        return len(self.entries) < self.most or value > self.entries[-1][0]

    def add(self, value: float, time_ns: int, camera: str, shot: Shot) -> None:
        """Take a frame that is wanted; what it replaces is forgotten."""
        near = self._near(time_ns, camera)
        if near is not None:
            self.entries.remove(near)
        self.entries.append((value, time_ns, camera, shot))
        self.entries.sort(key=lambda entry: (-entry[0], entry[1]))
        del self.entries[self.most :]

    def _near(self, time_ns: int, camera: str) -> tuple[float, int, str, Shot] | None:
        return next((each for each in self.entries if each[2] == camera and abs(each[1] - time_ns) < _APART_NS), None)


class Picks:
    """Chooses frames for a report: what changed most, what the model is least sure of, and where there is most.

    It watches a `Replay`. Images are drawn of frames that are chosen, and of no others.
    """

    def __init__(self, class_names: Sequence[str], most: int = 6, earlier: Baseline | None = None) -> None:
        """Prepare.

        Args:
            class_names: of the model.
            most: frames of each kind.
            earlier: what was published before, if there is something to compare with.
        """
        self._names = class_names
        self._earlier = earlier
        self._best = {kind: _Best(most) for kind in (CHANGED, UNSURE, BUSY)}

    def __call__(self, time_ns: int, segmentation: Segmentation) -> None:
        """Look at a frame."""
        change = self._earlier.compare(segmentation) if self._earlier is not None else None
        if change is not None and change.agreement.disagreement > 0:
            self._offer(CHANGED, change.agreement.disagreement, time_ns, segmentation, change)
        scores = segmentation.instances.scores
        if len(scores):
            self._offer(UNSURE, 1 - float(scores.mean()), time_ns, segmentation)
            self._offer(BUSY, float(len(scores)), time_ns, segmentation)

    def shots(self) -> dict[str, list[Shot]]:
        """The chosen frames by kind, best first; kinds without any are left out."""
        return {kind: [entry[3] for entry in best.entries] for kind, best in self._best.items() if best.entries}

    def _offer(
        self, kind: str, value: float, time_ns: int, segmentation: Segmentation, change: FrameDiff | None = None
    ) -> None:
        best, camera = self._best[kind], segmentation.frame.camera
        if not best.wants(value, time_ns, camera):
            return
        seconds, rest = divmod(segmentation.frame.stamp_ns, 10**9)
        title = f"{camera} at {seconds}.{rest // 1_000_000:03d} s"
        shot = self._changed(title, segmentation, change) if change is not None else self._plain(title, segmentation)
        best.add(value, time_ns, camera, shot)

    def _plain(self, title: str, segmentation: Segmentation) -> Shot:
        image = to_bgr(segmentation.frame)
        instances = segmentation.instances
        text = f"{len(instances)} instances, mean score {float(instances.scores.mean()):.2f}"
        overlay = draw_overlay(image, segmentation, self._names)
        return Shot(title, text, [Layer("camera", narrowed(image).copy()), Layer("overlay", narrowed(overlay))])

    def _changed(self, title: str, segmentation: Segmentation, change: FrameDiff) -> Shot:
        image, agreement = to_bgr(segmentation.frame), change.agreement
        pixels = segmentation.instance_map.pixels
        if pixels.shape != image.shape[:2]:
            # Masks are compared at the size of the maps, and shown over an image of that size.
            image = narrowed(image, pixels.shape[1])
        if pixels.shape != image.shape[:2]:
            return self._plain(title, segmentation)
        pairing = Pairing(agreement.pairs, agreement.missed, agreement.extra, agreement.switched)
        ours, theirs, numbers = change.before, change.now, pairing.numbers(len(change.before))
        views = {
            "before": draw_instances(image, ours, _GROUP_NAMES, pairing.first),
            "now": draw_instances(image, theirs, _GROUP_NAMES, pairing.second, numbers),
            "difference": draw_difference(image, ours, theirs, pairing, _GROUP_NAMES),
            "camera": image.copy(),
        }
        layers = [Layer(name, narrowed(view)) for name, view in views.items()]
        return Shot(title, describe(change), layers)
