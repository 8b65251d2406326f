"""What the node is measured against: the same model in a node as it is usually written, with what ROS gives.

It stands for what a competent engineer writes in an hour, the image callback that does everything: the executor hands
over typed messages from the queue of sensor data, cv_bridge makes an array of each, and what the model finds goes out
as one full-size mono8 mask per instance and a Detection2DArray. It is meant to be good at that. The model, its threads
and its score threshold are the node's, so that inference costs the same; the mask of an instance is resized within its
box only; messages are filled the fast way. What it lacks is what the design lacks: a queue holds frames that grow old
in it, pixels are copied whether they are used or not, and results grow with the number of instances.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from cv_bridge import CvBridge
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.openvino import OpenVinoRunner

NAME = "usual_segmenter"
# As many masks as the default model finds instances at most; they leave at once.
_MOST_MASKS = 100


class UsualNode(Node):
    """Subscribes to NAME/image_raw of each camera; publishes `~/NAME/masks` and `~/NAME/detections`."""

    def __init__(self) -> None:
        super().__init__(NAME)
        model = Path(self._parameter("model", ""))
        threads: int = self._parameter("threads", 0)
        cameras: list[str] = self._parameter("cameras", ["camera"])
        depth: int = self._parameter("queue", qos_profile_sensor_data.depth)
        self._threshold: float = self._parameter("score_threshold", 0.25)
        self._model = OpenVinoRunner(model, RunOptions(threads=threads))
        self._bridge = CvBridge()
        frames = QoSProfile(depth=depth, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self._outputs = {}
        for name in cameras:
            masks = self.create_publisher(Image, f"~/{name}/masks", _MOST_MASKS)
            self._outputs[name] = (masks, self.create_publisher(Detection2DArray, f"~/{name}/detections", 10))
            self.create_subscription(Image, f"{name}/image_raw", partial(self._on_image, name), frames)

    def _parameter(self, name: str, default: Any) -> Any:
        return self.declare_parameter(name, default).value

    def _on_image(self, name: str, message: Image) -> None:
        """Segment one image and publish all about it."""
        image = self._bridge.imgmsg_to_cv2(message, "bgr8")
        height, width = image.shape[:2]
        spec = self._model.spec
        scale = min(spec.network_width / width, spec.network_height / height)
        inner_width, inner_height = round(width * scale), round(height * scale)
        left, top = (spec.network_width - inner_width) // 2, (spec.network_height - inner_height) // 2
        canvas = np.full((spec.network_height, spec.network_width, 3), spec.resize.pad_value, np.uint8)
        resized = cv2.resize(image, (inner_width, inner_height))
        canvas[top : top + inner_height, left : left + inner_width] = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)
        found = self._model.run(canvas[None])
        rows = np.flatnonzero(found.scores[0] > self._threshold)
        boxes = (found.boxes[0, rows] - (left, top, left, top)) / scale
        boxes = np.clip(boxes, 0, (width, height, width, height))
        window = (left / scale, top / scale, spec.network_width / scale, spec.network_height / scale)
        masks, detections = self._outputs[name]
        array = Detection2DArray(header=message.header)
        for row, box in zip(rows, boxes, strict=True):
            mask = full_size_mask(found.masks[0, row], box, window, (width, height))
            masks.publish(self._mono8(message.header, mask))
            label = spec.class_names[found.labels[0, row]]
            array.detections.append(detection(message.header, label, float(found.scores[0, row]), box))
        detections.publish(array)

    def _mono8(self, header: Header, mask: NDArray[np.uint8]) -> Image:
        """A mask as ROS 2's cv_bridge makes a message of it.

        The port of ROS 1's that PyPI has gives the pixels as bytes, which rclpy checks one by one: time that would not
        be the design's fault.
        """
        message = Image(header=header, height=mask.shape[0], width=mask.shape[1], encoding="mono8", step=mask.shape[1])
        message.data.frombytes(mask.tobytes())
        return message


def full_size_mask(
    logits: NDArray[np.floating],
    box: NDArray[np.floating],
    window: tuple[float, float, float, float],
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    """The mask of one instance in camera pixels, uint8 `[height, width]`, 255 inside.

    Args:
        logits: `[h, w]`, over the whole network input; positive inside.
        box: x1 y1 x2 y2 in camera pixels; nothing is inside the mask beyond it.
        window: the network input in camera pixels: how far it reaches beyond left and top, width and height.
        size: of the camera image, width and height.
    """
    mask = np.zeros((size[1], size[0]), np.uint8)
    x1, y1 = (int(value) for value in np.floor(box[:2]))
    x2, y2 = (int(value) for value in np.ceil(box[2:]))
    if x2 <= x1 or y2 <= y1:
        return mask
    left, top, whole_width, whole_height = window
    cell_x, cell_y = whole_width / logits.shape[1], whole_height / logits.shape[0]
    # From pixels of the box to cells of the grid; centres of both lie at halves.
    transform = np.array(
        [
            [1 / cell_x, 0, (x1 + left + 0.5) / cell_x - 0.5],
            [0, 1 / cell_y, (y1 + top + 0.5) / cell_y - 0.5],
        ]
    )
    inside = cv2.warpAffine(
        np.asarray(logits, np.float32),
        transform,
        (x2 - x1, y2 - y1),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    mask[y1:y2, x1:x2] = np.where(inside > 0, 255, 0)
    return mask


def detection(header: Header, label: str, score: float, box: NDArray[np.floating]) -> Detection2D:
    """One entry of the array; the box is in camera pixels."""
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = label, score
    entry = Detection2D(header=header, results=[result])
    x1, y1, x2, y2 = box.tolist()
    entry.bbox.center.position.x, entry.bbox.center.position.y = (x1 + x2) / 2, (y1 + y2) / 2
    entry.bbox.size_x, entry.bbox.size_y = x2 - x1, y2 - y1
    return entry


def main() -> int:
    """Run until a signal."""
    rclpy.init()
    node: Any = UsualNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
