"""The street world as a bag: what a camera would record, and the truth as the node would publish it.

The topics and messages of the truth are those of the node: an instance map and detections under the image's header.
Next to them, `/tf` says at the same stamps where the car and its camera are. Depth images, a lidar's clouds and true
boxes in three dimensions come with them if the world has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import BackendUnavailable, ConfigurationError
from seg_perception.offboard.data.bags.types import message_store

from . import lidar
from .boxes import Point, TrueBox
from .camera import Camera
from .ego import BASE, Transform, optical, quaternion
from .truth import TrueInstance
from .world import WorldFrame

IMAGE, CAMERA_INFO = "/camera/image_raw", "/camera/camera_info"
INSTANCE_MAP, DETECTIONS = "/ground_truth/instance_map", "/ground_truth/detections"
TF, TF_STATIC = "/tf", "/tf_static"
DEPTH, DEPTH_INFO, POINTS = "/camera/depth/image_raw", "/camera/depth/camera_info", "/lidar/points"
DETECTIONS_3D, DISTANCES = "/ground_truth/detections_3d", "/ground_truth/distances"
STORAGES = ("mcap", "sqlite3")
# In this order at each stamp, so that where an image was taken is known when it comes.
TOPICS = {
    TF_STATIC: "tf2_msgs/msg/TFMessage",
    TF: "tf2_msgs/msg/TFMessage",
    IMAGE: "sensor_msgs/msg/Image",
    CAMERA_INFO: "sensor_msgs/msg/CameraInfo",
    INSTANCE_MAP: "sensor_msgs/msg/Image",
    DETECTIONS: "vision_msgs/msg/Detection2DArray",
}
# Only in bags of worlds that have them.
TOPICS_3D = {
    DEPTH: "sensor_msgs/msg/Image",
    DEPTH_INFO: "sensor_msgs/msg/CameraInfo",
    POINTS: "sensor_msgs/msg/PointCloud2",
    DETECTIONS_3D: "vision_msgs/msg/Detection3DArray",
    DISTANCES: "sensor_msgs/msg/PointCloud2",
}
_KINDS = {**TOPICS, **TOPICS_3D}
_CLOUD = np.dtype(
    {
        "names": ["x", "y", "z", "intensity", "ring", "time"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u2", "<f4"],
        "offsets": [0, 4, 8, 12, 16, 20],
        "itemsize": 24,
    }
)
_DISTANCE = np.dtype(
    {
        "names": ["x", "y", "z", "distance", "centre_distance", "instance"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<f4", "<u2"],
        "itemsize": 24,
    }
)
# Numbers of `sensor_msgs/PointField`.
_FIELD_KINDS = {"<f4": 7, "<u2": 4}
# As tf2's own broadcasters have it.
_QUEUES = {TF: 100, TF_STATIC: 1}


def write_bag(folder: Path, camera: Camera, shots: Iterable[WorldFrame], storage: str = "mcap") -> dict[str, int]:
    """Write a bag.

    Args:
        folder: of the bag; must not exist.
        camera: that the images are of.
        shots: frames with their truth.
        storage: one of `STORAGES`.

    Returns:
        How many `images` and `detections` were written.

    Raises:
        ConfigurationError: the folder exists or cannot be written, or the storage is unknown.
        BackendUnavailable: rosbags is not installed.
    """
    try:
        from rosbags.rosbag2 import StoragePlugin, Writer
    except ImportError as error:
        message = f"{folder}: bags need the Python package rosbags ({error}): pip install rosbags"
        raise BackendUnavailable(message) from error
    if storage not in STORAGES:
        raise ConfigurationError(f"storage of a bag: expected one of {', '.join(STORAGES)}; got {storage!r}")
    if folder.exists():
        raise ConfigurationError(f"--bag {folder}: exists already; remove it or choose another name")
    store = message_store()
    plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
    written = {"images": 0, "detections": 0}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # The players of ROS distributions before Iron read no later one.
        with Writer(folder, version=8, storage_plugin=plugin) as writer:
            connections = {
                topic: writer.add_connection(topic, kind, typestore=store, offered_qos_profiles=_offered(topic))
                for topic, kind in TOPICS.items()
            }
            for number, shot in enumerate(shots):
                for stamp, topic, message in _stamped(store.types, camera, shot, first=number == 0):
                    if topic not in connections:
                        connections[topic] = writer.add_connection(
                            topic, TOPICS_3D[topic], typestore=store, offered_qos_profiles=_offered(topic)
                        )
                    writer.write(connections[topic], stamp, store.serialize_cdr(message, _KINDS[topic]))
                written["images"] += 1
                written["detections"] += len(shot.truth.instances)
    except OSError as error:
        raise ConfigurationError(f"--bag {folder}: cannot be written ({error.strerror or error})") from error
    return written


def _offered(topic: str) -> list[Any]:
    """How a publisher offered the topic, for those who play the bag: static transforms stay for who comes later."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    durability = QosDurability.TRANSIENT_LOCAL if topic == TF_STATIC else QosDurability.VOLATILE
    # As rosbag2 writes "for ever".
    ever = QosTime(9223372036, 854775807)
    return [
        Qos(
            QosHistory.KEEP_LAST, _QUEUES.get(topic, 10), QosReliability.RELIABLE, durability, ever, ever,
            QosLiveliness.AUTOMATIC, ever, False,
        )
    ]  # fmt: skip


def _stamped(
    types: Mapping[str, Any], camera: Camera, shot: WorldFrame, first: bool
) -> Iterator[tuple[int, str, Any]]:  # fmt: skip
    """The messages of one frame and of the sweep that ends with it, with their stamps in ns."""
    for stamp, ego in shot.way:
        yield stamp, TF, bag_transforms(types, _header(types, stamp, ""), ego.transforms())
    for topic, message in messages(types, camera, shot, first).items():
        yield shot.frame.stamp_ns, topic, message


def messages(types: Mapping[str, Any], camera: Camera, shot: WorldFrame, first: bool) -> dict[str, Any]:
    """The messages of one frame by topic; `types` are those of a store, the `first` frame has those that stay."""
    frame = shot.frame
    header = _header(types, frame.stamp_ns, frame.frame_id)
    mounts = [optical(frame.frame_id), *([lidar.MOUNT] if shot.cloud is not None else [])]
    static = {TF_STATIC: bag_transforms(types, header, mounts)} if first else {}
    instance_map = shot.truth.instance_map.astype("<u2")
    height, width = instance_map.shape
    array = types["vision_msgs/msg/Detection2DArray"]
    return {
        **static,
        TF: bag_transforms(types, header, shot.ego.transforms()),
        IMAGE: _image(types, header, frame.height, frame.width, frame.encoding, frame.step, frame.data),
        CAMERA_INFO: _camera_info(types, header, camera),
        INSTANCE_MAP: _image(
            types, header, height, width, "mono16", 2 * width, instance_map.view(np.uint8).reshape(-1)
        ),
        DETECTIONS: array(
            header=header, detections=[_detection(types, header, instance) for instance in shot.truth.instances]
        ),
        **_depth(types, header, camera, shot),
        **_points(types, shot),
        **_boxes(types, shot),
    }


def _depth(types: Mapping[str, Any], header: Any, camera: Camera, shot: WorldFrame) -> dict[str, Any]:
    """The depth image and its camera info, as REP 118 has them: metres and NaN, or millimetres and 0."""
    if shot.depth is None:
        return {}
    if shot.depth_encoding == "16UC1":
        pixels: NDArray[Any] = np.rint(np.nan_to_num(shot.depth) * 1000).astype("<u2")
    else:
        pixels = shot.depth.astype("<f4")
    height, width = pixels.shape
    data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
    image = _image(types, header, height, width, shot.depth_encoding, width * pixels.itemsize, data)
    return {DEPTH: image, DEPTH_INFO: _camera_info(types, header, camera)}


def _points(types: Mapping[str, Any], shot: WorldFrame) -> dict[str, Any]:
    cloud = shot.cloud
    if cloud is None:
        return {}
    rows = np.zeros(len(cloud), _CLOUD)
    rows["x"], rows["y"], rows["z"] = cloud.points.T
    rows["intensity"], rows["ring"], rows["time"] = cloud.intensity, cloud.ring, cloud.time
    return {POINTS: _cloud(types, _header(types, shot.frame.stamp_ns, lidar.FRAME), rows)}


def _boxes(types: Mapping[str, Any], shot: WorldFrame) -> dict[str, Any]:
    """Boxes, and how far away they are: nothing in the messages of boxes could hold that."""
    if not shot.has_boxes:
        return {}
    header = _header(types, shot.frame.stamp_ns, BASE)
    boxes = [(instance, instance.box_3d) for instance in shot.truth.instances if instance.box_3d is not None]
    rows = np.array(
        [(*box.nearest, box.nearest_distance, box.centre_distance, instance.number) for instance, box in boxes],
        _DISTANCE,
    )
    array = types["vision_msgs/msg/Detection3DArray"]
    detections = [_detection_3d(types, header, *both) for both in boxes]
    return {DETECTIONS_3D: array(header=header, detections=detections), DISTANCES: _cloud(types, header, rows)}


def _cloud(types: Mapping[str, Any], header: Any, rows: NDArray[Any]) -> Any:
    """A message of points, a structured array `[N]`."""
    field = types["sensor_msgs/msg/PointField"]
    kinds: Mapping[str, Any] = rows.dtype.fields or {}
    fields = [
        field(name=name, offset=offset, datatype=_FIELD_KINDS[kind.str], count=1)
        for name, (kind, offset, *_) in kinds.items()
    ]
    return types["sensor_msgs/msg/PointCloud2"](
        header=header, height=1, width=len(rows), fields=fields, is_bigendian=False, point_step=rows.itemsize,
        row_step=rows.nbytes, data=rows.view(np.uint8).reshape(-1), is_dense=True,
    )  # fmt: skip


def _header(types: Mapping[str, Any], stamp_ns: int, frame_id: str) -> Any:
    seconds, nanoseconds = divmod(stamp_ns, 10**9)
    stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def bag_transforms(types: Mapping[str, Any], header: Any, transforms: Iterable[Transform]) -> Any:
    """A message of `/tf` with the stamp of a header; `types` are those of a store."""
    one, vector = types["geometry_msgs/msg/TransformStamped"], types["geometry_msgs/msg/Vector3"]
    pose, turn = types["geometry_msgs/msg/Transform"], types["geometry_msgs/msg/Quaternion"]
    return types["tf2_msgs/msg/TFMessage"](
        transforms=[
            one(
                header=type(header)(stamp=header.stamp, frame_id=each.parent),
                child_frame_id=each.child,
                transform=pose(translation=vector(*each.translation), rotation=turn(*each.rotation)),
            )
            for each in transforms
        ]
    )


def _image(
    types: Mapping[str, Any], header: Any, height: int, width: int, encoding: str, step: int, data: NDArray[np.uint8]
) -> Any:
    return types["sensor_msgs/msg/Image"](
        header=header, height=height, width=width, encoding=encoding, is_bigendian=0, step=step, data=data
    )


def _camera_info(types: Mapping[str, Any], header: Any, camera: Camera) -> Any:
    matrix = camera.matrix()
    region = types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return types["sensor_msgs/msg/CameraInfo"](
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=camera.distortion(),
        k=matrix.reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.hstack([matrix, np.zeros((3, 1))]).reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def _detection(types: Mapping[str, Any], header: Any, instance: TrueInstance) -> Any:
    x1, y1, x2, y2 = instance.box
    point = types["vision_msgs/msg/Point2D"](x=(x1 + x2) / 2, y=(y1 + y2) / 2)
    centre = types["vision_msgs/msg/Pose2D"](position=point, theta=0.0)
    return types["vision_msgs/msg/Detection2D"](
        header=header,
        results=[_hypothesis(types, name) for name in (instance.group, instance.class_name)],
        bbox=types["vision_msgs/msg/BoundingBox2D"](center=centre, size_x=x2 - x1, size_y=y2 - y1),
        id=str(instance.number),
    )


def _detection_3d(types: Mapping[str, Any], header: Any, instance: TrueInstance, box: TrueBox) -> Any:
    names = (instance.group, instance.class_name)
    length, width, height = box.size
    return types["vision_msgs/msg/Detection3D"](
        header=header,
        results=[_hypothesis(types, name, box.centre, box.yaw) for name in names],
        bbox=types["vision_msgs/msg/BoundingBox3D"](
            center=_pose(types, box.centre, box.yaw), size=types["geometry_msgs/msg/Vector3"](length, width, height)
        ),
        id=str(instance.number),
    )


def _pose(types: Mapping[str, Any], place: Point, yaw: float) -> Any:
    return types["geometry_msgs/msg/Pose"](
        position=types["geometry_msgs/msg/Point"](*place),
        orientation=types["geometry_msgs/msg/Quaternion"](*quaternion(0.0, 0.0, yaw)),
    )


def _hypothesis(types: Mapping[str, Any], name: str, place: Point = (0.0, 0.0, 0.0), yaw: float = 0.0) -> Any:
    pose = _pose(types, place, yaw)
    return types["vision_msgs/msg/ObjectHypothesisWithPose"](
        hypothesis=types["vision_msgs/msg/ObjectHypothesis"](class_id=name, score=1.0),
        pose=types["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36)),
    )
