"""Joins what a segmenter publishes of an image: map, detections and calibration, by their exact stamp."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.errors import FrameError
from seg_perception.core.messages.calibration import Calibration
from seg_perception.core.messages.detections import DETECTIONS, DetectionRow, read_detections
from seg_perception.core.messages.images import IMAGE, ImageMessage, read_image
from seg_perception.core.text import printable

from .fuse import View
from .projection import CameraModel, Projection

# Images whose parts have not all come, and complete ones that wait for points.
_MOST_PARTIAL, _MOST_COMPLETE = 8, 16


@dataclass(slots=True)
class _Parts:
    image: ImageMessage | None = None
    rows: list[DetectionRow] | None = None
    calibration: Calibration | None = None


class ViewJoiner:
    """Collects the messages of one camera and hands out the view nearest to a moment.

    Attributes:
        camera: its name.
        joined: how many views were completed.
        lost: how many images lacked a part when newer ones had come.
        lacking: which part the last of these lacked, for people; empty for none.
    """

    def __init__(self, camera: str, *, rectified: bool = False, frame_id: str = "") -> None:
        """Begin.

        Args:
            camera: its name.
            rectified: whether the segmenter reads rectified images.
            frame_id: the camera's optical frame; empty for that of its messages.
        """
        self.joined = 0
        self.lost = 0
        self.lacking = ""
        self.camera = camera
        self._rectified, self._frame_id = rectified, frame_id
        self._partial: OrderedDict[int, _Parts] = OrderedDict()
        self._views: deque[tuple[View, Calibration]] = deque(maxlen=_MOST_COMPLETE)
        self._projections: dict[tuple[int, int], Projection] = {}

    def take(self, kind: str, serialized: bytes) -> None:
        """Take a part of the results of an image.

        Args:
            kind: type of the message: IMAGE is the instance map, DETECTIONS or CAMERA_INFO.
            serialized: the message.

        Raises:
            FrameError: kind `message`, the bytes are no such message; `encoding` or `layout`, it is no instance map;
                `calibration`, the camera's cannot be used.
        """
        if kind == IMAGE:
            image = read_image(serialized)
            _check_map(image)
            stamp_ns = image.stamp_ns
            self._parts(stamp_ns).image = image
        elif kind == DETECTIONS:
            stamp_ns, _, rows = read_detections(serialized)
            self._parts(stamp_ns).rows = rows
        else:
            calibration = Calibration.read(serialized)
            stamp_ns = calibration.stamp_ns
            self._parts(stamp_ns).calibration = calibration
        self._join(stamp_ns)

    def end(self) -> None:
        """Count what has not been completed as lost; nothing comes any more."""
        while self._partial:
            self._lose(self._partial.popitem(last=False)[1])

    def latest_ns(self) -> int | None:
        """Return the stamp of the newest view; None without any."""
        return max((view.stamp_ns for view, _ in self._views), default=None)

    def nearest(self, stamp_ns: int, within: float) -> View | None:
        """Return the view whose stamp is nearest to a moment, if it is within so many seconds."""
        view, _ = min(self._views, key=lambda pair: abs(pair[0].stamp_ns - stamp_ns), default=(None, None))
        return view if view is not None and abs(view.stamp_ns - stamp_ns) <= within * 1e9 else None

    def at_size(self, view: View, width: int, height: int) -> View:
        """Return a view with the geometry of an image of another size of the same camera, such as its depth image.

        Raises:
            FrameError: kind `calibration`, it is shaped otherwise.
        """
        calibration = next(calibration for kept, calibration in self._views if kept is view)
        projection = self._projection(calibration, width, height)
        return View(view.camera, view.frame_id, view.stamp_ns, projection, view.instance_map, view.rows)

    def _parts(self, stamp_ns: int) -> _Parts:
        parts = self._partial.get(stamp_ns)
        if parts is None:
            parts = self._partial[stamp_ns] = _Parts()
            if len(self._partial) > _MOST_PARTIAL:
                self._lose(self._partial.popitem(last=False)[1])
        return parts

    def _lose(self, parts: _Parts) -> None:
        if parts.image is None and parts.rows is None:
            return  # the calibration of an image that the segmenter did not process
        self.lost += 1
        names = ("instance_map", "detections", "camera_info")
        values = (parts.image, parts.rows, parts.calibration)
        lacking = [name for name, value in zip(names, values, strict=True) if value is None]
        self.lacking = f"no {' and '.join(lacking)} with the stamp of the other results"

    def _join(self, stamp_ns: int) -> None:
        parts = self._partial[stamp_ns]
        if parts.image is None or parts.rows is None or parts.calibration is None:
            return
        del self._partial[stamp_ns]
        if self._views and stamp_ns < self._views[-1][0].stamp_ns - 10**9:
            self._views.clear()  # a bag that begins again
        image = parts.image
        projection = self._projection(parts.calibration, image.width, image.height)
        view = View(
            self.camera,
            self._frame_id or image.frame_id.lstrip("/"),
            stamp_ns,
            projection,
            _map_of(image),
            {row.number: row for row in parts.rows},
        )
        self._views.append((view, parts.calibration))
        self.joined += 1

    def _projection(self, calibration: Calibration, width: int, height: int) -> Projection:
        """The camera at a size; worked out again only when the calibration changes."""
        model = CameraModel.of(calibration, width, height, rectified=self._rectified)
        kept = self._projections.get((width, height))
        if kept is None or not model.same_as(kept.model):
            if len(self._projections) > 1:
                self._projections.clear()
            kept = self._projections[width, height] = Projection(model)
        return kept


def _check_map(message: ImageMessage) -> None:
    if message.encoding not in ("mono16", "16UC1"):
        raise FrameError(
            "encoding",
            f"instance map: expected encoding mono16, got {printable(message.encoding)}; name a segmenter's topics",
        )
    least = (message.height - 1) * message.step + 2 * message.width
    if not message.width or not message.height or message.step < 2 * message.width or len(message.data) < least:
        raise FrameError(
            "layout",
            f"instance map: expected {message.width} x {message.height} pixels of 16 bits, got step {message.step} and "
            f"{len(message.data)} bytes",
        )


def _map_of(message: ImageMessage) -> NDArray[np.uint16]:
    kind = np.dtype(">u2" if message.is_bigendian else "<u2")
    values: NDArray[np.uint16] = np.ndarray(
        (message.height, message.width), kind, message.data, strides=(message.step, 2)
    )
    return values.astype(np.uint16, copy=False)
