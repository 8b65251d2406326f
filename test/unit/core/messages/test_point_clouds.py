"""Point clouds of all layouts, and what is refused."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seg_perception.core.errors import FrameError
from seg_perception.core.messages.cdr import CdrWriter
from seg_perception.core.messages.point_clouds import MOST_POINTS, read_point_cloud, write_point_cloud

CODES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}
XYZ = np.array([[1.0, 2.0, 3.0], [-4.0, 5.5, 6.0], [7.0, -8.0, 9.25], [10.0, 11.0, 12.0]])


def message(
    points: np.ndarray,
    *,
    big: bool = False,
    shape: tuple[int, int] | None = None,
    row_padding: int = 0,
    stamp_ns: int = 5_000_000_000,
    **changes: int,
) -> bytes:
    """Serialize a structured array as a cloud."""
    height, width = shape or (1, len(points))
    assert points.dtype.fields is not None
    writer = CdrWriter()
    writer.header(stamp_ns, "lidar")
    writer.uint32s(changes.get("height", height), changes.get("width", width), len(points.dtype.fields))
    for name, (kind, offset) in ((name, field[:2]) for name, field in points.dtype.fields.items()):
        writer.text(name)
        writer.uint32s(offset)
        writer.uint8(CODES[kind.str[1:]])
        writer.uint32s(1)
    writer.uint8(int(big))
    step = points.dtype.itemsize
    rows = points.reshape(height, width)
    data = b"".join(row.tobytes() + bytes(row_padding) for row in rows)
    writer.uint32s(changes.get("point_step", step), changes.get("row_step", width * step + row_padding), len(data))
    writer.raw(data)
    writer.uint8(1)
    return writer.finish()


def packed(formats: str = "f4", order: str = "<", padding: int = 0) -> np.ndarray:
    kind = np.dtype({"names": ["x", "y", "z"], "formats": [order + formats] * 3,
                     "offsets": [padding + k * int(formats[1]) for k in range(3)],
                     "itemsize": 2 * padding + 3 * int(formats[1])})  # fmt: skip
    points = np.zeros(len(XYZ), kind)
    for axis, name in enumerate("xyz"):
        points[name] = XYZ[:, axis]
    return points


@pytest.mark.parametrize("formats", ["f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("padding", [0, 4, 7])
def test_any_layout_is_read(formats: str, order: str, padding: int) -> None:
    cloud = read_point_cloud(message(packed(formats, order, padding), big=order == ">"))
    np.testing.assert_array_equal(cloud.xyz, XYZ.astype(np.float32))
    assert (cloud.stamp_ns, cloud.frame_id, cloud.left_out) == (5_000_000_000, "lidar", 0)


def test_an_organised_cloud_with_padded_rows_is_read() -> None:
    cloud = read_point_cloud(message(packed(), shape=(2, 2), row_padding=5))
    np.testing.assert_array_equal(cloud.xyz, XYZ.astype(np.float32))


def test_points_that_are_no_measurement_are_left_out_and_counted() -> None:
    points = packed()
    points["x"][0], points["y"][1] = np.nan, np.inf
    points[2] = (0.0, 0.0, 0.0)
    cloud = read_point_cloud(message(points))
    np.testing.assert_array_equal(cloud.xyz, XYZ[3:].astype(np.float32))
    assert cloud.left_out == 3


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("time", "f4", [-0.1, -0.05, 0.0, 0.02]),
        ("t", "u4", [0, 10**7, 2 * 10**7, 99 * 10**6]),
        ("timestamp", "f8", [4.9, 4.95, 5.0, 5.02]),
        ("timestamp", "f8", [1.7e9 - 0.1, 1.7e9 - 0.05, 1.7e9, 1.7e9 + 0.02]),
    ],
)
def test_moments_of_points_are_seconds_from_the_stamp(name: str, kind: str, values: list[float]) -> None:
    points = np.zeros(4, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), (name, "<" + kind)])
    points["x"], points[name] = 1.0, values
    stamp_ns = 1_700_000_000 * 10**9 if values[0] > 1e6 and kind == "f8" else 5 * 10**9
    cloud = read_point_cloud(message(points, stamp_ns=stamp_ns))
    if name == "timestamp" and values[0] < 1e6:
        # Seconds of no clock that is known; better none than wrong ones.
        assert cloud.offsets is None
        return
    assert cloud.offsets is not None
    expected = np.array(values) * (1e-9 if kind == "u4" else 1.0) - (1.7e9 if kind == "f8" else 0.0)
    np.testing.assert_allclose(cloud.offsets, expected, atol=1e-6)


def test_intensity_and_ring_are_passed_on_and_others_not() -> None:
    points = np.zeros(
        4, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "u1"), ("ring", "u1"), ("rgb", "<f4")]
    )
    points["x"], points["intensity"], points["ring"] = 1.0, [1, 2, 3, 255], [0, 1, 2, 3]
    cloud = read_point_cloud(message(points))
    assert cloud.intensity is not None
    assert cloud.intensity.tolist() == [1, 2, 3, 255]
    assert cloud.ring is not None
    assert (cloud.ring.dtype, cloud.ring.tolist()) == (np.uint16, [0, 1, 2, 3])


def test_what_is_written_is_read() -> None:
    columns: dict[str, NDArray[Any]] = {
               "x": XYZ[:, 0].astype(np.float32), "y": XYZ[:, 1].astype(np.float32), "z": XYZ[:, 2].astype(np.float32),
               "intensity": np.arange(4, dtype=np.float32), "ring": np.arange(4, dtype=np.uint16),
               "group": np.arange(4, dtype=np.uint8)}  # fmt: skip
    cloud = read_point_cloud(write_point_cloud(7, "map", columns))
    np.testing.assert_array_equal(cloud.xyz, XYZ.astype(np.float32))
    assert cloud.intensity is not None
    assert cloud.intensity.tolist() == [0, 1, 2, 3]
    empty = {name: values[:0] for name, values in columns.items()}
    assert len(read_point_cloud(write_point_cloud(7, "map", empty))) == 0


@pytest.mark.parametrize(
    ("kind", "text", "made"),
    [
        ("layout", "got no such z among x, y", lambda: message(packed()[["x", "y"]])),
        ("layout", "got no such x", lambda: message(np.ones(2, [("x", "<i4"), ("y", "<f4"), ("z", "<f4")]))),
        ("layout", "ends at byte 12 of a point", lambda: message(packed(), point_step=8)),
        ("layout", "rows of at least", lambda: message(packed(), row_step=47)),
        ("layout", "rows of at least", lambda: message(packed(), width=5, row_step=60)),
        ("layout", "rows of at least", lambda: message(packed(), height=2)),
        ("size", f"at most {MOST_POINTS}", lambda: message(packed(), height=2**16, width=2**16 - 1)),
        ("message", "truncated", lambda: message(packed())[:-8]),
        ("message", "expected plain CDR", lambda: b""),
    ],
)
def test_clouds_that_contradict_themselves_are_refused(kind: str, text: str, made) -> None:
    with pytest.raises(FrameError, match=text) as error:
        read_point_cloud(made())
    assert error.value.kind == kind


@given(st.data())
def test_a_damaged_cloud_is_read_or_refused(data: st.DataObject) -> None:
    whole = bytearray(message(packed("f8", ">", 3), big=True))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FrameError):
        cloud = read_point_cloud(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
        assert np.isfinite(cloud.xyz).all()
        assert len(cloud) + cloud.left_out <= len(whole)


def test_a_claim_of_many_fields_is_refused() -> None:
    claim = struct.pack("<iII", 0, 0, 1) + b"\0\0\0\0" + struct.pack("<III", 1, 1, 2**31)
    with pytest.raises(FrameError, match="fields"):
        read_point_cloud(b"\x00\x01\x00\x00" + claim + bytes(64))
