"""Everything that goes out for a frame, serialized: the node publishes these bytes, a replay writes them into a bag."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import FrameError
from seg_perception.core.instances import Segmentation
from seg_perception.core.messages.calibration import CAMERA_INFO, Calibration
from seg_perception.core.messages.detections import DETECTIONS, LABEL_INFO, write_detections
from seg_perception.core.messages.images import COMPRESSED_IMAGE, IMAGE, write_compressed_image, write_image

from .overlay import PLAIN, OverlayStyle, colour_map, draw_overlay
from .overlay_panel import OverlayStats

LABELS, SEMANTIC_MAP = "label_info", "semantic_map"
# Type of each topic, below the camera's namespace.
ALWAYS = {"instance_map": IMAGE, "detections": DETECTIONS, "camera_info": CAMERA_INFO}
# Made only where somebody wants them.
ON_DEMAND = {
    SEMANTIC_MAP: IMAGE,
    "instance_map/color": IMAGE,
    "overlay": IMAGE,
    "overlay/compressed": COMPRESSED_IMAGE,
}
# Sent once, for all who come later.
LATCHED = {LABELS: LABEL_INFO}
_JPEG_QUALITY = 85


class FrameMessages:
    """The messages of one frame, each made when it is asked for, all under the header of the image.

    Attributes:
        calibrated: whether the calibration, if any, is one for images of this size; it is not sent otherwise.
    """

    def __init__(
        self,
        segmentation: Segmentation,
        class_names: Sequence[str],
        calibration: Calibration | None = None,
        *,
        style: OverlayStyle = PLAIN,
        figures: Callable[[], OverlayStats] | None = None,
    ) -> None:
        """Take what they are made of.

        Args:
            segmentation: of the frame.
            class_names: of the model.
            calibration: of the camera, if it has one.
            style: of the overlay.
            figures: asked when an overlay is made whose style has figures.
        """
        frame = segmentation.frame
        self.calibrated = calibration is None or calibration.describes(frame.width, frame.height)
        self._segmentation = segmentation
        self._class_names = class_names
        self._calibration = calibration if self.calibrated else None
        self._style = style
        self._figures = figures

    def make(self, topic: str) -> bytes | None:
        """The message for a topic of `ALWAYS` or `ON_DEMAND`; None where the frame has nothing for it.

        Raises:
            FrameError: an overlay cannot be drawn.
        """
        return _MAKERS[topic](self)

    def _instance_map(self) -> bytes:
        return self._image("mono16", self._segmentation.instance_map.pixels)

    def _detections(self) -> bytes:
        return write_detections(self._segmentation, self._class_names)

    def _colour_map(self) -> bytes:
        return self._image("bgr8", colour_map(self._segmentation.instance_map.pixels))

    def _overlay_image(self) -> bytes:
        return self._image("bgr8", self._overlay)

    def _image(self, encoding: str, pixels: NDArray[np.generic]) -> bytes:
        frame = self._segmentation.frame
        return write_image(frame.stamp_ns, frame.frame_id, encoding, pixels)

    def _semantic_map(self) -> bytes | None:
        pixels = self._segmentation.semantic_map
        return None if pixels is None else self._image("mono8", pixels)

    def _camera_info(self) -> bytes | None:
        if self._calibration is None:
            return None
        frame = self._segmentation.frame
        height, width = self._segmentation.instance_map.pixels.shape
        scaled = self._calibration.scaled((frame.width, frame.height), (width, height))
        return scaled.under(frame.stamp_ns, frame.frame_id).write()

    @cached_property
    def _overlay(self) -> NDArray[np.uint8]:
        figures = self._figures() if self._figures and self._style.figures else None
        image, (height, width) = to_bgr(self._segmentation.frame), self._segmentation.instance_map.pixels.shape
        if image.shape[:2] != (height, width):
            smaller = height * width < image.shape[0] * image.shape[1]
            interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            image = cv2.resize(image, (width, height), interpolation=interpolation).view(np.uint8)
        return draw_overlay(image, self._segmentation, self._class_names, self._style, figures)

    def _overlay_compressed(self) -> bytes:
        encoded, jpeg = cv2.imencode(".jpg", self._overlay, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not encoded:
            raise FrameError("compressed", f"overlay: OpenCV could not encode {self._overlay.shape} as JPEG")
        frame = self._segmentation.frame
        data = np.ascontiguousarray(jpeg).data.cast("B")
        return write_compressed_image(frame.stamp_ns, frame.frame_id, "bgr8; jpeg compressed bgr8", data)


# Functions of the class rather than methods of an object: an object that holds its own methods refers to itself, and
# its image and maps would wait for the cyclic collector.
_MAKERS: Mapping[str, Callable[[FrameMessages], bytes | None]] = {
    "instance_map": FrameMessages._instance_map,
    "detections": FrameMessages._detections,
    "camera_info": FrameMessages._camera_info,
    SEMANTIC_MAP: FrameMessages._semantic_map,
    "instance_map/color": FrameMessages._colour_map,
    "overlay": FrameMessages._overlay_image,
    "overlay/compressed": FrameMessages._overlay_compressed,
}
