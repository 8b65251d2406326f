"""The topics on which the results of one camera go out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo

from ..instances import Segmentation
from ..pipeline.overlay import colour_map, draw_overlay
from ..sources.encodings import to_bgr
from . import messages


def _reliable(depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE) -> QoSProfile:
    """Reliable, keep the last `depth`.

    A reliable publisher serves reliable and best-effort subscribers alike (RViz and message_filters ask for reliable
    by default, rosbag takes what it finds); keeping only the last few means that a slow subscriber loses frames
    instead of holding the node up.
    """
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=durability
    )


# Pictures are megabytes each, so few are kept; the small messages may wait longer.
PICTURE_QOS = _reliable(2)
MESSAGE_QOS = _reliable(10)
LATCHED_QOS = _reliable(1, DurabilityPolicy.TRANSIENT_LOCAL)


class Outputs:
    """Publishers of one camera's results.

    Attributes:
        class_names: of the model.
    """

    def __init__(self, node: Node, namespace: str, class_names: Sequence[str]) -> None:
        """Create the publishers.

        Args:
            node: owner of the topics.
            namespace: `~` or `~/NAME`.
            class_names: of the model.
        """
        self._node = node
        self.class_names = class_names
        self._publishers: list[Any] = []

        def publisher(kind: type, name: str, qos: QoSProfile) -> Any:
            created: Any = node.create_publisher(kind, f"{namespace}/{name}", qos)
            self._publishers.append(created)
            return created

        self._instance_map = publisher(Image, "instance_map", PICTURE_QOS)
        self._detections = publisher(Detection2DArray, "detections", MESSAGE_QOS)
        self._camera_info = publisher(CameraInfo, "camera_info", MESSAGE_QOS)
        self._label_info = publisher(LabelInfo, "label_info", LATCHED_QOS)
        self._semantic_map = publisher(Image, "semantic_map", PICTURE_QOS)
        self._colour = publisher(Image, "instance_map/color", PICTURE_QOS)
        self._overlay = publisher(Image, "overlay", PICTURE_QOS)
        self._overlay_compressed = publisher(CompressedImage, "overlay/compressed", PICTURE_QOS)

    def publish_labels(self, threshold: float) -> None:
        """Publish the names of the semantic map's values, once for all later subscribers."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._label_info.publish(messages.label_info_message(header, self.class_names, threshold))

    def wants_semantic_map(self) -> bool:
        """Whether anybody listens to the semantic map."""
        return _watched(self._semantic_map)

    def publish(self, segmentation: Segmentation, info: CameraInfo | None) -> bool:
        """Publish everything about one frame, under the header of its image.

        Args:
            segmentation: of the frame.
            info: the camera's calibration, if it has one.

        Returns:
            Whether the calibration, if any, is one for images of this size; it is not published otherwise.
        """
        header = messages.header_of(segmentation.frame)
        pixels = segmentation.instance_map.pixels
        self._instance_map.publish(messages.image_message(header, "mono16", pixels))
        self._detections.publish(messages.detections_message(header, segmentation, self.class_names))
        height, width = pixels.shape
        scaled = info and messages.camera_info_message(info, segmentation.frame, width, height)
        if scaled is not None:
            self._camera_info.publish(scaled)
        self._publish_watched(header, segmentation)
        return info is None or scaled is not None

    def destroy(self) -> None:
        """Remove the topics."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        self._publishers.clear()

    def _publish_watched(self, header: Header, segmentation: Segmentation) -> None:
        """What is made only while somebody subscribes to it."""
        pixels = segmentation.instance_map.pixels
        # Where cameras are processed together, it is made for all if one of them wants it.
        if segmentation.semantic_map is not None and _watched(self._semantic_map):
            self._semantic_map.publish(messages.image_message(header, "mono8", segmentation.semantic_map))
        if _watched(self._colour):
            self._colour.publish(messages.image_message(header, "bgr8", colour_map(pixels)))
        raw, compressed = _watched(self._overlay), _watched(self._overlay_compressed)
        if raw or compressed:
            overlay = draw_overlay(to_bgr(segmentation.frame), segmentation, self.class_names)
            if raw:
                self._overlay.publish(messages.image_message(header, "bgr8", overlay))
            if compressed:
                self._overlay_compressed.publish(messages.jpeg_message(header, overlay))


def _watched(publisher: Any) -> bool:
    return bool(publisher.get_subscription_count() > 0)
