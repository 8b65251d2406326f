"""Objects in 3D for bags: what the node would publish, counted losses, and topics that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fusion_scene import CALIBRATION, box_points, mask_of, wall

from seg_perception.cli.main import main
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.messages.calibration import CAMERA_INFO
from seg_perception.core.messages.cdr import CdrWriter
from seg_perception.core.messages.detections import (
    DETECTIONS,
    DETECTIONS_3D,
    Hypothesis,
    PlacedObject,
    write_detections_3d,
)
from seg_perception.core.messages.images import IMAGE, write_image
from seg_perception.core.messages.point_clouds import POINT_CLOUD, read_point_cloud, write_point_cloud
from seg_perception.core.messages.transforms import TF_MESSAGE
from seg_perception.offboard.data.bags.reader import Bag
from seg_perception.offboard.replay.fuse import FuseJob, FuseRecord, fuse_bag
from seg_perception.offboard.replay.writer import BagWriter
from seg_perception.onboard.fusion.fuse import Fused

CENTRE = (20.0, 3.0, 0.0)
CAR = box_points(CENTRE, (4.4, 1.8, 1.5), 0.4, 300)
CLOUD = np.concatenate([wall(35.0), CAR])
MASK = mask_of(CAR, 7)
STEP = 100_000_000
BEGIN = 1_700_000_000 * 10**9


def detections(stamp_ns: int) -> bytes:
    writer = CdrWriter()
    writer.header(stamp_ns, "camera")
    writer.uint32s(1)
    writer.header(stamp_ns, "camera")
    writer.uint32s(2)
    for name in ("vehicle", "car"):
        writer.text(name)
        writer.float64s([0.75, *np.zeros(6), 1.0, *np.zeros(36)])
    writer.float64s(np.zeros(5))
    writer.text("7")
    return writer.finish()


def mounted(stamp_ns: int) -> bytes:
    writer = CdrWriter()
    writer.uint32s(1)
    writer.header(stamp_ns, "lidar")
    writer.text("camera")
    writer.float64s([0.0, 0.0, 0.0, -0.5, 0.5, -0.5, 0.5])
    return writer.finish()


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Five sweeps and images; one cloud is damaged, one image has no detections, and one sweep has no image."""
    path = tmp_path / "drive.mcap"
    with BagWriter(path, {}) as writer:
        for number in range(5):
            stamp_ns = BEGIN + number * STEP
            for topic, kind, data in messages(number, stamp_ns):
                writer.write(topic, kind, stamp_ns, data)
        # As rosbag2 does when the publisher of static transforms comes late.
        writer.write("/tf_static", TF_MESSAGE, BEGIN + 5 * STEP, mounted(0))
        late = BEGIN + 100 * STEP
        writer.write("/points", POINT_CLOUD, late, cloud(late))
    return path


def cloud(stamp_ns: int) -> bytes:
    return write_point_cloud(stamp_ns, "lidar", dict(zip("xyz", CLOUD.T, strict=True)))


def messages(number: int, stamp_ns: int) -> Iterator[tuple[str, str, bytes]]:
    yield "/points", POINT_CLOUD, cloud(stamp_ns)[: 100 if number == 3 else None]
    yield (
        "/depth",
        IMAGE,
        write_image(stamp_ns, "camera", "16UC1", np.where(MASK > 0, 12_000, 30_000).astype(np.uint16)),
    )
    yield "/segmenter/instance_map", IMAGE, write_image(stamp_ns, "camera", "mono16", MASK)
    if number != 1:
        yield "/segmenter/detections", DETECTIONS, detections(stamp_ns)
    yield "/segmenter/camera_info", CAMERA_INFO, replace(CALIBRATION, stamp_ns=stamp_ns, frame_id="camera").write()


def fused(job: FuseJob) -> tuple[FuseRecord, list[Fused]]:
    results: list[Fused] = []
    return fuse_bag(job, results.append), results


def test_a_bag_is_fused_and_losses_are_counted(bag: Path, tmp_path: Path) -> None:
    job = FuseJob(bag, "/points", tmp_path / "out.mcap")
    record, results = fused(job)
    # The sweep of the image without detections is labelled by the image before it.
    assert (record.fused, record.objects, record.unplaced) == (4, 4, 0)
    assert record.dropped == {"message": 1, "no_view": 1}
    assert any("truncated" in fault for fault in record.faults)
    assert any("9.60 s apart" in fault for fault in record.faults)
    assert record.compensation == "none: frame 'odom' is not in /tf"
    for result in results:
        np.testing.assert_allclose(result.objects[0].centre, CENTRE, atol=0.15)
    with Bag(job.output) as written:
        assert written.counts == {"/fusion/points": 4, "/fusion/detections_3d": 4}
        stored = {topic: [m.data for m in written.messages([topic])] for topic in written.topics}
    assert stored["/fusion/detections_3d"] == [each.detections_message() for each in results]
    points = read_point_cloud(stored["/fusion/points"][0])
    assert points.stamp_ns == BEGIN
    assert 0.95 * len(CAR) < len(points) <= len(CAR)


def test_depth_images_are_points_too(bag: Path, tmp_path: Path) -> None:
    record, results = fused(FuseJob(bag, "/depth", tmp_path / "out.mcap"))
    assert record.fused == 5
    assert results[0].objects[0].centre[2] == pytest.approx(12.0, abs=0.05)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"points": "/lidar"}, "the bag has /points"),
        ({"points": "/segmenter/detections"}, "expected a topic of sensor_msgs/msg/PointCloud2 or of depth images"),
        ({"results": "/nobody"}, r"expected /nobody/instance_map .*--copy-inputs"),
        ({"info": "/other/info"}, "expected /other/info"),
    ],
)
def test_topics_that_are_not_there_are_named(bag: Path, tmp_path: Path, change: dict[str, str], text: str) -> None:
    job = FuseJob(bag, "/points", tmp_path / "out.mcap")
    with pytest.raises(ConfigurationError, match=text):
        fuse_bag(replace(job, **change))
    assert not job.output.exists()


def test_the_command_says_what_it_did(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fuse", str(bag), "--points", "/depth", "-o", str(tmp_path / "a.mcap"), "--fixed-frame", ""]
    assert main(arguments) == 1  # an image without detections
    said = capsys.readouterr().out
    assert "5 results: 5 objects placed, 0 with too few points" in said
    assert "fixed_frame is empty" in said
    assert main([*arguments[:3], "/points", "-o", str(tmp_path / "b.mcap"), "--min-points", "5000"]) == 1
    said = capsys.readouterr().out
    assert "4 results: 0 objects placed, 4 with too few points" in said
    assert "dropped: 1 (no_view)" in said
    assert main([*arguments[:3], "/points", "-o", str(tmp_path / "c.mcap"), "--min-points", "0"]) == 1
    assert "min_points of at least 1" in capsys.readouterr().err


def test_detections_in_3d_are_what_others_read() -> None:
    rosbags = pytest.importorskip("rosbags.typesys")
    from seg_perception.offboard.data.bags.types import definition

    placed = PlacedObject(
        "front/7", (Hypothesis("vehicle", 0.5), Hypothesis("car", 0.5)), np.array([1.0, 2.0, 3.0]),
        np.array([4.0, 5.0, 6.0]), np.array([0.0, 0.0, 0.6, 0.8]), np.diag([0.1, 0.2, 0.3]),
    )  # fmt: skip
    store = rosbags.get_typestore(rosbags.Stores.ROS2_JAZZY)
    store.register(rosbags.get_types_from_msg(definition(DETECTIONS_3D), DETECTIONS_3D))
    message = store.deserialize_cdr(write_detections_3d(BEGIN, "map", [placed, placed]), DETECTIONS_3D)
    first = message.detections[1]
    assert (message.header.frame_id, first.header.stamp.sec, first.id) == ("map", BEGIN // 10**9, "front/7")
    assert [each.hypothesis.class_id for each in first.results] == ["vehicle", "car"]
    assert np.reshape(first.results[1].pose.covariance, (6, 6))[2, 2] == 0.3
    assert (first.bbox.center.orientation.w, first.bbox.size.z) == (0.8, 6.0)
