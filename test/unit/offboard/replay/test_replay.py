"""`seg_perception replay`: every frame of a recording, what is lost by name, and an output that survives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from colour_model import FAULT_COLOUR, paint_scene, save_canonical_colour_model
from mcap.reader import make_reader
from rosbags.rosbag2 import StoragePlugin, Writer

from seg_perception.cli.main import main
from seg_perception.core.messages.images import IMAGE
from seg_perception.offboard.data.bags.reader import Bag
from seg_perception.offboard.data.bags.types import message_store
from seg_perception.offboard.data.published import read_published
from seg_perception.offboard.replay.inputs import BagRecording
from seg_perception.offboard.replay.record import Samples
from seg_perception.offboard.replay.replay import Replay, ReplayOptions
from seg_perception.offboard.replay.threads import BackgroundWriter, Prefetcher
from seg_perception.offboard.replay.writer import BagWriter
from seg_perception.onboard.pipeline.opening import ModelChoice, open_segmenter

STORE = message_store()
TYPES = STORE.types
STEP_NS = 100_000_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_canonical_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx", fault="predictions")


def photo(index: int, fault: bool = False) -> np.ndarray:
    """A car and a person that drive apart; uint8 `[192, 320, 3]`, bgr."""
    scene = paint_scene(320, 192, [(100 + 4 * index, 40, 180 + 4 * index, 100, 1), (40 - 2 * index, 40, 72, 120, 0)])
    image = scene.image[..., ::-1].copy()
    if fault:
        image[0, 0] = FAULT_COLOUR
    return image


def header(index: int) -> Any:
    seconds, rest = divmod(7_000_000_000 + index * STEP_NS, 10**9)
    return TYPES["std_msgs/msg/Header"](TYPES["builtin_interfaces/msg/Time"](seconds, rest), "front_optical")


def raw(index: int, encoding: str = "bgr8", **options: bool) -> Any:
    data = photo(index, **options).reshape(-1)
    return TYPES["sensor_msgs/msg/Image"](header(index), 192, 320, encoding, 0, 960, data)


def jpeg(index: int) -> Any:
    data = cv2.imencode(".jpg", photo(index))[1].reshape(-1)
    return TYPES["sensor_msgs/msg/CompressedImage"](header(index), "jpeg", data)


def info(index: int, width: int = 320) -> Any:
    region = TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([200.0, 0, 159.5, 0, 200, 95.5, 0, 0, 1])
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header(index), 192, width, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), np.zeros(12), 0, 0, region
    )


def write(path: Path, messages: Iterable[tuple[str, Any]], plugin: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """A bag; messages are recorded 100 ms after one another."""
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections: dict[str, Any] = {}
        for index, (topic, message) in enumerate(messages):
            kind = message if isinstance(message, str) else message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            data = STORE.serialize_cdr(message, kind)
            writer.write(connections[topic], 1_000_000_000 + index * STEP_NS, data)
    return path


def messages(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """Time of recording and message by topic."""
    found: dict[str, list[tuple[int, Any]]] = {}
    with Bag(path) as bag:
        assert not bag.faults
        for topic, kind, time_ns, data in bag.messages():
            found.setdefault(topic, []).append((time_ns, STORE.deserialize_cdr(data, kind)))
    return found


def replay(*arguments: object) -> int:
    return main(["replay", *map(str, arguments), "--threads", "1"])


@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_every_frame_comes_out_as_the_node_publishes_it(tmp_path: Path, model: Path, plugin: StoragePlugin):
    # The calibration of a moment follows its image.
    pairs = [each for index in range(6) for each in (("/image_raw", raw(index)), ("/camera_info", info(index)))]
    bag, out = write(tmp_path / "drive", pairs, plugin), tmp_path / "new" / "out.mcap"
    assert replay(bag, "--model", model, "-o", out, "--with", "overlay", "color", "semantic") == 0
    found = messages(out)
    assert {topic: len(each) for topic, each in found.items()} == {
        "/segmenter/label_info": 1,
        **{
            f"/segmenter/{name}": 6
            for name in (
                "instance_map", "detections", "camera_info", "semantic_map", "instance_map/color", "overlay/compressed"
            )
        },
    }  # fmt: skip
    for topic, each in found.items():
        if topic.endswith("label_info"):
            continue
        assert [time_ns for time_ns, _ in each] == [1_000_000_000 + 2 * index * STEP_NS for index in range(6)]
        assert [message.header.stamp.sec * 10 + message.header.stamp.nanosec // STEP_NS for _, message in each] == [
            70 + index for index in range(6)
        ]
        assert {message.header.frame_id for _, message in each} == {"front_optical"}
    for index, frame in enumerate(read_published(out, "/segmenter/instance_map", "/segmenter/detections")):
        assert len(frame.numbers) == 2
        car = frame.pixels == frame.numbers[frame.groups == 1]
        columns = np.flatnonzero(car.any(axis=0))
        assert abs(columns[0] - (100 + 4 * index)) <= 1
        assert abs(columns[-1] - (179 + 4 * index)) <= 1
    labels = [each.class_name for each in found["/segmenter/label_info"][0][1].class_map]
    assert labels == ["background", "person", "car", "stop sign", "traffic light"]


def test_readers_of_mcap_find_definitions_and_quality_of_service(tmp_path: Path, model: Path):
    bag, out = write(tmp_path / "drive", [("/image_raw", raw(0))]), tmp_path / "out.mcap"
    assert replay(bag, "--model", model, "-o", out) == 0
    with out.open("rb") as file:
        summary = make_reader(file).get_summary()
        (about,) = make_reader(file).iter_metadata()
    assert summary is not None
    kinds = {channel.topic: summary.schemas[channel.schema_id] for channel in summary.channels.values()}
    assert kinds["/segmenter/detections"].name == "vision_msgs/msg/Detection2DArray"
    assert b"MSG: vision_msgs/ObjectHypothesis" in kinds["/segmenter/detections"].data
    offered = {channel.topic: channel.metadata["offered_qos_profiles"] for channel in summary.channels.values()}
    assert "durability: 1" in offered["/segmenter/label_info"]
    assert (about.name, Path(about.metadata["model"]).name) == ("seg_perception", "colours.onnx")
    assert about.metadata["score_threshold"] == "0.25"


def test_cameras_have_topics_of_their_own_and_inputs_can_be_copied(tmp_path: Path, model: Path):
    text = TYPES["std_msgs/msg/String"]("hello")
    recorded = [
        ("/front/image_raw", raw(0)), ("/rear/image_raw/compressed", jpeg(1)), ("/words", text),
        ("/front/image_raw", raw(2)), ("/rear/image_raw/compressed", jpeg(3)),
    ]  # fmt: skip
    bag, out = write(tmp_path / "drive", recorded), tmp_path / "out.mcap"
    assert replay(bag, "--model", model, "-o", out, "--copy-inputs", "--namespace", "seg") == 0
    found = messages(out)
    assert {topic: len(each) for topic, each in found.items()} == {
        **dict.fromkeys(("/front/image_raw", "/rear/image_raw/compressed"), 2),
        "/words": 1,
        **{f"/seg/{camera}/{name}": 2 for camera in ("front", "rear") for name in ("instance_map", "detections")},
        **{f"/seg/{camera}/label_info": 1 for camera in ("front", "rear")},
    }
    before = messages(bag)
    for topic in ("/front/image_raw", "/rear/image_raw/compressed", "/words"):
        assert str(found[topic]) == str(before[topic])


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
):
    bad = raw(1)
    object.__setattr__(bad, "data", bad.data[:100])
    recorded = [("/image_raw", each) for each in (raw(0), bad, raw(2, "32FC1"), raw(3, fault=True), raw(4))]
    bag, out = write(tmp_path / "drive", recorded), tmp_path / "out.mcap"
    assert replay(bag, "--model", model, "-o", out, "--report", tmp_path / "report.html") == 1
    assert len(messages(out)["/segmenter/instance_map"]) == 2
    said = capsys.readouterr().out
    assert "2 frames in" in said
    lost = [line for line in said.splitlines() if line.startswith("lost: ")]
    assert len(lost) == 3
    for words in ("got 100; the message is truncated", "got '32FC1'", "NaN"):
        assert any(words in line for line in lost), words
    page = (tmp_path / "report.html").read_text()
    assert "2 frames were processed" in page
    assert "got &#x27;32FC1&#x27;" in page or "got '32FC1'" in page


def test_a_part_of_a_video_is_replayed(tmp_path: Path, model: Path):
    video = cv2.VideoWriter(str(tmp_path / "drive.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 192))
    for index in range(12):
        video.write(photo(index))
    video.release()
    out = tmp_path / "out.mcap"
    arguments = ("--start", 0.5, "--duration", 0.4, "--tracking")
    assert replay(tmp_path / "drive.mp4", "--model", model, "-o", out, *arguments) == 0
    frames = list(read_published(out, "/segmenter/instance_map", "/segmenter/detections"))
    assert [frame.stamp_ns // STEP_NS for frame in frames] == [5, 6, 7, 8]
    assert {tuple(sorted(frame.numbers)) for frame in frames} == {(1, 2)}
    # A bag of the same video gives the same results.
    bag, again = tmp_path / "bag.mcap", tmp_path / "again.mcap"
    assert replay(tmp_path / "drive.mp4", "--model", model, "-o", bag, "--copy-inputs", *arguments) == 0
    assert replay(bag, "--model", model, "-o", again, "--tracking") == 0
    for name in ("instance_map", "detections"):
        with Bag(out) as first, Bag(again) as second:
            topic = [f"/segmenter/{name}"]
            assert [each.data for each in first.messages(topic)] == [each.data for each in second.messages(topic)]


def test_models_side_by_side_find_what_one_finds(tmp_path: Path, model: Path):
    bad = raw(3, "32FC1")
    recorded = [("/image_raw", raw(index)) for index in range(10)]
    recorded[3:3] = [("/image_raw", bad), ("/image_raw", raw(3, fault=True))]
    bag = write(tmp_path / "drive", recorded)
    outputs = {count: tmp_path / f"{count}.mcap" for count in (1, 3)}
    for count, output in outputs.items():
        assert replay(bag, "--model", model, "-o", output, "--tracking", "--side-by-side", count) == 1
    with Bag(outputs[1]) as one, Bag(outputs[3]) as three:
        assert one.counts["/segmenter/instance_map"] == 10
        assert list(one.messages()) == list(three.messages())


def test_each_camera_gets_a_video_of_its_overlays(tmp_path: Path, model: Path):
    recorded = [
        each
        for index in range(6)
        for each in (("/front/image_raw", raw(index)), ("/rear/image_raw/compressed", jpeg(index)))
    ]
    bag = write(tmp_path / "drive", recorded)
    assert replay(bag, "--model", model, "-o", tmp_path / "out.mcap", "--video", tmp_path / "out.mp4") == 0
    for camera in ("front", "rear"):
        video = cv2.VideoCapture(str(tmp_path / f"out.{camera}.mp4"))
        frames = [video.read()[1] for _ in range(int(video.get(cv2.CAP_PROP_FRAME_COUNT)))]
        assert (len(frames), video.get(cv2.CAP_PROP_FPS)) == (6, 5.0)
        # The background stays as it was, the car does not.
        car = frames[0][60:80, 120:160].astype(int)
        assert abs(frames[0][150:180, 250:300].astype(int) - 114).max() < 12
        assert abs(car - photo(0)[60:80, 120:160]).mean() > 12


def test_a_replay_is_held_against_an_earlier_one(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]):
    bag = write(tmp_path / "drive", [("/image_raw", raw(index)) for index in range(5)])
    first, same, other = (tmp_path / f"{name}.mcap" for name in ("first", "same", "other"))
    assert replay(bag, "--model", model, "-o", first) == 0
    assert replay(bag, "--model", model, "-o", same, "--against", first) == 0
    assert "5 frames, 0 of them different: 0 gone, 0 new" in capsys.readouterr().out
    # The smaller of the two no longer counts.
    report = tmp_path / "report.html"
    assert replay(bag, "--model", model, "-o", other, "--against", first, "--min-pixels", 4000, "--report", report) == 0
    assert "5 frames, 5 of them different: 5 gone, 0 new" in capsys.readouterr().out
    assert "gone: pedestrian" in report.read_text()
    assert replay(bag, "--model", model, "-o", tmp_path / "x.mcap", "--against", bag) == 1
    assert "expected what a segmenter published" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "out.bag"], "expected a file name that ends in .mcap"),
        (["-o", "there.mcap"], "exists already"),
        (["-o", "out.mcap", "--topics", "/rear"], "topic /rear: expected one of sensor_msgs/msg/Image"),
        (["-o", "out.mcap", "--start", "-1"], "--start: expected seconds from 0"),
        (["-o", "out.mcap", "--output-size", "tiny"], "output size: expected"),
    ],
)
def test_bad_arguments_are_told_before_the_work(
    arguments: list[str], words: str, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "drive", [("/image_raw", raw(0))])
    (tmp_path / "there.mcap").write_bytes(b"mine")
    assert replay("drive", "--model", model, *arguments) == 1
    assert words in capsys.readouterr().err
    assert (tmp_path / "there.mcap").read_bytes() == b"mine"


def test_what_was_written_is_there_after_a_kill(tmp_path: Path, model: Path):
    bag = write(tmp_path / "drive", [("/image_raw", raw(index % 8)) for index in range(100)])
    out = tmp_path / "out.mcap"
    program = "import sys; from seg_perception.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["replay", bag, "--model", model, "-o", out, "--speed", "realtime", "--threads", "1"]
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], env=os.environ)
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end and not (out.exists() and out.stat().st_size > 20_000):
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    frames = list(read_published(out, "/segmenter/instance_map", "/segmenter/detections"))
    assert 5 <= len(frames) < 100
    assert [frame.stamp_ns for frame in frames] == [7_000_000_000 + index % 8 * STEP_NS for index in range(len(frames))]


def test_a_full_disk_is_told_and_what_was_written_stays(tmp_path: Path, model: Path):
    bag = write(tmp_path / "drive", [("/eye/image_raw", raw(index)) for index in range(9)])
    out = tmp_path / "out.mcap"
    limited = (
        "import resource, sys; from seg_perception.cli.main import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", limited, "replay", bag, "--model", model, "-o", out, "--threads", "1"]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: output ")
    assert "what was written before is whole" in ended.stderr
    frames = list(read_published(out, "/segmenter/instance_map", "/segmenter/detections"))
    assert 0 < len(frames) < 9


def test_a_video_that_is_cut_by_a_full_disk_is_an_error(tmp_path: Path, model: Path):
    rng = np.random.default_rng(4)
    noise = [rng.integers(0, 256, (192, 320, 3), np.uint8).reshape(-1) for _ in range(9)]
    images = [TYPES["sensor_msgs/msg/Image"](header(index), 192, 320, "bgr8", 0, 960, each)
              for index, each in enumerate(noise)]  # fmt: skip
    bag = write(tmp_path / "drive", [("/eye/image_raw", each) for each in images])
    out, video = tmp_path / "out.mcap", tmp_path / "out.mp4"
    limited = (
        "import resource, sys; from seg_perception.cli.main import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", limited, "replay", bag, "--model", model, "-o", out, "--video", video,
               "--threads", "1"]  # fmt: skip
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert f"error: --video {video}: cannot be written whole" in ended.stderr
    assert len(messages(out)["/segmenter/instance_map"]) == 9


@pytest.mark.parametrize(("option", "name"), [("--video", "out.mp4"), ("--report", "out.html")])
def test_nothing_is_overwritten(tmp_path: Path, model: Path, capsys, option: str, name: str):
    bag = write(tmp_path / "drive", [("/eye/image_raw", raw(0))])
    (tmp_path / name).write_text("somebody's")
    out = tmp_path / "out.mcap"
    assert replay(bag, "--model", model, "-o", out, option, tmp_path / name) == 1
    assert f"{option} {tmp_path / name}: exists already" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "somebody's"
    assert not out.exists()


def test_a_time_of_recording_that_no_message_can_hold_ends_nothing(tmp_path: Path, model: Path):
    path, out = tmp_path / "odd.mcap", tmp_path / "out.mcap"
    times = [0, 2**31 * 10**9 + 5, 2**63, 2**64 - 1]
    with BagWriter(path, {}) as writer:
        for index, time_ns in enumerate(times):
            writer.write("/eye/image_raw", IMAGE, time_ns, bytes(STORE.serialize_cdr(raw(index), IMAGE)))
    assert replay(path, "--model", model, "-o", out) == 0
    assert [time_ns for time_ns, _ in messages(out)["/segmenter/instance_map"]] == times


def test_threads_hand_their_errors_on():
    def broken() -> Iterable[int]:
        yield from range(3)
        raise ValueError("no more")

    seen = []
    with pytest.raises(ValueError, match="no more"), Prefetcher(broken(), 2) as ahead:
        seen.extend(ahead)
    done: list[int] = []

    def work(item: int) -> None:
        if item == 3:
            raise OSError("full")
        done.append(item)

    def give_many() -> None:
        with BackgroundWriter(work, 1) as behind:
            for item in range(1000):
                behind.give(item)

    with pytest.raises(OSError, match="full"):
        give_many()
    assert done == [0, 1, 2]
    with Prefetcher(iter(range(10**9)), 2) as endless:
        assert next(iter(endless)) == 0


def test_recordings_of_different_cameras_stay_apart(tmp_path: Path, model: Path):
    front = write(tmp_path / "front", [("/front/image_raw", raw(0)), ("/x", info(0))])
    rear, out = write(tmp_path / "rear", [("/rear/image_raw", raw(1)), ("/x", jpeg(1))]), tmp_path / "out.mcap"
    assert replay(front, rear, "--model", model, "-o", out, "--copy-inputs") == 0
    found = messages(out)
    assert {"/segmenter/front/instance_map", "/segmenter/rear/instance_map"} <= set(found)
    # One topic of two types.
    assert [type(message).__name__.rsplit("__", 1)[1] for _, message in found["/x"]] == [
        "CameraInfo",
        "CompressedImage",
    ]


def test_images_beside_one_another_share_a_calibration(tmp_path: Path, model: Path):
    bag = write(
        tmp_path / "drive", [("/eye/image_raw", raw(0)), ("/eye/image_rect", raw(0)), ("/eye/camera_info", info(0))]
    )
    out = tmp_path / "out.mcap"
    assert replay(bag, "--model", model, "-o", out) == 0
    assert {"/segmenter/eye/camera_info", "/segmenter/eye_2/camera_info"} <= set(messages(out))


def test_a_calibration_of_another_size_is_named(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]):
    bag = write(tmp_path / "drive", [("/eye/camera_info", info(0, width=640)), ("/eye/image_raw", raw(0))])
    assert replay(bag, "--model", model, "-o", tmp_path / "out.mcap") == 1
    assert "camera_info is of 640 x 192 pixels" in capsys.readouterr().out


def test_stamps_may_repeat_and_go_back_and_old_results_are_not_mixed_with_new_ones(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
):
    bag = write(tmp_path / "drive", [("/eye/image_raw", raw(index)) for index in (0, 1, 2, 0, 9, 9, 3)])
    old, new = tmp_path / "old.mcap", tmp_path / "new.mcap"
    assert replay(bag, "--model", model, "-o", old, "--copy-inputs") == 0
    assert replay(old, "--model", model, "-o", new, "--copy-inputs", "--against", old) == 0
    assert "7 frames, 0 of them different" in capsys.readouterr().out
    assert len(messages(new)["/segmenter/instance_map"]) == 7


def test_nobody_waits_for_a_frame_of_the_next_hour(tmp_path: Path, model: Path):
    bag = tmp_path / "drive"
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/eye/image_raw", raw(0).__msgtype__, typestore=STORE)
        for index, seconds in enumerate((0, 0, 0, 0, 3600)):
            data = STORE.serialize_cdr(raw(index), raw(0).__msgtype__)
            writer.write(connection, seconds * 10**9 + index, data)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with (
        closing(open_segmenter(ModelChoice(str(model), threads=1))) as segmenter,
        BagWriter(tmp_path / "out.mcap", {}) as written,
        pytest.raises(KeyboardInterrupt),
    ):
        Replay(segmenter, written, ReplayOptions(realtime=True), [stop]).run(BagRecording(bag))
    assert len(messages(tmp_path / "out.mcap")["/segmenter/instance_map"]) == 1


def test_samples_stay_evenly_spread_and_few():
    samples = Samples(1)
    for index in range(100_000):
        samples.add((float(index),))
    kept = samples.rows()[:, 0]
    assert 10_000 <= len(kept) <= 20_000
    assert set(np.diff(kept)) == {8.0}
    assert kept[0] == 0


def test_results_can_be_read_by_a_program(tmp_path: Path, model: Path):
    from seg_perception.offboard.replay.job import ReplayJob, run_job
    from seg_perception.onboard.pipeline.opening import ModelChoice, open_segmenter

    bag = write(tmp_path / "drive", [("/image_raw", raw(index)) for index in range(3)])
    job = ReplayJob((bag,), tmp_path / "out.mcap")
    segmenter = open_segmenter(ModelChoice(str(model), threads=1))
    found: Mapping[str, Any] = json.loads(json.dumps(run_job(job, segmenter, job.recordings()).as_json()))
    segmenter.close()
    assert found["frames"] == {"camera": 3}
    assert found["instances"] == {"pedestrian": 3, "vehicle": 3, "traffic_sign": 0, "traffic_light": 0}
    assert found["bytes"] == (tmp_path / "out.mcap").stat().st_size
