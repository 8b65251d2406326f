"""A scene at one moment, as the camera sees it and as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.offboard.metrics.compact import CompactMask

from . import depth_camera, effects, lidar
from .actors.actor import Actor, TreeDesign
from .background import Background, cast_shadows
from .boxes import true_box
from .camera import NEAR, Camera, Pose
from .colours import floats
from .crowd import VIEW
from .raster import SUPERSAMPLING, Placement, SeenBody, colours, look_at, owners, paint, placed, whole_mask
from .scene import Scene
from .surfaces import Surfaces
from .truth import CLASS_NAMES, TrueInstance, Truth

# Owners are kept in 8 bits while painting.
_MOST_OWNERS = 255


@dataclass(frozen=True, slots=True)
class _Item:
    """What stands in the view, with its distance from the camera."""

    distance: float
    actor: Actor
    place: Placement


@dataclass(frozen=True, slots=True)
class Sensors:
    """What measures in three dimensions next to the camera.

    Attributes:
        depth: "exact", "noisy", or empty for no depth image.
        lidar: how many rings it has, 0 for no lidar.
        boxes_3d: the truth has boxes in three dimensions.
    """

    depth: str = ""
    lidar: int = 0
    boxes_3d: bool = False


@dataclass(frozen=True, slots=True)
class Rendering:
    """All that is made of one moment.

    Attributes:
        image: bgr8 `[height, width, 3]`.
        truth: what is in it.
        depth: float32 `[height, width]` in metres, NaN where there is none; None if it was not asked for.
        cloud: None if it was not asked for.
    """

    image: NDArray[np.uint8]
    truth: Truth
    depth: NDArray[np.float32] | None
    cloud: lidar.Cloud | None


class Renderer:
    """Paints the frames of one scene; the same frame whenever it is asked for."""

    def __init__(
        self, scene: Scene, camera: Camera, seed: tuple[int, ...], min_pixels: int, sensors: Sensors = Sensors()
    ) -> None:  # fmt: skip
        """Draw what stays the same.

        Args:
            scene: what there is.
            camera: who looks.
            seed: of textures and noise.
            min_pixels: instances with fewer visible pixels are no part of the truth.
            sensors: what else there is; the image and the rest of the truth do not depend on it.
        """
        self._sensors = sensors
        random = np.random.default_rng((*seed, 2))
        self.scene, self._camera, self._seed, self._min_pixels = scene, camera, seed, min_pixels
        self._background = Background(random, scene.street, scene.light, camera)
        self._grain = effects.grain_field(random, camera.width, camera.height)
        self._quality = int(random.integers(70, 95))

    def render(self, index: int, fps: float) -> Rendering:
        """Frame `index` of the scene."""
        second = index / fps
        pose = self.scene.pose(second)
        image, ground, far = self._background.render(pose)
        measured = self._sensors.depth or self._sensors.boxes_3d
        surfaces = Surfaces(self._background.rays, far) if measured else None
        items = self._in_view(pose, second)
        cast_shadows(image, ground, [s for item in items for s in self._shadows(item, pose, second)])
        big = cv2.resize(image, None, fx=SUPERSAMPLING, fy=SUPERSAMPLING, interpolation=cv2.INTER_LINEAR)
        canvas = cv2.cvtColor(big, cv2.COLOR_BGR2BGRA).view(np.uint8)
        canvas[..., 3] = 0
        painted = self._paint(canvas, surfaces, items, pose, second)
        truth = self._truth(owners(canvas), painted)
        depth = None if surfaces is None else surfaces.depth()
        if depth is not None and self._sensors.boxes_3d:
            truth = self._with_boxes(truth, depth, {item.actor.track: item for item, _ in painted}, pose, second)
        image = self._finish(colours(canvas), index, fps)
        return Rendering(image, truth, self._depth(depth, index), self._cloud(index, fps))

    def _paint(
        self, canvas: NDArray[np.uint8], surfaces: Surfaces | None, items: Sequence[_Item], pose: Pose, second: float
    ) -> list[tuple[_Item, SeenBody]]:
        """Paint everybody far to near; returns those who are no scenery, owner 1 first."""
        painted: list[tuple[_Item, SeenBody]] = []
        for item in items:
            if isinstance(item.actor.design, TreeDesign):
                self._plant(canvas, surfaces, item, item.actor.design, pose)
                continue
            body = look_at(item.actor.mesh(second), item.place, self._camera, pose, self.scene.light)
            if body is None:
                continue
            owner = 0
            if item.actor.track and len(painted) < _MOST_OWNERS:
                painted.append((item, body))
                owner = len(painted)
            paint(canvas, body, owner)
            if surfaces is not None:
                surfaces.add_body(body)
        return painted

    def _depth(self, exact: NDArray[np.float32] | None, index: int) -> NDArray[np.float32] | None:
        """What the depth camera measures, if there is one."""
        if exact is None or not self._sensors.depth:
            return None
        if self._sensors.depth == "exact":
            return exact
        return depth_camera.measured(exact, self._camera.focal, np.random.default_rng((*self._seed, 5, index)))

    def _cloud(self, index: int, fps: float) -> lidar.Cloud | None:
        """What the lidar measures in the sweep that ends with the frame, if there is one."""
        if not self._sensors.lidar:
            return None
        return lidar.sweep(
            lidar.lidar_model(self._sensors.lidar), self.scene, self._background, index / fps, lidar.sweep_seconds(fps),
            np.random.default_rng((*self._seed, 6, index)),
        )  # fmt: skip

    def _in_view(self, pose: Pose, second: float) -> list[_Item]:
        """Return what is not behind the camera or too far away, far to near."""
        items = []
        half_view = 1.1 * self._camera.width / (2 * self._camera.focal)
        for actor in self.scene.actors:
            place = actor.at(second)
            ahead, across = place.z - pose.z, place.x - pose.x
            # The widest body is a bus, and the camera looks up to a few degrees aside.
            if -8 < ahead < VIEW and abs(across) < 8 + 0.1 * VIEW * (ahead > 30) + half_view * max(ahead, 0):
                items.append(_Item(float(np.hypot(ahead, across)) - 0.05 * (actor.seat > 0), actor, place))
        return sorted(items, key=lambda item: -item.distance)

    def _shadows(self, item: _Item, pose: Pose, second: float) -> list[tuple[NDArray[np.int32], float]]:
        """Outlines on the ground: where the sun does not reach, and right under the body."""
        light, actor = self.scene.light, item.actor
        if isinstance(actor.design, TreeDesign) or item.place.y > 1 or not 1 < item.place.z - pose.z < 40:
            return []
        vertices = actor.mesh(second).vertices
        points = vertices[:: max(1, len(vertices) // 40)]
        world = placed(points, item.place)
        result: list[tuple[NDArray[np.int32], float]] = []
        reach = np.minimum(world[:, 1:2], 4.0) / max(light.to_sun[1], 0.12)
        cast = world - floats([light.to_sun[0], 0, light.to_sun[2]]) * reach
        below = world.copy()
        low = world[:, 1] < 0.9 if actor.track else np.zeros(len(world), bool)
        for ground, dark in ((cast, light.shadow), (below[low], 0.35 + 0.3 * light.shadow)):
            if len(ground) < 3 or dark < 0.1:
                continue
            flat = floats(ground.copy())
            flat[:, 1] = 0
            seen = pose.bent(flat) @ pose.rotation().T
            if (seen[:, 2] > NEAR).all():
                pixels = np.rint(self._camera.pixels(seen)).astype(np.int32)
                result.append((cv2.convexHull(pixels).reshape(-1, 2).astype(np.int32), dark))
        return result

    def _plant(
        self, canvas: NDArray[np.uint8], surfaces: Surfaces | None, item: _Item, tree: TreeDesign, pose: Pose
    ) -> None:  # fmt: skip
        foot = np.array([[item.place.x, 0, item.place.z], [item.place.x, tree.height, item.place.z]], np.float32)
        seen = pose.bent(foot) @ pose.rotation().T
        if seen[0, 2] < 2.0:
            return
        (x, bottom), (_, top) = ((self._camera.pixels(seen) + 0.5) * SUPERSAMPLING).tolist()
        sprite = self._background.trees[tree.image]
        height = round(bottom - top)
        width = round(height * sprite.shape[1] / sprite.shape[0])
        left, upper = round(x - width / 2), round(top)
        x1, y1 = max(0, left), max(0, upper)
        x2, y2 = min(canvas.shape[1], left + width), min(canvas.shape[0], upper + height)
        if x1 >= x2 or y1 >= y2:
            return
        matrix = np.array([[width / sprite.shape[1], 0, left - x1], [0, height / sprite.shape[0], upper - y1]])
        scaled = cv2.warpAffine(sprite, matrix, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR)
        mask = (scaled[..., 3] > 127).astype(np.uint8)
        haze = float(np.exp(-self.scene.light.fog * item.distance))
        tinted = cv2.addWeighted(scaled, haze, np.full_like(scaled, (*self.scene.light.horizon, 0)), 1 - haze, 0)
        tinted[..., 3] = 0
        cv2.copyTo(tinted, mask, canvas[y1:y2, x1:x2])
        if surfaces is not None:
            surfaces.add_plate(mask, (x1, y1), seen[0], pose)

    def _truth(self, owner: NDArray[np.uint8], painted: Sequence[tuple[_Item, SeenBody]]) -> Truth:
        height, width = owner.shape
        areas = np.bincount(owner.reshape(-1), minlength=_MOST_OWNERS + 1)
        numbers = np.zeros(_MOST_OWNERS + 1, np.uint16)
        instances = []
        for number, (item, body) in enumerate(painted, 1):
            actor = item.actor
            if areas[number] < self._min_pixels:
                continue
            numbers[number] = actor.track
            left, top, region = whole_mask(body, width, height)
            whole = _placed(region, left, top, (height, width))
            window = owner[top : top + region.shape[0], left : left + region.shape[1]]
            visible = _placed(window == number, left, top, (height, width))
            box = (float(visible.left), float(visible.top), float(visible.right), float(visible.bottom))
            hidden = 1 - visible.area / max(whole.area, 1)
            instances.append(
                TrueInstance(
                    actor.track,
                    CLASS_NAMES.index(actor.class_name),
                    visible,
                    whole,
                    box,
                    body.box,
                    body.distance,
                    hidden,
                )
            )
        return Truth(numbers[owner], tuple(sorted(instances, key=lambda each: each.number)))

    def _with_boxes(
        self, truth: Truth, depth: NDArray[np.float32], items: Mapping[int, _Item], pose: Pose, second: float
    ) -> Truth:  # fmt: skip
        """The same with a box in three dimensions for each instance."""
        instances = []
        for instance in truth.instances:
            mask, item = instance.visible, items[instance.number]
            window = (slice(mask.top, mask.bottom), slice(mask.left, mask.right))
            pixels = truth.instance_map[window] == instance.number
            points = self._background.rays[window][pixels] * depth[window][pixels][:, None]
            nearest = points[np.argmin((points * points).sum(1))]
            based = pose.to_base((nearest @ pose.rotation())[None])[0]
            box = true_box(item.actor.mesh(second), item.place, pose, based)
            instances.append(replace(instance, box_3d=box))
        return Truth(truth.instance_map, tuple(instances))

    def _finish(self, image: NDArray[np.uint8], index: int, fps: float) -> NDArray[np.uint8]:
        """From light to file."""
        random, light = np.random.default_rng((*self._seed, 3, index)), self.scene.light
        travel = self.scene.speed / fps
        image = effects.motion_blur(image, light, travel / 14, float(random.normal(0, 2)))
        if light.lamps or light.weather == "low_sun":
            image = effects.bloom(image, 0.5)
        if light.weather == "rain":
            image = effects.rain(image, random)
        image = effects.expose(image, light)
        image = effects.sensor_noise(image, light, random, self._grain)
        return effects.jpeg(image, self._quality)


def _placed(region: NDArray[np.bool_], left: int, top: int, size: tuple[int, int]) -> CompactMask:
    """The mask of an image of which `region` is a part and the rest is empty."""
    mask = CompactMask.of(region)
    return CompactMask(
        size, mask.top + top, mask.left + left, mask.bottom + top, mask.right + left, mask.area, mask.bits
    )  # fmt: skip
