"""The GPU's backend on the CPU: its memory, its order of work and its captures; results against the host's backend."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_model import FAULT_COLOUR, NAMES, paint_scene, random_scene, save_canonical_colour_model
from host_device import HostDevice, OrtEngine, host_backend
from numpy.typing import NDArray

from seg_perception.core.classes import ClassTable
from seg_perception.core.errors import DeviceError, ModelOutputError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Detections, Segmentation
from seg_perception.onboard.backend.base import Selected, SelectionParams
from seg_perception.onboard.backend.host.select import IgnoreMask, SelectOptions, select_rows
from seg_perception.onboard.backend.registry import open_backend
from seg_perception.onboard.backend.tensorrt.cuda.backend import CudaBackend
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.segmenter import Segmenter

GROUPS = ("pedestrian", "vehicle", "traffic_sign", "traffic_light")
TABLE = ClassTable("colours", NAMES, dict(zip(NAMES, GROUPS, strict=True)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_canonical_colour_model(tmp_path_factory.mktemp("model") / "dynamic.onnx", batch=None)


@pytest.fixture
def device() -> HostDevice:
    return HostDevice()


@pytest.fixture
def backend(model: Path, device: HostDevice) -> Iterator[CudaBackend]:
    opened = host_backend(model, largest_batch=3, device=device)
    yield opened
    opened.close()


def frame(image: NDArray[np.uint8], camera: str = "") -> Frame:
    return Frame.from_bgr(np.ascontiguousarray(image[..., ::-1]), camera=camera)


def random_frame(seed: int, width: int = 320, height: int = 192, count: int = 6) -> Frame:
    return frame(random_scene(np.random.default_rng(seed), width, height, count, grid=8).image)


def found_in(backend: CudaBackend, image: Frame) -> bool:
    (found,) = backend.start([image]).detections()
    return isinstance(found, Detections) and bool((found.scores > 0.5).any())


def assert_same(one: Segmentation, two: Segmentation) -> None:
    np.testing.assert_array_equal(one.instances.labels, two.instances.labels)
    np.testing.assert_array_equal(one.instances.ids, two.instances.ids)
    np.testing.assert_allclose(one.instances.boxes_camera, two.instances.boxes_camera, atol=0.5)
    assert one.instance_map.pixels.shape == two.instance_map.pixels.shape
    assert (one.instance_map.pixels != two.instance_map.pixels).mean() < 0.002
    np.testing.assert_allclose(one.areas, two.areas, rtol=0.02)


OPTIONS = {
    "defaults": SegmenterOptions(),
    "thresholds": SegmenterOptions(SelectOptions(0.3, group_thresholds=(-1.0, 0.99, -1.0, 0.5))),
    "large ones": SegmenterOptions(min_pixels=1500),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_all_at_once_equals_both_halves_and_the_host(name: str, backend: CudaBackend, model: Path) -> None:
    ignored = np.zeros((24, 40), bool)
    ignored[:, :12] = True
    masks = {"left": IgnoreMask(ignored)}
    host = Segmenter(open_backend(model, "onnxruntime"), TABLE, OPTIONS[name], masks)
    ours = Segmenter(backend, TABLE, OPTIONS[name], masks)
    left_out = 0
    for seed in range(4):
        for camera in ("", "left"):
            image = replace(random_frame(seed, *((320, 192), (417, 299))[seed % 2]), camera=camera)
            (expected,) = host.segment([image])
            (found,) = ours.segment([image])
            assert_same(found, expected)
            # As with tracking: the ids are given, here those that the host selects.
            params = replace(ours._selection.of(image, OPTIONS[name]), tracked=True)
            job = backend.start([image], [params])
            (detections,) = job.detections()
            assert isinstance(detections, Detections)
            (halves,) = job.painted([select_rows(detections, params)])
            assert isinstance(halves, Selected)
            np.testing.assert_array_equal(halves.painted.pixels > 0, found.instance_map.pixels > 0)
            np.testing.assert_array_equal(halves.painted.areas[halves.ids > 0], found.areas)
            left_out += int((detections.scores > 0.25).sum()) - len(found.instances)
    assert left_out > 0


def test_nothing_is_allocated_and_nothing_captured_after_the_warm_up(backend: CudaBackend, device: HostDevice) -> None:
    segmenter = Segmenter(backend, TABLE)
    segmenter.warm_up()
    images = [random_frame(seed, 640, 480) for seed in range(3)]
    for count in (1, 2, 3):
        for _ in range(4):
            segmenter.segment(images[:count])
    taken, captured, launched = device.allocations, backend.captures.made, len(device.launches)
    for index in range(20):
        segmenter.segment([random_frame(index, 640 - 2 * index, 480 - index)] * (1 + index % 3))
    assert device.allocations == taken
    assert backend.captures.made == captured
    assert len(device.launches) == launched


def test_a_larger_frame_is_captured_again_and_counted(backend: CudaBackend, model: Path) -> None:
    segmenter = Segmenter(backend, TABLE)
    segmenter.warm_up()
    before = backend.captures.made
    host = Segmenter(open_backend(model, "onnxruntime"), TABLE)
    for size in ((320, 192), (800, 600), (320, 192), (1280, 720), (200, 900)):
        image = random_frame(1, *size)
        for _ in range(3):
            assert_same(segmenter.segment([image])[0], host.segment([image])[0])
    assert backend.captures.made - before == 4  # two larger sizes in two slots
    assert backend.identity["graphs captured"] == str(backend.captures.made)


def test_two_batches_in_flight_do_not_mix(backend: CudaBackend, model: Path) -> None:
    segmenter = Segmenter(backend, TABLE)
    host = Segmenter(open_backend(model, "onnxruntime"), TABLE)
    frames = [random_frame(seed) for seed in range(8)]
    ahead = None
    results = []
    for image in frames:
        begun = segmenter.begin([image])
        if ahead is not None:
            results += segmenter.end(ahead)
        ahead = begun
        del begun
    assert ahead is not None
    results += segmenter.end(ahead)
    for image, result in zip(frames, results, strict=True):
        assert isinstance(result, Segmentation)
        assert_same(result, host.segment([image])[0])


def test_what_was_returned_stays_as_it_is(backend: CudaBackend) -> None:
    segmenter = Segmenter(backend, TABLE)
    first = segmenter.segment([random_frame(0)], semantic=True)[0]
    assert first.semantic_map is not None
    kept = first.instance_map.pixels.copy(), first.instances.scores.copy(), first.semantic_map.copy()
    for seed in range(1, 5):
        segmenter.segment([random_frame(seed)], semantic=True)
    for now, before in zip((first.instance_map.pixels, first.instances.scores, first.semantic_map), kept, strict=True):
        np.testing.assert_array_equal(now, before)


def test_a_job_has_its_slot_until_it_is_dropped(backend: CudaBackend) -> None:
    jobs = [backend.start([random_frame(seed)]) for seed in range(backend.depth)]
    with pytest.raises(RuntimeError, match="at most 2"):
        backend.start([random_frame(2)])
    before = jobs[0].mask(0, 0, (192, 320))
    for seed in range(2, 6):
        jobs[1:] = []
        jobs.append(backend.start([random_frame(seed)]))
        assert len(jobs[1].detections()) == 1
    np.testing.assert_array_equal(jobs[0].mask(0, 0, (192, 320)), before)


def test_masks_of_a_job_do_not_change_what_was_painted_with_it(backend: CudaBackend) -> None:
    params = SelectionParams(np.full(4, 0.25, np.float32), np.arange(4, dtype=np.int32), 0.7, 1, (192, 320))
    results = []
    for look_first in (False, True):
        job = backend.start([random_frame(3)], [params], semantic=True)
        masks = [job.mask(0, row, (96, 160)) for row in range(3 * look_first)]
        (result,) = job.painted()
        assert isinstance(result, Selected)
        results.append(result)
        assert all(mask.any() for mask in masks)
    np.testing.assert_array_equal(results[0].painted.pixels, results[1].painted.pixels)
    np.testing.assert_array_equal(results[0].ids, results[1].ids)
    np.testing.assert_array_equal(results[0].semantic_map, results[1].semantic_map)


def test_cameras_of_all_encodings_in_one_batch(backend: CudaBackend, model: Path) -> None:
    scene = paint_scene(320, 192, [(32, 32, 128, 160, 0), (176, 32, 288, 128, 1)]).image
    bgr = np.ascontiguousarray(scene[..., ::-1])
    wide = np.zeros((192, 1000), np.uint8)
    wide[:, :960] = bgr.reshape(192, 960)
    deep = (bgr.astype(np.uint16) * 257).view(np.uint8).reshape(-1)
    yuv = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_YV12)
    chroma = np.stack([yuv[240:].reshape(-1), yuv[192:240].reshape(-1)], axis=1)
    frames = [
        Frame(wide.reshape(-1)[:-40], 320, 192, 1000, "bgr8"),
        Frame(deep, 320, 192, 320 * 6, "bgr16"),
        Frame(np.concatenate([yuv[:192].reshape(-1), chroma.reshape(-1)]), 320, 192, 320, "nv12"),
    ]
    segmenter = Segmenter(backend, TABLE)
    (expected,) = Segmenter(open_backend(model, "onnxruntime"), TABLE).segment([Frame.from_bgr(bgr)])
    for _ in range(3):
        for result in segmenter.segment(frames):
            assert_same(result, expected)


def test_a_fault_in_one_camera_leaves_the_others_alone(model: Path, tmp_path: Path) -> None:
    path = save_canonical_colour_model(tmp_path / "nan.onnx", batch=None, fault="prototypes")
    segmenter = Segmenter(host_backend(path, largest_batch=2), TABLE)
    good = paint_scene(320, 192, [(64, 32, 256, 160, 1)]).image
    bad = good.copy()
    bad[0:8, 0:8] = FAULT_COLOUR
    first, second = segmenter.end(segmenter.begin([frame(bad), frame(good)]))
    assert isinstance(first, ModelOutputError)
    assert isinstance(second, Segmentation)
    assert len(second.instances) == 1
    segmenter.close()


def test_without_capture_everything_is_queued_piece_by_piece(
    model: Path, device: HostDevice, caplog: pytest.LogCaptureFixture
) -> None:
    device.capture_obstacle = "cuda.bindings is not installed"
    backend = host_backend(model, device=device)
    segmenter = Segmenter(backend, TABLE)
    host = Segmenter(open_backend(model, "onnxruntime"), TABLE)
    with caplog.at_level(logging.WARNING):
        for seed in range(4):
            assert_same(segmenter.segment([random_frame(seed)])[0], host.segment([random_frame(seed)])[0])
    assert [record.message.count("cuda.bindings is not installed") for record in caplog.records] == [1]
    assert backend.identity["launches"] == "one by one: cuda.bindings is not installed"
    assert backend.captures.made == 0
    segmenter.close()


def test_an_engine_that_cannot_be_captured(model: Path, device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host_device.OrtExecution.capturable", lambda *_: False)
    backend = host_backend(model, device=device)
    for seed in range(3):
        assert found_in(backend, random_frame(seed))
    assert "cannot be captured" in backend.identity["launches"]
    backend.close()


def test_memory_shared_with_the_cpu_is_not_copied(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = HostDevice(integrated=True)
    for name in ("copy_in", "copy_out"):
        monkeypatch.setattr(device, name, lambda *_: pytest.fail("a copy"))
    segmenter = Segmenter(host_backend(model, device=device), TABLE)
    host = Segmenter(open_backend(model, "onnxruntime"), TABLE)
    for seed in range(3):
        image = random_frame(seed, 300 + seed, 200)
        assert_same(segmenter.segment([image])[0], host.segment([image])[0])
    segmenter.close()


def test_a_fixed_batch_takes_fewer_frames(tmp_path: Path) -> None:
    path = save_canonical_colour_model(tmp_path / "pairs.onnx", batch=2)
    segmenter = Segmenter(host_backend(path), TABLE)
    host = Segmenter(open_backend(path, "onnxruntime"), TABLE)
    for count in (1, 2, 1):
        frames = [random_frame(seed) for seed in range(count)]
        for ours, theirs in zip(segmenter.segment(frames), host.segment(frames), strict=True):
            assert_same(ours, theirs)
    with pytest.raises(ValueError, match="expected 1 to 2"):
        segmenter.segment([random_frame(0)] * 3)
    segmenter.close()


def test_half_precision_masks(tmp_path: Path, model: Path) -> None:
    import onnx

    from seg_perception.offboard.toolchain.precision.half import to_half

    path = tmp_path / "half.onnx"
    onnx.save(to_half(onnx.load(model))[0], path)
    backend = host_backend(path)
    segmenter = Segmenter(backend, TABLE)
    host = Segmenter(open_backend(path, "onnxruntime"), TABLE)
    for seed in range(3):
        assert_same(segmenter.segment([random_frame(seed)])[0], host.segment([random_frame(seed)])[0])
    segmenter.close()


@pytest.mark.parametrize("limit", [10_000, 3_000_000])
def test_too_little_memory_is_an_error_that_leaves_nothing_behind(model: Path, limit: int) -> None:
    device = HostDevice(memory_limit=limit)
    with pytest.raises(DeviceError, match="out of memory"):
        host_backend(model, largest_batch=3, device=device)
    assert device.taken == 0
    assert device.closed


def test_too_little_memory_for_a_larger_frame(model: Path) -> None:
    device = HostDevice()
    backend = host_backend(model, device=device)
    for _ in range(backend.depth):
        assert found_in(backend, random_frame(0))
    device.memory_limit = device.taken + 100_000
    with pytest.raises(DeviceError, match="out of memory"):
        backend.start([random_frame(0, 1920, 1080)])
    assert found_in(backend, random_frame(0))
    backend.close()
    assert device.taken == 0


def test_a_fault_of_the_device_is_an_error_and_closing_works(model: Path, device: HostDevice) -> None:
    engine = OrtEngine(model, device)
    backend = CudaBackend(engine.spec, {}, device, engine)
    assert found_in(backend, random_frame(0))
    device.fault = "an illegal address was accessed"
    with pytest.raises(DeviceError, match="illegal address"):
        found_in(backend, random_frame(0))
    backend.close()
    backend.close()
    assert device.closed
    assert engine.closed
    with pytest.raises(RuntimeError, match="closed"):
        backend.start([random_frame(0)])


def test_closing_gives_all_memory_back(backend: CudaBackend, device: HostDevice) -> None:
    segmenter = Segmenter(backend, TABLE, ignore_masks={"left": IgnoreMask(np.zeros((10, 10), bool))})
    segmenter.warm_up()
    segmenter.segment([random_frame(0, 1000, 700)], semantic=True)
    backend.close()
    assert device.taken == 0


def test_the_selection_may_change_from_frame_to_frame(backend: CudaBackend) -> None:
    image = frame(paint_scene(320, 192, [(16, 16, 40, 40, 0), (80, 40, 240, 160, 1)]).image)
    groups = np.array([0, 1, 2, 3], np.int32)
    low, none = np.full(4, 0.25, np.float32), np.array([0.25, np.inf, 0.25, 0.25], np.float32)
    counts = []
    for thresholds, size in ((low, (192, 320)), (none, (96, 160)), (low, (192, 320)), (none, (50, 70)), (low, (9, 9))):
        params = SelectionParams(thresholds, groups, 0.7, 1, size)
        (result,) = backend.start([image], [params]).painted()
        assert not isinstance(result, ModelOutputError)
        assert result.painted.pixels.shape == size
        counts.append(int((result.ids > 0).sum()))
    assert counts == [2, 1, 2, 1, 2]


def test_each_camera_of_a_batch_has_its_own_selection(backend: CudaBackend) -> None:
    image = frame(paint_scene(320, 192, [(16, 16, 40, 40, 0), (80, 40, 240, 160, 1)]).image)
    groups = np.array([0, 1, 2, 3], np.int32)
    low, none = np.full(4, 0.25, np.float32), np.array([0.25, np.inf, 0.25, 0.25], np.float32)
    selection = [SelectionParams(low, groups, 0.7, 1, (192, 320)), SelectionParams(none, groups, 0.7, 1, (96, 160))]
    selection.append(SelectionParams(low, groups, 0.7, 2000, (192, 320)))
    results = backend.start([image] * 3, selection).painted()
    kept = [np.flatnonzero(each.ids).size for each in results if not isinstance(each, ModelOutputError)]
    assert kept == [2, 1, 1]


def test_ids_given_for_a_whole_batch(backend: CudaBackend, model: Path) -> None:
    """With tracking: small instances are left out, the others keep their ids, and one launch paints all."""
    frames = [random_frame(seed, 300 + 20 * seed, 200) for seed in range(3)]
    groups, low = np.array([0, 1, 2, 3], np.int32), np.full(4, 0.25, np.float32)
    host = open_backend(model, "onnxruntime")
    for _ in range(4):
        selection = [
            SelectionParams(low, groups, 0.7, 700, (frame.height, frame.width), tracked=True) for frame in frames
        ]
        job = backend.start(frames, selection, semantic=True)
        with pytest.raises(ValueError, match="ids where that is tracked"):
            job.painted()
        found = job.detections()
        assert not any(isinstance(each, ModelOutputError) for each in found)
        ids = [np.where(each.scores > 0.3, 1000 - np.arange(100), 0).astype(np.uint16) for each in found]
        results = job.painted(ids)
        left_out = 0
        for image, params, own, result in zip(frames, selection, ids, results, strict=True):
            assert isinstance(result, Selected)
            theirs = host.start([image], [params])
            (expected,) = theirs.painted([own])
            assert isinstance(expected, Selected)
            left_out += int((own != expected.ids).sum())
            np.testing.assert_array_equal(result.ids, expected.ids)
            assert (result.painted.pixels != expected.painted.pixels).mean() < 0.002
            assert result.semantic_map is not None
            np.testing.assert_array_equal(result.semantic_map > 0, result.painted.pixels > 0)
        assert left_out > 0


def test_both_halves_are_captured(backend: CudaBackend) -> None:
    groups, low = np.array([0, 1, 2, 3], np.int32), np.full(4, 0.25, np.float32)
    for _ in range(6):
        job = backend.start([random_frame(0)], [SelectionParams(low, groups, 0.7, 1, (192, 320), tracked=True)])
        job.painted([np.zeros(100, np.uint16)])
        del job
    assert backend.captures.made == 4  # in both slots


def test_infinite_masks_are_noticed_by_either_way_of_painting(tmp_path: Path) -> None:
    path = save_canonical_colour_model(tmp_path / "nan.onnx", batch=None, fault="prototypes")
    backend = host_backend(path, largest_batch=2)
    good = paint_scene(320, 192, [(64, 32, 256, 160, 1)]).image
    bad = good.copy()
    bad[0:8, 0:8] = FAULT_COLOUR
    size, groups, low = (192, 320), np.array([0, 1, 2, 3], np.int32), np.full(4, 0.25, np.float32)
    job = backend.start([frame(bad), frame(good)], [SelectionParams(low, groups, 0.7, 0, size, tracked=True)] * 2)
    first, second = job.detections()
    assert not isinstance(first, ModelOutputError)
    assert not isinstance(second, ModelOutputError)
    ids = [(each.scores > 0.25).astype(np.uint16) for each in (first, second)]
    with pytest.raises(ModelOutputError, match="mask logits"):
        job.mask(0, 0, size)
    assert job.mask(1, 0, size).any()
    assert [isinstance(each, ModelOutputError) for each in job.painted(ids)] == [True, False]
    assert not any(isinstance(each, ModelOutputError) for each in job.painted([0 * each for each in ids]))
    backend.close()


def test_room_for_large_maps_is_given_up_when_it_is_no_longer_needed(
    backend: CudaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seg_perception.onboard.backend.tensorrt.cuda.slot._PATIENCE", 4)
    groups, low = np.array([0, 1, 2, 3], np.int32), np.full(4, 0.25, np.float32)
    sizes = [(768, 1280)] + [(192, 320)] * 30
    rooms = []
    for size in sizes:
        (result,) = backend.start([random_frame(1)], [SelectionParams(low, groups, 0.7, 1, size)]).painted()
        assert not isinstance(result, ModelOutputError)
        assert result.painted.pixels.shape == size
        rooms.append(max(slot.capacity.map_pixels for slot in backend._jobs))
    assert rooms[0] >= 768 * 1280
    assert rooms[-1] < 2 * 192 * 320


def test_the_time_to_fetch_maps_is_told(backend: CudaBackend) -> None:
    (result,) = Segmenter(backend, TABLE).segment([random_frame(0, 1280, 720)])
    assert result.timings["fetch"] > 0
