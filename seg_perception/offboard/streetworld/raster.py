"""Painting: faces from far to near, colour and owner in one stroke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .camera import NEAR, Camera, Pose
from .light import Light, shade
from .mesh import Mesh

# Everything is painted at twice the size of the image, and in sixteenths of such a pixel.
SUPERSAMPLING = 2
SHIFT = 4
# The sample of a pixel's 2 x 2 that says to whom it belongs.
SAMPLE = (slice(1, None, SUPERSAMPLING), slice(1, None, SUPERSAMPLING))


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a body stands: position of its origin in metres, and yaw in radians."""

    x: float
    y: float
    z: float
    yaw: float = 0.0

    def turn(self) -> NDArray[np.float32]:
        """From the body's axes to the world's, for rows of points, float32 `[3, 3]`."""
        sine, cosine = np.sin(self.yaw), np.cos(self.yaw)
        return np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]], np.float32)


@dataclass(frozen=True, slots=True)
class SeenBody:
    """What the camera sees of one body.

    Attributes:
        polygons: int32 `[N, 1, 2]` each, in sixteenths of pixels of the enlarged image, far to near.
        colours: blue, green, red of each.
        box: x1 y1 x2 y2 in camera pixels, also outside the image; edges of pixels, not centres.
        distance: from the camera to the middle of its nearest visible face, in metres.
        points: float32 `[V, 3]`, all vertices in camera coordinates.
        faces: int32 `[N, K]`, vertices of the polygons in their order; the last one is repeated up to K.
    """

    polygons: Sequence[NDArray[np.int32]]
    colours: Sequence[Sequence[float]]
    box: tuple[float, float, float, float]
    distance: float
    points: NDArray[np.float32]
    faces: NDArray[np.int32]


def placed(points: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Points `[N, 3]` of a body in the world, float32 `[N, 3]`."""
    return points @ placement.turn() + np.array([placement.x, placement.y, placement.z], np.float32)


def look_at(mesh: Mesh, placement: Placement, camera: Camera, pose: Pose, light: Light) -> SeenBody | None:
    """Project and light a body; None when nothing of it is in front of the camera."""
    points = pose.bent(placed(mesh.vertices, placement)) @ pose.rotation().T
    centres = pose.bent(placed(mesh.centres, placement))
    normals = mesh.normals @ placement.turn()
    facing = (normals * centres).sum(1)
    depth = points[:, 2]
    seen = ((facing < 0) | mesh.two_sided) & (depth[mesh.faces] > NEAR).any(1)
    rows = np.flatnonzero(seen)
    if not len(rows):
        return None
    corners, box = _corners(mesh, rows, points, camera)
    if box[0] >= camera.width or box[1] >= camera.height or box[2] <= 0 or box[3] <= 0:
        return None
    distance = (centres[rows] ** 2).sum(1)
    parts = mesh.parts[rows]
    part_distance = np.bincount(parts, distance) / np.maximum(np.bincount(parts), 1)
    order = np.lexsort((-distance, mesh.layers[rows], -part_distance[parts]))
    rows = rows[order]
    outward = np.where(facing[rows, None] < 0, normals[rows], -normals[rows])
    colours = shade(light, mesh.colours[rows], outward, centres[rows], mesh.gloss[rows], mesh.glow[rows])
    polygons = [corners[number] for number in order.tolist()]
    shown = np.clip(colours, 0, 255).tolist()
    return SeenBody(polygons, shown, box, float(np.sqrt(distance.min())), points, mesh.faces[rows])


def _corners(
    mesh: Mesh, rows: NDArray[np.int64], points: NDArray[np.float32], camera: Camera
) -> tuple[list[NDArray[np.int32]], tuple[float, float, float, float]]:
    """Projected faces, and the box around them."""
    faces = mesh.faces[rows]
    near = points[:, 2] <= NEAR
    cut = near[faces].any(1)
    safe = points
    if cut.any():
        safe = points.copy()
        safe[near, 2] = NEAR
    pixels = camera.pixels(safe)[faces]
    fixed = _fixed(pixels)
    polygons = [polygon[:count] for polygon, count in zip(fixed, mesh.counts[rows].tolist(), strict=True)]
    kept = pixels[~cut].reshape(-1, 2)
    for number in np.flatnonzero(cut).tolist():
        clipped = camera.pixels(_clip(points[faces[number, : mesh.counts[rows[number]]]]))
        kept = np.concatenate([kept, clipped])
        polygons[number] = _fixed(clipped)
    (x1, y1), (x2, y2) = (kept.min(0) + 0.5).tolist(), (kept.max(0) + 0.5).tolist()
    return polygons, (x1, y1, x2, y2)


def _fixed(pixels: NDArray[np.float32]) -> NDArray[np.int32]:
    """Camera pixels in sixteenths of enlarged pixels."""
    enlarged = (pixels + 0.5) * SUPERSAMPLING - 0.5
    return np.ascontiguousarray(np.rint(enlarged * (1 << SHIFT)).astype(np.int32))


def _clip(polygon: NDArray[np.float32]) -> NDArray[np.float32]:
    """The part of a polygon in camera coordinates that is beyond `NEAR`."""
    result = []
    for start, end in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if start[2] > NEAR:
            result.append(start)
        if (start[2] > NEAR) != (end[2] > NEAR):
            result.append(start + (end - start) * ((NEAR - start[2]) / (end[2] - start[2])))
    return np.array(result, np.float32)


def paint(canvas: NDArray[np.uint8], body: SeenBody, owner: int) -> None:
    """Paint a body.

    Args:
        canvas: uint8 `[2 * height, 2 * width, 4]`: blue, green, red, owner.
        body: to be painted.
        owner: 1 to 255, or 0 for scenery.
    """
    for polygon, (blue, green, red) in zip(body.polygons, body.colours, strict=True):
        cv2.fillConvexPoly(canvas, polygon, (blue, green, red, owner), cv2.LINE_8, SHIFT)


def owners(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Who owns each pixel of the image, uint8 `[height, width]`."""
    return np.ascontiguousarray(canvas[SAMPLE][..., 3])


def colours(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image, uint8 `[height, width, 3]`."""
    height, width = canvas.shape[0] // SUPERSAMPLING, canvas.shape[1] // SUPERSAMPLING
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGRA2BGR).view(np.uint8)


def whole_mask(body: SeenBody, width: int, height: int) -> tuple[int, int, NDArray[np.bool_]]:
    """The mask of a body as if nothing stood before it, within the image.

    Returns:
        Left and top of the region in camera pixels, and the region, bool `[h, w]`; empty outside the image.
    """
    x1, y1 = max(0, int(body.box[0]) - 1), max(0, int(body.box[1]) - 1)
    x2, y2 = min(width, int(body.box[2]) + 2), min(height, int(body.box[3]) + 2)
    if x1 >= x2 or y1 >= y2:
        return 0, 0, np.zeros((0, 0), bool)
    region = np.zeros(((y2 - y1) * SUPERSAMPLING, (x2 - x1) * SUPERSAMPLING), np.uint8)
    shift = np.array([x1, y1], np.int32) * (SUPERSAMPLING << SHIFT)
    for polygon in body.polygons:
        cv2.fillConvexPoly(region, polygon - shift, 1, cv2.LINE_8, SHIFT)
    return x1, y1, region[SAMPLE].astype(bool)
