"""People: limbs that walk, stand or ride, with varied bodies and clothes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

from .. import colours as c
from ..colours import Colour
from ..mesh import Mesh, MeshBuilder, ring

GAIT_STEPS = 12


@dataclass(frozen=True, slots=True)
class PersonDesign:
    """What a person looks like.

    Attributes:
        height: in metres.
        build: width relative to an average body.
        skin, hair, top, trousers, shoes: colours.
        coat: how far the top reaches down: 0 to the hips, 1 to the knees.
        skirt, long_hair, bag, helmet: worn or not.
        sleeves: share of the arm that is covered.
        swing: length of the stride, relative to an average one.
    """

    height: float
    build: float
    skin: Colour
    hair: Colour
    top: Colour
    trousers: Colour
    shoes: Colour
    coat: float = 0.0
    skirt: bool = False
    long_hair: bool = False
    bag: Colour | None = None
    helmet: Colour | None = None
    sleeves: float = 1.0
    swing: float = 1.0


@dataclass(frozen=True, slots=True)
class Pose:
    """Angles in radians from hanging straight down, forwards positive; pairs are left and right.

    Attributes:
        hips, knees, shoulders, elbows: of the limbs; knees bend backwards, elbows forwards.
        lean: of the trunk, forwards.
        lift: of the hips above standing height, in shares of the body's height.
        spread: of the legs, outwards.
    """

    hips: tuple[float, float] = (0.0, 0.0)
    knees: tuple[float, float] = (0.05, 0.05)
    shoulders: tuple[float, float] = (0.0, 0.0)
    elbows: tuple[float, float] = (0.15, 0.15)
    lean: float = 0.0
    lift: float = 0.0
    spread: float = 0.0


STANDING = Pose(hips=(0.04, -0.04), elbows=(0.3, 0.2))
CYCLING = (
    Pose((1.25, 0.55), (1.45, 0.65), (0.95, 0.95), (0.25, 0.25), 0.35, 0.0, 0.06),
    Pose((0.55, 1.25), (0.65, 1.45), (0.95, 0.95), (0.25, 0.25), 0.35, 0.0, 0.06),
)
MOTORCYCLING = Pose((1.2, 1.2), (1.45, 1.45), (0.85, 0.85), (0.35, 0.35), 0.2, 0.0, 0.22)


def walking(step: int, swing: float) -> Pose:
    """The pose of one of `GAIT_STEPS` moments of a stride."""
    phase = 2 * pi * step / GAIT_STEPS
    left, right = sin(phase), sin(phase + pi)
    knees = (0.12 + 0.75 * max(0.0, cos(phase)) ** 2, 0.12 + 0.75 * max(0.0, cos(phase + pi)) ** 2)
    elbows = (0.25 + 0.2 * max(0.0, right), 0.25 + 0.2 * max(0.0, left))
    hips = (0.46 * swing * left + 0.06, 0.46 * swing * right + 0.06)
    return Pose(hips, knees, (-0.42 * swing * left, -0.42 * swing * right), elbows, 0.05, -0.012 * abs(left))


def random_person(random: np.random.Generator, helmet: bool = False) -> PersonDesign:
    """Anybody, children included."""
    child = not helmet and random.random() < 0.1
    skirt = bool(random.random() < 0.15)
    return PersonDesign(
        float(random.uniform(1.05, 1.45) if child else np.clip(random.normal(1.71, 0.09), 1.5, 1.95)),
        float(random.uniform(0.85, 1.3)),
        c.pick(random, c.SKINS, 6),
        c.pick(random, c.HAIRS, 6),
        c.pick(random, c.CLOTHES),
        c.pick(random, c.TROUSERS),
        c.pick(random, (c.BLACK, c.DARK, c.WHITE, (40, 60, 90))),
        float(random.choice([0.0, 0.15, 0.6, 1.0], p=[0.4, 0.3, 0.2, 0.1])) * (not helmet),
        skirt and not helmet,
        bool(random.random() < 0.4),
        c.pick(random, c.CLOTHES) if random.random() < 0.3 else None,
        c.pick(random, c.PAINTS) if helmet else None,
        float(random.choice([1.0, 0.45, 0.0], p=[0.6, 0.25, 0.15])),
        float(random.uniform(0.7, 1.2)),
    )


@lru_cache(maxsize=4096)
def person_mesh(design: PersonDesign, pose: Pose, seat: float = 0.0) -> Mesh:
    """A body that stands on the origin, or sits with its hips at height `seat` in metres, and looks along +z."""
    b = MeshBuilder()
    h, k = design.height, design.height * design.build
    hip = np.array([0, seat if seat else (0.515 + pose.lift) * h, 0])
    for side in (0, 1):
        _leg(b, design, pose, side, hip, h)
    b.part()
    neck = _trunk(b, design, pose, hip, h, k)
    for side in (0, 1):
        _arm(b, design, pose, side, neck, h, k)
    b.part()
    _head(b, design, pose, neck, h)
    return b.build()


def _leg(b: MeshBuilder, d: PersonDesign, pose: Pose, side: int, hip: NDArray[np.float64], h: float) -> None:
    sign = 1 if side else -1
    build = 0.55 + 0.45 * d.build
    top = hip + (sign * 0.05 * h * build, 0.0, 0.0)
    thigh, shin = pose.hips[side], pose.hips[side] - pose.knees[side]
    knee = top + 0.245 * h * np.array([sign * pose.spread, -cos(thigh), sin(thigh)])
    ankle = knee + 0.235 * h * np.array([0.0, -cos(shin), sin(shin)])
    bare = d.skirt
    b.part()
    b.tube(top, knee, (0.054 * h * build, 0.036 * h * build), d.trousers, 8)
    b.part()
    b.tube(knee, ankle, (0.036 * h * build, 0.024 * h), d.skin if bare else d.trousers, 8)
    b.part()
    toe = ankle + (0.0, -0.012 * h, 0.085 * h)
    heel = ankle + (0.0, -0.012 * h, -0.025 * h)
    b.tube(heel, toe, (0.024 * h, 0.018 * h), d.shoes, 6)


def _trunk(
    b: MeshBuilder, d: PersonDesign, pose: Pose, hip: NDArray[np.float64], h: float, k: float
) -> NDArray[np.float64]:
    """From the hips to the neck; returns where the neck is."""
    up = np.array([0.0, cos(pose.lean), sin(pose.lean)])
    # (height above the hips, half width, half depth)
    sections = ((-0.03, 0.088, 0.062), (0.06, 0.086, 0.062), (0.14, 0.090, 0.064), (0.23, 0.102, 0.068),
                (0.295, 0.108, 0.058), (0.325, 0.066, 0.044), (0.345, 0.030, 0.030))  # fmt: skip
    rings = [ring(hip + up * (y * h), up, w * k, t * k, 12) for y, w, t in sections]
    hues = np.empty((len(rings) - 1, 12, 3), np.float32)
    hues[:] = d.top
    if d.coat < 0.1:
        hues[0] = d.trousers
    b.loft(rings, hues)
    if d.coat >= 0.1 or d.skirt:
        reach = max(0.2 * d.coat, 0.17 if d.skirt else 0.0) + 0.03
        low, colour = hip - (0, reach * h, 0), d.top if d.coat >= 0.1 else d.trousers
        b.loft([ring(low, (0, 1, 0), 0.11 * k, 0.105 * k, 10), ring(hip + up * (0.04 * h), up, 0.092 * k, 0.066 * k, 10)],
               colour)  # fmt: skip
    if d.bag is not None:
        b.part()
        back = hip + up * (0.22 * h) - np.array([0, 0, 0.1 * h])
        b.box(back, (0.15 * h, 0.22 * h, 0.08 * h), d.bag)
    neck: NDArray[np.float64] = hip + up * (0.335 * h)
    return neck


def _arm(
    b: MeshBuilder, d: PersonDesign, pose: Pose, side: int, neck: NDArray[np.float64], h: float, k: float
) -> None:
    sign = 1 if side else -1
    shoulder = neck + np.array([sign * 0.102 * k, -0.035 * h * cos(pose.lean), -0.035 * h * sin(pose.lean)])
    upper = pose.shoulders[side] - 0.02
    lower = upper + pose.elbows[side]
    elbow = shoulder + 0.165 * h * np.array([sign * 0.12, -cos(upper), sin(upper)])
    wrist = elbow + 0.14 * h * np.array([0.0, -cos(lower), sin(lower)])
    thick = 0.6 + 0.4 * d.build
    b.part()
    b.tube(shoulder, elbow, (0.034 * h * thick, 0.025 * h * thick), d.top if d.sleeves > 0 else d.skin)
    b.part()
    b.tube(elbow, wrist, (0.025 * h * thick, 0.018 * h), d.top if d.sleeves > 0.5 else d.skin)
    b.tube(wrist, wrist + (wrist - elbow) * 0.4, (0.019 * h, 0.014 * h), d.skin)


def _head(b: MeshBuilder, d: PersonDesign, pose: Pose, neck: NDArray[np.float64], h: float) -> None:
    b.tube(neck - (0, 0.02 * h, 0), neck + (0, 0.05 * h, 0), (0.032 * h, 0.03 * h), d.skin)
    middle = neck + np.array([0, 0.095 * h, 0.012 * h])
    sections = ((-0.066, 0.02), (-0.045, 0.042), (-0.005, 0.052), (0.03, 0.05), (0.055, 0.034), (0.066, 0.012))
    grow = 1.18 if d.helmet else 1.0
    rings = [ring(middle + (0, y * h, 0), (0, 1, 0), w * h * grow, 1.16 * w * h * grow, 10) for y, w in sections]
    hues = np.empty((len(rings) - 1, 10, 3), np.float32)
    cover = d.helmet or d.hair
    hues[:] = d.skin
    forward = np.array([r[:, 2] for r in rings])[:-1] - middle[2]
    hues[forward < 0.012 * h] = cover
    hues[3:] = cover
    b.loft(rings, hues, 0.3 if d.helmet else 0.0)
    if d.long_hair:
        b.part()
        back = middle - (0, 0, 0.03 * h)
        b.tube(back + (0, 0.02 * h, 0), back - (0, 0.12 * h, 0.01 * h), (0.05 * h, 0.035 * h), d.hair, 8)
