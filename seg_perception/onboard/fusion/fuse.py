"""Points and instance maps to labelled points and objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.core.errors import FrameError
from seg_perception.core.messages.detections import DetectionRow, PlacedObject, write_detections_3d
from seg_perception.core.messages.point_clouds import PointCloud, write_point_cloud

from .boxes import FusionOptions, axes_of, box_around, depth_interval, thinned
from .depth import DepthImage
from .projection import NEAREST, Projection
from .transforms import RigidTransform, TransformBuffer

# Value of the field `group` for a class of no road group.
OTHER_GROUP = 255
# A sweep is put where the sensor was in steps of so many seconds.
_STEP_SECONDS = 0.005
_ASPECT = 0.02


@dataclass(frozen=True, slots=True)
class View:
    """What a segmenter found in one image of a camera.

    Attributes:
        camera: its name.
        frame_id: the camera's optical frame.
        stamp_ns: of the image.
        projection: of the camera, for the size of the map or of a depth image.
        instance_map: uint16 `[h, w]`.
        rows: the detections by instance number.
    """

    camera: str
    frame_id: str
    stamp_ns: int
    projection: Projection
    instance_map: NDArray[np.uint16]
    rows: Mapping[int, DetectionRow]


@dataclass(frozen=True, slots=True)
class Fused:
    """Labelled points and objects at one moment, in one frame.

    Attributes:
        cloud: in coordinates of the frame wanted.
        instance: uint16 `[N]`, the instance number of each point in its camera, 0 for none.
        group: uint8 `[N]`, 0 for none, else the road group's place in `ROAD_GROUPS` + 1, 255 for another class.
        camera: uint8 `[N]`, the place of the camera whose instance it is in `cameras`.
        cameras: names of all cameras, also of those without results.
        objects: those that could be placed.
        distances: metres from the camera to the middle of the points of each object.
        unplaced: how many instances had too few points, by camera.
    """

    cloud: PointCloud
    instance: NDArray[np.uint16]
    group: NDArray[np.uint8]
    camera: NDArray[np.uint8]
    cameras: tuple[str, ...]
    objects: Sequence[PlacedObject]
    distances: Sequence[float]
    unplaced: Mapping[str, int]

    def points_message(self, *, all_points: bool) -> bytes:
        """Serialize `~/points`; without `all_points` those of instances only."""
        columns: dict[str, NDArray[np.generic]] = dict(zip("xyz", self.cloud.xyz.T, strict=True))
        if self.cloud.intensity is not None:
            columns["intensity"] = self.cloud.intensity
        if self.cloud.ring is not None:
            columns["ring"] = self.cloud.ring
        columns |= {"instance": self.instance, "group": self.group}
        if len(self.cameras) > 1:
            columns["camera"] = self.camera
        if not all_points:
            labelled = self.instance != 0
            columns = {name: values[labelled] for name, values in columns.items()}
        return write_point_cloud(self.cloud.stamp_ns, self.cloud.frame_id, columns)

    def detections_message(self) -> bytes:
        """Serialize `~/detections_3d`."""
        return write_detections_3d(self.cloud.stamp_ns, self.cloud.frame_id, self.objects)


# Where an object moves, by its identity, centre in the target frame: a direction there, or None where it is not known.
Headings = Callable[[str, NDArray[np.float64]], "NDArray[np.float64] | None"]


@dataclass(frozen=True, slots=True)
class _Labelled:
    """Points with the view that sees each best, and what is under it there.

    Attributes:
        instance: uint16 `[N]`.
        view: uint8 `[N]`.
        depth: float32 `[N]`, along the optical axis of that view.
        reach: float32 `[N]`, metres from its camera.
    """

    instance: NDArray[np.uint16]
    view: NDArray[np.uint8]
    depth: NDArray[np.float32]
    reach: NDArray[np.float32]


def deskewed(cloud: PointCloud, transforms: TransformBuffer, fixed: str) -> PointCloud:
    """Put the points of a sweep where they are at its stamp, as seen from where the sensor is then.

    Args:
        cloud: with the moment of each point; without, nothing changes.
        transforms: of /tf.
        fixed: frame that does not move meanwhile.

    Raises:
        TransformError: where the sensor was is not known.
    """
    if cloud.offsets is None or not len(cloud) or not np.ptp(cloud.offsets):
        return cloud
    steps = np.floor(cloud.offsets / _STEP_SECONDS).astype(np.int16)
    # Of 16 bits, which are sorted in linear time.
    order = np.argsort(steps, kind="stable")
    begins = np.flatnonzero(np.diff(steps[order], prepend=np.int16(steps.min() - 1)))
    last = float(cloud.offsets.max())
    sorted_cloud = cloud.only(order)
    now = transforms.lookup(cloud.frame_id, fixed, cloud.stamp_ns)
    for begin, end in zip(begins, [*begins[1:], len(cloud)], strict=True):
        # The last step may end after the sweep does.
        seconds = min((float(steps[order[begin]]) + 0.5) * _STEP_SECONDS, last)
        there = transforms.lookup(fixed, cloud.frame_id, cloud.stamp_ns + int(seconds * 1e9))
        sorted_cloud.xyz[begin:end] = (now @ there).points(sorted_cloud.xyz[begin:end])
    return replace(sorted_cloud, offsets=None)


def fuse_cloud(
    cloud: PointCloud,
    views: Sequence[tuple[View, RigidTransform]],
    target: tuple[str, RigidTransform],
    options: FusionOptions,
    headings: Headings = lambda identity, centre: None,
    cameras: Sequence[str] = (),
) -> Fused:
    """Label the points of a lidar.

    A point that several cameras see has the instance of the one that sees it nearest to its optical axis.

    Args:
        cloud: the points.
        views: of the cameras, and what takes points of the cloud to each camera's optical frame.
        target: the frame in which results are wanted, and what takes points of the cloud there.
        options: how.
        headings: where objects move.
        cameras: names of all cameras, if there are more than those of the views.
    """
    count = len(cloud)
    labelled = _Labelled(
        np.zeros(count, np.uint16), np.zeros(count, np.uint8), np.zeros(count, np.float32), np.zeros(count, np.float32)
    )
    best = np.zeros(count, np.float32)
    for place, (view, to_camera) in enumerate(views):
        local = to_camera.points(cloud.xyz)
        rows, columns, lines = view.projection.seen(local)
        depth = local[rows, 2]
        reach = np.sqrt(np.einsum("ij,ij->i", local[rows], local[rows]))
        nearer = depth > best[rows] * reach
        rows, columns, lines, depth, reach = (each[nearer] for each in (rows, columns, lines, depth, reach))
        best[rows] = depth / reach
        labelled.instance[rows] = view.instance_map[lines, columns]
        labelled.view[rows], labelled.depth[rows], labelled.reach[rows] = place, depth, reach
    seen = [view for view, _ in views]
    return _placed(cloud, labelled, seen, target, options, headings, tuple(cameras or (each.camera for each in seen)))


def fuse_depth(
    depth: DepthImage,
    view: View,
    target: tuple[str, RigidTransform],
    options: FusionOptions,
    headings: Headings = lambda identity, centre: None,
    *,
    all_points: bool = False,
) -> Fused:
    """Label the points of a depth image that is aligned with the camera.

    Args:
        depth: the image, of the size that the view's projection is for; the map may have another.
        view: of the camera.
        target: the frame in which results are wanted, and what takes points of the camera's optical frame there.
        options: how.
        headings: where objects move.
        all_points: whether points of no instance are kept.

    Raises:
        FrameError: kind `size`, depth image and map do not show the same.
    """
    instances = _at_size(view.instance_map, depth.values.shape).reshape(-1)
    values = depth.values.reshape(-1)
    chosen = np.flatnonzero(instances) if not all_points else np.arange(len(values))
    metres = values[chosen].astype(np.float32) * np.float32(depth.metres)
    # False for NaN, too.
    usable = (metres > NEAREST) & (metres < 1e4)
    chosen, metres = chosen[usable], metres[usable]
    xyz = view.projection.rays()[chosen] * metres[:, None]
    reach = np.sqrt(np.einsum("ij,ij->i", xyz, xyz))
    cloud = PointCloud(depth.stamp_ns, view.frame_id, xyz, left_out=len(usable) - len(chosen))
    labelled = _Labelled(instances[chosen], np.zeros(len(chosen), np.uint8), metres, reach)
    return _placed(cloud, labelled, [view], target, options, headings, (view.camera,))


def _at_size(instance_map: NDArray[np.uint16], shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """The map at another resolution, each pixel from where its centre lies."""
    if instance_map.shape == shape:
        return instance_map
    (height, width), (lines, columns) = instance_map.shape, shape
    if abs(width * lines - height * columns) > _ASPECT * width * lines:
        raise FrameError(
            "size",
            f"depth image: expected one shaped as the instance map, {width} x {height}, got {columns} x {lines}; "
            "name a depth topic that is aligned with the camera (for RealSense aligned_depth_to_color)",
        )
    rows = ((2 * np.arange(lines) + 1) * height) // (2 * lines)
    places = ((2 * np.arange(columns) + 1) * width) // (2 * columns)
    resized: NDArray[np.uint16] = instance_map[rows[:, None], places]
    return resized


def _placed(
    cloud: PointCloud,
    labelled: _Labelled,
    views: Sequence[View],
    target: tuple[str, RigidTransform],
    options: FusionOptions,
    headings: Headings,
    cameras: tuple[str, ...],
) -> Fused:
    """Part each instance from what is behind it, and put boxes around them."""
    frame_id, transform = target
    xyz, axes = transform.points(cloud.xyz), axes_of(frame_id)
    instance, group = np.zeros_like(labelled.instance), np.zeros(len(cloud), np.uint8)
    objects: list[PlacedObject] = []
    distances: list[float] = []
    unplaced: dict[str, int] = {}
    for place, view in enumerate(views):
        unplaced[view.camera] = len(view.rows)
        for number, rows in _by_instance(labelled, place):
            row = view.rows.get(number)
            if row is None:
                # A map that does not belong to the detections; its points stay without a label.
                continue
            depths = labelled.depth[rows]
            interval = depth_interval(depths, row.group, options)
            if interval is None:
                continue
            rows = rows[(depths >= interval[0]) & (depths <= interval[1])]
            if len(rows) < options.min_points:
                continue
            instance[rows], group[rows] = number, _group_value(row.group)
            identity = f"{view.camera}/{number}" if len(cameras) > 1 else str(number)
            few = thinned(rows)
            objects.append(_object(xyz[few], identity, row, axes, headings))
            distances.append(_median(labelled.reach[few]))
            unplaced[view.camera] -= 1
    moved = replace(cloud, frame_id=frame_id, xyz=xyz, offsets=None)
    places = np.array([cameras.index(view.camera) for view in views], np.uint8)
    return Fused(moved, instance, group, places[labelled.view], cameras, objects, distances, unplaced)


def _by_instance(labelled: _Labelled, place: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Rows of the points of each instance of a view, by its number."""
    rows = np.flatnonzero((labelled.instance != 0) & (labelled.view == place))
    numbers = labelled.instance[rows]
    order = np.argsort(numbers, kind="stable")
    rows, numbers = rows[order], numbers[order]
    begins = np.flatnonzero(np.diff(numbers, prepend=np.uint16(0)))
    return [(int(numbers[begin]), part) for begin, part in zip(begins, np.split(rows, begins)[1:], strict=True)]


def _object(
    xyz: NDArray[np.float32],
    identity: str,
    row: DetectionRow,
    axes: NDArray[np.float64],
    headings: Headings,
) -> PlacedObject:
    box = box_around(xyz, axes)
    heading = headings(identity, box.centre)
    if heading is not None:
        box = box_around(xyz, axes, heading)
    apart = xyz.astype(np.float64)
    apart -= apart.mean(0)
    spread = apart.T @ apart / max(1, len(apart) - 1)
    return PlacedObject(identity, row.hypotheses, box.centre, box.size, box.quaternion(), spread)


def _median(values: NDArray[np.float32]) -> float:
    """The middle value; of two the larger."""
    return float(np.partition(values, len(values) // 2)[len(values) // 2])


def _group_value(name: str) -> int:
    return ROAD_GROUPS.index(name) + 1 if name in ROAD_GROUPS else OTHER_GROUP
