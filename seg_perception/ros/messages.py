"""Segmentations become messages. Nothing here needs a node, and nothing loops over pixels in Python."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, LabelInfo, ObjectHypothesisWithPose, VisionClass

from ..classes import group_name
from ..errors import FrameError
from ..frame import Frame
from ..instances import Segmentation
from ..pipeline.semantic import MAX_SEMANTIC_CLASSES

BACKGROUND = "background"
_JPEG_QUALITY = 85


def header_of(frame: Frame) -> Header:
    """The header of the image that a frame came from."""
    seconds, nanoseconds = divmod(frame.stamp_ns, 10**9)
    return Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=frame.frame_id)


def image_message(header: Header, encoding: str, pixels: NDArray[Any]) -> Image:
    """An image message.

    Args:
        header: for the message.
        encoding: name of the pixels' format, 8 or 16 bits a channel.
        pixels: `[height, width]` or `[height, width, channels]`.
    """
    pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding=encoding, step=pixels.strides[0])
    # An array of bytes is taken over as it is; any other sequence would be checked number by number.
    data = array("B")
    data.frombytes(pixels.data.cast("B"))
    message.data = data
    return message


def jpeg_message(header: Header, image_bgr: NDArray[np.uint8]) -> CompressedImage:
    """A JPEG of a bgr8 image `[height, width, 3]`, named as image_transport names it."""
    encoded, jpeg = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not encoded:
        raise FrameError("compressed", f"overlay: OpenCV could not encode {image_bgr.shape} as JPEG")
    message = CompressedImage(header=header, format="bgr8; jpeg compressed bgr8")
    data = array("B")
    data.frombytes(np.ascontiguousarray(jpeg).data.cast("B"))
    message.data = data
    return message


def detections_message(header: Header, segmentation: Segmentation, class_names: Sequence[str]) -> Detection2DArray:
    """The instances of a frame; `id` is the pixel value in the instance map, boxes are in camera pixels."""
    instances = segmentation.instances
    rows = zip(
        instances.numbers.tolist(),
        instances.boxes_camera.tolist(),
        instances.scores.tolist(),
        instances.labels.tolist(),
        instances.groups.tolist(),
        strict=True,
    )
    detections = []
    for number, (x1, y1, x2, y2), score, label, group in rows:
        detection = Detection2D(header=header, id=str(number))
        detection.results = [_hypothesis(group_name(group), score), _hypothesis(class_names[label], score)]
        box = detection.bbox
        box.center.position.x, box.center.position.y = (x1 + x2) / 2, (y1 + y2) / 2
        box.size_x, box.size_y = x2 - x1, y2 - y1
        detections.append(detection)
    return Detection2DArray(header=header, detections=detections)


def label_info_message(header: Header, class_names: Sequence[str], threshold: float) -> LabelInfo:
    """Names of the pixel values of `semantic_map`; `threshold` is the lowest score that is published."""
    names = [BACKGROUND, *class_names[:MAX_SEMANTIC_CLASSES]]
    classes = [VisionClass(class_id=number, class_name=name) for number, name in enumerate(names)]
    return LabelInfo(header=header, class_map=classes, threshold=threshold)


def camera_info_message(info: CameraInfo, frame: Frame, width: int, height: int) -> CameraInfo | None:
    """The calibration of a camera for the output size, under the frame's header.

    Binning and region of interest are folded into K and P, so that the result describes the output image alone.
    Pixel centres of ROS calibrations are at whole numbers, hence c' = (c + 0.5) * s - 0.5.

    Args:
        info: the camera's calibration.
        frame: the image it belongs to.
        width, height: size of the output.

    Returns:
        The message, or None when `info` describes images of another size than the frame's.
    """
    binning_x, binning_y = max(1, info.binning_x), max(1, info.binning_y)
    roi = info.roi
    window_width, window_height = roi.width or info.width, roi.height or info.height
    if (window_width // binning_x, window_height // binning_y) != (frame.width, frame.height):
        return None
    scaled = CameraInfo(header=header_of(frame), height=height, width=width)
    scaled.distortion_model, scaled.d, scaled.r = info.distortion_model, info.d, info.r
    scaled.roi.do_rectify = roi.do_rectify
    scale_x, scale_y = width / (frame.width * binning_x), height / (frame.height * binning_y)
    scaled.k = _scaled_rows(info.k, 3, (scale_x, roi.x_offset), (scale_y, roi.y_offset))
    scaled.p = _scaled_rows(info.p, 4, (scale_x, roi.x_offset), (scale_y, roi.y_offset))
    return scaled


def _scaled_rows(
    matrix: Sequence[float], columns: int, horizontal: tuple[float, int], vertical: tuple[float, int]
) -> NDArray[np.float64]:
    """A camera matrix, 3 x `columns` by rows, after cropping by an offset and scaling, per axis (scale, offset).

    An image coordinate becomes (u - offset + 0.5) * scale - 0.5, which is affine in the homogeneous coordinates: the
    first two rows are scaled and the third is added to them.
    """
    rows = np.array(matrix, np.float64).reshape(3, columns)
    for axis, (scale, offset) in enumerate((horizontal, vertical)):
        rows[axis] = rows[axis] * scale + rows[2] * ((0.5 - offset) * scale - 0.5)
    return rows.reshape(-1)


def _hypothesis(name: str, score: float) -> ObjectHypothesisWithPose:
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = name, score
    return result
