"""Everything that belongs to nobody: ground, house fronts and sky, found by following each pixel's ray."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from . import textures as t
from .camera import Camera, Pose
from .colours import floats
from .layout import Street
from .light import Light, headlight

_FAR = 400.0
_CLOUDS = {"day": 0.15, "low_sun": 0.1, "night": 0.0, "dusk": 0.3}


class Background:
    """The empty street of one scene."""

    def __init__(self, random: np.random.Generator, street: Street, light: Light, camera: Camera) -> None:
        """Draw the textures."""
        self.street, self._light = street, light
        self.rays = camera.rays()
        ground = t.ground_texture(random, street)
        lit = np.asarray(light.sky) + np.asarray(light.sun) * light.to_sun[1]
        if light.wet:
            lit = lit * 0.72
        self._ground = t.levels(np.clip(ground * lit, 0, 255).astype(np.uint8), 0)
        self._ground_columns = ground.shape[1]
        self._raw_gain = floats(lit)
        self._fronts = [self._front(random, side) for side in (-1, 1)]
        self._sky = t.sky_texture(random, light.zenith, light.horizon, _CLOUDS.get(light.weather, 0.6))
        self.trees = [self._lit_sprite(sprite) for sprite in t.tree_sprites(random, 8)]

    def _front(self, random: np.random.Generator, side: int) -> NDArray[np.uint8]:
        light = self._light
        texture = t.grain(t.front_texture(random, self.street, light.lamps), random)
        sun = max(0.0, -side * light.to_sun[0])
        gain = np.asarray(light.sun) * sun + 0.75 * np.asarray(light.sky) + 0.3 * np.asarray(light.bounce)
        glowing = texture[..., 2] > 225 if light.lamps else np.zeros(texture.shape[:2], bool)
        kept = texture[glowing]
        texture[..., :3] = np.clip(texture[..., :3] * gain, 0, 255)
        texture[glowing] = kept
        return t.levels(texture, 1)

    def _lit_sprite(self, sprite: NDArray[np.uint8]) -> NDArray[np.uint8]:
        light = self._light
        gain = 0.7 * np.asarray(light.sun) + 0.8 * np.asarray(light.sky)
        sprite[..., :3] = np.clip(sprite[..., :3] * gain, 0, 255)
        return sprite

    def render(self, pose: Pose) -> tuple[NDArray[np.uint8], int, NDArray[np.float32]]:
        """The empty street.

        Returns:
            bgr8 `[height, width, 3]`, the first row in which there may be ground, and the depth of each pixel in
            metres along the optical axis, float32 `[height, width]`, NaN for the sky.
        """
        rays = floats(cv2.transform(self.rays, pose.rotation().T))
        down = rays[..., 1]
        first = int(np.argmax((down < -0.002).any(1)))
        last = len(down) - int(np.argmax((down[::-1] > -0.02).any(1)))
        image = np.empty(rays.shape, np.uint8)
        image[:last] = self._sky_part(rays[:last])
        depth = np.full(image.shape[:2], np.nan, np.float32)
        self._add_ground(image[first:], depth[first:], rays[first:], pose)
        # House fronts reach below the horizon, down to where they stand.
        straight = rays[len(image) // 2, :, 0]
        margin = round(image.shape[1] * (0.02 + 40 * abs(pose.bend))) + 2
        middle = int(np.searchsorted(straight, 0.0))
        for side, part in ((-1, slice(0, middle + margin)), (1, slice(max(0, middle - margin), None))):
            self._add_front(image[:, part], depth[:, part], rays[:, part], pose, side)
        return image, first, depth

    def _sky_part(self, rays: NDArray[np.float32]) -> NDArray[np.uint8]:
        azimuth = rays[..., 0] / np.maximum(rays[..., 2], 0.1)
        columns = 512 + azimuth * np.float32(57.3 * 4 * 0.8)
        rows = (60 - rays[..., 1] * np.float32(52.0)) * 4
        return cv2.remap(self._sky, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).view(np.uint8)

    def _add_ground(
        self, image: NDArray[np.uint8], depth: NDArray[np.float32], rays: NDArray[np.float32], pose: Pose
    ) -> None:  # fmt: skip
        down = rays[..., 1]
        there = down < -0.002
        scale = pose.y / np.maximum(-down, 0.002)
        ahead = rays[..., 2] * scale
        across = pose.x + rays[..., 0] * scale - np.float32(pose.bend / 2) * ahead * ahead
        columns = np.clip((across + t.GROUND_HALF) * t.GROUND_X, 0, 2 * t.GROUND_HALF * t.GROUND_X - 1)
        columns += _level(floats(scale * scale * np.float32(t.GROUND_Z / (pose.y * 520)))) * np.float32(
            self._ground_columns
        )
        rows = (ahead + np.float32(pose.z % self.street.period)) * np.float32(t.GROUND_Z)
        seen = cv2.remap(self._ground, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP).view(np.uint8)
        light = self._light
        haze = np.exp(np.minimum(ahead, np.float32(_FAR)) * np.float32(-light.fog))
        mirror = np.clip(1 - np.abs(down) * np.float32(3.5), 0, 1) * np.float32(0.45 if light.wet else 0.06)
        kept = haze * (1 - mirror)
        mixed = self._veiled(seen, floats(kept))
        if light.weather in ("night", "dusk"):
            relative = floats(np.dstack([rays[..., 0] * scale, -scale * 0, ahead]).reshape(-1, 3))
            own = headlight(light, relative).reshape(ahead.shape) * kept / np.float32(self._raw_gain.mean()) * 0.6
            mixed = np.clip(mixed + seen * own[..., None], 0, 255).astype(np.uint8)
        cv2.copyTo(mixed, there.view(np.uint8), image)
        # The rays are one metre long along the optical axis, so that their scale is the depth.
        np.copyto(depth, scale, where=there)

    def _veiled(self, seen: NDArray[np.uint8], share: NDArray[np.float32]) -> NDArray[np.uint8]:
        """A bgr8 image of which `share` `[height, width]` comes through the air; the rest is light of the horizon."""
        veil = np.empty_like(seen)
        veil[:] = self._light.horizon
        return cv2.blendLinear(seen, veil, share, 1 - share).view(np.uint8)

    def _add_front(
        self, image: NDArray[np.uint8], depth: NDArray[np.float32], rays: NDArray[np.float32], pose: Pose, side: int
    ) -> None:  # fmt: skip
        """Where the ray meets the wall at x = side * front, which bends with the road."""
        reach = np.float32(side * self.street.front - pose.x)
        across, forward = rays[..., 0], rays[..., 2]
        root = across * across - np.float32(2 * pose.bend) * forward * forward * reach
        bottom = across + side * np.sqrt(np.maximum(root, 0))
        scale = np.where((root >= 0) & (bottom * side > 1e-4), 2 * reach / np.where(bottom == 0, 1, bottom), _FAR)
        height = pose.y + rays[..., 1] * scale
        ahead = forward * scale
        there = (scale < _FAR / 2) & (height > 0) & (height < t.FRONT_HEIGHT) & (ahead > 0)
        rows_there = np.flatnonzero(there.any(1))
        if not len(rows_there):
            return
        part = slice(int(rows_there[0]), int(rows_there[-1]) + 1)
        height, ahead, there = height[part], ahead[part], there[part]
        texture = self._fronts[0 if side < 0 else 1]
        tall = int(t.FRONT_HEIGHT * t.FRONT)
        level = _level(ahead * ahead * np.float32(t.FRONT / (abs(float(reach)) * 520)))
        columns = (np.clip(ahead, 0, _FAR) + np.float32(pose.z % (2 * self.street.period))) * np.float32(t.FRONT)
        rows = np.clip(tall - 1 - height * np.float32(t.FRONT), 0, tall - 1) + level * np.float32(tall)
        seen = cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        haze = np.exp(np.clip(ahead, 0, _FAR) * np.float32(-self._light.fog))
        veiled = self._veiled(cv2.cvtColor(seen, cv2.COLOR_BGRA2BGR).view(np.uint8), haze)
        solid = there & (seen[..., 3] > 127)
        cv2.copyTo(veiled, solid.view(np.uint8), image[part])
        np.copyto(depth[part], scale[part], where=solid)

    def is_wall(self, side: int, along: NDArray[np.float64], height: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return where the house fronts of a side (-1 or 1) are solid, bool `[N]`.

        Args:
            side: -1 for the left fronts, 1 for the right ones.
            along: float64 `[N]`, z of the street in metres.
            height: float64 `[N]`, above the road in metres.
        """
        texture, tall = self._fronts[0 if side < 0 else 1], int(t.FRONT_HEIGHT * t.FRONT)
        columns = np.floor(along * t.FRONT).astype(np.int64) % texture.shape[1]
        rows = np.clip(np.floor(tall - height * t.FRONT).astype(np.int64), 0, tall - 1)
        return np.asarray((texture[rows, columns, 3] > 127) & (height > 0) & (height < t.FRONT_HEIGHT), bool)


def _level(footprint: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return which blurred copy of a texture has details of `footprint` pixels."""
    level = (footprint > 2).astype(np.float32)
    for step in range(2, t.LEVELS):
        level += footprint > 2**step
    return level


def cast_shadows(image: NDArray[np.uint8], first: int, outlines: Sequence[tuple[NDArray[np.int32], float]]) -> None:
    """Darken the ground.

    Args:
        image: bgr8 `[height, width, 3]`, changed in place.
        first: row in which the ground begins.
        outlines: convex polygons int32 `[N, 2]` in pixels and how dark each is, 0 to 1.
    """
    gain = np.full((image.shape[0] - first, image.shape[1]), 255, np.uint8)
    layer = np.empty_like(gain)
    for points, dark in outlines:
        x, y, w, h = cv2.boundingRect(points)
        y -= first
        window = (slice(max(0, y), max(0, y + h)), slice(max(0, x), max(0, x + w)))
        region, stamp = gain[window], layer[window]
        if not region.size:
            continue
        stamp[:] = 255
        origin = (max(0, x), max(0, y) + first)
        cv2.fillConvexPoly(stamp, points - np.array(origin, np.int32), int(255 * (1 - dark)))
        np.minimum(region, stamp, out=region)
    soft = cv2.GaussianBlur(gain, (0, 0), image.shape[0] / 260)
    ground = image[first:]
    cv2.multiply(ground, cv2.cvtColor(soft, cv2.COLOR_GRAY2BGR), ground, 1 / 255)
