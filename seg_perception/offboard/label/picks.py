"""Which frames are chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.frame import Frame

EVERY, SCENE_CHANGE, LOWEST_CONFIDENCE, DISAGREE = "every", "scene_change", "lowest_confidence", "disagree"
# Width and height at which images are compared: what is smaller moves without being another scene.
_GLANCE = (64, 36)


@dataclass(frozen=True, slots=True)
class PickOptions:
    """Which frames are chosen; a frame that any rule wants is.

    Attributes:
        every: one frame in so many of each camera; 0 for none.
        scene_change: lowest mean difference of the grey values of a small image from the last one chosen by this
            rule, 0-1; 0 switches the rule off.
        lowest_confidence: so many frames with the most doubtful instances.
        disagree: so many frames in which another model says something else most.
        apart: of the frames of a camera in so many seconds, the two rules above choose one at most.
    """

    every: int = 0
    scene_change: float = 0.0
    lowest_confidence: int = 0
    disagree: int = 0
    apart: float = 1.0

    def __post_init__(self) -> None:
        for name in ("every", "lowest_confidence", "disagree"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"--{name.replace('_', '-')}: expected 0 or more, got {getattr(self, name)}")
        if not 0 <= self.scene_change <= 1:
            raise ConfigurationError(f"--scene-change: expected 0 to 1, got {self.scene_change}")
        if not 0 <= self.apart <= 3600:
            raise ConfigurationError(f"--apart: expected 0 to 3600 seconds, got {self.apart}")
        if not (self.every or self.scene_change or self.lowest_confidence or self.disagree):
            raise ConfigurationError(
                "which frames: expected --every, --scene-change, --lowest-confidence or --disagree"
            )


@dataclass(frozen=True, slots=True)
class Moment:
    """When and where a frame was taken, for rankings; frames of equal moments show much the same.

    Attributes:
        source, camera: that it is from.
        time: number of the interval of `PickOptions.apart` it lies in; the frame's name where it has no time.
    """

    source: str
    camera: str
    time: int | str

    @classmethod
    def of(cls, source: str, camera: str, stamp_ns: int, name: str, apart: float) -> Moment:
        """The moment of a frame."""
        return cls(source, camera, int(stamp_ns // (1e9 * apart)) if stamp_ns and apart else name)


class Ranking:
    """The names with the highest values, one of each moment; of equal values the name that sorts first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._best: dict[Moment, tuple[float, str]] = {}

    def wants(self, moment: Moment, name: str, value: float) -> bool:
        """Return whether a name would be among them now."""
        rival = self._rival(moment)
        return self._most > 0 and value > 0 and (rival is None or (-value, name) < self._best[rival])

    def add(self, moment: Moment, name: str, value: float) -> str | None:
        """Put a name in that is wanted; returns the one that has to go for it, if any."""
        rival = self._rival(moment)
        gone = None if rival is None else self._best.pop(rival)[1]
        self._best[moment] = (-value, name)
        return gone

    def _rival(self, moment: Moment) -> Moment | None:
        """The moment whose name a new one takes the place of; None where there is room."""
        if moment in self._best:
            return moment
        return max(self._best, key=self._best.__getitem__) if 0 < self._most <= len(self._best) else None


class Picker:
    """Decides frame by frame; remembers what it has chosen by name only."""

    def __init__(self, options: PickOptions, chosen: Iterable[tuple[str, Mapping[str, float], Moment]] = ()) -> None:
        """Begin, or go on: `chosen` are names, picks and moments of what was chosen before."""
        self._options = options
        self._glances: dict[str, NDArray[np.int16]] = {}
        self._counts: dict[str, int] = {}
        self._rankings = {
            LOWEST_CONFIDENCE: Ranking(options.lowest_confidence),
            DISAGREE: Ranking(options.disagree),
        }
        self._picks: dict[str, set[str]] = {}
        for name, picks, moment in chosen:
            self.keep(name, picks, moment)

    @property
    def counts(self) -> Counter[str]:
        """Return the number of chosen frames that each rule wants."""
        found = Counter(rule for rules in self._picks.values() for rule in rules)
        return Counter({rule: found[rule] for rule in (EVERY, SCENE_CHANGE, *self._rankings) if rule in found})

    def wanted(
        self, name: str, frame: Frame, moment: Moment, uncertainty: float, disagreement: float
    ) -> dict[str, float]:
        """Return the rules that choose a frame, as far as known now, each with its number; takes every frame."""
        count = self._counts[frame.camera] = self._counts.get(frame.camera, -1) + 1
        picks = {}
        if self._options.every and count % self._options.every == 0:
            picks[EVERY] = float(count)
        if self._options.scene_change and (change := self._change(frame)) >= self._options.scene_change:
            picks[SCENE_CHANGE] = round(change, 4)
        for rule, value in ((LOWEST_CONFIDENCE, uncertainty), (DISAGREE, disagreement)):
            if self._rankings[rule].wants(moment, name, value):
                picks[rule] = round(value, 4)
        return picks

    def keep(self, name: str, picks: Mapping[str, float], moment: Moment) -> list[str]:
        """Take a frame in; returns the names of those that no rule wants any more, this one perhaps among them."""
        if name in self._picks:
            return []
        self._picks[name] = {rule for rule in picks if rule not in self._rankings}
        gone = [name]
        for rule, ranking in self._rankings.items():
            if rule in picks and ranking.wants(moment, name, picks[rule]):
                self._picks[name].add(rule)
                loser = ranking.add(moment, name, picks[rule])
                if loser is not None:
                    self._picks[loser].discard(rule)
                    gone.append(loser)
        return [each for each in dict.fromkeys(gone) if not self._picks[each] and self._picks.pop(each) is not None]

    def _change(self, frame: Frame) -> float:
        """Return how much a frame differs from the last one that was chosen for it; 1 for the first."""
        grey = cv2.cvtColor(to_bgr(frame), cv2.COLOR_BGR2GRAY)
        glance = cv2.resize(grey, _GLANCE, interpolation=cv2.INTER_AREA).astype(np.int16)
        last = self._glances.get(frame.camera)
        change = 1.0 if last is None else float(np.abs(glance - last).mean()) / 255
        if change >= self._options.scene_change:
            self._glances[frame.camera] = glance
        return change
