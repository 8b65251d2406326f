"""What every backend promises, on models whose right answer is known and, where it is at hand, a real one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from colour_model import FAULT_COLOUR, NAMES, paint_scene, random_scene, save_canonical_colour_model, save_colour_model
from host_device import host_backend
from numpy.typing import NDArray
from panoptic_model import AIR, GROUND, save_panoptic_model, save_semantic_model
from runners import open_runner

from seg_perception.core.classes import ClassTable
from seg_perception.core.contract import METADATA_KEY, ModelSpec
from seg_perception.core.errors import ConfigurationError, ModelError, ModelOutputError, NotCanonicalError
from seg_perception.core.frame import Frame
from seg_perception.core.instances import Detections, Segmentation
from seg_perception.onboard.backend.base import Backend, Job, RunOptions, Selected, SelectionParams
from seg_perception.onboard.backend.host.select import SelectOptions
from seg_perception.onboard.backend.registry import backend_names, open_backend
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.output_size import OutputSize
from seg_perception.onboard.pipeline.segmenter import Segmenter
from seg_perception.onboard.pipeline.track import TrackerOptions

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
# The backend of GPUs with its kernels compiled for the CPU, and the model under ONNX Runtime in the engine's place.
ON_HOST = "cuda on the host"
TABLE = ClassTable(
    "colours", NAMES, dict(zip(NAMES, ("pedestrian", "vehicle", "traffic_sign", "traffic_light"), strict=True))
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "fixed": save_canonical_colour_model(folder / "fixed.onnx"),
        "pairs": save_canonical_colour_model(folder / "pairs.onnx", batch=2),
        "dynamic": save_canonical_colour_model(folder / "dynamic.onnx", batch=None),
        "nan_rows": save_canonical_colour_model(folder / "nan_rows.onnx", fault="predictions"),
        "nan_masks": save_canonical_colour_model(folder / "nan_masks.onnx", fault="prototypes"),
        "raw": save_colour_model(folder / "raw.onnx"),
        "semantic": save_semantic_model(folder / "semantic.onnx"),
        "panoptic": save_panoptic_model(folder / "panoptic.onnx"),
    }


@pytest.fixture(params=backend_names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[*backend_names(), ON_HOST])
def any_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def backend(any_name: str, models: dict[str, Path]) -> Iterator[Backend]:
    opened = opened_backend(models["dynamic" if any_name == ON_HOST else "fixed"], any_name)
    yield opened
    opened.close()


def opened_backend(path: Path, name: str) -> Backend:
    return host_backend(path, largest_batch=2) if name == ON_HOST else open_backend(path, name)


def scenes(count: int, width: int = 320, height: int = 192) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(3)
    return [random_scene(rng, width, height, 6, grid=8).image for _ in range(count)]


def bgr_frame(image: NDArray[np.uint8]) -> Frame:
    return Frame.from_bgr(np.ascontiguousarray(image[..., ::-1]))


def detections_of(job: Job) -> Detections:
    (found,) = job.detections()
    assert isinstance(found, Detections)
    return found


def run(path: Path, name: str, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
    runner = open_runner(path, name, threads=0)
    outputs = runner.run(images)
    arrays = [outputs.boxes.copy(), outputs.scores.copy(), outputs.labels.copy(), outputs.masks.copy()]
    runner.close()
    return arrays


def test_outputs_have_the_shapes_and_types_of_the_contract(name: str, models: dict[str, Path]) -> None:
    boxes, scores, labels, masks = run(models["fixed"], name, np.stack(scenes(1)))
    assert (boxes.dtype, boxes.shape) == (np.float32, (1, 100, 4))
    assert (scores.dtype, scores.shape) == (np.float32, (1, 100))
    assert (labels.dtype, labels.shape) == (np.int32, (1, 100))
    assert (masks.dtype, masks.shape) == (np.float32, (1, 100, 48, 80))
    assert (np.diff(scores, axis=1) <= 0).all()
    assert 0 < (scores > 0).sum() < 100


@pytest.mark.parametrize("kind", ["fixed", "pairs", "dynamic"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_batch_equals_single_images(name: str, kind: str, count: int, models: dict[str, Path]) -> None:
    images = np.stack(scenes(count))
    together = run(models[kind], name, images)
    for index in range(count):
        alone = run(models["fixed"], name, images[index : index + 1])
        for batched, single in zip(together, alone, strict=True):
            np.testing.assert_allclose(batched[index], single[0], atol=1e-3)


def test_backends_agree(models: dict[str, Path]) -> None:
    images = np.stack(scenes(2))
    first, *others = [run(models["fixed"], each, images) for each in backend_names()]
    for other in others:
        for one, two in zip(first, other, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-3)


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not on this machine: no real model")
def test_backends_agree_on_a_real_model(tmp_path: Path) -> None:
    from seg_perception.offboard.toolchain.prepare import prepare

    prepare(SHARED / "models" / "yolov8n-seg-640.onnx", tmp_path / "real.onnx")
    images = sorted((SHARED / "images" / "street").glob("*.jpg"))[:4]
    backends = [open_backend(tmp_path / "real.onnx", each) for each in backend_names()]
    for image in images:
        frame = Frame.from_bgr(cv2.imread(str(image)))
        jobs = [backend.start([frame]) for backend in backends]
        found = [detections_of(job) for job in jobs]
        strong = [int((each.scores > 0.3).sum()) for each in found]
        assert strong[0] == strong[1] > 0
        rows = strong[0]
        np.testing.assert_allclose(found[0].scores[:rows], found[1].scores[:rows], atol=2e-3)
        np.testing.assert_allclose(found[0].boxes_network[:rows], found[1].boxes_network[:rows], atol=0.5)
        for row in range(rows):
            one, two = (job.mask(0, row, (frame.height, frame.width)) for job in jobs)
            if one.sum() > 200:
                assert (one & two).sum() / (one | two).sum() > 0.97


@pytest.mark.parametrize("mode", ["camera", "network", "0.5"])
def test_finds_and_paints_what_is_there(backend: Backend, mode: str) -> None:
    scene = paint_scene(640, 480, [(32, 64, 160, 256, 0), (240, 160, 560, 400, 1), (480, 16, 560, 96, 3)])
    options = SegmenterOptions(SelectOptions(), min_pixels=1, output_size=OutputSize.parse(mode))
    segmenter = Segmenter(backend, TABLE, options)
    segmenter.warm_up()
    (result,) = segmenter.segment([bgr_frame(scene.image)])
    height, width = result.instance_map.pixels.shape
    truth = cv2.resize(scene.instance_map, (width, height), interpolation=cv2.INTER_NEAREST)
    assert sorted(result.instances.labels) == [0, 1, 3]
    assert result.instances.ids.tolist() == [1, 2, 3]
    for number, label, box in zip(
        result.instances.ids, result.instances.labels, result.instances.boxes_camera, strict=True
    ):
        index = scene.labels.tolist().index(label)
        own, right = result.instance_map.pixels == number, truth == index + 1
        assert (own & right).sum() / (own | right).sum() > 0.93
        np.testing.assert_allclose(box, scene.boxes[index], atol=3.0)
    on_gpu, on_host = {"copy", "launch", "gpu"}, {"letterbox", "model", "select", "paint"}
    assert any(set(result.timings) >= {"decode", *own} for own in (on_gpu, on_host))


def test_empty_image_gives_an_empty_map(backend: Backend) -> None:
    (result,) = Segmenter(backend, TABLE).segment([bgr_frame(paint_scene(320, 192, []).image)])
    assert len(result.instances) == 0
    assert result.instance_map.pixels.shape == (192, 320)
    assert not result.instance_map.pixels.any()


def test_small_instances_are_neither_listed_nor_painted(backend: Backend) -> None:
    scene = paint_scene(320, 192, [(16, 16, 40, 40, 0), (80, 40, 240, 160, 1)])
    segmenter = Segmenter(backend, TABLE, SegmenterOptions(min_pixels=24 * 24 + 200))
    (result,) = segmenter.segment([bgr_frame(scene.image)])
    assert result.instances.labels.tolist() == [1]
    assert result.instances.ids.tolist() == [1]
    assert set(np.unique(result.instance_map.pixels)) == {0, 1}
    segmenter.options = replace(segmenter.options, min_pixels=16)
    assert len(segmenter.segment([bgr_frame(scene.image)])[0].instances) == 2


def test_cameras_of_different_sizes_in_one_call(backend: Backend) -> None:
    wide = paint_scene(640, 192, [(64, 32, 256, 160, 1)])
    tall = paint_scene(192, 384, [(32, 64, 160, 256, 0)])
    results = Segmenter(backend, TABLE).segment([bgr_frame(wide.image), bgr_frame(tall.image)])
    assert [result.instances.labels.tolist() for result in results] == [[1], [0]]
    assert [result.instance_map.pixels.shape for result in results] == [(192, 640), (384, 192)]


@pytest.mark.parametrize("kind", ["nan_rows", "nan_masks"])
def test_broken_numbers_are_reported_and_the_next_frame_is_fine(
    any_name: str, kind: str, models: dict[str, Path]
) -> None:
    segmenter = Segmenter(opened_backend(models[kind], any_name), TABLE)
    good = paint_scene(320, 192, [(64, 32, 256, 160, 1)]).image
    bad = good.copy()
    bad[0:8, 0:8] = FAULT_COLOUR
    with pytest.raises(ModelOutputError, match="NaN or infinity"):
        segmenter.segment([bgr_frame(bad)])
    assert len(segmenter.segment([bgr_frame(good)])[0].instances) == 1
    segmenter.close()


def test_a_job_has_its_masks_until_it_is_dropped(backend: Backend) -> None:
    """Whatever another job does meanwhile."""
    images = [bgr_frame(image) for image in scenes(6)]
    jobs = [backend.start([images[0]])]
    first = [jobs[0].mask(0, row, (192, 320)) for row in range(3)]
    assert all(mask.any() for mask in first)
    for image in images[1:]:
        del jobs[1:]
        jobs.append(backend.start([image]))
        assert all((detections_of(job).scores > 0.3).any() for job in jobs)
    for row, mask in enumerate(first):
        np.testing.assert_array_equal(jobs[0].mask(0, row, (192, 320)), mask)


def test_jobs_in_flight_give_what_each_gives_alone(backend: Backend) -> None:
    segmenter, images = Segmenter(backend, TABLE), [bgr_frame(image) for image in scenes(7)]
    alone = [segmenter.segment([image])[0] for image in images]
    in_flight, results = [], []
    for image in images:
        in_flight.append(segmenter.begin([image]))
        if len(in_flight) == backend.depth:
            results += segmenter.end(in_flight.pop(0))
    while in_flight:
        results += segmenter.end(in_flight.pop(0))
    for one, result in zip(alone, results, strict=True):
        assert isinstance(result, Segmentation)
        np.testing.assert_array_equal(one.instance_map.pixels, result.instance_map.pixels)
        np.testing.assert_array_equal(one.instances.boxes_camera, result.instances.boxes_camera)


@pytest.mark.parametrize("kind", ["nan_rows", "nan_masks"])
def test_a_fault_of_the_model_in_one_frame_leaves_the_others_of_its_batch_alone(
    any_name: str, kind: str, tmp_path: Path
) -> None:
    fault = {"nan_rows": "predictions", "nan_masks": "prototypes"}[kind]
    backend = opened_backend(save_canonical_colour_model(tmp_path / "m.onnx", batch=None, fault=fault), any_name)
    good = paint_scene(320, 192, [(64, 32, 256, 160, 1)]).image
    bad = good.copy()
    bad[0:8, 0:8] = FAULT_COLOUR
    for tracking in (None, TrackerOptions()):
        segmenter = Segmenter(backend, TABLE, SegmenterOptions(tracking=tracking))
        first, second = segmenter.end(segmenter.begin([bgr_frame(bad), bgr_frame(good)]))
        assert isinstance(first, ModelOutputError)
        assert isinstance(second, Segmentation)
        assert len(second.instances) == 1
    backend.close()


def test_ids_that_are_given_stay(backend: Backend) -> None:
    """Rows with too few pixels are left out; a row that is hidden by another has none."""
    scene = paint_scene(320, 192, [(16, 16, 40, 40, 0), (80, 40, 240, 160, 1)])
    params = SelectionParams(np.full(4, 0.25, np.float32), np.arange(4, dtype=np.int32), 0.7, 700, (192, 320))
    job = backend.start([bgr_frame(scene.image)], [replace(params, tracked=True)])
    found = detections_of(job)
    ids = np.where(found.scores > 0.3, 60_000 + np.arange(len(found.scores)), 0).astype(np.uint16)
    (result,) = job.painted([ids])
    assert isinstance(result, Selected)
    kept = result.ids > 0
    assert found.labels[kept].tolist() == [1]
    np.testing.assert_array_equal(result.ids[kept], ids[kept])
    assert set(np.unique(result.painted.pixels)) == {0, *ids[kept].tolist()}


def test_what_a_job_was_not_started_for_is_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match="started with a selection"):
        backend.start([bgr_frame(scenes(1)[0])]).painted()


def test_identity_names_what_runs(name: str, models: dict[str, Path]) -> None:
    backend = open_backend(models["fixed"], name)
    identity = backend.identity
    backend.close()
    assert identity["backend"].startswith(name)
    assert len(identity["sha256"]) == 64
    assert identity["precision"]


def test_threads_are_configurable(name: str, models: dict[str, Path]) -> None:
    for threads in (1, 2):
        backend = open_backend(models["fixed"], name, RunOptions(threads=threads))
        assert backend.identity["threads"] == str(threads)
        assert (detections_of(backend.start([bgr_frame(scenes(1)[0])])).scores > 0).any()
        backend.close()


@pytest.mark.parametrize("device", ["AUTO", "AUTO:CPU", "HETERO:CPU"])
def test_virtual_devices_of_openvino(device: str, models: dict[str, Path]) -> None:
    backend = open_backend(models["fixed"], "openvino", RunOptions(device=device))
    assert backend.identity["device"].startswith(device)
    assert (detections_of(backend.start([bgr_frame(scenes(1)[0])])).scores > 0).any()
    backend.close()


def test_a_virtual_device_of_absent_parts_is_a_clear_error(models: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="OpenVINO cannot compile it for device 'HETERO:ABACUS'"):
        open_backend(models["fixed"], "openvino", RunOptions(device="HETERO:ABACUS"))


def test_labels_beyond_the_class_names_are_reported(any_name: str, models: dict[str, Path], tmp_path: Path) -> None:
    runner = open_backend(models["fixed"])
    spec = replace(runner.spec, class_names=runner.spec.class_names[:1], things=(True,))
    runner.close()
    path = with_metadata(models["fixed"], tmp_path / "few.onnx", spec.to_json())
    segmenter = Segmenter(opened_backend(path, any_name), TABLE)
    with pytest.raises(ModelOutputError, match="expected labels from 0 to 0"):
        segmenter.segment([bgr_frame(paint_scene(320, 192, [(64, 32, 256, 160, 3)]).image)])
    segmenter.close()


def test_unknown_device_names_those_there_are(name: str, models: dict[str, Path]) -> None:
    with pytest.raises(ConfigurationError, match=r"(?i)cpu.*got 'abacus'"):
        open_backend(models["fixed"], name, RunOptions(device="abacus"))


def test_close_twice_and_use_after_close(any_name: str, models: dict[str, Path]) -> None:
    backend = opened_backend(models["fixed"], any_name)
    backend.close()
    backend.close()
    with pytest.raises(RuntimeError, match="closed"):
        backend.start([bgr_frame(scenes(1)[0])])


def test_unknown_backend_and_suffix(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="openvino"):
        open_backend(models["fixed"], "abacus")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(ModelError, match=r"expected a name ending in \.onnx"):
        open_backend(tmp_path / "model.pt")


def test_model_file_that_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        open_backend(tmp_path / "absent.onnx", name)


@pytest.mark.parametrize("content", ["truncated", "text", "empty"])
def test_model_file_that_is_no_model(name: str, content: str, models: dict[str, Path], tmp_path: Path) -> None:
    whole = models["fixed"].read_bytes()
    broken = {"truncated": whole[: len(whole) // 2], "text": b"this is no model\n" * 99, "empty": b""}[content]
    (tmp_path / "broken.onnx").write_bytes(broken)
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        open_backend(tmp_path / "broken.onnx", name)


def test_raw_export_says_to_prepare_it(name: str, models: dict[str, Path]) -> None:
    with pytest.raises(NotCanonicalError, match="seg_perception prepare"):
        open_backend(models["raw"], name)


def with_metadata(source: Path, target: Path, text: str) -> Path:
    model = onnx.load(source)
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, target)
    return target


def test_metadata_that_lie_about_a_shape(name: str, models: dict[str, Path], tmp_path: Path) -> None:
    runner = open_backend(models["fixed"], name)
    spec: ModelSpec = replace(runner.spec, max_instances=50)
    runner.close()
    path = with_metadata(models["fixed"], tmp_path / "lie.onnx", spec.to_json())
    with pytest.raises(NotCanonicalError, match="promise"):
        open_backend(path, name)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "not json"])
def test_unreadable_metadata(name: str, text: str, models: dict[str, Path], tmp_path: Path) -> None:
    path = with_metadata(models["fixed"], tmp_path / "odd.onnx", text)
    with pytest.raises(NotCanonicalError):
        open_backend(path, name)


def test_a_class_map_alone_becomes_instances(name: str, models: dict[str, Path]) -> None:
    scene = paint_scene(640, 384, [(32, 64, 160, 256, 0), (240, 160, 560, 352, 1), (176, 16, 208, 48, 1)])
    segmenter = Segmenter(open_backend(models["semantic"], name), TABLE)
    (result,) = segmenter.segment([bgr_frame(scene.image)], semantic=True)
    # Largest first; a class map has no scores.
    assert result.instances.labels.tolist() == [2, 1, 2]
    assert result.instances.scores.tolist() == [1, 1, 1]
    order = [1, 0, 2]
    np.testing.assert_allclose(result.instances.boxes_camera, scene.boxes[order], atol=2)
    assert iou(result.instance_map.pixels, np.array([0, 2, 1, 3])[scene.instance_map]) > 0.95
    assert result.semantic_map is not None
    # Values: 1 is the class `background`, then those of `NAMES`.
    assert iou(result.semantic_map - 1, np.array([0, 1, 2, 2])[scene.instance_map]) > 0.95
    assert result.timings["components"] > 0
    assert result.timings["semantic"] > 0
    segmenter.close()


def test_a_class_map_lies_behind_the_instances(any_name: str, models: dict[str, Path]) -> None:
    scene = paint_scene(640, 480, [(32, 64, 160, 256, 0), (240, 160, 560, 400, 1)])
    segmenter = Segmenter(opened_backend(models["panoptic"], any_name), TABLE)
    (plain,) = segmenter.segment([bgr_frame(scene.image)])
    assert plain.semantic_map is None
    (result,) = segmenter.segment([bgr_frame(scene.image)], semantic=True)
    np.testing.assert_array_equal(result.instance_map.pixels, plain.instance_map.pixels)
    truth = np.where(np.arange(480)[:, None] < 240, AIR, GROUND) + 1
    truth = np.where(scene.instance_map, np.array([0, 1, 2])[scene.instance_map], truth)
    assert set(np.unique(result.semantic_map)) <= {0, 1, 2, GROUND + 1, AIR + 1}
    assert (result.semantic_map == truth).mean() > 0.97
    segmenter.close()


def test_broken_numbers_in_a_class_map_are_reported(name: str, models: dict[str, Path]) -> None:
    segmenter = Segmenter(open_backend(models["semantic"], name), TABLE)
    good = paint_scene(320, 192, [(64, 32, 256, 160, 1)]).image
    bad = good.copy()
    bad[0:8, 0:8] = FAULT_COLOUR
    with pytest.raises(ModelOutputError, match="NaN or infinity"):
        segmenter.segment([bgr_frame(bad)])
    assert len(segmenter.segment([bgr_frame(good)])[0].instances) == 1
    segmenter.close()


def test_a_job_has_its_class_map_until_it_is_dropped(name: str, models: dict[str, Path]) -> None:
    backend = open_backend(models["semantic"], name)
    first, second = (backend.start([bgr_frame(image)]) for image in scenes(2))
    before = first.class_map(0, (192, 320))
    other = second.class_map(0, (192, 320))
    assert before is not None
    assert other is not None
    assert (before != other).any()
    np.testing.assert_array_equal(first.class_map(0, (192, 320)), before)
    backend.close()


def test_without_a_class_map_the_semantic_map_has_the_instances(backend: Backend) -> None:
    scene = paint_scene(320, 192, [(16, 16, 80, 80, 0), (120, 40, 240, 160, 1)])
    (result,) = Segmenter(backend, TABLE).segment([bgr_frame(scene.image)], semantic=True)
    expected = np.append(0, result.instances.labels + 1)[result.instance_map.pixels]
    np.testing.assert_array_equal(result.semantic_map, expected)
    assert backend.start([bgr_frame(scene.image)]).class_map(0, (192, 320)) is None


def iou(found: NDArray[np.integer], truth: NDArray[np.integer]) -> float:
    """The smallest intersection over union of any value of either map."""
    values = set(np.unique(found)) | set(np.unique(truth))
    return min(
        ((found == value) & (truth == value)).sum() / ((found == value) | (truth == value)).sum() for value in values
    )
