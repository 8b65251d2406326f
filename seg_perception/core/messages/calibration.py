"""`sensor_msgs/CameraInfo`: the calibration of a camera, read, fitted to another size, and written."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from .cdr import CdrReader, CdrWriter

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_SUBJECT = "camera_info message"
# rational_polynomial, the longest model in use, has 14.
_MOST_COEFFICIENTS = 64


@dataclass(frozen=True, slots=True)
class Region:
    """The part of the full image that is sent, in pixels of the full image; a size of 0 means all of it."""

    x_offset: int = 0
    y_offset: int = 0
    height: int = 0
    width: int = 0
    do_rectify: bool = False


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fields of a `sensor_msgs/CameraInfo`.

    Attributes:
        stamp_ns, frame_id: of its header.
        height, width: of the full image in pixels.
        distortion_model: such as `plumb_bob`.
        d: float64 `[N]`, distortion coefficients.
        k: float64 `[9]`, camera matrix by rows.
        r: float64 `[9]`, rectification by rows.
        p: float64 `[12]`, projection by rows.
        binning_x, binning_y: pixels of the full image in one that is sent; 0 stands for 1.
        roi: what is sent.
    """

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    distortion_model: str
    d: NDArray[np.float64]
    k: NDArray[np.float64]
    r: NDArray[np.float64]
    p: NDArray[np.float64]
    binning_x: int = 0
    binning_y: int = 0
    roi: Region = Region()

    @classmethod
    def read(cls, serialized: bytes) -> Calibration:
        """Read a serialized `sensor_msgs/CameraInfo`.

        Raises:
            FrameError: kind `message`, the bytes are not such a message.
        """
        reader = CdrReader(serialized, _SUBJECT)
        stamp_ns, frame_id = reader.header()
        height, width = reader.uint32("height"), reader.uint32("width")
        model = reader.text("distortion_model")
        count = reader.uint32("d")
        if count > _MOST_COEFFICIENTS:
            raise FrameError(
                "message", f"{_SUBJECT}: d claims {count} coefficients, expected at most {_MOST_COEFFICIENTS}"
            )
        d, k, r, p = (reader.float64s(name, size) for name, size in (("d", count), ("k", 9), ("r", 9), ("p", 12)))
        binning = reader.uint32("binning_x"), reader.uint32("binning_y")
        left, top, rows, columns = (
            reader.uint32(f"roi.{name}") for name in ("x_offset", "y_offset", "height", "width")
        )
        roi = Region(left, top, rows, columns, reader.uint8("roi.do_rectify") != 0)
        return cls(stamp_ns, frame_id, height, width, model, d, k, r, p, *binning, roi)

    def write(self) -> bytes:
        """Serialize."""
        writer = CdrWriter()
        writer.header(self.stamp_ns, self.frame_id)
        writer.uint32s(self.height, self.width)
        writer.text(self.distortion_model)
        writer.uint32s(len(self.d))
        for values in (self.d, self.k, self.r, self.p):
            writer.float64s(values)
        roi = self.roi
        writer.uint32s(self.binning_x, self.binning_y, roi.x_offset, roi.y_offset, roi.height, roi.width)
        writer.uint8(int(roi.do_rectify))
        return writer.finish()

    def under(self, stamp_ns: int, frame_id: str) -> Calibration:
        """The same under another header."""
        return replace(self, stamp_ns=stamp_ns, frame_id=frame_id)

    @property
    def sent(self) -> tuple[int, int]:
        """Width and height of the images as they are sent: the region of interest, binned."""
        width, height = self.roi.width or self.width, self.roi.height or self.height
        return width // max(1, self.binning_x), height // max(1, self.binning_y)

    def describes(self, width: int, height: int) -> bool:
        """Return whether it is one for images of this size, as they are sent."""
        return self.sent == (width, height)

    def scaled(self, sent: tuple[int, int], size: tuple[int, int]) -> Calibration:
        """The same for images of another size.

        Binning and region of interest are folded into K and P, so that the result describes these images alone. Pixel
        centres of ROS calibrations are at whole numbers, hence c' = (c + 0.5) * s - 0.5.

        Args:
            sent: width and height of the images that it `describes`.
            size: width and height wanted.
        """
        roi = self.roi
        horizontal = (size[0] / (sent[0] * max(1, self.binning_x)), roi.x_offset)
        vertical = (size[1] / (sent[1] * max(1, self.binning_y)), roi.y_offset)
        return replace(
            self,
            width=size[0],
            height=size[1],
            k=_scaled_rows(self.k, 3, horizontal, vertical),
            p=_scaled_rows(self.p, 4, horizontal, vertical),
            binning_x=0,
            binning_y=0,
            roi=Region(do_rectify=roi.do_rectify),
        )


def _scaled_rows(
    matrix: NDArray[np.float64], columns: int, horizontal: tuple[float, int], vertical: tuple[float, int]
) -> NDArray[np.float64]:
    """A camera matrix, 3 x `columns` by rows, after cropping by an offset and scaling, per axis (scale, offset).

    An image coordinate becomes (u - offset + 0.5) * scale - 0.5, which is affine in the homogeneous coordinates: the
    first two rows are scaled and the third is added to them.
    """
    rows = np.array(matrix, np.float64).reshape(3, columns)
    for axis, (scale, offset) in enumerate((horizontal, vertical)):
        rows[axis] = rows[axis] * scale + rows[2] * ((0.5 - offset) * scale - 0.5)
    return rows.reshape(-1)
