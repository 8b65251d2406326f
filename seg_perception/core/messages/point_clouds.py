"""`sensor_msgs/PointCloud2`: points of any layout read into arrays, and labelled points written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError
from ..text import printable
from .cdr import CdrReader, CdrWriter

POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
_SUBJECT = "point cloud"
# By `sensor_msgs/PointField.datatype`.
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_CODES = {code: number for number, code in _TYPES.items()}
# Ten turns of the largest lidars; more is a fault of lengths.
MOST_POINTS = 4_000_000
_MOST_FIELDS = 256
# Farther away is no measurement, and its square no number of 32 bits.
_FARTHEST = 1e5
# Seconds to one unit, by the names that drivers give to the time of a point.
_TIMES = {"time": 1.0, "t": 1e-9, "offset_time": 1e-9, "time_stamp": 1e-9, "timestamp": 1.0}


@dataclass(frozen=True, slots=True)
class PointCloud:
    """Measured points; those that are no measurement (NaN, infinity, the origin) are left out.

    Attributes:
        stamp_ns, frame_id: of the header.
        xyz: float32 `[N, 3]`, metres in `frame_id`.
        intensity: float32 `[N]`, if there is one.
        ring: uint16 `[N]`, if there is one.
        offsets: float32 `[N]`, seconds from the stamp to the moment of each measurement, if the cloud tells.
        left_out: how many points are no measurement.
    """

    stamp_ns: int
    frame_id: str
    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32] | None = None
    ring: NDArray[np.uint16] | None = None
    offsets: NDArray[np.float32] | None = None
    left_out: int = 0

    def __len__(self) -> int:
        """The number of points."""
        return len(self.xyz)

    def only(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> PointCloud:
        """Return some of the points, by a mask, bool `[N]`, or by their rows."""
        return replace(
            self,
            xyz=self.xyz[chosen],
            intensity=None if self.intensity is None else self.intensity[chosen],
            ring=None if self.ring is None else self.ring[chosen],
            offsets=None if self.offsets is None else self.offsets[chosen],
        )


def read_point_cloud(serialized: bytes) -> PointCloud:
    """Read a serialized `sensor_msgs/PointCloud2` of any layout of fields and either byte order.

    Raises:
        FrameError: kind `message`, the bytes are not such a message; `layout`, it has no x, y and z that are floating
            point, or its lengths contradict each other; `size`, it has more than `MOST_POINTS` points.
    """
    reader = CdrReader(serialized, _SUBJECT)
    stamp_ns, frame_id = reader.header()
    height, width = reader.uint32("height"), reader.uint32("width")
    fields = _fields(reader)
    order = ">" if reader.uint8("is_bigendian") else "<"
    point_step, row_step = reader.uint32("point_step"), reader.uint32("row_step")
    data = reader.octets("data")
    if height * width > MOST_POINTS:
        raise FrameError("size", f"{_SUBJECT}: expected at most {MOST_POINTS} points, got {width} x {height}")
    formats = _formats(fields, order, point_step)
    empty = not height * width
    if not empty and (row_step < width * point_step or len(data) < (height - 1) * row_step + width * point_step):
        raise FrameError(
            "layout",
            f"{_SUBJECT}: expected rows of at least {width} points x {point_step} bytes and {height} of them, got "
            f"row_step {row_step} and {len(data)} bytes; check the driver",
        )
    names = list(formats)
    packed = np.dtype(
        {"names": names, "formats": [formats[name][0] for name in names],
         "offsets": [formats[name][1] for name in names], "itemsize": point_step}
    )  # fmt: skip
    shape = (0, 0) if empty else (height, width)
    points: NDArray[np.void] = np.ndarray(shape, packed, data, strides=(row_step, point_step)).reshape(-1)
    return _measured(points, stamp_ns, frame_id)


def _fields(reader: CdrReader) -> dict[str, tuple[int, int, int]]:
    """Offset, datatype and count of the fields by name."""
    count = reader.uint32("fields")
    if count > _MOST_FIELDS:
        raise FrameError("message", f"{_SUBJECT}: fields: expected at most {_MOST_FIELDS}, got {count}")
    fields: dict[str, tuple[int, int, int]] = {}
    for _ in range(count):
        name = reader.text("fields.name")
        field = (reader.uint32("fields.offset"), reader.uint8("fields.datatype"), reader.uint32("fields.count"))
        fields.setdefault(name, field)
    return fields


def _formats(fields: Mapping[str, tuple[int, int, int]], order: str, point_step: int) -> dict[str, tuple[str, int]]:
    """Type and offset of the fields that are read, checked."""
    for name in ("x", "y", "z"):
        if name not in fields or fields[name][1] not in (7, 8):
            known = ", ".join(printable(each) for each in list(fields)[:12]) or "none"
            raise FrameError(
                "layout", f"{_SUBJECT}: expected x, y and z as float32 or float64, got no such {name} among {known}"
            )
    formats = {}
    for name in ("x", "y", "z", "intensity", "ring", *_TIMES):
        offset, datatype, _ = fields.get(name, (0, 0, 0))
        if datatype not in _TYPES:
            continue
        kind = np.dtype(order + _TYPES[datatype])
        if offset + kind.itemsize > point_step:
            raise FrameError(
                "layout",
                f"{_SUBJECT}: field {name} ends at byte {offset + kind.itemsize} of a point, expected at most "
                f"point_step, {point_step}; check the driver",
            )
        formats[name] = (kind.str, offset)
    return formats


def _measured(points: NDArray[np.void], stamp_ns: int, frame_id: str) -> PointCloud:
    xyz = np.empty((len(points), 3), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for axis, name in enumerate("xyz"):
            xyz[:, axis] = points[name]
        squared = np.einsum("ij,ij->i", xyz, xyz)
    # False for NaN, too.
    usable = (squared > 0) & (squared < _FARTHEST**2)
    left_out = len(usable) - int(np.count_nonzero(usable))
    if left_out:
        points, xyz = points[usable], xyz[usable]
    names = points.dtype.names or ()
    with np.errstate(over="ignore", invalid="ignore"):
        intensity = points["intensity"].astype(np.float32) if "intensity" in names else None
        ring = points["ring"].astype(np.uint16) if "ring" in names else None
    return PointCloud(stamp_ns, frame_id, xyz, intensity, ring, _offsets(points, stamp_ns), left_out)


def _offsets(points: NDArray[np.void], stamp_ns: int) -> NDArray[np.float32] | None:
    """Seconds from the stamp, where they make sense: drivers count from the stamp, or from 1970."""
    name = next((name for name in _TIMES if name in (points.dtype.names or ())), None)
    if name is None or not len(points):
        return None
    seconds = points[name].astype(np.float64) * _TIMES[name]
    if seconds.size and seconds.min() > 1e6:
        seconds -= stamp_ns * 1e-9
    if not np.isfinite(seconds).all() or np.abs(seconds).max() > 1.0:
        return None
    return seconds.astype(np.float32)


def write_point_cloud(stamp_ns: int, frame_id: str, columns: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Serialize an unorganised `sensor_msgs/PointCloud2`.

    Args:
        stamp_ns, frame_id: of its header.
        columns: `[N]` each, by name of the field, in their order; numbers of 8 to 64 bits.
    """
    fields, position = [], 0
    for name, column in columns.items():
        size = column.dtype.itemsize
        position += -position % size
        fields.append((name, position, column.dtype.newbyteorder("<")))
        position += size
    point_step = position + -position % 4
    packed = np.dtype(
        {"names": [name for name, _, _ in fields], "formats": [kind for _, _, kind in fields],
         "offsets": [offset for _, offset, _ in fields], "itemsize": point_step}
    )  # fmt: skip
    count = len(next(iter(columns.values())))
    points = np.zeros(count, packed)
    for name, column in columns.items():
        points[name] = column
    writer = CdrWriter()
    writer.header(stamp_ns, frame_id)
    writer.uint32s(1, count, len(fields))
    for name, offset, kind in fields:
        writer.text(name)
        writer.uint32s(offset)
        writer.uint8(_CODES[kind.str[1:]])
        writer.uint32s(1)
    writer.uint8(0)
    writer.uint32s(point_step, point_step * count, points.nbytes)
    writer.raw(points.tobytes())
    writer.uint8(1)
    return writer.finish()
