"""People: limbs that walk, stand or ride, with varied bodies and clothes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

from .. import colours as c
from ..colours import Colour
from ..mesh import Mesh, MeshBuilder, ring

GAIT_STEPS = 10


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


@dataclass(frozen=True, slots=True)
class _Joint:
    """Where a limb begins and how it is turned: forwards about x, then outwards."""

    pivot: NDArray[np.float64]
    angle: float = 0.0
    spread: float = 0.0


@lru_cache(maxsize=1024)
def person_mesh(design: PersonDesign, pose: Pose, seat: float = 0.0) -> Mesh:
    """A body that stands on the origin, or sits with its hips at height `seat` in metres, and looks along +z."""
    mesh, limbs = _upright(design)
    joints = _joints(design, pose, seat)
    turns = np.array([_turn(joint) for joint in joints], np.float32)
    pivots = np.array([joint.pivot for joint in joints], np.float32)
    origins = np.array([joint.pivot for joint in _joints(design, Pose(), 0.0)], np.float32)
    faces = mesh.parts

    def moved(points: NDArray[np.float32], of: NDArray[np.int32]) -> NDArray[np.float32]:
        return c.floats(np.einsum("nij,nj->ni", turns[of], points - origins[of]) + pivots[of])

    normals = np.einsum("nij,nj->ni", turns[faces], mesh.normals)
    return replace(mesh, vertices=moved(mesh.vertices, limbs), centres=moved(mesh.centres, faces), normals=normals)


@lru_cache(maxsize=1024)
def _upright(design: PersonDesign) -> tuple[Mesh, NDArray[np.int32]]:
    """The body at attention, whose parts are numbered like its joints, and the part of each vertex."""
    b = MeshBuilder()
    joints = iter(_joints(design, Pose(), 0.0))
    h, k = design.height, design.height * design.build
    build = 0.55 + 0.45 * design.build
    for side in (0, 1):
        thigh, knee, ankle = next(joints).pivot, next(joints).pivot, next(joints).pivot
        if side:
            b.part()
        b.tube(thigh, knee, (0.054 * h * build, 0.036 * h * build), design.trousers, 8)
        b.part()
        b.tube(knee, ankle, (0.036 * h * build, 0.024 * h), design.skin if design.skirt else design.trousers, 8)
        b.part()
        heel, toe = ankle - (0, 0.012 * h, 0.025 * h), np.add(ankle, (0, -0.012 * h, 0.085 * h))
        b.tube(heel, toe, (0.024 * h, 0.018 * h), design.shoes, 6)
    b.part()
    hip = next(joints).pivot
    _trunk(b, design, hip, h, k)
    b.part()
    back = np.add(next(joints).pivot, (0, 0.22 * h, -0.1 * h))
    b.box(back, (0.15 * h, 0.22 * h, 0.08 * h) if design.bag else (0.01, 0.01, 0.01), design.bag or design.top)
    for _ in (0, 1):
        b.part()
        _arm(b, design, next(joints).pivot, next(joints).pivot, h)
    b.part()
    _head(b, design, next(joints).pivot, h)
    mesh = b.build()
    limbs = np.zeros(len(mesh.vertices), np.int32)
    limbs[mesh.faces] = mesh.parts[:, None]
    return mesh, limbs


def _joints(d: PersonDesign, pose: Pose, seat: float) -> list[_Joint]:
    """Of left and right thigh, shin and foot, of trunk and bag, left and right upper and lower arm, and head."""
    h, k = d.height, d.height * d.build
    hip = np.array([0, seat if seat else (0.515 + pose.lift) * h, 0])
    joints = []
    for side, sign in ((0, -1), (1, 1)):
        top = np.add(hip, (sign * 0.05 * h * (0.55 + 0.45 * d.build), 0.0, 0.0))
        thigh, shin = pose.hips[side], pose.hips[side] - pose.knees[side]
        spread = sign * pose.spread
        knee = top + 0.245 * h * np.array([spread, -cos(thigh), sin(thigh)])
        ankle = knee + 0.235 * h * np.array([0.0, -cos(shin), sin(shin)])
        joints += [_Joint(top, thigh, spread), _Joint(knee, shin), _Joint(ankle)]
    joints += [_Joint(hip, -pose.lean), _Joint(hip, -pose.lean)]
    up = np.array([0.0, cos(pose.lean), sin(pose.lean)])
    for side, sign in ((0, -1), (1, 1)):
        shoulder = hip + up * (0.30 * h) + (sign * 0.102 * k, 0, 0)
        upper = pose.shoulders[side] - 0.02
        elbow = shoulder + 0.165 * h * np.array([sign * 0.12, -cos(upper), sin(upper)])
        joints += [_Joint(shoulder, upper), _Joint(elbow, upper + pose.elbows[side])]
    return [*joints, _Joint(hip + up * (0.335 * h))]


def _turn(joint: _Joint) -> NDArray[np.float64]:
    sine, cosine = sin(joint.angle), cos(joint.angle)
    return np.array([[1, -joint.spread, 0], [0, cosine, sine], [0, -sine, cosine]])


def _trunk(b: MeshBuilder, d: PersonDesign, hip: NDArray[np.float64], h: float, k: float) -> None:
    """From the hips to the neck, with coat or skirt."""
    up = np.array([0.0, 1.0, 0.0])
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
        low, colour = hip - up * (reach * h), d.top if d.coat >= 0.1 else d.trousers
        b.loft(
            [ring(low, up, 0.11 * k, 0.105 * k, 10), ring(hip + up * (0.04 * h), up, 0.092 * k, 0.066 * k, 10)], colour
        )


def _arm(b: MeshBuilder, d: PersonDesign, shoulder: NDArray[np.float64], elbow: NDArray[np.float64], h: float) -> None:
    """Upper arm, and as another part lower arm and hand."""
    thick = 0.6 + 0.4 * d.build
    b.tube(shoulder, elbow, (0.034 * h * thick, 0.025 * h * thick), d.top if d.sleeves > 0 else d.skin)
    b.part()
    down = np.array([0, -0.14 * h, 0])
    b.tube(elbow, elbow + down, (0.025 * h * thick, 0.018 * h), d.top if d.sleeves > 0.5 else d.skin)
    b.tube(elbow + down, elbow + down * 1.4, (0.019 * h, 0.014 * h), d.skin)


def _head(b: MeshBuilder, d: PersonDesign, neck: NDArray[np.float64], h: float) -> None:
    b.tube(neck - (0, 0.02 * h, 0), np.add(neck, (0, 0.05 * h, 0)), (0.032 * h, 0.03 * h), d.skin)
    middle = neck + np.array([0, 0.095 * h, 0.012 * h])
    sections = ((-0.066, 0.02), (-0.045, 0.042), (-0.005, 0.052), (0.03, 0.05), (0.055, 0.034), (0.066, 0.012))
    grow = 1.18 if d.helmet else 1.0
    rings = [ring(np.add(middle, (0, y * h, 0)), (0, 1, 0), w * h * grow, 1.16 * w * h * grow, 10) for y, w in sections]
    hues = np.empty((len(rings) - 1, 10, 3), np.float32)
    cover = d.helmet or d.hair
    hues[:] = d.skin
    forward = np.array([r[:, 2] for r in rings])[:-1] - middle[2]
    hues[forward < 0.012 * h] = cover
    hues[3:] = cover
    b.loft(rings, hues, 0.3 if d.helmet else 0.0)
    if d.long_hair:
        back = middle - (0, 0, 0.03 * h)
        b.tube(np.add(back, (0, 0.02 * h, 0)), back - (0, 0.12 * h, 0.01 * h), (0.05 * h, 0.035 * h), d.hair, 8)
