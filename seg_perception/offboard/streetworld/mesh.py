"""Bodies made of flat convex faces, and the few shapes they are built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .colours import Colour, floats

Points = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Mesh:
    """Flat convex faces, F of them with up to K corners.

    Attributes:
        vertices: float32 `[V, 3]`.
        faces: int32 `[F, K]`, indices of vertices; the last one is repeated up to K.
        counts: int32 `[F]`, corners of each face.
        normals: float32 `[F, 3]`, outwards.
        centres: float32 `[F, 3]`.
        colours: float32 `[F, 3]`.
        gloss: float32 `[F]`, 0 is matt, 1 is glass.
        glow: float32 `[F]`, 1 shines by itself.
        parts: int32 `[F]`, faces of one part hide one another only by their layer and distance.
        layers: int32 `[F]`, higher ones are painted over lower ones of the same part.
        two_sided: bool `[F]`, seen from both sides.
    """

    vertices: Points
    faces: NDArray[np.int32]
    counts: NDArray[np.int32]
    normals: Points
    centres: Points
    colours: Points
    gloss: NDArray[np.float32]
    glow: NDArray[np.float32]
    parts: NDArray[np.int32]
    layers: NDArray[np.int32]
    two_sided: NDArray[np.bool_]


class MeshBuilder:
    """Collects shapes; every shape belongs to the part begun last."""

    def __init__(self) -> None:
        self._vertices: list[Points] = []
        self._count = 0
        self._faces: list[tuple[int, ...]] = []
        self._rows: list[tuple[Any, ...]] = []
        self._part = 0
        self._parts = 0

    def part(self) -> None:
        """Begin a new part."""
        self._parts += 1
        self._part = self._parts

    def main_part(self) -> None:
        """Go back to the first part."""
        self._part = 0

    def loft(
        self,
        rings: ArrayLike,
        colours: Colour | NDArray[np.float32],
        gloss: float | NDArray[np.float32] = 0.0,
        glow: float = 0.0,
        layer: int = 0,
        caps: bool = True,
    ) -> None:
        """A skin over rings of points.

        Args:
            rings: `[S, M, 3]`, S closed rings of M points.
            colours: one, or `[S - 1, M, 3]` for the faces between rings.
            gloss: one, or `[S - 1, M]`.
            glow: of all faces.
            layer: of all faces.
            caps: close both ends.
        """
        rings = np.asarray(rings, np.float32)
        stations, around, _ = rings.shape
        hues = np.broadcast_to(np.asarray(colours, np.float32), (stations - 1, around, 3))
        shine = np.broadcast_to(np.asarray(gloss, np.float32), (stations - 1, around))
        first = self._add(rings.reshape(-1, 3))
        middles = rings.mean(1)
        inners = ((middles[1:] + middles[:-1]) / 2).tolist()
        paint, shiny = hues.tolist(), shine.tolist()
        for s in range(stations - 1):
            for m in range(around):
                n = (m + 1) % around
                corners = [s * around + m, s * around + n, (s + 1) * around + n, (s + 1) * around + m]
                self._face([first + c for c in corners], inners[s], paint[s][m], shiny[s][m], glow, layer)
        if caps:
            inner = middles.mean(0).tolist()
            for s, near in ((0, 0), (stations - 1, stations - 2)):
                corners = list(range(first + s * around, first + (s + 1) * around))
                self._face(
                    corners, inner, hues[min(s, near)].mean(0).tolist(), float(shine[min(s, near)].min()), glow, layer
                )

    def box(self, centre: ArrayLike, size: ArrayLike, colour: Colour, gloss: float = 0.0, glow: float = 0.0) -> None:
        """An upright box; `centre` and `size` are x, y, z."""
        (x, y, z), (a, b, c) = np.asarray(centre, float), np.asarray(size, float) / 2
        ring = [(x - a, y - b), (x + a, y - b), (x + a, y + b), (x - a, y + b)]
        self.loft([[(u, v, w) for u, v in ring] for w in (z - c, z + c)], colour, gloss, glow)

    def polygon(
        self,
        points: ArrayLike,
        outward: ArrayLike,
        colour: Colour,
        layer: int = 1,
        gloss: float = 0.0,
        glow: float = 0.0,
        two_sided: bool = False,
    ) -> None:
        """One convex face `[N, 3]`, on top of what is under it; `outward` is roughly its normal."""
        points = np.asarray(points, np.float32)
        first = self._add(points)
        inner = (points.mean(0) - np.asarray(outward, np.float32)).tolist()
        self._face(list(range(first, first + len(points))), inner, colour, gloss, glow, layer, two_sided)

    def disc(
        self,
        centre: ArrayLike,
        normal: ArrayLike,
        radius: float,
        colour: Colour,
        layer: int = 1,
        gloss: float = 0.0,
        glow: float = 0.0,
        corners: int = 12,
        turn: float = 0.0,
    ) -> None:
        """A regular polygon, round if it has many corners."""
        points = ring(centre, normal, radius, radius, corners, turn)
        self.polygon(points, normal, colour, layer, gloss, glow)

    def tube(
        self, start: ArrayLike, end: ArrayLike, radii: tuple[float, float], colour: Colour, sides: int = 6,
        gloss: float = 0.0,
    ) -> None:  # fmt: skip
        """A straight limb that may taper."""
        a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
        self.loft([ring(a, b - a, radii[0], radii[0], sides), ring(b, b - a, radii[1], radii[1], sides)], colour, gloss)

    def build(self) -> Mesh:
        """Return what was collected; faces without an area are left out."""
        width = max(len(face) for face in self._faces)
        faces = np.array([(*face, *(face[-1],) * (width - len(face))) for face in self._faces], np.int32)
        counts = np.array([len(face) for face in self._faces], np.int32)
        vertices = np.concatenate(self._vertices).astype(np.float32)
        points = vertices[faces]
        used = (np.arange(width) < counts[:, None])[..., None]
        centres = (points * used).sum(1) / counts[:, None]
        # Newell's method: right for triangles that are quads with two equal corners, too. The repeated last corner adds
        # nothing to it.
        arms = points - centres[:, None]
        normals = np.cross(arms, np.roll(arms, -1, 1)).sum(1)
        length = np.linalg.norm(normals, axis=1)
        inner, colours, gloss, glow, parts, layers, two_sided = zip(*self._rows, strict=True)
        outwards = (normals * (centres - np.array(inner, np.float32))).sum(1) >= 0
        normals = normals / np.maximum(length, 1e-9)[:, None] * np.where(outwards, 1, -1)[:, None]
        rows = length > 1e-9
        return Mesh(
            vertices,
            faces[rows],
            counts[rows],
            normals[rows].astype(np.float32),
            centres[rows].astype(np.float32),
            np.array(colours, np.float32)[rows],
            np.array(gloss, np.float32)[rows],
            np.array(glow, np.float32)[rows],
            np.array(parts, np.int32)[rows],
            np.array(layers, np.int32)[rows],
            np.array(two_sided, bool)[rows],
        )

    def _add(self, points: Points) -> int:
        first = self._count
        self._vertices.append(points)
        self._count += len(points)
        return first

    def _face(
        self, corners: Sequence[int], inner: object, colour: object, gloss: float, glow: float, layer: int,
        two_sided: bool = False,
    ) -> None:  # fmt: skip
        self._faces.append(tuple(corners))
        self._rows.append((inner, colour, gloss, glow, self._part, layer, two_sided))


def ring(
    centre: ArrayLike, normal: ArrayLike, wide: float, deep: float, corners: int = 8, turn: float = 0.0
) -> NDArray[np.float32]:
    """Points of an ellipse around `centre`, float32 `[corners, 3]`; `wide` lies along x where the normal allows."""
    a, b, c = (float(v) for v in np.asarray(normal, float))
    length = sqrt(a * a + b * b + c * c)
    a, b, c = a / length, b / length, c / length
    # u: x, or z where the normal is nearly x, less its part along the normal; v completes the frame.
    along = a if abs(a) < 0.8 else c
    u = ((1.0 if abs(a) < 0.8 else 0.0) - a * along, -b * along, (0.0 if abs(a) < 0.8 else 1.0) - c * along)
    scale = 1 / sqrt(u[0] ** 2 + u[1] ** 2 + u[2] ** 2)
    u = (u[0] * scale, u[1] * scale, u[2] * scale)
    v = (b * u[2] - c * u[1], c * u[0] - a * u[2], a * u[1] - b * u[0])
    angles = turn + np.arange(corners) * (2 * np.pi / corners)
    points = np.outer(np.cos(angles) * wide, u) + np.outer(np.sin(angles) * deep, v) + np.asarray(centre, float)
    return floats(points)
