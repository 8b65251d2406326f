"""A spinning lidar on the roof of the car: its rays against the bodies, walls and ground that the camera sees.

All geometry is that of the frame's moment, as it is painted, in `base_link`; only actors move on while the lidar
turns. The lidar moves as `/tf` says, so that points of what stands still come together when they are transformed at
the times at which they were measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import ConfigurationError

from .actors.actor import Actor, TreeDesign
from .background import Background
from .camera import Pose
from .crowd import VIEW
from .ego import BASE, Transform
from .mesh import Mesh
from .raster import placed
from .scene import Scene

FRAME = "lidar"
MOUNT = Transform(BASE, FRAME, (-0.6, 0.0, 1.9), (0.0, 0.0, 0.0, 1.0))
# In seconds; where frames come faster, so do the sweeps.
SWEEP = 0.1
NEAREST, FARTHEST = 0.5, 80.0
RANGE_NOISE = 0.02
# At these moments of a sweep, as shares of it, the car's place is given; between them it moves evenly.
KNOTS = 6
_RANDOM_LOSS = 0.02
# A white surface that is looked at straight on gives enough light up to here in clear air, in metres.
_REACH = 190.0
_GROUND_SHINE, _WALL_SHINE, _TREE_SHINE, _SIGN_SHINE = 0.15, 0.35, 0.3, 1.0
_GLASS, _GLASS_SHINE = 0.8, 0.05

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LidarModel:
    """Where a lidar looks; turns clockwise as seen from above, from behind over the left side, ahead and the right.

    Attributes:
        lowest, highest: elevation of the first and of the last ring in degrees.
        rings: how many, with even steps; ring 0 is the lowest.
        columns: how many times it measures in a turn.
    """

    rings: int
    lowest: float
    highest: float
    columns: int

    def elevations(self) -> Floats:
        """Of the rings in radians, float64 `[rings]`."""
        return np.asarray(np.radians(np.linspace(self.lowest, self.highest, self.rings)), np.float64)

    def azimuths(self) -> Floats:
        """Of the columns in radians, positive to the left, float64 `[columns]`."""
        return np.asarray(np.pi - 2 * np.pi * (np.arange(self.columns) + 0.5) / self.columns, np.float64)

    def column(self, azimuths: Floats) -> Floats:
        """Return in which column the lidar looks there, with fractions; the inverse of `azimuths`."""
        return np.asarray((np.pi - azimuths) * (self.columns / (2 * np.pi)) - 0.5, np.float64)


MODELS = {
    16: LidarModel(16, -15.0, 15.0, 1800),
    32: LidarModel(32, -25.0, 15.0, 1800),
    64: LidarModel(64, -22.5, 22.5, 1024),
}


@dataclass(frozen=True, slots=True)
class Cloud:
    """One sweep, N points in the order in which they were measured.

    Attributes:
        points: float32 `[N, 3]`, x ahead, y to the left, z up in metres, in the frame `lidar` as it was at the point's
            time; motion is not compensated.
        intensity: float32 `[N]`, 0 to 255.
        ring: uint16 `[N]`, 0 is the lowest.
        time: float32 `[N]`, seconds relative to the frame's stamp, from minus one sweep to 0.
        instance: uint16 `[N]`, number of the object that was hit, 0 for none; truth, which a bag does not have.
    """

    points: NDArray[np.float32]
    intensity: NDArray[np.float32]
    ring: NDArray[np.uint16]
    time: NDArray[np.float32]
    instance: NDArray[np.uint16]

    def __len__(self) -> int:
        """Return how many points there are."""
        return len(self.points)


@dataclass(frozen=True, slots=True)
class _Way:
    """Where the lidar is during a sweep, in `base_link` as it is at the sweep's end.

    Attributes:
        times: float64 `[KNOTS]`, seconds, at most 0.
        x, y, yaw: at these times.
    """

    times: Floats
    x: Floats
    y: Floats
    yaw: Floats

    @classmethod
    def of(cls, scene: Scene, second: float, times: Floats) -> _Way:
        last = scene.ego(second)
        egos = [scene.ego(second + time) for time in times.tolist()]
        yaw = np.array([ego.heading - last.heading for ego in egos])
        sine, cosine = np.sin(last.heading), np.cos(last.heading)
        dx, dy = np.array([ego.x - last.x for ego in egos]), np.array([ego.y - last.y for ego in egos])
        ahead, left, _ = MOUNT.translation
        x = cosine * dx + sine * dy + ahead * np.cos(yaw) - left * np.sin(yaw)
        y = cosine * dy - sine * dx + ahead * np.sin(yaw) + left * np.cos(yaw)
        return cls(times, x, y, yaw)

    def at(self, times: Floats) -> tuple[Floats, Floats, Floats]:
        """X, y and yaw at any times of the sweep."""
        x, y, yaw = (np.asarray(np.interp(times, self.times, row)) for row in (self.x, self.y, self.yaw))
        return x, y, yaw


class _Rays:
    """All rays of a sweep, M = columns * rings, with what is nearest on each of them so far."""

    def __init__(self, model: LidarModel, way: _Way, duration: float) -> None:
        self.model, self.way, self.duration = model, way, duration
        self.column_times = column_times(model, duration)
        self.x, self.y, yaw = way.at(self.column_times)
        azimuths, elevations = model.azimuths(), model.elevations()
        self.yaw = azimuths + yaw
        self.flat, self.rise = np.cos(elevations), np.sin(elevations)
        self.local = _directions(azimuths, elevations)
        self.directions = _directions(self.yaw, elevations)
        self.column = np.repeat(np.arange(model.columns), model.rings)
        height = np.full(len(self.column), MOUNT.translation[2])
        self.origins = np.stack([self.x[self.column], self.y[self.column], height], 1)
        self.times = self.column_times[self.column]
        rays = len(self.column)
        self.range, self.shine = np.full(rays, np.inf), np.zeros(rays)
        self.instance = np.zeros(rays, np.uint16)

    def time_of(self, columns: Floats) -> Floats:
        """When a column is measured, also between columns."""
        return np.clip((columns + 1) / self.model.columns - 1, -1, 0) * self.duration

    def hit(self, rays: Ints, ranges: Floats, shine: Floats | float, instance: NDArray[np.uint16] | int = 0) -> None:
        """Take what is nearer than what is known; the same ray may come several times."""
        nearer = np.flatnonzero((ranges > 0) & (ranges < self.range[rays]))
        # Of several hits of one ray the last one written stays: the nearest.
        nearer = nearer[np.argsort(-ranges[nearer], kind="stable")]
        rays = rays[nearer]
        self.range[rays] = ranges[nearer]
        self.shine[rays] = np.broadcast_to(shine, ranges.shape)[nearer]
        self.instance[rays] = np.broadcast_to(instance, ranges.shape)[nearer]


def sweep_seconds(fps: float) -> float:
    """How long a sweep takes in seconds, with this many frames per second."""
    return min(SWEEP, 1 / fps)


def column_times(model: LidarModel, duration: float) -> Floats:
    """When the columns are measured, in seconds relative to the sweep's end, float64 `[columns]`; the last is 0."""
    return np.asarray(duration * ((np.arange(model.columns) + 1) / model.columns - 1), np.float64)


def knots(model: LidarModel, duration: float) -> Floats:
    """At which times of a sweep the car's place is given, float64 `[KNOTS]`; from the first column to 0."""
    return np.asarray(np.linspace(column_times(model, duration)[0], 0.0, KNOTS), np.float64)


def _directions(yaw: Floats, elevations: Floats) -> Floats:
    """Unit vectors float64 `[columns * rings, 3]`."""
    flat, shape = np.cos(elevations), (len(yaw), len(elevations))
    parts = (np.outer(np.cos(yaw), flat), np.outer(np.sin(yaw), flat), np.broadcast_to(np.sin(elevations), shape))
    return np.stack(parts, -1).reshape(-1, 3)


def lidar_model(rings: int) -> LidarModel:
    """The lidar with this many rings.

    Raises:
        ConfigurationError: there is none.
    """
    if rings not in MODELS:
        raise ConfigurationError(
            f"streetworld: lidar: expected one of {', '.join(map(str, MODELS))} rings, got {rings}"
        )
    return MODELS[rings]


def sweep(
    model: LidarModel, scene: Scene, background: Background, second: float, duration: float,
    random: np.random.Generator,
) -> Cloud:  # fmt: skip
    """Measure one turn that ends at a moment of a scene.

    Args:
        model: of the lidar.
        scene: what there is.
        background: walls and trees.
        second: of the scene, at which the turn ends.
        duration: of the turn in seconds.
        random: makes noise and losses.
    """
    pose = scene.pose(second)
    rays = _Rays(model, _Way.of(scene, second, knots(model, duration)), duration)
    _meet_ground(rays)
    ground = rays.range.copy()
    bodies = []
    for actor in _near(scene, pose, second):
        if isinstance(actor.design, TreeDesign):
            _meet_tree(rays, background, actor, actor.design, pose)
        else:
            bodies.append(actor)
    if bodies:
        moves = _moves(rays, bodies, pose, second)
        _meet_bodies(rays, _Soup.joined([_soup(rays, *move, pose, second) for move in moves]))
    # As in the image, where walls are painted before everything that stands in the street: they hide none of it.
    free = rays.range == ground
    for side in (-1, 1):
        _meet_walls(rays, background, pose, side, free)
    return _measured(rays, scene.light.fog, random)


def _near(scene: Scene, pose: Pose, second: float) -> Iterator[Actor]:
    for actor in scene.actors:
        place = actor.at(second)
        if abs(place.z - pose.z) < VIEW and abs(place.x - pose.x) < VIEW:
            yield actor


def _meet_ground(rays: _Rays) -> None:
    down = np.flatnonzero(rays.directions[:, 2] < -1e-3)
    fall = -rays.directions[down, 2]
    rays.hit(down, rays.origins[down, 2] / fall, _GROUND_SHINE * fall)


def _meet_walls(rays: _Rays, background: Background, pose: Pose, side: int, free: NDArray[np.bool_]) -> None:
    """Where `free` rays meet the wall at x = side * front, which bends with the road: a parabola as in the image."""
    dx, dz = _across(rays.directions[:, 0], rays.directions[:, 1], pose)
    # No street within the lidar's range bends by more than this.
    towards = np.flatnonzero((dx * side > -0.5) & free)
    dx, dz = dx[towards], dz[towards]
    ox, oz = _across(rays.origins[towards, 0], rays.origins[towards, 1], pose)
    bend = pose.bend / 2
    a, b = bend * dz * dz, 2 * bend * oz * dz - dx
    c = side * background.street.front - pose.x + bend * oz * oz - ox
    root = b * b - 4 * a * c
    bottom = side * np.sqrt(np.maximum(root, 0)) - b
    met = np.flatnonzero((root >= 0) & (bottom * side > 1e-6))
    ranges = 2 * c[met] / bottom[met]
    near = (ranges > 0) & (ranges < FARTHEST)
    met, ranges = met[near], ranges[near]
    height = MOUNT.translation[2] + ranges * rays.directions[towards[met], 2]
    solid = background.is_wall(side, pose.z + oz[met] + ranges * dz[met], height)
    met, ranges = met[solid], ranges[solid]
    rays.hit(towards[met], ranges, _WALL_SHINE * np.abs(dx[met]))


def _across(x: Floats, y: Floats, pose: Pose) -> tuple[Floats, Floats]:
    """X and y of `base_link` along the street's axes: to the right and ahead."""
    sine, cosine = np.sin(pose.yaw), np.cos(pose.yaw)
    return sine * x - cosine * y, cosine * x + sine * y


def _meet_tree(rays: _Rays, background: Background, actor: Actor, tree: TreeDesign, pose: Pose) -> None:
    """A plate across the way the car looks, as it is painted."""
    foot = np.array([[actor.start.x, 0, actor.start.z]], np.float32)
    x, y, _ = pose.to_base(pose.bent(foot))[0].tolist()
    sprite = background.trees[tree.image]
    rows, columns = sprite.shape[:2]
    half = tree.height * columns / rows / 2
    forward, reach = np.cos(rays.yaw), x - rays.x
    with np.errstate(divide="ignore"):
        ahead = reach / forward
    across = rays.y + ahead * np.sin(rays.yaw) - y
    seen = np.flatnonzero((ahead > 0) & (np.abs(across) < half))
    flat = ahead[seen, None] / rays.flat
    height = MOUNT.translation[2] + flat * rays.rise
    pixels = (half - across[seen, None]) / (2 * half) * columns + np.zeros_like(height)
    inside = (height > 0) & (height < tree.height)
    row = np.clip(((1 - height / tree.height) * rows).astype(np.int64), 0, rows - 1)
    leaves = inside & (sprite[row, np.clip(pixels.astype(np.int64), 0, columns - 1), 3] > 127)
    which, ring = np.nonzero(leaves)
    rays.hit(seen[which] * rays.model.rings + ring, flat[which, ring], _TREE_SHINE)


@dataclass(frozen=True, slots=True)
class _Soup:
    """Triangles of bodies, T of them, in `base_link` at the sweep's end.

    Attributes:
        corners: float64 `[T, 3, 3]`, where they are at `moment`.
        velocity: float64 `[T, 3]`.
        moment: float64 `[T]`, when the lidar looks at their body.
        shine: float64 `[T]`, share of the light that comes back.
        track: uint16 `[T]`.
    """

    corners: Floats
    velocity: Floats
    moment: Floats
    shine: Floats
    track: NDArray[np.uint16]

    @classmethod
    def joined(cls, soups: list[_Soup]) -> _Soup:
        return cls(
            np.concatenate([soup.corners for soup in soups]),
            np.concatenate([soup.velocity for soup in soups]),
            np.concatenate([soup.moment for soup in soups]),
            np.concatenate([soup.shine for soup in soups]),
            np.concatenate([soup.track for soup in soups]),
        )


def _soup(rays: _Rays, actor: Actor, moment: float, velocity: Floats, pose: Pose, second: float) -> _Soup:
    """The faces of an actor that look at the lidar when it looks at them."""
    place, mesh = actor.at(second + moment), actor.mesh(second)
    points = pose.to_base(pose.bent(placed(mesh.vertices, place)))
    faces, corners = _fans(mesh, points)
    x, y, _ = rays.way.at(np.array(moment))
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # Bends keep the order of corners, so that outwards is where the mesh says.
    outward = pose.to_base((mesh.normals @ place.turn())[faces]) - np.array([0, 0, pose.y])
    normals *= np.sign((normals * outward).sum(1))[:, None]
    away = (normals * (corners[:, 0] - np.array([x, y, MOUNT.translation[2]]))).sum(1)
    seen = (away < 0) | mesh.two_sided[faces]
    faces, count = faces[seen], int(seen.sum())
    shine = mesh.colours[faces].mean(1).astype(np.float64) / 255
    shine[mesh.gloss[faces] > _GLASS] = _GLASS_SHINE
    if actor.class_name == "traffic sign":
        shine[:] = _SIGN_SHINE
    return _Soup(
        corners[seen], np.broadcast_to(velocity, (count, 3)), np.full(count, moment), shine,
        np.full(count, actor.track, np.uint16),
    )  # fmt: skip


def _fans(mesh: Mesh, points: Floats) -> tuple[Ints, Floats]:
    """Cut the faces of a mesh into triangles.

    Returns:
        int64 `[T]`, which face each is of, and float64 `[T, 3, 3]`, their corners.
    """
    width = mesh.faces.shape[1]
    faces, step = np.nonzero(np.arange(1, width - 1) < mesh.counts[:, None] - 1)
    rows = mesh.faces[faces]
    picked = np.arange(len(faces))
    corners = np.stack([rows[:, 0], rows[picked, step + 1], rows[picked, step + 2]], 1)
    return faces, points[corners]


def _moves(
    rays: _Rays, actors: Sequence[Actor], pose: Pose, second: float
) -> Iterator[tuple[Actor, float, Floats]]:  # fmt: skip
    """When the lidar looks at each actor, in seconds relative to the sweep's end, and the actor's velocity `[3]`."""
    half = rays.duration / 2
    before, middle, after = (_feet(actors, pose, second + time) for time in (-2 * half, -half, 0.0))
    velocities = (after - before) / (2 * half)
    times: Floats = np.full(len(actors), -half)
    for _ in range(3):
        x, y, yaw = rays.way.at(times)
        seen = middle + velocities * (times + half)[:, None]
        azimuths = np.arctan2(seen[:, 1] - y, seen[:, 0] - x) - yaw
        times = rays.time_of(rays.model.column((azimuths + np.pi) % (2 * np.pi) - np.pi))
    yield from zip(actors, times.tolist(), velocities, strict=True)


def _feet(actors: Sequence[Actor], pose: Pose, second: float) -> Floats:
    """Where actors stand, float64 `[A, 3]` in `base_link`."""
    places = [actor.at(second) for actor in actors]
    return pose.to_base(pose.bent(np.array([(place.x, place.y, place.z) for place in places], np.float32)))


def _meet_bodies(rays: _Rays, soup: _Soup) -> None:
    """Only rays that look at a triangle's surroundings are tried."""
    first, wide, low, high = _blocks(rays, soup)
    counts = wide * high
    triangle = np.repeat(np.arange(len(counts)), counts)
    offset = np.arange(len(triangle)) - np.repeat(np.cumsum(counts) - counts, counts)
    column = (first[triangle] + offset // high[triangle]) % rays.model.columns
    ray = column * rays.model.rings + low[triangle] + offset % high[triangle]
    ranges, facing = _crossings(rays, soup, triangle, ray)
    met = np.isfinite(ranges)
    triangle, ray = triangle[met], ray[met]
    rays.hit(ray, ranges[met], soup.shine[triangle] * facing[met], soup.track[triangle])


def _blocks(rays: _Rays, soup: _Soup) -> tuple[Ints, Ints, Ints, Ints]:
    """The rays that may meet each triangle: first column, how many, first ring, how many; int64 `[T]` each."""
    model = rays.model
    moments = np.repeat(soup.moment[:, None], 3, 1)
    times = moments
    for _ in range(2):
        x, y, yaw = rays.way.at(times)
        drift = soup.velocity[:, None] * (times - moments)[..., None]
        seen = soup.corners + drift - np.stack([x, y, np.full(x.shape, MOUNT.translation[2])], -1)
        azimuths = np.arctan2(seen[..., 1], seen[..., 0]) - yaw
        azimuths[:, 1:] = azimuths[:, :1] + (azimuths[:, 1:] - azimuths[:, :1] + np.pi) % (2 * np.pi) - np.pi
        columns = model.column(azimuths)
        times = rays.time_of(columns)
    # Half a column and a tenth of a ring for what moves meanwhile.
    first = np.ceil(columns.min(1) - 0.5).astype(np.int64)
    wide = np.clip(np.floor(columns.max(1) + 0.5).astype(np.int64) - first + 1, 0, model.columns)
    # What reaches around the lidar's axis.
    wide[np.ptp(columns, axis=1) > model.columns / 2] = model.columns
    bottom, top = _elevations(seen)
    step = np.radians(model.highest - model.lowest) / (model.rings - 1)
    low = np.ceil((bottom - np.radians(model.lowest)) / step - 0.1).clip(0, model.rings).astype(np.int64)
    high = np.floor((top - np.radians(model.lowest)) / step + 0.1).clip(-1, model.rings - 1).astype(np.int64)
    return first, wide, low, np.maximum(high - low + 1, 0)


def _elevations(corners: Floats) -> tuple[Floats, Floats]:
    """Between which elevations triangles `[T, 3, 3]` lie for sure, in radians."""
    flat, up = corners[..., :2], corners[..., 2]
    ends = np.roll(flat, -1, 1) - flat
    share = -(flat * ends).sum(-1) / np.maximum((ends * ends).sum(-1), 1e-12)
    nearest = np.linalg.norm(flat + share.clip(0, 1)[..., None] * ends, axis=-1).min(1)
    farthest = np.linalg.norm(flat, axis=-1).max(1)
    low, high = up.min(1), up.max(1)
    return (
        np.arctan2(low, np.where(low < 0, nearest, farthest)),
        np.arctan2(high, np.where(high > 0, nearest, farthest)),
    )


def _crossings(rays: _Rays, soup: _Soup, triangle: Ints, ray: Ints) -> tuple[Floats, Floats]:
    """Where rays cross triangles: the range, infinite for those that miss, and the cosine of the incidence; `[P]`."""
    start = soup.corners[:, 0]
    one, two = soup.corners[:, 1] - start, soup.corners[:, 2] - start
    normal = np.cross(one, two)
    length = np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    drift = rays.times[ray] - soup.moment[triangle]
    origin = rays.origins[ray] - soup.velocity[triangle] * drift[:, None] - start[triangle]
    direction = rays.directions[ray]
    # Moeller and Trumbore, with the determinant from the face's normal.
    slope = -(normal[triangle] * direction).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        moment = np.cross(origin, direction)
        u = (two[triangle] * moment).sum(1) / slope
        v = -(one[triangle] * moment).sum(1) / slope
        ranges = (normal[triangle] * origin).sum(1) / slope
        met = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (ranges > 0)
    return np.where(met, ranges, np.inf), np.abs(slope) / length[triangle]


def _measured(rays: _Rays, fog: float, random: np.random.Generator) -> Cloud:
    """What comes back: with noise, and without what is too near, too far, too dark or lost in the air."""
    count = len(rays.range)
    chance, noise, flicker = random.random(count), random.normal(0, RANGE_NOISE, count), random.normal(1, 0.05, count)
    within = np.flatnonzero((rays.range > NEAREST) & (rays.range < FARTHEST))
    ranges = rays.range[within]
    signal = rays.shine[within] * (_REACH / ranges) ** 2 * np.exp(-2 * fog * ranges)
    kept = within[chance[within] < (1 - _RANDOM_LOSS) * np.clip(signal, 0, 1)]
    measured = rays.local[kept] * (rays.range[kept] + noise[kept])[:, None]
    intensity = np.clip(255 * rays.shine[kept] * flicker[kept], 0, 255)
    return Cloud(
        measured.astype(np.float32), intensity.astype(np.float32), (kept % rays.model.rings).astype(np.uint16),
        rays.times[kept].astype(np.float32), rays.instance[kept],
    )  # fmt: skip
