"""A camera: publishes images, or what a bag of the street world has recorded, stamped at the moment they leave.

Messages are serialised before they are due; only the stamp is written again, so that the camera takes little of the
machine it shares with what is measured.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image

from demo.images import schedule
from seg_perception.core.errors import SegPerceptionError
from seg_perception.offboard.data.bags.reader import Bag
from seg_perception.offboard.streetworld import bag

FRAME_ID = "camera_optical_frame"
# A serialised message begins with four bytes of encapsulation, then the header's stamp: int32 s, uint32 ns.
_STAMP_AT = 4


class Shot(NamedTuple):
    """One image and its camera info, both serialised."""

    image: bytearray
    info: bytearray


class Camera(Node):
    """Publishes `image_raw` and `camera_info`."""

    def __init__(self, reliable: bool) -> None:
        super().__init__("camera")
        reliability = QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=1, reliability=reliability)
        self._images = self.create_publisher(Image, "image_raw", qos)
        self._infos = self.create_publisher(CameraInfo, "camera_info", qos)

    def wait_for_subscriber(self, timeout: float) -> bool:
        """Whether somebody subscribed within `timeout` seconds."""
        end = time.monotonic() + timeout
        while not self._images.get_subscription_count():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def publish(self, shot: Shot) -> int:
        """Send an image and its camera info, stamped now; returns the stamp in nanoseconds."""
        now = time.time_ns()
        for message in shot:
            struct.pack_into("<iI", message, _STAMP_AT, *divmod(now, 1_000_000_000))
        self._infos.publish(bytes(shot.info))
        self._images.publish(bytes(shot.image))
        return now


def from_bag(path: Path, frames: int) -> list[Shot]:
    """The first frames that the street world's camera recorded."""
    images: list[bytearray] = []
    infos: list[bytearray] = []
    with Bag(path) as recorded:
        for topic, messages in ((bag.IMAGE, images), (bag.CAMERA_INFO, infos)):
            messages += [bytearray(each.data) for each in islice(recorded.messages([topic]), frames)]
    return [Shot(*both) for both in zip(images, infos, strict=True)]


def from_images(paths: Sequence[Path], frames: int, size: tuple[int, int]) -> list[Shot]:
    """Images of any size, scaled to `size` (width, height) and spread over the frames."""
    scaled, order = schedule(paths, frames, size)
    images = [bytearray(serialize_message(_image(pixels))) for pixels in scaled]
    info = bytearray(serialize_message(_camera_info(*scaled[0].shape[:2])))
    return [Shot(images[index], info) for index in order]


def _image(image: NDArray[np.uint8]) -> Image:
    message = Image(encoding="bgr8", height=image.shape[0], width=image.shape[1], step=image.shape[1] * 3)
    message.header.frame_id = FRAME_ID
    message.data.frombytes(np.ascontiguousarray(image).data.cast("B"))
    return message


def _camera_info(height: int, width: int) -> CameraInfo:
    focal = 0.9 * width
    message = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.frame_id = FRAME_ID
    message.k = [focal, 0.0, (width - 1) / 2, 0.0, focal, (height - 1) / 2, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [focal, 0.0, (width - 1) / 2, 0.0, 0.0, focal, (height - 1) / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


def main() -> int:
    """Publish, then print one JSON line: when which frame was sent, and how punctually."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--input", type=Path, nargs="+")
    what.add_argument("--bag", type=Path, help="of the street world")
    parser.add_argument("--size", default="1280x720", help="WIDTHxHEIGHT of --input")
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--reliable", action="store_true")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    try:
        if arguments.bag:
            shots = from_bag(arguments.bag, arguments.frames)
        else:
            shots = from_images(arguments.input, arguments.frames, (width, height))
    except SegPerceptionError as error:
        print(f"camera: {error}", file=sys.stderr)
        return 1
    rclpy.init()
    camera = Camera(arguments.reliable)
    if not camera.wait_for_subscriber(60.0):
        print("camera: nobody subscribed to image_raw within 60 s", file=sys.stderr)
        return 1
    time.sleep(0.5)  # let the other direction of discovery settle as well
    late, stamps, begin = [], [], time.monotonic()
    for index, shot in enumerate(shots):
        due = begin + index / arguments.rate
        time.sleep(max(0.0, due - time.monotonic()))
        late.append(time.monotonic() - due)
        stamps.append(camera.publish(shot))
    took = time.monotonic() - begin
    print(json.dumps({"stamps_ns": stamps, "seconds": took, "late_ms_max": 1e3 * max(late)}), flush=True)
    time.sleep(1.5)  # the last frame is still being processed, and a writer that leaves takes its samples along
    camera.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
