"""Message types as bags describe them, for those who read or write typed messages with rosbags."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

# vision_msgs is in no distribution's base set; fields as in its release 4.
_VISION_MESSAGES = {
    "Point2D": "float64 x\nfloat64 y\n",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "ObjectHypothesis": "string class_id\nfloat64 score\n",
    "ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n",
    "Detection2D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
    "vision_msgs/BoundingBox2D bbox\nstring id\n",
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n",
    "BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n",
    "Detection3D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
    "vision_msgs/BoundingBox3D bbox\nstring id\n",
    "Detection3DArray": "std_msgs/Header header\nvision_msgs/Detection3D[] detections\n",
    "VisionClass": "uint16 class_id\nstring class_name\n",
    "LabelInfo": "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n",
}


@lru_cache(maxsize=1)
def message_store() -> Any:
    """A type store of rosbags that knows the messages of ROS 2's base set and those of vision_msgs that are used here.

    Raises:
        ImportError: rosbags is not installed.
    """
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.LATEST)
    types: dict[str, Any] = {}
    for name, fields in _VISION_MESSAGES.items():
        types.update(get_types_from_msg(fields, f"vision_msgs/msg/{name}"))
    store.register(types)
    return store


def definition(kind: str) -> str:
    """The text of a type's definition, its parts included, as a bag holds it."""
    text, _ = message_store().generate_msgdef(kind, ros_version=2)
    return str(text)
