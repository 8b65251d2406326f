"""The topics on which the results of one camera go out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray, LabelInfo

from seg_perception.core.frame import Frame
from seg_perception.core.instances import Segmentation
from seg_perception.core.messages.calibration import CAMERA_INFO, Calibration
from seg_perception.core.messages.detections import DETECTIONS, LABEL_INFO, write_label_info
from seg_perception.core.messages.images import COMPRESSED_IMAGE, IMAGE
from seg_perception.onboard.pipeline.outputs import ALWAYS, LABELS, LATCHED, ON_DEMAND, SEMANTIC_MAP, FrameMessages
from seg_perception.onboard.pipeline.overlay import OverlayStyle
from seg_perception.onboard.pipeline.overlay_panel import OverlayStats


def _reliable(depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE) -> QoSProfile:
    """Reliable, keep the last `depth`.

    A reliable publisher serves reliable and best-effort subscribers alike (RViz and message_filters ask for reliable
    by default, rosbag takes what it finds); keeping only the last few means that a slow subscriber loses frames
    instead of holding the node up.
    """
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=durability
    )


# Images are megabytes each, so few are kept; the small messages may wait longer.
IMAGE_QOS = _reliable(2)
MESSAGE_QOS = _reliable(10)
LATCHED_QOS = _reliable(1, DurabilityPolicy.TRANSIENT_LOCAL)
_KINDS = {
    IMAGE: (Image, IMAGE_QOS),
    COMPRESSED_IMAGE: (CompressedImage, IMAGE_QOS),
    DETECTIONS: (Detection2DArray, MESSAGE_QOS),
    CAMERA_INFO: (CameraInfo, MESSAGE_QOS),
    LABEL_INFO: (LabelInfo, LATCHED_QOS),
}


class Outputs:
    """Publishers of one camera's results.

    Attributes:
        class_names: of the model.
        style: of the overlay.
    """

    def __init__(
        self,
        node: Node,
        namespace: str,
        class_names: Sequence[str],
        style: OverlayStyle,
        figures: Callable[[Frame], OverlayStats],
    ) -> None:
        """Create the publishers.

        Args:
            node: owner of the topics.
            namespace: `~` or `~/NAME`.
            class_names: of the model.
            style: of the overlay.
            figures: what is told on the overlay of a frame.
        """
        self._node = node
        self.class_names = class_names
        self.style = style
        self._figures = figures
        self._publishers: dict[str, Any] = {}
        for topic, name in {**ALWAYS, **ON_DEMAND, **LATCHED}.items():
            kind, qos = _KINDS[name]
            self._publishers[topic] = node.create_publisher(kind, f"{namespace}/{topic}", qos)

    def publish_labels(self, threshold: float) -> None:
        """Publish the names of the semantic map's values, once for all later subscribers."""
        now_ns = self._node.get_clock().now().nanoseconds
        self._publishers[LABELS].publish(write_label_info(now_ns, self.class_names, threshold))

    def wants_semantic_map(self) -> bool:
        """Return whether anybody listens to the semantic map."""
        return self._watched(SEMANTIC_MAP)

    def publish(self, segmentation: Segmentation, calibration: Calibration | None) -> bool:
        """Publish everything about one frame, under the header of its image.

        Args:
            segmentation: of the frame.
            calibration: of the camera, if it has one.

        Returns:
            Whether the calibration, if any, is one for images of this size; it is not published otherwise.

        Raises:
            FrameError: an overlay cannot be drawn; the rest went out before.
        """
        messages = FrameMessages(
            segmentation,
            self.class_names,
            calibration,
            style=self.style,
            figures=lambda: self._figures(segmentation.frame),
        )
        for topic in (*ALWAYS, *filter(self._watched, ON_DEMAND)):
            # Serialized as it is: rclpy would build and convert objects field by field.
            message = messages.make(topic)
            if message is not None:
                self._publishers[topic].publish(message)
        return messages.calibrated

    def destroy(self) -> None:
        """Remove the topics."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers.clear()

    def _watched(self, topic: str) -> bool:
        return bool(self._publishers[topic].get_subscription_count() > 0)
